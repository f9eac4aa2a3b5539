"""``fedlit`` on the command line: what it refuses and how, what it saves, and that what it saved repeats the run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from toys import contents

from fedlit.cli import main

TESTS = Path(__file__).parents[1] / "helpers"
TOY = ["--model", "toys.Regression", "--data", "toys.ToyData"]
DEMO = ["--model", "ForecastingTask", "--data", "SimulatedVitals"]


@pytest.fixture
def cli(tmp_path, capsys, monkeypatch):
    """Runs the command in this process; gives its run folder, or the one line that it ends with."""

    monkeypatch.setattr(sys, "argv", ["fedlit"])

    def run(command: str, *args: str, quick: bool = True) -> Path | str:
        settings = [
            "--trainer.default_root_dir",
            str(tmp_path / "runs"),
            "--trainer.accelerator",
            "cpu",
            "--trainer.enable_progress_bar",
            "false",
        ]
        steps = ["--trainer.max_rounds", "2", "--trainer.local_steps", "2"] if quick else []
        capsys.readouterr()
        end = None
        try:
            main([command, *settings, *steps, *args])
        except SystemExit as exit_:
            end = exit_.code
        out, error = capsys.readouterr()
        if end is not None:
            lines = [line for line in error.splitlines() if line.startswith("fedlit: error: ")]
            assert (end, len(lines)) == (1, 1), error
            assert "Traceback" not in error
            assert error.rstrip().endswith(lines[0]), "more than one line"
            return lines[0].removeprefix("fedlit: error: ")
        shown = [line for line in out.splitlines() if line.startswith("run folder: ")]
        assert len(shown) >= 2 or command == "predict", "printed at the start and at the end"
        assert len(set(shown)) == 1
        return Path(shown[0].removeprefix("run folder: "))

    return run


def config(tmp_path: Path, name: str, content: object) -> list[str]:
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return ["--config", str(path)]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([*TOY, "--aggregator", "FedPrx"], "aggregator: there is no class 'FedPrx'; did you mean 'FedProx'?"),
        ([*TOY, "--aggregator", "scaffold"], "did you mean 'SCAFFOLD'?"),
        ([*TOY, "--aggregator", "Fed-MedLoRA+"], "did you mean 'FedMedLoRAPlus'?"),
        ([*TOY, "--aggregator", "FedProx", "--aggregator.muu", "1"], "no 'muu'; did you mean 'mu'?"),
        ([*TOY, "--aggregator", "FedProx", "--aggregator.mu", "abc"], "aggregator: mu: Expected"),
        ([*TOY, "--aggregator", "FedProx", "--aggregator.mu", "-1"], "FedProx.mu is -1.0, expected"),
        ([*TOY, "--trainer.max_round", "3"], "did you mean 'trainer.max_rounds'?"),
        ([*TOY, "--trainer.max_rounds", "0"], "trainer.max_rounds is 0, expected at least 1"),
        ([*TOY, "--trainer.max_rounds", "12:30"], "trainer.max_rounds: Expected"),
        ([*TOY, "--trainer.precision", "bf16-true"], "trainer.precision"),
        ([*TOY, "--trainer.local_epochs", "1"], "local_steps and trainer.local_epochs are both given"),
        ([*TOY, "--trainer.callbacks", "EarlyStoping"], "did you mean 'EarlyStopping'?"),
        ([*TOY, "--trainer.baselines", "[LocalOnli]"], "did you mean 'LocalOnly'?"),
        ([*TOY, "--model.lrr", "1"], "model: there is no 'lrr'; did you mean 'lr'?"),
        ([*TOY, "--data.batchsize", "3"], "data: there is no 'batchsize'; did you mean 'batch_size'?"),
        ([*DEMO, "--model", "ForcastingTask"], "did you mean 'ForecastingTask'?"),
        ([*DEMO, "--data", "SimulatedVital"], "did you mean 'SimulatedVitals'?"),
        ([*DEMO, "--data.partition", "BySit"], "partition: there is no class 'BySit'; did you mean 'BySite'?"),
        ([*DEMO, "--data.partition", "Dirichlet", "--data.partition.alpa", "1"], "no 'alpa'; did you mean 'alpha'?"),
        (
            [*DEMO, "--data.partition.alpha", "0.1"],
            "take BySite(clients=None, min_records=1), and that has no 'alpha': name one that has, such as",
        ),
        ([*DEMO, "--data.partition", "Dirichlet", "--data.partition.alpha", "1"], "arguments are required: clients"),
        ([*DEMO, "--model.adapter.rr", "1"], "adapter: there is no 'rr'; did you mean 'r'?"),
        ([*DEMO, "--data.batch_size", "0"], "data.batch_size is 0: give a number above 0"),
        (
            [*TOY, "--trainer.baselines", "[{class_path: FedProx, init_args: {mu: -1}}]"],
            "FedProx.mu is -1.0, expected",
        ),
        (["--model", "toys.Regression"], "fit.data"),
        ([*TOY, "--config", "absent.yaml"], "absent.yaml"),
        ([*TOY, "--ckpt_path", "last"], "no run with a committed round"),
    ],
)
def test_mistakes_are_named_in_one_line(cli, args, message):
    assert message in cli("fit", *args)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trainer: {max_round: 3}", "there is no 'trainer.max_round'; did you mean 'trainer.max_rounds'?"),
        ("trianer: {max_rounds: 3}", "did you mean 'trainer.max_rounds'?"),
        ("aggregator: {class_path: FedProx, init_args: {muu: 3}}", "no 'muu'; did you mean 'mu'?"),
        ("aggregator: {class_path: FedPrx}", "did you mean 'FedProx'?"),
        ("data: {class_path: toys.ToyDat}", "did you mean 'ToyData'?"),
        ("trainer: {max_rounds: 3, max_rounds: 4}", "'max_rounds' is given twice"),
        ("trainer: {max_rounds: no}", "trainer.max_rounds: Expected"),
        ("trainer: [1", "config"),
        (
            "aggregator: {class_path: Stages, init_args: {stages: [{aggregator: FedAvgg, rounds: 1}]}}",
            "did you mean 'FedAvg'?",
        ),
        (
            "aggregator: {class_path: Stages, init_args: {stages: [{aggregator: FedAvg, round: 1}]}}",
            "did you mean 'rounds'?",
        ),
    ],
)
def test_mistakes_in_files_are_named_in_one_line(cli, tmp_path, text, message):
    assert message in cli("fit", *TOY, *config(tmp_path, "mistake.yaml", text))


def last(folder: Path) -> dict[str, bytes]:
    return contents(folder / "checkpoints" / "last")


def test_the_saved_config_repeats_the_run(cli):
    first = cli(
        "fit",
        *TOY,
        "--aggregator",
        "FedProx",
        "--aggregator.mu",
        "3e-1",
        "--model.lr",
        "2e-2",
        "--seed_everything",
        "5",
        "--trainer.monitor",
        "val/personal/mse",
        "--trainer.baselines",
        "[LocalOnly]",
    )
    saved = yaml.safe_load((first / "config.yaml").read_text())
    assert saved["seed_everything"] == 5
    assert saved["aggregator"]["init_args"]["mu"] == 0.3
    assert saved["model"]["init_args"]["lr"] == 0.02
    assert saved["trainer"]["max_rounds"] == 2
    again = cli("fit", "--config", str(first / "config.yaml"), quick=False)
    assert again.name == "version_1"
    assert last(again) == last(first)
    for name in ("metrics.csv", "ledger.csv", "config.yaml", "baselines/LocalOnly/metrics.csv"):
        assert (again / name).read_bytes() == (first / name).read_bytes()


def test_later_files_and_arguments_win(cli, tmp_path):
    one = config(
        tmp_path,
        "one.yaml",
        {
            "model": {"class_path": "toys.Regression", "init_args": {"lr": 0.3, "hidden": 2}},
            "data": {"class_path": "toys.ToyData"},
            "aggregator": {"class_path": "FedAdam"},
        },
    )
    two = config(
        tmp_path, "two.yaml", "model: {init_args: {lr: 3e-2}}\naggregator: {class_path: FedProx, init_args: {mu: 0.5}}"
    )
    saved = yaml.safe_load((cli("fit", *one, *two, "--aggregator.mu", "0.7") / "config.yaml").read_text())
    assert saved["model"]["init_args"]["lr"] == 0.03
    assert saved["model"]["init_args"]["hidden"] == 2
    assert saved["aggregator"] == {
        "class_path": "fedlit.aggregators.FedProx",
        "init_args": {"lr": 1.0, "weighting": "examples", "mu": 0.7},
    }


def test_environment_variables(cli, monkeypatch):
    monkeypatch.setenv("FEDLIT_FIT__TRAINER__CLIENTS_PER_ROUND", "2")
    monkeypatch.setenv("FEDLIT_FIT__SEED_EVERYTHING", "9")
    saved = yaml.safe_load((cli("fit", *TOY) / "config.yaml").read_text())
    assert saved["trainer"]["clients_per_round"] == 2
    assert saved["seed_everything"] == 9


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("FEDLIT_FIT__TRAINER__MAX_ROUNDZ", "; did you mean 'FEDLIT_FIT__TRAINER__MAX_ROUNDS'?"),
        ("FEDLIT_FIT__QUITE_ELSE", ""),
    ],
)
def test_a_misspelt_environment_variable_is_refused(cli, monkeypatch, name, near):
    monkeypatch.setenv(name, "3")
    assert cli("fit", *TOY) == f"environment variable {name} is no setting{near}"


def test_environment_variables_of_other_things_are_left_alone(cli, monkeypatch):
    monkeypatch.setenv("FEDLIT_CACHE", "somewhere")
    assert (cli("fit", *TOY) / "summary.json").exists()


def test_stages_from_a_file(cli, tmp_path):
    stages = "aggregator: {class_path: Stages, init_args: {stages: [{aggregator: FedAvg, rounds: 1}, {aggregator: {class_path: LocalAdaptation, init_args: {mu: 0.5}}, rounds: 1, trainable: weight}]}}"  # noqa: E501
    folder = cli("fit", *TOY, *config(tmp_path, "stages.yaml", stages))
    assert "stage1" in (folder / "checkpoints/last/state.safetensors").read_bytes().decode("latin1")
    resumed = cli(
        "fit", "--config", str(folder / "config.yaml"), "--trainer.max_rounds", "3", "--ckpt_path", "last", quick=False
    )
    assert resumed == folder


def test_print_config(capsys):
    with pytest.raises(SystemExit) as end:
        main(["fit", *TOY, "--aggregator", "FedLA", "--print_config"])
    assert end.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    defaults = {"fedavg_rounds": 20, "adapt_rounds": 10, "mu": 1.0, "weighting": "examples"}
    assert printed["aggregator"]["init_args"] == defaults
    assert {"max_rounds", "devices", "precision", "monitor"} <= printed["trainer"].keys()


def test_resume_and_score_from_the_command_line(cli):
    rule = ["--aggregator", "FedLA", "--aggregator.fedavg_rounds", "1"]
    whole = cli("fit", *TOY, *rule, "--trainer.max_rounds", "3")
    cut = cli("fit", *TOY, *rule, "--trainer.max_rounds", "2")
    resumed = cli("fit", *TOY, *rule, "--trainer.max_rounds", "3", "--ckpt_path", "last")
    assert resumed == cut
    assert last(resumed) == last(whole)
    before = contents(resumed)
    assert cli("test", *TOY, *rule, "--ckpt_path", "last") == resumed
    scores = json.loads((resumed / "test.json").read_text())
    final = json.loads((resumed / "summary.json").read_text())["test"]
    assert scores == final
    assert cli("validate", *TOY, *rule, "--ckpt_path", str(resumed)) == resumed
    assert (resumed / "val.json").exists()
    after = contents(resumed)
    assert {name: after[name] for name in before} == before, "scoring changes nothing of the run"
    error = cli("test", *TOY, "--aggregator", "FedAvg", "--ckpt_path", "last")
    assert "aggregator.class: 'FedLA' -> 'FedAvg'" in error


def test_scores_of_the_untrained_model(cli):
    folder = cli("test", *TOY)
    scores = json.loads((folder / "test.json").read_text())
    assert scores["global"] == scores["personal"]
    zero = json.loads((cli("fit", *TOY, "--aggregator", "ZeroShot") / "summary.json").read_text())["test"]
    assert scores == zero


def test_a_finished_run_scores_clients_it_never_saw_but_does_not_train_on_with_them(cli):
    cli("fit", *TOY)
    other = [*TOY, "--data.num_clients", "5", "--ckpt_path", "last"]
    scores = json.loads((cli("test", *other) / "test.json").read_text())
    assert scores["global"]["mse"]["mean"] > 0
    assert "data.num_clients" in cli("fit", *other)
    assert "aggregator.class" in cli("test", *other, "--aggregator", "LocalOnly")


def shell(*args: str, **environment: str) -> subprocess.CompletedProcess:
    env = {**os.environ, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(
        [sys.executable, "-m", "fedlit.cli", *args], env=env, capture_output=True, text=True, timeout=300
    )


@pytest.mark.parametrize("rule", ["FedLA"])
def test_two_devices_give_the_bytes_of_one(cli, tmp_path, rule):
    settings = [
        "--aggregator",
        rule,
        "--aggregator.fedavg_rounds",
        "1",
        "--data.num_clients",
        "5",
        "--model.poison",
        "yes",
        "--data.poisoned",
        "3",
        "--trainer.evaluate_at",
        "[start,after_local,after_aggregation]",
        "--trainer.max_rounds",
        "3",
        "--trainer.num_threads",
        "1",
        "--trainer.baselines",
        "[LocalOnly]",
    ]
    one = cli("fit", *TOY, *settings)
    common = [
        "--trainer.accelerator",
        "cpu",
        "--trainer.default_root_dir",
        str(tmp_path / "two"),
        "--trainer.local_steps",
        "2",
    ]
    done = shell("fit", *TOY, *settings, *common, "--trainer.devices", "2")
    assert done.returncode == 0, done.stderr
    two = tmp_path / "two" / "fedlit" / "version_0"
    assert json.loads((two / "summary.json").read_text())["world_size"] == 2
    for part in (".", "baselines/LocalOnly"):
        assert last(two / part) == last(one / part)
        for name in ("metrics.csv", "ledger.csv"):
            assert (two / part / name).read_bytes() == (one / part / name).read_bytes()
    assert "\x1b" not in done.stdout
    assert f"run folder: {two}" in done.stdout


def test_an_error_of_the_command_has_no_traceback():
    done = shell("fit", *TOY, "--aggregator", "FedPrx")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.rstrip().splitlines()[-1] == (
        "fedlit: error: aggregator: there is no class 'FedPrx'; did you mean 'FedProx'?"
    )


def test_a_refused_resume_leaves_the_run_as_it_was(cli):
    folder = cli("fit", *TOY, "--trainer.baselines", "[LocalOnly]")
    before = contents(folder)
    for change in (["--data.num_clients", "4"], ["--model.lr", "0.01"], ["--trainer.local_steps", "3"]):
        error = cli("fit", *TOY, "--trainer.baselines", "[LocalOnly]", *change, "--ckpt_path", "last")
        assert change[0].split(".")[1] in error
        assert contents(folder) == before


def test_the_saved_config_of_a_longer_run_repeats_all_of_it(cli):
    folder = cli("fit", *TOY, "--trainer.max_rounds", "1")
    assert cli("fit", *TOY, "--trainer.max_rounds", "3", "--ckpt_path", "last") == folder
    again = cli("fit", "--config", str(folder / "config.yaml"), quick=False)
    assert again != folder
    assert last(again) == last(folder)


def printed(capsys, *args: str) -> dict:
    with pytest.raises(SystemExit):
        main(["fit", "--config", *args, "--print_config"])
    return yaml.safe_load(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("config", "options", "expected"),
    [
        ("ecg_fedavg", ["--aggregator", "FedAdam"], {"lr": 0.1, "weighting": "examples"}),
        ("ecg_fedprox", ["--aggregator.mu", "3", "--aggregator", "MOON"], {"mu": 1.0, "temperature": 0.5}),
        ("ecg_fedprox", ["--aggregator", "MOON", "--aggregator.mu", "3"], {"mu": 3.0}),
        ("ecg_fedprox", ["--aggregator.mu", "3"], {"mu": 3.0}),
    ],
)
def test_another_rule_starts_from_its_own_defaults(capsys, config, options, expected):
    arguments = printed(capsys, f"configs/{config}.yaml", *options)["aggregator"]["init_args"]
    assert {name: arguments[name] for name in expected} == expected


def test_other_data_keep_the_lengths_that_were_set_and_no_defaults(capsys):
    options = ["--data.prediction_length", "32", "--data", "PTBXL", "--data.root", "ptb-xl"]
    arguments = printed(capsys, "configs/ecg_fedavg.yaml", *options)["data"]["init_args"]
    assert (arguments["prediction_length"], arguments["batch_size"], arguments["root"]) == (32, 32, "ptb-xl")
    assert "subjects" not in arguments
