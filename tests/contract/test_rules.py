"""What every rule must do. A new rule is one row of `table.py`; it then gets every test below."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from table import as_dtype, start_of
from toys import GivenData, contents, memories

from fedlit import codec, tree
from fedlit.aggregators import Aggregator, Sealed, Update
from fedlit.runs.checkpoint import read
from fedlit.transports import LocalSites, admission

pytestmark = pytest.mark.filterwarnings("ignore:.*to come to its last part")  # these runs are short


def last(folder) -> dict[str, bytes]:
    return contents(folder.path / "checkpoints" / "last") | memories(folder)


def figures(folder) -> tuple[bytes, bytes]:
    return (folder.path / "metrics.csv").read_bytes(), (folder.path / "ledger.csv").read_bytes()


def test_another_seed_gives_another_result(rule, train, whole):
    other, this = last(train(rule, seed=1)), last(whole)
    assert {**other, "meta.json": b""} != {**this, "meta.json": b""}


def test_replies_in_any_order_give_the_same_bytes(rule, train, whole, monkeypatch):
    inner = LocalSites.run

    def shuffled(self, jobs, deadline_s=None):
        jobs = list(jobs)
        yield from reversed(list(inner(self, jobs[1:] + jobs[:1])))

    monkeypatch.setattr(LocalSites, "run", shuffled)
    other = train(rule)
    assert last(whole) == last(other)
    assert figures(whole) == figures(other)


def test_kill_and_resume_gives_the_same_bytes(rule, train, whole):
    cut = train(rule, max_rounds=2)
    resumed = train(rule, ckpt_path=str(cut.path))
    assert resumed.path == cut.path
    assert last(resumed) == last(whole)
    assert figures(resumed) == figures(whole)


def test_state_and_memory_survive_the_disk(whole):
    for file, blob in last(whole).items():
        if file.endswith(".safetensors"):
            assert codec.encode(codec.decode(blob, file)[0]) == blob


class Same(GivenData):
    """Clients that all have the same data, which the server has too."""

    def __init__(self, clients: list[str], kind: Any) -> None:
        super().__init__(dict.fromkeys(clients, kind.examples()))

    def server_dataset(self):
        return self.dataset(self.clients[0], "val")


def train_alike(row, train, count: int) -> tuple[Any, list[Any]]:
    """The state and the clients' models after a run in which all clients are alike, without anything random."""
    clients = [f"client-{i:02d}" for i in range(count)]
    task = row.kind.task("float64", lr=0.05)
    start = {n: p.detach().clone() for n, p in task.named_parameters() if p.requires_grad}
    folder = train(row.rule, Same(clients, row.kind), task, clients_per_round=None)
    state = read(folder.path / "checkpoints" / "last").state
    memory = memories(folder)
    kept = {n.removesuffix(".safetensors"): codec.decode(blob)[0] for n, blob in memory.items()}
    rule = row.rule
    return state, [rule.personal(rule.down(state, c), kept.get(c, rule.init_memory(start))) for c in clients]


@pytest.fixture(scope="module")
def alone(row, train):
    """A run with one client."""
    return train_alike(row, train, 1)


def test_one_client(rule, alone):
    state, (model,) = alone
    assert all(torch.isfinite(leaf).all() for leaf in tree.leaves({"state": state, "model": model}))


def test_identical_clients_are_as_one(row, rule, train, alone):
    _, models = train_alike(row, train, 3)
    for model in models:
        torch.testing.assert_close(model, alone[1][0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_names_shapes_and_dtypes_are_kept(row, rule, train, dtype):
    folder = train(rule, dtype=dtype, max_rounds=2)
    start = start_of(row.kind, dtype)
    model = rule.global_model(read(folder.path / "checkpoints" / "last").state)
    first = rule.global_model(rule.init(start))
    if model is not None:
        assert {n: (p.shape, p.dtype) for n, p in model.items()} == {n: (p.shape, p.dtype) for n, p in first.items()}
    for blob in memories(folder).values():
        for path, leaf in tree.flatten(codec.decode(blob)[0]).items():
            if path.split(tree.SEPARATOR)[-1] in start:
                assert leaf.dtype == as_dtype(dtype), path


def test_sealed_updates_give_the_same_bytes_or_are_refused_at_once(rule, train, whole, monkeypatch):
    def sealed(*arguments: Any) -> Update:
        return Update(*arguments, sealed=True)

    monkeypatch.setattr(admission, "Update", sealed)
    try:
        folder = train(rule)
    except Sealed:
        with pytest.raises(Sealed):
            train(rule, max_rounds=1)
    else:
        assert last(folder) == last(whole)
        assert figures(folder) == figures(whole)


class Untouched(Aggregator):
    """Another rule, whose arguments must be the same after each call as before it."""

    def __init__(self, inner: Aggregator) -> None:
        self.inner = inner

    def _call(self, method: str, *args: Any) -> Any:
        trees = [a for a in args if isinstance(a, dict | torch.Tensor)]
        before = [tree.clone(t) for t in trees]
        with torch.no_grad() if method != "objective" else torch.enable_grad():
            out = getattr(self.inner, method)(*args)
        assert all(tree.equal(a, tree.detach(b)) for a, b in zip(before, trees, strict=True)), method
        return out

    def aggregate(self, state, updates, server):
        held = {u.client: u._read() for u in updates}
        before = tree.clone(held)
        for u in updates:
            u._read = lambda u=u: held[u.client]
        out = self._call("aggregate", state, updates, server)
        assert tree.equal(before, held)
        return out


for _method in ("init", "init_memory", "down", "start", "objective", "finish", "weigh", "model", "personal",
                "global_model", "cohorts", "participants", "local_steps", "own_rates"):  # fmt: skip
    setattr(Untouched, _method, lambda self, *args, _method=_method: self._call(_method, *args))
for _attribute in ("measures", "second_order", "min_rounds"):
    setattr(Untouched, _attribute, property(lambda self, _attribute=_attribute: getattr(self.inner, _attribute)))


def test_no_argument_is_changed(rule, train, whole):
    watched = train(Untouched(rule))
    assert last(watched)["state.safetensors"] == last(whole)["state.safetensors"]
