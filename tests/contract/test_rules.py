"""What every rule must do. A new rule is one row of RULES; it then gets every test below."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from custom_rules import Apfl, Ditto, HeadOnly, Influence, LateLoss, Noisy, Scaffold, Similarity
from toys import GivenData, Regression, ToyData, contents

from fedlit import codec, tree
from fedlit.aggregators import (
    Aggregator,
    Centralized,
    FedAdam,
    FedAvg,
    FedLA,
    FedProx,
    LocalAdaptation,
    LocalOnly,
    Stage,
    Stages,
    ZeroShot,
)  # fmt: skip
from fedlit.checkpoint import read
from fedlit.trainer import FederatedTrainer
from fedlit.transports import LocalClients

RULES: dict[str, Aggregator] = {
    "FedAvg": FedAvg(),
    "FedAvg uniform": FedAvg(lr=0.5, weighting="uniform"),
    "FedProx": FedProx(mu=0.5),
    "FedAdam": FedAdam(),
    "LocalOnly": LocalOnly(),
    "LocalAdaptation": LocalAdaptation(mu=0.5),
    "FedLA": FedLA(fedavg_rounds=2, adapt_rounds=2, mu=0.5),
    "Stages": Stages(
        [Stage(FedAdam(), 1, trainable=r"net\.3"), Stage(FedProx(mu=0.1), 1), Stage(LocalAdaptation(mu=0.0), 1)]
    ),
    "Centralized": Centralized(),
    "ZeroShot": ZeroShot(),
    "Scaffold": Scaffold(),
    "Ditto": Ditto(),
    "Apfl": Apfl(),
    "Similarity": Similarity(),
    "HeadOnly": HeadOnly(),
    "LateLoss": LateLoss(),
    "Influence": Influence(),
    "Noisy": Noisy(),
}
POOLING = {"Centralized"}


@pytest.fixture(params=RULES, scope="module")
def name(request) -> str:
    return request.param


@pytest.fixture
def rule(name) -> Aggregator:
    return RULES[name]


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    def run(rule: Aggregator, data: Any = None, task: Any = None, ckpt_path: str | None = None, **settings: Any) -> Any:
        dtype = settings.pop("dtype", "float32")
        task = task or Regression(hidden=4, optimizer="adamw", weight_decay=0.1, dropout=0.2, dtype=dtype)
        data = data or ToyData(server=True, dtype=dtype)
        root = str(tmp_path_factory.mktemp("runs"))
        defaults = {"max_rounds": 4, "local_steps": 3, "clients_per_round": 2, "default_root_dir": root,
                    "accelerator": "cpu", "enable_progress_bar": False}  # fmt: skip
        return FederatedTrainer(rule, **{**defaults, **settings}).fit(task, data, ckpt_path=ckpt_path)

    return run


@pytest.fixture(scope="module")
def whole(name, train):
    """The run that others are held against."""
    return train(RULES[name])


def last(folder) -> dict[str, bytes]:
    return contents(folder.path / "checkpoints" / "last")


def figures(folder) -> tuple[bytes, bytes]:
    return (folder.path / "metrics.csv").read_bytes(), (folder.path / "ledger.csv").read_bytes()


def test_the_same_twice(rule, train, whole):
    again = train(rule)
    assert last(again) == last(whole)
    assert figures(again) == figures(whole)


def test_another_seed_gives_another_result(name, rule, train, whole):
    other, this = last(train(rule, seed=1)), last(whole)
    assert ({**other, "meta.json": b""} == {**this, "meta.json": b""}) is (name == "ZeroShot")


def test_replies_in_any_order_give_the_same_bytes(rule, train, whole, monkeypatch):
    inner = LocalClients.run

    def shuffled(self, jobs, deadline_s=None):
        jobs = list(jobs)
        yield from reversed(list(inner(self, jobs[1:] + jobs[:1])))

    monkeypatch.setattr(LocalClients, "run", shuffled)
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


def test_identical_clients_are_as_one(name, rule, train):
    if name in POOLING:
        pytest.skip("pools the clients' data, so three clients take three times the steps of one")
    generator = torch.Generator().manual_seed(3)
    x, y = (torch.randn(s, generator=generator, dtype=torch.float64) for s in ((8, 3), (8,)))

    class Data(GivenData):
        def server_dataset(self):
            return self.dataset(self.clients[0], "val")

    models: dict[int, list[Any]] = {}
    for count in (1, 3):
        clients = [f"client-{i}" for i in range(count)]
        task = Regression(hidden=4, lr=0.05, dtype="float64")
        start = {n: p.detach().clone() for n, p in task.named_parameters()}
        folder = train(rule, Data({c: (x, y) for c in clients}), task, clients_per_round=None, max_rounds=3)
        state = read(folder.path / "checkpoints" / "last").state
        memory = contents(folder.path / "checkpoints" / "last" / "memory")
        kept = {n.removesuffix(".safetensors"): codec.decode(blob)[0] for n, blob in memory.items()}
        models[count] = [rule.personal(rule.down(state, c), kept.get(c, rule.init_memory(start))) for c in clients]
    for model in models[3]:
        torch.testing.assert_close(model, models[1][0], rtol=1e-9, atol=1e-9)


def test_one_client(rule, train):
    folder = train(rule, ToyData(num_clients=1, server=True), clients_per_round=None, max_rounds=2)
    assert all(torch.isfinite(leaf).all() for leaf in tree.leaves(read(folder.path / "checkpoints" / "last").state))


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_names_shapes_and_dtypes_are_kept(rule, train, dtype):
    folder = train(rule, dtype=dtype, max_rounds=2)
    start = rule.init({n: p.detach() for n, p in Regression(hidden=4, dtype=dtype).named_parameters()})
    model, first = rule.global_model(read(folder.path / "checkpoints" / "last").state), rule.global_model(start)
    if model is not None:
        assert {n: (p.shape, p.dtype) for n, p in model.items()} == {n: (p.shape, p.dtype) for n, p in first.items()}
    for blob in contents(folder.path / "checkpoints" / "last" / "memory").values():
        assert {leaf.dtype for leaf in tree.leaves(codec.decode(blob)[0])} == {getattr(torch, dtype)}


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
                "global_model", "cohorts"):  # fmt: skip
    setattr(Untouched, _method, lambda self, *args, _method=_method: self._call(_method, *args))


def test_no_argument_is_changed(rule, train, whole):
    watched = train(Untouched(rule))
    assert last(watched)["state.safetensors"] == last(whole)["state.safetensors"]
