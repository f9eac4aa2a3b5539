"""Killed with SIGKILL at random instants and resumed, a run ends with the bytes of one that was left alone."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from toys import Regression, ToyData, contents

from fedlit.aggregators import FedLA
from fedlit.errors import FedlitError
from fedlit.runs.folder import RunFolder, last_version
from fedlit.trainer import FederatedTrainer

TESTS = Path(__file__).parents[1] / "helpers"


def train(root: Path, ckpt_path: str | None = None) -> Any:
    trainer = FederatedTrainer(
        FedLA(fedavg_rounds=4, adapt_rounds=4),
        max_rounds=8,
        local_steps=4,
        clients_per_round=3,
        monitor="val/personal/mse",
        default_root_dir=str(root),
        accelerator="cpu",
        enable_progress_bar=False,
    )
    return trainer.fit(
        Regression(hidden=4, optimizer="adamw", dropout=0.1), ToyData(num_clients=4), ckpt_path=ckpt_path
    )


def outcome(folder: Path) -> dict[str, bytes]:
    kept = {
        f"{name}/{file}": blob
        for name in ("last", "best")
        for file, blob in contents(folder / "checkpoints" / name).items()
    }
    return {**kept, **{name: (folder / name).read_bytes() for name in ("metrics.csv", "ledger.csv")}}


def started(root: Path) -> str | None:
    """``last`` if there is a committed round to go on from."""
    try:
        last_version(root, "fedlit")
    except FedlitError:
        return None
    return "last"


def test_killed_at_random_instants(tmp_path, capfd):
    began = time.monotonic()
    whole = outcome(train(tmp_path / "whole").path)
    seconds = time.monotonic() - began
    draw, rounds = random.Random(4), set()
    for kill in range(12):
        root = tmp_path / f"kill-{kill}"
        for _ in range(2):  # the second kill may hit the resume
            child = os.fork()
            if not child:
                try:
                    train(root, started(root))
                finally:
                    os._exit(0)
            time.sleep(draw.uniform(0.05, 1.0) * seconds)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        if started(root):
            rounds.add(RunFolder(last_version(root, "fedlit")).checkpoints.read().round)
        folder = train(root, started(root)).path
        assert outcome(folder) == whole, f"kill {kill}"
        assert not (folder / "checkpoints" / "staging").exists()
        assert not [p.name for p in (folder / "checkpoints").iterdir() if p.name.startswith(".")]
    assert len(rounds) > 1, "the kills all hit at one place"


ARGUMENTS = [
    "--model",
    "toys.Regression",
    "--model.hidden",
    "16",
    "--model.optimizer",
    "adamw",
    "--data",
    "toys.ToyData",
    "--data.num_clients",
    "6",
    "--aggregator",
    "FedLA",
    "--aggregator.fedavg_rounds",
    "20",
    "--aggregator.adapt_rounds",
    "20",
    "--trainer.max_rounds",
    "40",
    "--trainer.local_steps",
    "20",
    "--trainer.accelerator",
    "cpu",
    "--trainer.enable_progress_bar",
    "false",
    "--trainer.num_threads",
    "1",
]


def command(root: Path, ckpt_path: str | None) -> subprocess.Popen:
    arguments = [
        "fit",
        *ARGUMENTS,
        "--trainer.default_root_dir",
        str(root),
        *(["--ckpt_path", ckpt_path] if ckpt_path else []),
    ]
    environment = {**os.environ, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "fedlit.cli", *arguments], env=environment, stdout=subprocess.DEVNULL
    )


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_command_killed_at_twenty_random_instants(tmp_path):
    def run_from_first_round(root: Path) -> tuple[subprocess.Popen, float]:
        process = command(root, None)
        while not started(root) and process.poll() is None:
            time.sleep(0.005)
        return process, time.monotonic()

    process, began = run_from_first_round(tmp_path / "whole")
    assert process.wait() == 0
    seconds = time.monotonic() - began
    whole = outcome(tmp_path / "whole" / "fedlit" / "version_0")
    draw = random.Random(5)
    for kill in range(20):
        root = tmp_path / f"kill-{kill}"
        process, _ = run_from_first_round(root)
        time.sleep(draw.uniform(0.0, 0.9) * seconds)
        process.kill()
        process.wait()
        assert command(root, started(root)).wait() == 0
        assert outcome(last_version(root, "fedlit")) == whole, f"kill {kill}"
