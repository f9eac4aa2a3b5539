"""FedProx on a problem that can be solved by hand, and the defect that published code had."""

from __future__ import annotations

import pytest
import torch
from toys import GivenData, Regression, contents

from fedlit import tree
from fedlit.aggregators import FedAvg, FedProx, Server, Update
from fedlit.aggregators.proximal import proximal
from fedlit.runs.checkpoint import read

# Two clients, two parameters each (no intercept: the second feature plays it), loss_k = |X_k w - y_k|^2 / (2 n_k).
X = {"a": torch.tensor([[1.0, 0.0], [0.0, 2.0]]), "b": torch.tensor([[2.0, 0.0], [0.0, 1.0]])}
Y = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([4.0, -1.0])}


class TwoByTwo(Regression):
    """``w`` in R^2 without intercept, from zero, in float64."""

    def __init__(self, lr: float = 0.2) -> None:
        super().__init__(features=2, lr=lr, dtype="float64")
        self.net = torch.nn.Sequential(torch.nn.Linear(2, 1, bias=False, dtype=torch.float64))
        torch.nn.init.zeros_(self.net[0].weight)


def data() -> GivenData:
    return GivenData({k: (X[k].double(), Y[k].double()) for k in X})


@pytest.mark.parametrize("mu", [0.0, 1.0])
def test_two_by_two_least_squares(fit, mu):
    """By hand: H_k = X'X/2 is diagonal, so argmin L_k + mu/2 |w - w0|^2 = (X'y/2 + mu w0) / (diag H_k + mu)."""
    # H_a = diag(1/2, 2), X'y/2 = (1/2, 2); H_b = diag(2, 1/2), X'y/2 = (4, -1/2); w0 = 0 in round 1.
    by_hand = {0.0: (((1 + 2) / 2, (1 - 1) / 2)), 1.0: ((1 / 3 + 4 / 3) / 2, (2 / 3 - 1 / 3) / 2)}[mu]
    folder = fit(FedProx(mu=mu), TwoByTwo(), data(), max_rounds=1, local_steps=300)
    got = read(folder.path / "checkpoints" / "last").state["params"]["net.0.weight"][0]
    assert got.tolist() == pytest.approx(by_hand, abs=1e-9)
    # Second round, from w0 = the first's result.
    folder = fit(FedProx(mu=mu), TwoByTwo(), data(), max_rounds=2, local_steps=300)
    h, g = {"a": (0.5, 2.0), "b": (2.0, 0.5)}, {"a": (0.5, 2.0), "b": (4.0, -0.5)}
    second = [sum((g[k][i] + mu * by_hand[i]) / (h[k][i] + mu) for k in "ab") / 2 for i in range(2)]
    got = read(folder.path / "checkpoints" / "last").state["params"]["net.0.weight"][0]
    assert got.tolist() == pytest.approx(second, abs=1e-9)


class Watched(FedProx):
    """Writes down the proximal term of every local step."""

    terms: list[float] = []

    def objective(self, loss, w, down, memory):
        assert all(a.data_ptr() != b.data_ptr() for a, b in zip(tree.leaves(w), tree.leaves(down), strict=True))
        assert not any(leaf.requires_grad for leaf in tree.leaves(down))
        self.terms.append(float(tree.sq(tree.sub(tree.detach(w), down))))
        return super().objective(loss, w, down, memory)


@pytest.mark.usefixtures("unrehearsed")
def test_the_anchor_is_a_detached_copy(fit):
    """In the public code of arXiv:2502.09744 it was the live model, and the term zero at every step."""
    Watched.terms.clear()
    fit(Watched(mu=1.0), max_rounds=2, local_steps=3)
    rounds = [Watched.terms[i : i + 3] for i in range(0, len(Watched.terms), 3)]
    assert len(rounds) == 6
    for first, *later in rounds:
        assert first == 0
        assert all(term > 1e-6 for term in later)


def test_the_pull_has_a_gradient():
    w = {"w": torch.tensor([3.0], requires_grad=True)}
    value = proximal(torch.zeros(()), 2.0, w, {"w": torch.tensor([1.0])})
    value.backward()
    assert value == 4
    assert w["w"].grad == 4


def drifts(fit, base, **arguments):
    seen = []

    class Measured(base):
        def aggregate(self, state, updates, server):
            seen.append([float(tree.sq(u.tensors)) ** 0.5 for u in updates])
            return super().aggregate(state, updates, server)

    fit(Measured(**arguments), max_rounds=1, local_steps=20)
    return seen[0]


@pytest.mark.usefixtures("unrehearsed")
def test_drift_falls_with_mu(fit):
    free, loose, tight = (drifts(fit, FedProx, mu=mu) for mu in (0.0, 1.0, 5.0))
    assert all(a > b > c > 0 for a, b, c in zip(free, loose, tight, strict=True))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_mu_zero_is_fedavg_byte_for_byte(fit, optimizer):
    runs = [
        fit(rule, Regression(hidden=4, optimizer=optimizer, weight_decay=0.1, linear_schedule=True), local_steps=5)
        for rule in (FedAvg(), FedProx(mu=0.0))
    ]
    states = [(run.path / "checkpoints" / "last" / "state.safetensors").read_bytes() for run in runs]
    assert states[0] == states[1]
    for name in ("metrics.csv", "ledger.csv"):
        assert (runs[0].path / name).read_bytes() == (runs[1].path / name).read_bytes()
    assert (
        contents(runs[0].path / "checkpoints" / "last").keys() == contents(runs[1].path / "checkpoints" / "last").keys()
    )


def test_one_client_only(fit):
    data = GivenData({"a": (X["a"].double(), Y["a"].double())})
    folder = fit(FedProx(mu=0.0), TwoByTwo(), data, max_rounds=1, local_steps=300)
    got = read(folder.path / "checkpoints" / "last").state["params"]["net.0.weight"][0]
    assert got.tolist() == pytest.approx([1.0, 1.0], abs=1e-9)


def test_server_learning_rate_applies():
    rule = FedProx(lr=0.5)
    server = Server(0, torch.Generator())
    state = rule.aggregate(rule.init({"w": torch.zeros(1)}), [Update("a", 1.0, lambda: {"w": torch.ones(1)})], server)
    assert state["params"]["w"].item() == 0.5
