"""Sweeps: what the grid is, what is refused before a cell runs, and that nothing finished is run again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml
from toys import contents

from fedlit.aggregators import FedAvg
from fedlit.cli import main
from fedlit.errors import FedlitError
from fedlit.sweep.cells import alone, begun, check_same, finished, rounds
from fedlit.sweep.grid import folder_name, label, seeds, split, varied
from fedlit.sweep.plan import Cell, plan

TESTS = Path(__file__).parents[1] / "helpers"
TOY = ["--model", "toys.Regression", "--data", "toys.ToyData"]
CONFIG = str(TESTS.parents[1] / "configs" / "ecg_fedavg.yaml")


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """Options of tiny runs, whose processes find the toys."""
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(sys, "argv", ["fedlit"])
    given = {"default_root_dir": tmp_path / "runs", "accelerator": "cpu", "max_rounds": 2, "local_steps": 2,
             "num_threads": 1}  # fmt: skip
    return [*TOY, *(f"--trainer.{key}={value}" for key, value in given.items())]


@pytest.fixture
def refused(capsys):
    """Runs a sweep that must end with one line, which it gives."""

    def run(*args: str) -> str:
        with pytest.raises(SystemExit) as end:
            main(["sweep", *args])
        error = capsys.readouterr().err
        lines = [line for line in error.splitlines() if line.startswith("fedlit: error: ")]
        assert (end.value.code, len(lines)) == (1, 1), error
        return lines[0].removeprefix("fedlit: error: ")

    return run


# -- the grid --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("FedAvg,FedProx", ["FedAvg", "FedProx"]),
        ("0.1, 1,10", ["0.1", "1", "10"]),
        ("[0.1,1]", ["[0.1,1]"]),
        ("[a],[a,b]", ["[a]", "[a,b]"]),
        ("A,{class_path: B, init_args: {mu: 1, nu: [1, 2]}}", ["A", "{class_path: B, init_args: {mu: 1, nu: [1, 2]}}"]),
        ("'a,b',c", ["'a,b'", "c"]),
        ("{a: 'x,]'},y", ["{a: 'x,]'}", "y"]),
        ("it's,fine", ["it's", "fine"]),
        ("", [""]),
    ],
)
def test_commas_part_values_but_not_within_brackets_or_quotes(text, parts):
    assert split(text) == parts


@pytest.mark.parametrize("text", ["[1", "1]", "{a: [1}", "'a"])
def test_what_is_not_closed_is_refused(text):
    with pytest.raises(FedlitError, match="missing at the end|closes nothing"):
        split(text)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["aggregator"], "write --vary key=value,value"),
        (["=1"], "write --vary key=value,value"),
        (["a=1,,2"], "a value is empty"),
        (["a="], "a value is empty"),
        (["a=1,2,1"], "1 is given twice"),
        (["a=1", "a=2"], "a is given twice"),
        (["seed_everything=1,2"], "give --seeds"),
        (["trainer.name=a,b"], "give --name"),
        (["trainer.baselines=[A],[B]"], "vary aggregator"),
        (["a=[1,2"], "--vary a: '\\[1,2'"),
    ],
)
def test_wrong_variations(texts, message):
    with pytest.raises(FedlitError, match=message):
        varied(texts)


def test_seeds():
    assert [seeds(text) for text in ("3", "1", "5,7", "5,", "0,2")] == [[0, 1, 2], [0], [5, 7], [5], [0, 2]]
    for text in ("0", "-1", "a", "1,1", "1,,2", "1.5", "", ","):
        with pytest.raises(FedlitError, match="--seeds"):
            seeds(text)


def test_names_of_cells_are_readable_and_their_own():
    assert label("FedAvg") == "FedAvg"
    assert label("{class_path: fedlit.aggregators.FedProx, init_args: {mu: 0.1}}") == "FedProx(mu=0.1)"
    assert label("'a,b'") == "a,b"
    assert folder_name({"aggregator": "FedAvg", "data.partition.alpha": "0.1"}, 0) == (
        "aggregator=FedAvg,data.partition.alpha=0.1,seed=0"
    )
    odd = [folder_name({"root": value}, 1) for value in ("/a/b", "/a:b", "../a b", "x" * 300, "x" * 301)]
    assert len(set(odd)) == 5
    assert all(len(name) <= 128 and "/" not in name and ",seed=1," in name for name in odd)


def test_every_combination_and_seed_is_one_cell_read_as_fit_reads_it(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["fedlit"])
    vary = varied(["aggregator=FedAvg,{class_path: FedProx, init_args: {mu: 0.1}}", "data.partition.alpha=1e-1,10"])
    options = ["--config", CONFIG, "--trainer.default_root_dir", str(tmp_path), "--trainer.baselines=[LocalOnly]",
               "--data.partition", "Dirichlet", "--data.partition.clients", "4"]  # fmt: skip
    planned = plan(vary, [0, 4], options, None)
    assert planned.folder == tmp_path / "ecg_fedavg-sweep"
    assert planned.dropped == ["LocalOnly"]
    assert len(planned.cells) == 8
    assert len({cell.folder for cell in planned.cells}) == 8
    assert not list(tmp_path.iterdir()), "nothing is written yet"
    last = planned.cells[-1]
    assert last.title == "aggregator=FedProx(mu=0.1), data.partition.alpha=10, seed 4"
    partition = last.config["data"]["init_args"]["partition"]
    assert (partition["class_path"], partition["init_args"]["alpha"]) == ("fedlit.data.Dirichlet", 10)
    assert planned.cells[0].config["data"]["init_args"]["partition"]["init_args"]["alpha"] == 0.1
    assert last.config["aggregator"]["init_args"]["mu"] == 0.1
    assert (last.config["seed_everything"], last.config["trainer"]["baselines"]) == (4, None)
    assert last.config["model"]["init_args"]["learning_rate"] == 3e-3, "of the file"


def test_wandb_groups_the_sweep_and_names_the_cell(tmp_path, settings):
    file = tmp_path / "loggers.yaml"
    file.write_text(
        "trainer: {logger: [{class_path: lightning.pytorch.loggers.WandbLogger, init_args: {name: mine}},"
        f" {{class_path: lightning.pytorch.loggers.CSVLogger, init_args: {{save_dir: {tmp_path}}}}}]}}"
    )
    planned = plan({"model.lr": ["0.1"]}, [0], [*settings, "--config", str(file)], "mysweep")
    (wandb, csv) = planned.cells[0].config["trainer"]["logger"]
    arguments = wandb["init_args"]
    assert (arguments["group"], arguments["name"]) == ("mysweep", "model.lr=0.1,seed=0")
    assert csv["init_args"]["name"] == "mysweep/model.lr=0.1,seed=0"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ["--vary", "aggregator=FedAvg,FedPrx"],
            "with aggregator=FedPrx: aggregator: there is no class 'FedPrx'; did",
        ),
        (["--vary", "model.lr=0.1,abc"], "with model.lr=abc: model: lr: Expected"),
        (["--vary", "model.lrr=0.1"], "there is no 'lrr'; did you mean 'lr'?"),
        (["--vary", "aggregator={class_path: FedProx, init_args: {mu: -1}}"], "FedProx.mu is -1.0, expected"),
        (["--vary", "trainer.max_rounds=1,0"], "with trainer.max_rounds=0: trainer.max_rounds is 0, expected at least"),
        (["--vary", "model.lr=1,1.0"], "are the same run"),
        (["--bogus", "1"], "unrecognized arguments: --bogus"),
        (["--seed_everything", "1"], "give --seeds"),
        (["--ckpt_path=last"], "goes on by itself"),
        (["--jobs", "0"], "--jobs is 0"),
        (["--config", "absent.yaml"], "absent.yaml"),
    ],
)
def test_mistakes_are_one_line_before_any_cell(refused, settings, tmp_path, args, message):
    assert message in refused(*settings, *args)
    assert not (tmp_path / "runs").exists()


def test_a_partition_without_a_class_says_what_to_do(refused):
    told = refused("--config", CONFIG, "--vary", "data.partition.alpha=1")
    assert "name one that has, such as --data.partition Dirichlet" in told


def test_help(capsys, settings):
    with pytest.raises(SystemExit) as end:
        main(["sweep", "--help"])
    assert end.value.code == 0
    assert "--vary aggregator=FedAvg,FedProx" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "sweep" in capsys.readouterr().out


# -- what is finished ------------------------------------------------------------------------------------------------
def test_only_a_whole_run_is_finished(fit, tmp_path):
    cell = Cell({}, 0, tmp_path / "cell", {})
    assert (finished(cell), begun(cell), rounds(cell)) == (None, None, 0)
    run = fit(FedAvg(), name="cell").path
    assert (finished(cell), begun(cell), rounds(cell)) == (run, run, 2)
    summary = run / "summary.json"
    whole = summary.read_text()
    for torn in ("", whole[: len(whole) // 2], "{}", "[]", whole.replace('"rounds": 2', '"rounds": 1')):
        summary.write_text(torn)
        assert finished(cell) is None, torn
        assert begun(cell) == run
    summary.write_text(whole)
    (run / "checkpoints" / "last").resolve().joinpath("state.safetensors").write_bytes(b"torn")
    assert finished(cell) is None


def test_a_folder_has_one_sweep_at_a_time_also_while_a_cell_is_left_behind(tmp_path):
    with alone(tmp_path / "s") as lock:
        with pytest.raises(FedlitError, match="running already"), alone(tmp_path / "s"):
            pass
        left = subprocess.Popen(["sleep", "60"], pass_fds=(lock,))
    try:
        with pytest.raises(FedlitError, match="running already"), alone(tmp_path / "s"):
            pass
    finally:
        left.kill()
        left.wait()
    with alone(tmp_path / "s"):
        pass


# -- whole sweeps ----------------------------------------------------------------------------------------------------
def times(folder: Path) -> dict[str, int]:
    return {str(p): p.stat().st_mtime_ns for p in folder.rglob("*")}


def test_a_failing_cell_ends_nothing_else_and_a_larger_grid_runs_only_what_is_new(refused, settings, tmp_path, capsys):
    grid = [*settings, "--trainer.baselines=[LocalOnly]"]
    error = refused(*grid, "--vary", "aggregator=EPFL,FedAvg")
    folder = tmp_path / "runs" / "fedlit-sweep"
    good, bad = (folder / f"aggregator={rule},seed=0" for rule in ("FedAvg", "EPFL"))
    assert error.startswith("1 of 2 cells failed: aggregator=EPFL, seed 0: ")
    assert str(bad / "log.txt") in error
    assert "fedlit: error: EPFL" in (bad / "log.txt").read_text()
    assert (good / "version_0" / "summary.json").exists()
    assert not (good / "version_0" / "baselines").exists()
    assert "| EPFL | - |" in (folder / "sweep.md").read_text()
    assert "0 of 1 (1 failed)" in (folder / "sweep.md").read_text()

    before = times(good)
    main(["sweep", *grid, "--vary", "aggregator=FedAvg,FedProx"])
    out = capsys.readouterr().out
    assert "2 cells, 1 finished before" in out
    assert "--vary aggregator=LocalOnly" in out
    assert times(good) == before, "what is finished is not touched"
    rows = (folder / "sweep.csv").read_text().splitlines()
    assert [row.split(",")[:3] for row in rows[1:]] == [["FedAvg", "0", "finished"], ["FedProx", "0", "finished"]]
    assert rows[0].split(",")[3] == "personal/mse/mean"
    mean = json.loads((good / "version_0" / "summary.json").read_text())["test"]["personal"]["mse"]["mean"]
    assert float(rows[1].split(",")[3]) == mean

    before = times(folder)
    error = refused(*grid, "--vary", "aggregator=FedAvg,FedProx", "--model.lr", "0.2")
    assert "model.init_args.lr: 0.1 -> 0.2" in error
    assert "--name" in error
    assert "--metric rmse: there is none; there are mse, mae" in refused(
        *grid, "--vary", "aggregator=FedAvg,FedProx", "--metric", "rmse"
    )
    assert times(folder) == before, "a refusal writes nothing"


def test_a_metric_that_there_is_not_ends_a_sweep_after_its_first_cell(refused, settings, tmp_path):
    error = refused(*settings, "--vary", "trainer.local_steps=1,2", "--metric", "rmse")
    assert "--metric rmse: there is none; there are mse, mae" in error
    assert [path.parts[-3] for path in (tmp_path / "runs").rglob("summary.json")] == ["trainer.local_steps=1,seed=0"]


def test_an_interrupted_sweep_goes_on_to_the_same_bytes(settings, tmp_path, capsys):
    command = ["sweep", *settings, "--trainer.max_rounds=4", "--vary", "trainer.local_steps=1,200"]
    folder = tmp_path / "runs" / "fedlit-sweep"
    first, second = (folder / f"trainer.local_steps={k},seed=0" for k in (1, 200))
    waiting = threading.Event()

    def interrupt() -> None:
        while not rounds(Cell({}, 0, second, {})) and not waiting.wait(0.02):
            pass
        if not waiting.is_set():
            os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(SystemExit) as end:
            main(command)
    finally:
        waiting.set()
        thread.join()
    assert end.value.code == 130
    assert "stopped: 1 of 2 cells are finished; the same command goes on" in capsys.readouterr().out
    assert not (second / "version_0" / "summary.json").exists(), "its process was ended"
    before = times(first)
    assert "0 of 1 (1 not run)" in (folder / "sweep.md").read_text()

    main(command)
    assert times(first) == before
    run = second / "version_0"
    assert not (second / "version_1").exists()
    assert json.loads((run / "summary.json").read_text())["seconds_from_round"] > 0
    again = tmp_path / "again"
    main(["fit", "--config", str(second / "cell.yaml"), f"--trainer.default_root_dir={again}"])
    (straight,) = again.glob("*/version_0")
    assert contents(run / "checkpoints" / "last") == contents(straight / "checkpoints" / "last")
    assert (run / "metrics.csv").read_bytes() == (straight / "metrics.csv").read_bytes()


def test_runs_of_other_settings_are_refused_but_not_those_of_another_place(fit, tmp_path):
    run = fit(FedAvg(), name="cell").path
    made = {"aggregator": {"mu": 1}, "trainer": {"local_steps": 2, "logger": None, "name": "a"}, "ckpt_path": None}
    (run / "config.yaml").write_text(yaml.safe_dump(made))
    same = {"aggregator": {"mu": 1}, "trainer": {"local_steps": 2, "logger": {"class_path": "W"}, "name": "b"}}
    check_same([Cell({}, 0, tmp_path / "cell", same)])
    other = {**same, "aggregator": {"mu": 2}}
    with pytest.raises(FedlitError, match="aggregator.mu: 1 -> 2"):
        check_same([Cell({}, 0, tmp_path / "cell", other)])
