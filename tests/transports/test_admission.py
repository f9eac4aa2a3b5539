"""What the server takes: an answer to its own job, of the tree it asked for, finite, once."""

from __future__ import annotations

import json

import pytest
import torch
from toys import ToyData, contents, memories

from fedlit import codec, tree
from fedlit.aggregators import FedAvg, LocalOnly
from fedlit.errors import FedlitError
from fedlit.transports import Inbox, Job, LocalSites, Reply, admit, ledger
from fedlit.transports.admission import Refused
from fedlit.transports.ranks import pack, unpack

LIKE = {"a": torch.zeros(2, 3), "b": {"c": torch.zeros(4, dtype=torch.float64)}}


def good() -> dict:
    return {"a": torch.ones(2, 3), "b": {"c": torch.ones(4, dtype=torch.float64)}}


def test_the_tree_asked_for_is_admitted():
    assert tree.equal(admit(codec.encode(good()), LIKE, "reply"), good())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"a": torch.ones(3, 2)}, r"a is F32\[3, 2\], expected torch.float32\[2, 3\]"),
        ({"a": torch.ones(2, 3, dtype=torch.int32)}, "a is I32"),
        ({"a": torch.ones(2, 3, dtype=torch.float64)}, r"\d+ bytes, expected \d+"),
        ({"a": torch.full((2, 3), float("nan"))}, "a is not finite"),
        ({"b": {"c": torch.tensor([1, 2, 3, float("inf")], dtype=torch.float64)}}, "b/c is not finite"),
        ({"extra": torch.ones(1)}, "extra"),
        ({"b": {}}, "b/c"),
        ({"b": {"d": torch.ones(4, dtype=torch.float64)}}, "b/c.*b/d"),
        ({"a": torch.ones(2000, 3)}, "bytes"),
    ],
)
def test_another_tree_is_refused_with_the_reason(change, reason):
    with pytest.raises(Refused, match=reason):
        admit(codec.encode({**good(), **change}), LIKE, "reply")


@pytest.mark.parametrize(
    "blob", [b"", b"x" * 7, b"garbage" * 9, codec.encode(good())[:-1], codec.encode(good()) + b"\0"]
)
def test_bytes_that_are_not_the_tree_are_refused(blob):
    with pytest.raises(Refused, match="reply"):
        admit(blob, LIKE, "reply")


def test_offsets_that_overlap_are_refused():
    entry = {"dtype": "F64", "shape": [4], "data_offsets": [0, 32]}
    head = json.dumps({"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, "b/c": entry}).encode()
    blob = len(head).to_bytes(8, "little") + head + b"\0" * 56
    with pytest.raises(Refused, match="not a fedlit tree"):
        admit(blob, LIKE, "reply")


def test_a_bare_tensor_and_an_empty_tree():
    assert admit(codec.encode(torch.tensor(3.0)), torch.tensor(0.0), "reply") == 3
    assert admit(codec.encode({}), {}, "reply") == {}


def inbox(*clients: str) -> Inbox:
    box = Inbox(budget_bytes=100)
    for client in clients:
        box.expect(Job(f"ticket-{client}", client, 0, "train", b""), lambda: LIKE)
    return box


def reply(client: str, **changes) -> Reply:
    parts = {
        "ticket": f"ticket-{client}",
        "client": client,
        "payload": codec.encode(good()),
        "weight": 2.0,
        "metrics": {"train_loss": 1.0},
        **changes,
    }
    return Reply(**parts)


def test_a_reply_counts_once():
    box = inbox("a", "b")
    assert box.receive(reply("a"))
    assert not box.receive(reply("a"))
    assert "no open job of this round has its ticket" in box.refused["a"]
    assert [u.client for u in box.updates] == ["a"]
    assert box.admitted == {"a"}
    assert list(box.missing()) == ["b"]


def test_a_stolen_or_wrong_ticket_does_not_count_and_takes_nothing_from_its_owner():
    box = inbox("a", "b")
    assert not box.receive(reply("b", ticket="ticket-a"))
    assert not box.receive(reply("a", ticket="other"))
    assert box.receive(reply("a"))
    assert box.receive(reply("b"))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"weight": -1.0}, "weight -1.0"),
        ({"weight": float("nan")}, "weight nan"),
        ({"weight": float("inf")}, "weight inf"),
        ({"weight": True}, "weight True"),
        ({"weight": "9"}, "weight '9'"),
        ({"weight": 1e13}, "weight"),
        ({"metrics": {"train_loss": float("nan")}}, "local loss became nan"),
        ({"metrics": {}}, "local loss became None"),
        ({"metrics": {"train_loss": "low"}}, "local loss became low"),
        ({"error": "out of memory"}, "out of memory"),
        ({"payload": b""}, "cut short"),
    ],
)
def test_replies_that_do_not_count(changes, reason):
    box = inbox("a")
    assert not box.receive(reply("a", **changes))
    assert reason in box.refused["a"]
    assert box.updates == []


def test_uploads_wait_on_disk_once_they_are_many():
    clients = [f"c{i}" for i in range(5)]
    box = inbox(*clients)
    for client in clients:
        upload = tree.scale(good(), float(client[1:]))
        assert box.receive(reply(client, payload=codec.encode(upload)))
    assert box._file._rolled
    for u in reversed(box.updates):
        assert tree.equal(u.tensors, tree.scale(good(), float(u.client[1:])))
    box.close()


def test_what_crossed_is_counted_also_if_it_is_no_tree():
    blob = codec.encode(good())
    assert ledger.measure(3, "a", "up", blob) == (3, "a", "up", 10, len(blob), "F32+F64")
    assert ledger.measure(3, "a", "down", codec.encode({})) == (3, "a", "down", 0, len(codec.encode({})), "none")
    head = b'{"a": 5, "b": {"shape": "no"}}'
    for junk in (b"junk", b"", len(head).to_bytes(8, "little") + head):
        assert ledger.measure(3, "a", "up", junk) == (3, "a", "up", 0, len(junk), "unreadable")


def test_replies_travel_between_ranks_as_they_are():
    replies = [
        reply("a", scores={"personal": {"rmse": 0.1 + 0.2}}, num_examples=7),
        reply("b", payload=b"", error="why"),
    ]
    assert list(unpack(pack(replies))) == replies
    assert list(unpack(pack([]))) == []


def spoil(monkeypatch, client: str, **changes) -> None:
    """Send changed replies of one client."""
    from dataclasses import replace

    inner = LocalSites.run

    def run(self, jobs, deadline_s=None):
        for r in inner(self, jobs, deadline_s):
            yield replace(r, **changes) if r.client == client and r.payload else r

    monkeypatch.setattr(LocalSites, "run", run)


@pytest.mark.parametrize(
    "changes", [{"payload": b"junk"}, {"weight": -1.0}, {"ticket": "guess"}, {"metrics": {"train_loss": 9e999}}]
)
def test_a_run_goes_on_without_a_refused_client(fit, monkeypatch, changes):
    spoil(monkeypatch, "client-01", **changes)
    folder = fit(LocalOnly())
    rows = [r for r in folder.metrics.read() if r["metric"] == "refused"]
    assert [(r["round"], r["client"]) for r in rows] == [("1", "client-01"), ("2", "client-01")]
    assert json.loads((folder.path / "summary.json").read_text())["refused_replies"] == 2
    kept = memories(folder)
    assert list(kept) == ["client-00.safetensors", "client-02.safetensors"]


def test_a_second_reply_does_not_cost_the_first(fit, monkeypatch):
    plain = fit(LocalOnly())
    inner = LocalSites.run

    def twice(self, jobs, deadline_s=None):
        for r in inner(self, jobs, deadline_s):
            yield r
            if r.payload:
                yield r

    monkeypatch.setattr(LocalSites, "run", twice)
    doubled = fit(LocalOnly())
    assert memories(doubled) == memories(plain) != {}


def test_tickets_say_nothing_of_each_other(fit, monkeypatch):
    seen = {}
    inner = LocalSites.train

    def note(self, jobs):
        for job in jobs:
            seen.setdefault(job.round, {})[job.client] = job.ticket
        return inner(self, jobs)

    monkeypatch.setattr(LocalSites, "train", note)
    fit(FedAvg())
    fit(FedAvg())
    tickets = [t for by_client in seen.values() for t in by_client.values()]
    assert len(set(tickets)) == len(tickets)
    for by_client in seen.values():
        for client, ticket in by_client.items():
            assert client not in ticket
            assert len(ticket) == 32


@pytest.mark.parametrize("rule", [FedAvg(), LocalOnly()], ids=lambda r: type(r).__name__)
def test_a_client_whose_loss_becomes_nan_sits_out(fit, rule):
    from toys import Regression

    folder = fit(rule, Regression(poison="yes"), ToyData(poisoned=1))
    refused = [(r["round"], r["client"]) for r in folder.metrics.read() if r["metric"] == "refused"]
    assert refused == [("1", "client-01"), ("2", "client-01")]
    assert "client-01.safetensors" not in memories(folder)
    trained = {(r["round"], r["client"]) for r in folder.metrics.read() if r["metric"] == "loss"}
    assert trained == {(r, c) for r in "12" for c in ("client-00", "client-02")}


@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_client_that_diverges_in_its_last_step_sits_out(fit, clip):
    """Its losses were finite, what it would remember is not; with clipping its gradient is NaN."""

    class Diverging(LocalOnly):
        def objective(self, loss, w, down, memory):
            value = loss(w)
            last = loss.step + 1 == loss.steps
            return value + (torch.sqrt(0 * tree.sq(w)) if last and value > 5 else 0)  # its gradient is 0 / 0

    folder = fit(Diverging(), gradient_clip_val=clip, max_rounds=1)
    refused = {r["client"] for r in folder.metrics.read() if r["metric"] == "refused"}
    kept = memories(folder)
    assert refused
    assert {name.removesuffix(".safetensors") for name in kept} == {"client-00", "client-01", "client-02"} - refused


def test_all_refused_is_an_error_and_costs_nothing_committed(fit, monkeypatch):
    folder = fit(LocalOnly(), max_rounds=1)
    before = contents(folder.path / "checkpoints" / "last")
    with monkeypatch.context() as patch:
        inner = LocalSites.train
        patch.setattr(
            LocalSites,
            "train",
            lambda self, jobs: (Reply(job.ticket, job.client, error="its loss became nan") for job in jobs),
        )
        assert inner is not LocalSites.train
        with pytest.raises(FedlitError, match=r"round 2: every client was refused.*client-00.*became nan"):
            fit(LocalOnly(), max_rounds=2, ckpt_path="last")
    assert contents(folder.path / "checkpoints" / "last") == before
    resumed, whole = fit(LocalOnly(), max_rounds=2, ckpt_path="last"), fit(LocalOnly(), max_rounds=2)
    last = "checkpoints/last"
    assert contents(resumed.path / last) == contents(whole.path / last)


def test_a_client_without_training_data_is_named(fit):
    with pytest.raises(FedlitError, match="'client-00' has no training examples"):
        fit(FedAvg(), data=ToyData(examples=0))
