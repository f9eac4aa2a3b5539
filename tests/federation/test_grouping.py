"""Groups: like work together, most work first, the same for any number of ranks."""

from __future__ import annotations

from collections import Counter

import pytest
from toys import Regression, ToyData, contents, last

from fedlit import tree
from fedlit.aggregators import Ditto, FedAvg
from fedlit.federation.plan import grouped
from fedlit.transports.base import Job, Reply
from fedlit.transports.ranks import RankTransport, pack, rank_of, unpack

WORK = {"e": 1, "d": 5, "c": 5, "b": 9, "a": 1, "f": 2, "g": 1}


@pytest.mark.parametrize("at_once", [1, 2, 3, 7, 20])
def test_groups(at_once):
    found = grouped(WORK, at_once)
    assert [client for _, client in found] == ["b", "c", "d", "f", "a", "e", "g"]
    assert [group for group, _ in found] == [place // at_once for place in range(7)]


def test_groups_do_not_hang_on_the_order_of_clients():
    assert grouped(dict(reversed(WORK.items())), 3) == grouped(WORK, 3)
    assert grouped({}, 3) == []


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_ranks_share_the_groups(ranks):
    assert [rank_of(group, 1) for group in range(4)] == [0] * 4
    turns = [rank_of(group, ranks) for group in range(4 * ranks)]
    assert Counter(turns) == dict.fromkeys(range(ranks), 4)
    assert turns[: 2 * ranks] == [*range(ranks), *reversed(range(ranks))]


class Fabric:
    def __init__(self, rank: int, ranks: int) -> None:
        self.global_rank, self.world_size = rank, ranks


class Inner:
    """Writes down what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[Job] = []

    def run(self, jobs, deadline_s=None):
        for job in jobs:
            self.asked.append(job)
            yield Reply(job.ticket, job.client, job.client.encode() * 3, 1.0, {"a": 1.0}, {"global": {"x": 0.5}}, 4)


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_a_rank_runs_whole_groups_in_their_order_and_all_replies_come_back(ranks, monkeypatch):
    jobs = [Job(client, client, 0, "train", b"", group=group) for group, client in grouped(WORK, 2)]
    inners = [Inner() for _ in range(ranks)]
    blobs = [
        pack(inner.run(job for job in jobs if rank_of(job.group, ranks) == rank)) for rank, inner in enumerate(inners)
    ]
    monkeypatch.setattr("fedlit.transports.ranks.gathered", lambda blob, fabric: blobs)
    seen = []
    for rank in range(ranks):
        inner = Inner()
        replies = list(RankTransport(inner, Fabric(rank, ranks)).run(iter(jobs)))
        assert [job.client for job in inner.asked] == [job.client for job in inners[rank].asked]
        assert [job.group for job in inner.asked] == sorted(job.group for job in inner.asked)
        assert {reply.client for reply in replies} == {*WORK}
        assert all(reply.payload == reply.client.encode() * 3 for reply in replies)
        seen.append(replies)
    assert all(one == seen[0] for one in seen)
    together = {job.group: set() for job in jobs}
    for rank, inner in enumerate(inners):
        for job in inner.asked:
            together[job.group].add(rank)
    assert all(len(some) == 1 for some in together.values())


def test_replies_survive_the_way():
    replies = [
        Reply("t", "a", b"\x00\xff" * 5, 2.5, {"l": 0.1}, {"personal": {"m": 1e-300}}, 3),
        Reply("u", "b", error="no"),
    ]
    assert list(unpack(pack(replies))) == replies
    assert list(unpack(pack([]))) == []


TASK = {"hidden": 4, "optimizer": "adamw", "weight_decay": 0.1, "dropout": 0.2, "linear_schedule": True}
SETTINGS = {"local_steps": None, "local_epochs": 1.5, "evaluate_at": ["start", "after_local", "after_aggregation"]}


def run(fit, rule=None, at_once=3, task=None, **settings):
    data = ToyData(num_clients=7, batch_size=3, examples=4, dtype="float64", poisoned=settings.pop("poisoned", -1))
    task = Regression(**{**TASK, "dtype": "float64", **(task or {})})
    return fit(rule or Ditto(), task, data, clients_at_once=at_once, **{**SETTINGS, **settings})


def figures(folder, name="metrics.csv") -> list[list[str]]:
    return [line.split(",") for line in (folder.path / name).read_text().splitlines()]


@pytest.mark.filterwarnings("ignore:.*to come to its last part")
def test_kill_and_resume_gives_the_same_bytes(fit):
    whole, cut = run(fit, max_rounds=4), run(fit, max_rounds=2)
    resumed = run(fit, max_rounds=4, ckpt_path=str(cut.path))
    assert contents(resumed.path / "checkpoints" / "last") == contents(whole.path / "checkpoints" / "last")
    for name in ("metrics.csv", "ledger.csv"):
        assert (resumed.path / name).read_bytes() == (whole.path / name).read_bytes()


@pytest.mark.parametrize("at_once", [2, 3, 7])
def test_any_number_at_once_gives_the_figures_of_one(fit, at_once):
    one, several = run(fit, at_once=1), run(fit, at_once=at_once)
    for a, b in zip(last(one), last(several), strict=True):
        x, y = tree.flatten(a), tree.flatten(b)
        assert x.keys() == y.keys()
        assert max(float((x[path] - y[path]).abs().max()) for path in x) <= 1e-12
    # Replies come in another order, and all else is alike.
    rows, others = (sorted(figures(folder)) for folder in (one, several))
    assert len(rows) == len(others) > 100
    for row, other in zip(rows, others, strict=True):
        for x, y in zip(row, other, strict=True):
            assert x == y or float(x) == pytest.approx(float(y), rel=1e-9, abs=1e-12)


def test_groups_of_one_client_give_the_bytes_of_one_after_the_other(fit):
    one, several = (run(fit, Ditto(), at_once=k, clients_per_round=1) for k in (1, 3))
    assert all(tree.equal(a, b) for a, b in zip(last(one), last(several), strict=True))


class OneIsNot(ToyData):
    """A client whose training targets are not finite."""

    def setup(self, stage=None):
        super().setup(stage)
        self.parts["client-02", "train"].tensors[1][0] = float("nan")


@pytest.mark.parametrize("clip", [None, 0.1])
def test_a_client_that_is_not_finite_is_refused_alone(fit, clip):
    def train(at_once):
        data = OneIsNot(num_clients=6, batch_size=3, examples=4, dtype="float64")
        task = Regression(**TASK, dtype="float64")
        return fit(FedAvg(), task, data, clients_at_once=at_once, local_steps=3, gradient_clip_val=clip, max_rounds=2)

    one, several = train(1), train(3)
    refused = [
        [row for row in figures(folder) if row[3:6] == ["client-02", "train", "refused"]] for folder in (one, several)
    ]
    assert refused[0] == refused[1]
    assert [row[0] for row in refused[0]] == ["1", "2"]
    state, other = last(one)[0], last(several)[0]
    for path, leaf in tree.flatten(state).items():
        assert leaf.isfinite().all()
        assert float((leaf - tree.flatten(other)[path]).abs().max()) <= 1e-12


def test_two_ranks_give_the_bytes_of_one(tmp_path):
    """With groups of three, by the command line."""
    import os
    import subprocess
    import sys
    from pathlib import Path

    tests = Path(__file__).parents[1] / "helpers"
    folders = []
    for devices in (1, 2):
        root = tmp_path / str(devices)
        command = [
            sys.executable, "-m", "fedlit.cli", "fit", "--model", "toys.Regression", "--data", "toys.ToyData",
            "--model.hidden", "4", "--model.optimizer", "adamw", "--model.dropout", "0.2", "--data.num_clients", "10",
            "--data.batch_size", "3", "--data.examples", "4", "--aggregator", "Ditto", "--trainer.max_rounds", "2",
            "--trainer.local_epochs", "1", "--trainer.clients_at_once", "3", "--trainer.num_threads", "1",
            "--trainer.accelerator", "cpu", "--trainer.devices", str(devices), "--trainer.default_root_dir", str(root),
        ]  # fmt: skip
        env = {**os.environ, "PYTHONPATH": str(tests), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        assert "one after the other" not in done.stdout
        folders.append(root / "fedlit" / "version_0")
    one, two = folders
    assert contents(one / "checkpoints" / "last") == contents(two / "checkpoints" / "last")
    for name in ("metrics.csv", "ledger.csv"):
        assert (one / name).read_bytes() == (two / name).read_bytes()
