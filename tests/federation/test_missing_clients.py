"""Clients that do not answer: missing, counted, named; too few, and the run stops and goes on later."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from toys import Regression, ToyData, contents, memories

from fedlit.aggregators import Ditto, FedAvg, LocalOnly
from fedlit.callbacks import Callback
from fedlit.errors import FedlitError, Interrupted
from fedlit.runs.checkpoint import read
from fedlit.runs.stragglers import Stragglers
from fedlit.transports import LocalSites

ALL_LATE = Stragglers(drop_out=1.0)
HELPERS = Path(__file__).parents[1] / "helpers"


def missing(folder) -> list[tuple[str, str]]:
    return [(row["round"], row["client"]) for row in folder.metrics.read() if row["metric"] == "missing"]


class Told(Callback):
    def __init__(self):
        self.missing = []

    def on_client_missing(self, trainer, round, client):  # noqa: A002
        self.missing.append((round, client))


def test_a_client_that_drops_out_is_missing_counted_and_named(fit):
    told = Told()
    folder = fit(
        Ditto(), data=ToyData(num_clients=4), max_rounds=6, min_replies=1, callbacks=told,
        stragglers=Stragglers(drop_out={"client-03": 0.0, "*": 0.5}),
    )  # fmt: skip
    absent = missing(folder)
    assert absent == [(str(index + 1), client) for index, client in told.missing]
    assert {client for _, client in absent} == {"client-00", "client-01", "client-02"}
    assert 4 < len(absent) < 14
    assert json.loads((folder.path / "summary.json").read_text())["missing_replies"] == len(absent)
    trained = {(r["round"], r["client"]) for r in folder.metrics.read() if r["metric"] == "loss"}
    assert trained == {(str(n), f"client-{i:02d}") for n in range(1, 7) for i in range(4)} - {*absent}


def test_one_that_is_missing_keeps_what_it_had(fit):
    settings = {"data": ToyData(num_clients=2), "min_replies": 1}
    whole = fit(LocalOnly(), max_rounds=2, stragglers=Stragglers(drop_out={"client-01": 1.0}), **settings)
    assert list(memories(whole)) == ["client-00.safetensors"]
    alone = fit(LocalOnly(), max_rounds=2, data=ToyData(num_clients=2))
    assert memories(whole)["client-00.safetensors"] == memories(alone)["client-00.safetensors"]


def test_too_few_answers_stop_the_run_which_goes_on_later(fit):
    settings = {"max_rounds": 3, "data": ToyData(num_clients=3)}
    cut = fit(Ditto(), max_rounds=1, data=ToyData(num_clients=3))
    before = contents(cut.path / "checkpoints" / "last")
    inner = LocalSites.run
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            LocalSites, "run",
            lambda self, jobs, _=None: (r for r in inner(self, jobs) if not (r.payload and r.client == "client-01")),
        )  # fmt: skip
        for min_replies, needed in ((None, 3), (3, 3), (1.0, 3)):
            with pytest.raises(
                Interrupted, match=rf"round 2: client-01 did not answer: 2 of 3 clients count, {needed} are needed"
            ):
                fit(Ditto(), ckpt_path=str(cut.path), min_replies=min_replies, **settings)
        assert contents(cut.path / "checkpoints" / "last") == before
        assert read(fit(Ditto(), min_replies=2, **settings).path / "checkpoints" / "last").round == 3
    resumed, whole = fit(Ditto(), ckpt_path=str(cut.path), **settings), fit(Ditto(), **settings)
    assert contents(resumed.path / "checkpoints" / "last") == contents(whole.path / "checkpoints" / "last")
    assert memories(resumed) == memories(whole)
    for name in ("metrics.csv", "ledger.csv"):
        assert (resumed.path / name).read_bytes() == (whole.path / name).read_bytes()


def test_a_refused_client_does_not_count_where_a_number_is_asked_for(fit):
    data = ToyData(poisoned=1)
    fit(FedAvg(), Regression(poison="yes"), data, max_rounds=1, min_replies=2)
    with pytest.raises(Interrupted, match=r"round 1: 2 of 3 clients count, trainer\.min_replies needs 3 \(1 refused\)"):
        fit(FedAvg(), Regression(poison="yes"), ToyData(poisoned=1), max_rounds=1, min_replies=3)


def test_a_client_that_answers_twice_does_not_stand_in_for_one_that_is_missing(fit, monkeypatch):
    inner = LocalSites.run

    def run(self, jobs, deadline_s=None):
        for reply in inner(self, jobs, deadline_s):
            if reply.client != "client-01" or not reply.payload:
                yield from [reply] * (2 if reply.payload else 1)

    monkeypatch.setattr(LocalSites, "run", run)
    with pytest.raises(Interrupted, match="client-01 did not answer: 2 of 3 clients count, 3 are needed"):
        fit(FedAvg(), max_rounds=1)


def test_nobody_answers(fit):
    with pytest.raises(Interrupted, match="client-00, client-01, client-02 did not answer within 5 s: 0 of 3"):
        fit(FedAvg(), stragglers=ALL_LATE, min_replies=1, deadline_s=5.0)


def test_stragglers_are_the_same_for_any_number_at_once_and_after_a_resume(fit):
    late = {"stragglers": Stragglers(drop_out={"client-00": 0.0, "*": 0.4}), "min_replies": 1}
    data = {"num_clients": 5, "dtype": "float64"}
    whole = fit(FedAvg(), Regression(dtype="float64"), ToyData(**data), max_rounds=6, **late)
    other = fit(FedAvg(), Regression(dtype="float64"), ToyData(**data), max_rounds=6, clients_at_once=3, **late)
    assert missing(whole) == missing(other) != []
    cut = fit(FedAvg(), Regression(dtype="float64"), ToyData(**data), max_rounds=3, **late)
    resumed = fit(FedAvg(), Regression(dtype="float64"), ToyData(**data), max_rounds=6, ckpt_path=str(cut.path), **late)
    assert (resumed.path / "metrics.csv").read_bytes() == (whole.path / "metrics.csv").read_bytes()
    with pytest.raises(FedlitError, match="trainer.stragglers.drop_out: {"):
        fit(FedAvg(), Regression(dtype="float64"), ToyData(**data), max_rounds=7, ckpt_path=str(cut.path),
            stragglers=Stragglers(drop_out=0.5))  # fmt: skip


def test_rates_are_what_was_asked_for():
    """10,000 draws: the share of those in time within four standard errors of the truth."""
    draws = [(f"c{i % 100}", i // 100) for i in range(10_000)]
    for stragglers, deadline, share in (
        (Stragglers(drop_out=0.3), None, 0.7),
        (Stragglers(delay_s=10.0), 5.0, 1 - math.exp(-0.5)),
        (Stragglers(drop_out=0.3, delay_s=10.0), 5.0, 0.7 * (1 - math.exp(-0.5))),
        (Stragglers(delay_s=10.0), None, 1.0),
        (Stragglers(delay_s={"nobody": 10.0}), 1.0, 1.0),
    ):
        seen = sum(stragglers.answers(client, round, 0, deadline) for client, round in draws) / len(draws)
        assert abs(seen - share) <= 4 * math.sqrt(share * (1 - share) / len(draws))
    again = [Stragglers(drop_out=0.3).answers(client, round, 1, None) for client, round in draws]
    assert again != [Stragglers(drop_out=0.3).answers(client, round, 0, None) for client, round in draws]


def test_the_command_ends_with_3_where_a_run_can_go_on(tmp_path):
    command = [
        sys.executable, "-m", "fedlit.cli", "fit", "--model", "toys.Regression", "--data", "toys.ToyData",
        "--trainer.max_rounds", "2", "--trainer.local_steps", "1", "--trainer.accelerator", "cpu", "--trainer.devices",
        "1", "--trainer.default_root_dir", str(tmp_path), "--trainer.stragglers", "Stragglers",
        "--trainer.stragglers.drop_out", "1.0", "--trainer.deadline_s", "2",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(HELPERS), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 3, done.stderr
    assert done.stderr.count("fedlit: error: round 1: client-00, client-01, client-02 did not answer within 2 s") == 1
    assert "Traceback" not in done.stderr
