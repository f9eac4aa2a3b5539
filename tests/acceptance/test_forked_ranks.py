"""``fedlit fit`` on a CPU with several cores: ranks that are copies of the process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from toys import contents

from fedlit.aggregators import Centralized, FedAvg
from fedlit.cli.ranks import MOST, groups, usual_ranks

TESTS = Path(__file__).parents[1] / "helpers"
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are copied on Linux only")
OPEN = {
    "accelerator": "cpu", "devices": None, "fast_dev_run": False, "num_nodes": 1, "num_threads": None,
    "strategy": "auto",
}  # fmt: skip


def command(root: Path, *args: str) -> tuple[list[str], dict[str, str]]:
    settings = ["--data", "toys.ToyData", "--data.num_clients", "4", "--trainer.default_root_dir", str(root)]
    settings += ["--trainer.max_rounds", "2", "--trainer.local_steps", "2", "--trainer.accelerator", "cpu"]
    environment = {**os.environ, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "2"}
    return [sys.executable, "-m", "fedlit.cli", "fit", *settings, *args], environment


def fit(root: Path, *args: str) -> subprocess.CompletedProcess:
    line, environment = command(root, *args)
    return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=120)


def scores(root: Path) -> dict[str, bytes]:
    kept = contents(root / "fedlit" / "version_0")
    return {name: held for name, held in kept.items() if Path(name).suffix in (".csv", ".safetensors")}


@linux
def test_a_rank_for_each_core_gives_the_bytes_of_one_process(tmp_path):
    done = fit(tmp_path / "two", "--model", "toys.Regression")
    assert done.returncode == 0, done.stderr
    assert "2 ranks, threads of each: 1" in done.stdout
    alone = fit(tmp_path / "one", "--model", "toys.Regression", "--trainer.devices", "1", "--trainer.num_threads", "1")
    assert alone.returncode == 0, alone.stderr
    summaries = [
        json.loads((tmp_path / name / "fedlit" / "version_0" / "summary.json").read_text()) for name in ("two", "one")
    ]
    assert [summary["world_size"] for summary in summaries] == [2, 1]
    assert scores(tmp_path / "two") == scores(tmp_path / "one") != {}
    assert done.stdout.count("run folder: ") == alone.stdout.count("run folder: "), "one rank prints"
    assert done.stderr == alone.stderr
    saved = (tmp_path / "two" / "fedlit" / "version_0" / "config.yaml").read_text()
    assert "devices: null" in saved, "another machine may have another number of cores"
    assert "num_threads: null" in saved


@linux
def test_a_number_that_is_tried_leaves_work_for_every_rank(tmp_path):
    done = fit(tmp_path, "--model", "toys.Regression", "--trainer.clients_at_once", "auto")
    assert done.returncode == 0, done.stderr
    assert "2 ranks" in done.stdout
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("clients at once: ")]
    assert "(tried, 2 steps of a client: 1: " in line
    assert ", 4: " not in line, "four of four clients at once are not tried with two ranks"


@linux
@pytest.mark.parametrize("setting", [["--trainer.clients_at_once", "4"], ["--aggregator", "Centralized"]])
def test_no_rank_is_started_that_would_have_no_work(tmp_path, setting):
    done = fit(tmp_path, "--model", "toys.Regression", *setting)
    assert done.returncode == 0, done.stderr
    assert "ranks" not in done.stdout


@pytest.mark.slow
@linux
def test_ranks_without_work_are_told_where_they_were_asked_for(tmp_path):
    done = fit(tmp_path, "--model", "toys.Regression", "--trainer.clients_at_once", "4", "--trainer.devices", "2")
    assert done.returncode == 0, done.stderr
    told = "4 leaves 1 of 2 ranks without work: trainer.clients_at_once 2, or trainer.devices 1"
    assert f"clients at once: {told}" in done.stdout


@linux
@pytest.mark.parametrize("client", [0, 1])
def test_an_error_of_one_ranks_client_is_told_once(tmp_path, client):
    done = fit(tmp_path, "--model", "faulty.Refusing", "--data.poisoned", str(client))
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if "error" in line.lower() or "Traceback" in line]
    assert errors == ["fedlit: error: a target is above 1e6: leave that client out"], done.stderr


@linux
def test_a_setting_out_of_range_is_refused_before_the_data_are_read(tmp_path):
    done = fit(tmp_path, "--model", "toys.Regression", "--trainer.clients_at_once", "0")
    assert done.returncode == 1
    assert done.stderr.endswith("fedlit: error: trainer.clients_at_once is 0, expected a number or auto\n")


@linux
def test_an_error_that_every_rank_meets_is_told_once(tmp_path):
    done = fit(tmp_path, "--model", "toys.Regression", "--trainer.monitor", "val/global/nothing")
    assert done.returncode == 1
    assert done.stderr.count("fedlit: error: ") == 1, done.stderr
    assert "Traceback" not in done.stderr


@linux
@pytest.mark.parametrize(
    ("task", "client", "said"),
    [
        pytest.param("Buggy", 0, "ZeroDivisionError: by a bug", marks=pytest.mark.slow),
        pytest.param("Buggy", 1, "ZeroDivisionError: by a bug", marks=pytest.mark.slow),
        pytest.param("Dying", 0, "", marks=pytest.mark.slow),
        ("Dying", 1, "fedlit: error: rank 1 was killed: out of memory? go on with --ckpt_path last"),
    ],
)
def test_where_one_rank_fails_none_is_left(tmp_path, task, client, said):
    began = time.monotonic()
    done = fit(tmp_path, "--model", f"faulty.{task}", "--data.poisoned", str(client))
    assert done.returncode != 0
    assert said in done.stderr
    assert "GLHF" not in done.stderr, "gloo's word on a rank that is gone"
    assert time.monotonic() - began < 60
    assert not [line for line in processes() if str(tmp_path) in line]


@linux
@pytest.mark.timeout(60)
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_ranks_end_with_the_first_one(tmp_path, unbuffered):
    line, environment = command(tmp_path, "--model", "faulty.Waiting")
    environment["PYTHONUNBUFFERED"] = unbuffered
    with subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert len({next(told for told in process.stdout if told.endswith("waits\n")) for _ in range(2)}) == 2
        finally:
            process.kill()
    deadline = time.monotonic() + 20
    while [line for line in processes() if str(tmp_path) in line]:
        assert time.monotonic() < deadline, "a rank outlives the first"
        time.sleep(0.1)


def processes() -> list[str]:
    """Command lines of all that run here."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
            except OSError:  # it has ended
                continue
    return found


def test_as_many_ranks_as_groups_of_clients():
    clients = [f"c{i}" for i in range(10)]
    usual = {"clients_per_round": None, "clients_at_once": 1}
    assert groups(usual, [FedAvg()], clients) == 10
    assert groups({**usual, "clients_at_once": 4}, [FedAvg()], clients) == 3
    assert groups({**usual, "clients_at_once": "auto", "clients_per_round": 0.5}, [FedAvg()], clients) == 5
    assert groups({**usual, "clients_per_round": 3}, [FedAvg()], clients) == 3
    assert groups(usual, [Centralized()], clients) == 1
    assert groups(usual, [Centralized(), FedAvg()], clients) == 10


@linux
def test_what_leaves_it_open_is_run_by_a_rank_for_each_thread(monkeypatch):
    import torch

    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)
    assert usual_ranks(OPEN, {}) == 6
    assert usual_ranks({**OPEN, "num_threads": 1}, {}) == 6
    monkeypatch.setattr(torch, "get_num_threads", lambda: 100)
    assert usual_ranks(OPEN, {}) == MOST


@pytest.mark.parametrize(
    "given",
    [
        {"devices": 1}, {"devices": "auto"}, {"num_threads": 2}, {"num_nodes": 2}, {"strategy": "ddp"},
        {"accelerator": "gpu"}, {"fast_dev_run": True},
    ],
)  # fmt: skip
def test_what_was_chosen_is_left_as_it_is(monkeypatch, given):
    import torch

    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)
    assert usual_ranks({**OPEN, **given}, {}) == 1


@pytest.mark.parametrize("name", ["LOCAL_RANK", "WORLD_SIZE", "SLURM_NTASKS"])
def test_ranks_that_another_started_start_none(monkeypatch, name):
    import torch

    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)
    assert usual_ranks(OPEN, {name: "1"}) == 1
