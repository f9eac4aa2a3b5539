"""Ditto, APFL, pFedMe, Per-FedAvg and MR-MTL, against their papers' loops written out and solutions by hand."""

from __future__ import annotations

import pytest
import torch
from toys import GivenData, Regression, ToyData, last

from fedlit import tree
from fedlit.aggregators import FedAvg, FedProx, LocalAdaptation, LocalOnly, Stage, Stages
from fedlit.aggregators.personal import APFL, MRMTL, Ditto, PerFedAvg, PFedMe, bounded
from fedlit.data import SimulatedVitals
from fedlit.errors import FedlitError
from fedlit.runs.checkpoint import read
from fedlit.tasks import ForecastingTask

DOUBLE = {"dtype": "float64"}
NAMES = ("net.0.weight", "net.0.bias")


def close(a, b, tolerance=1e-12):
    a, b = tree.flatten(a), tree.flatten(b)
    assert a.keys() == b.keys()
    for path, leaf in a.items():
        torch.testing.assert_close(leaf, b[path], rtol=tolerance, atol=tolerance)


class Plain:
    """Linear regressions in one vector (weights, then the bias), for loops that know nothing of fedlit."""

    def __init__(self, clients=3, seed=0):
        self.data = ToyData(num_clients=clients, batch_size=0, seed=seed, **DOUBLE)
        self.data.setup()
        self.sets = {k: self.data.dataset(k, "train").tensors for k in self.data.clients}
        self.start = self.vector({n: p.detach() for n, p in Regression(**DOUBLE).named_parameters()})

    @staticmethod
    def vector(params):
        return torch.cat([params[NAMES[0]][0], params[NAMES[1]]])

    @staticmethod
    def params(vector):
        return {NAMES[0]: vector[None, :3], NAMES[1]: vector[3:]}

    def gradient(self, client, vector):
        x, y = self.sets[client]
        x = torch.cat([x, torch.ones(len(x), 1)], 1)
        return x.T @ (x @ vector - y) / len(x)

    def mean(self, moved):
        total = sum(len(self.sets[k][1]) for k in moved)
        return sum(len(self.sets[k][1]) / total * v for k, v in moved.items())


# -- Ditto -------------------------------------------------------------------------------------------------------------
def test_ditto_is_the_loop_of_its_paper(fit):
    plain, lr, lam = Plain(), 0.1, 0.7
    w, v = plain.start, dict.fromkeys(plain.sets, plain.start)
    for _ in range(3):
        moved = {}
        for k in plain.sets:
            moved[k] = w
            for _ in range(4):
                moved[k] = moved[k] - lr * plain.gradient(k, moved[k])
                v[k] = v[k] - lr * (plain.gradient(k, v[k]) + lam * (v[k] - w))
        w = plain.mean(moved)
    state, kept = last(fit(Ditto(lam=lam), Regression(**DOUBLE), plain.data, max_rounds=3, local_steps=4))
    close(state["params"], plain.params(w))
    for k in v:
        close(kept[k], plain.params(v[k]))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_ditto_without_a_pull_is_fedavg_and_local_training_at_once(fit, optimizer):
    task = {"hidden": 4, "optimizer": optimizer, "weight_decay": 0.1, **DOUBLE}
    state, kept = last(fit(Ditto(lam=0.0), Regression(**task), ToyData(**DOUBLE), max_rounds=3))
    shared, _ = last(fit(FedAvg(), Regression(**task), ToyData(**DOUBLE), max_rounds=3))
    _, alone = last(fit(LocalOnly(), Regression(**task), ToyData(**DOUBLE), max_rounds=3))
    close(state, shared)
    close(kept, alone)


def test_ditto_with_a_very_strong_pull_is_the_global_model(fit):
    """A step of ``lr = 1 / lam`` ends at ``w - gradient / lam``; the server's rate makes up for the small steps."""
    rule = Ditto(lam=1e7, lr=1e6)
    task, data = Regression(lr=1e-7, **DOUBLE), ToyData(batch_size=0, **DOUBLE)
    received, _ = last(fit(rule, task, data, max_rounds=2, local_steps=1))
    start, _ = last(fit(rule, task, data, max_rounds=1, local_steps=1))
    assert float(tree.sq(tree.sub(received["params"], start["params"]))) > 1e-3
    _, kept = last(fit(rule, task, data, max_rounds=3, local_steps=1))
    for model in kept.values():
        close(model, received["params"], 1e-5)


@pytest.mark.parametrize("rule", [Ditto(), APFL(), PFedMe(), PerFedAvg(), MRMTL()], ids=lambda r: type(r).__name__)
def test_a_client_that_never_trained_serves_the_global_model(rule):
    params = {"w": torch.ones(2)}
    down = {"w": torch.full((2,), 3.0)}
    assert torch.equal(rule.personal(down, rule.init_memory(params))["w"], down["w"])


# -- APFL --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("first", [0.3, 1.0])
def test_apfl_is_the_loop_of_its_paper(fit, first):
    """From 0.3, and from 1 as FHBench's code begins."""
    plain, lr = Plain(), 0.05
    w, v = plain.start, dict.fromkeys(plain.sets, plain.start)
    alpha = dict.fromkeys(plain.sets, torch.tensor(first, dtype=torch.float64))
    for _ in range(4):
        moved = {}
        for k in plain.sets:
            u = w
            for _ in range(3):
                g = plain.gradient(k, alpha[k] * v[k] + (1 - alpha[k]) * u)
                new = u - lr * plain.gradient(k, u), v[k] - lr * alpha[k] * g
                alpha[k] = (alpha[k] - lr * torch.dot(v[k] - u, g)).clamp(0, 1)
                u, v[k] = new
            moved[k] = u
        w = plain.mean(moved)
    state, kept = last(fit(APFL(alpha=first), Regression(lr=lr, **DOUBLE), plain.data, max_rounds=4, local_steps=3))
    close(state["params"], plain.params(w))
    for k in v:
        close(kept[k]["own"], plain.params(v[k]))
        close(kept[k]["alpha"], alpha[k])
        assert abs(float(alpha[k]) - 0.3) > 1e-3 or first == 1
        served = APFL().personal(state["params"], kept[k])
        close(served, plain.params(alpha[k] * v[k] + (1 - alpha[k]) * w))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_apfl_at_its_ends_is_fedavg_and_local_training(fit, optimizer):
    def run(rule):
        task = Regression(hidden=4, optimizer=optimizer, **DOUBLE)
        return last(fit(rule, task, ToyData(**DOUBLE), max_rounds=3))

    none, whole = APFL(alpha=0.0, adaptive=False), APFL(alpha=1.0, adaptive=False)
    state, kept = run(none)
    close(state, run(FedAvg())[0])
    assert all(tree.equal(none.personal(state["params"], memory), state["params"]) for memory in kept.values())
    state, kept = run(whole)
    _, alone = run(LocalOnly())
    close({k: whole.personal(state["params"], memory) for k, memory in kept.items()}, alone)


def test_what_is_held_in_bounds_can_leave_an_end_again():
    x = torch.tensor([-0.5, 0.0, 0.25, 1.0, 1.5], requires_grad=True)
    assert bounded(x).tolist() == [0.0, 0.0, 0.25, 1.0, 1.0]
    bounded(x).sum().backward()
    assert x.grad.tolist() == [1.0] * 5


def test_apfl_keeps_its_share_in_bounds(fit):
    """A share at its upper end that the data push further out."""
    _, kept = last(fit(APFL(alpha=1.0), Regression(lr=0.3), max_rounds=5, local_steps=5))
    shares = [float(memory["alpha"]) for memory in kept.values()]
    assert all(0 <= share <= 1 for share in shares)
    assert 1.0 in shares


# -- pFedMe ------------------------------------------------------------------------------------------------------------
def test_pfedme_comes_to_rest_where_the_envelopes_do(fit):
    """On quadratics of curvatures H_k: ``sum_k lam (w - theta_k) = 0``, ``theta_k = (H_k + lam)^-1 (b_k + lam w)``."""
    lam, eye, given, hessians, b = 1.0, torch.eye(4).double(), {}, {}, {}
    for i, (client, curvature) in enumerate({"a": 0.5, "b": 2.0}.items()):
        signs = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]).double()  # orthogonal, mean zero
        x, y = signs * curvature**0.5, torch.tensor([1.0, 3 - i, -2, i]).double()
        given[client] = (x, y)
        x = torch.cat([x, torch.ones(4, 1)], 1)
        hessians[client], b[client] = x.T @ x / 4, x.T @ y / 4
    inverse = {k: torch.linalg.inv(h + lam * eye) for k, h in hessians.items()}
    w = torch.linalg.solve(sum(eye - lam * inverse[k] for k in given), sum(inverse[k] @ b[k] for k in given))
    rule = PFedMe(lam=lam, eta=0.9, lr=1.6)
    state, kept = last(fit(rule, Regression(lr=0.4, **DOUBLE), GivenData(given), max_rounds=22, local_steps=30))
    close(state["params"], Plain.params(w), 1e-10)
    for k in given:
        close(kept[k], Plain.params(inverse[k] @ (b[k] + lam * w)), 1e-10)
    unpulled = torch.linalg.solve(sum(hessians.values()), sum(b.values()))
    assert float((w - unpulled).abs().max()) > 0.05  # FedAvg would rest elsewhere


def test_pfedme_goes_its_part_of_fedprox_way(fit):
    """With ``eta = 1 / lam`` FedProx to the byte; else ``lr * eta * lam`` of its way, from the same start."""
    task, data = {"hidden": 4, "optimizer": "adamw", **DOUBLE}, ToyData(**DOUBLE)
    assert tree.equal(
        last(fit(PFedMe(lam=4.0, eta=0.25), Regression(**task), data))[0],
        last(fit(FedProx(mu=4.0), Regression(**task), data))[0],
    )
    start = tree.ordered({n: p.detach() for n, p in Regression(**task).named_parameters()})
    whole, _ = last(fit(FedProx(mu=4.0), Regression(**task), data, max_rounds=1))
    state, kept = last(fit(PFedMe(lam=4.0, eta=0.05, lr=0.5), Regression(**task), data, max_rounds=1))
    close(state["params"], tree.lerp(whole["params"], start, 0.5 * 0.05 * 4.0))
    _, adapted = last(fit(LocalAdaptation(mu=4.0), Regression(**task), data, max_rounds=1))
    assert tree.equal(kept, adapted)


# -- Per-FedAvg --------------------------------------------------------------------------------------------------------
class Halves:
    """Two quadratics ``w' H w / 2 - b' w`` in the place of the losses on halves of a batch."""

    step, steps = 1, 2

    def __init__(self, generator):
        root = torch.randn(2, 4, 4, generator=generator, dtype=torch.float64)
        self.h, self.b = root @ root.transpose(1, 2), torch.randn(2, 4, generator=generator, dtype=torch.float64)

    def __call__(self, params):
        raise AssertionError("only halves are asked for")

    def split(self, parts):
        assert parts == 2
        return [lambda p, i=i: p["w"] @ self.h[i] @ p["w"] / 2 - self.b[i] @ p["w"] for i in range(2)]


def test_perfedavg_has_the_gradient_of_its_paper_on_quadratics():
    """Inner step on one half, outer loss on the other: ``(I - a H0) (H1 (w - a g0) - b1)``; first order without H0."""
    loss, w, alpha = Halves(torch.Generator().manual_seed(0)), torch.ones(4, dtype=torch.float64), 0.07
    moved = w - alpha * (loss.h[0] @ w - loss.b[0])
    outer = loss.h[1] @ moved - loss.b[1]
    expected = {False: outer - alpha * loss.h[0] @ outer, True: outer}
    for first_order, gradient in expected.items():
        leaf = w.clone().requires_grad_()
        rule = PerFedAvg(alpha=alpha, first_order=first_order)
        assert rule.second_order is not first_order
        rule.objective(loss, {"meta": {"w": leaf}, "step": {"w": torch.zeros(4)}}, {}, {}).backward()
        torch.testing.assert_close(leaf.grad, gradient, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("first_order", [False, True])
def test_perfedavg_is_the_loop_of_its_paper(fit, first_order):
    """Clients of one example, so that both halves are it."""
    generator = torch.Generator().manual_seed(1)
    given = {
        k: (torch.randn(1, 3, generator=generator).double(), torch.randn(1, generator=generator).double()) for k in "ab"
    }
    plain, lr, alpha = Plain(), 0.1, 0.2
    plain.sets, w = given, plain.start
    for _ in range(3):
        received, moved = w, {}
        for k in given:
            x = torch.cat([given[k][0][0], torch.ones(1).double()])
            moved[k] = w
            for _ in range(2):
                outer = plain.gradient(k, moved[k] - alpha * plain.gradient(k, moved[k]))
                moved[k] = moved[k] - lr * (outer if first_order else outer - alpha * x * (x @ outer))
        w = plain.mean(moved)
    rule = PerFedAvg(alpha=alpha, first_order=first_order)
    state, kept = last(fit(rule, Regression(**DOUBLE), GivenData(given), max_rounds=3))
    close(state["params"], plain.params(w))
    for k in given:
        close(rule.personal(state["params"], kept[k]), plain.params(w - alpha * plain.gradient(k, received)))


def test_perfedavg_serves_one_step_on_the_whole_batch(fit):
    plain, alpha = Plain(), 0.3
    before, _ = last(fit(PerFedAvg(alpha=alpha), Regression(lr=0.07, **DOUBLE), plain.data, max_rounds=1))
    _, kept = last(fit(PerFedAvg(alpha=alpha), Regression(lr=0.07, **DOUBLE), plain.data, max_rounds=2, local_steps=2))
    for k in plain.sets:
        close(kept[k], plain.params(-alpha * plain.gradient(k, plain.vector(before["params"]))))


def test_perfedavg_that_looks_ahead_by_nothing_is_fedavg(fit):
    data = GivenData({"a": (torch.ones(1, 3).double(), torch.ones(1).double())})
    state, kept = last(fit(PerFedAvg(alpha=0.0), Regression(hidden=4, **DOUBLE), data))
    shared, _ = last(fit(FedAvg(), Regression(hidden=4, **DOUBLE), data))
    close(state, shared)
    assert not any(leaf.any() for leaf in tree.leaves(kept["a"]))


@pytest.mark.parametrize(
    "rule", [PerFedAvg(), Stages([Stage(FedAvg(), 1), Stage(PerFedAvg(), 1)])], ids=["alone", "stage"]
)
def test_second_derivatives_through_attention(fit, rule):
    folder = fit(rule, ForecastingTask(), SimulatedVitals(), fast_dev_run=2)
    assert read(folder.path / "checkpoints" / "last").round == 2


# -- MR-MTL ------------------------------------------------------------------------------------------------------------
def test_mrmtl_without_a_pull_is_local_training(fit):
    task = {"hidden": 4, "optimizer": "adamw", **DOUBLE}
    state, kept = last(fit(MRMTL(lam=0.0), Regression(**task), ToyData(**DOUBLE), max_rounds=3))
    _, alone = last(fit(LocalOnly(), Regression(**task), ToyData(**DOUBLE), max_rounds=3))
    assert tree.equal(kept, alone)
    close(state["params"], tree.combine(list(alone.values()), [1 / 3] * 3))


def test_mrmtl_is_the_loop_of_its_paper(fit):
    plain, lr, lam = Plain(), 0.1, 0.6
    v, mean = dict.fromkeys(plain.sets, plain.start), plain.start
    for _ in range(3):
        for k in plain.sets:
            for _ in range(3):
                v[k] = v[k] - lr * (plain.gradient(k, v[k]) + lam * (v[k] - mean))
        mean = sum(v.values()) / 3
    state, kept = last(fit(MRMTL(lam=lam), Regression(**DOUBLE), plain.data, max_rounds=3, local_steps=3))
    close(state["params"], plain.params(mean))
    close(kept, {k: plain.params(x) for k, x in v.items()})


def test_mrmtl_comes_to_rest_at_the_joint_minimum(fit):
    """Of ``sum_k loss_k(w_k) + lam / 2 |w_k - mean|^2``, one linear system: ``(H_k + lam) w_k - lam mean = b_k``."""
    plain, lam = Plain(clients=2), 0.3
    system, right = torch.zeros(8, 8).double(), torch.zeros(8).double()
    for i, (x, y) in enumerate(plain.sets.values()):
        x, rows = torch.cat([x, torch.ones(len(x), 1)], 1), slice(4 * i, 4 * i + 4)
        system[rows, rows] = x.T @ x / len(x) + lam * torch.eye(4)
        system[rows] -= lam / 2 * torch.eye(4).double().repeat(1, 2)
        right[rows] = x.T @ y / len(x)
    solution = torch.linalg.solve(system, right)
    task = Regression(lr=0.4, **DOUBLE)
    _, kept = last(fit(MRMTL(lam=lam), task, plain.data, max_rounds=25, local_steps=20, check_val_every_n_rounds=25))
    for i, k in enumerate(plain.sets):
        close(kept[k], plain.params(solution[4 * i : 4 * i + 4]), 1e-7)


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Ditto(lam=-1), "Ditto.lam"),
        (lambda: Ditto(lr=0), "Ditto.lr"),
        (lambda: APFL(alpha=1.1), "APFL.alpha"),
        (lambda: APFL(alpha=float("nan")), "APFL.alpha"),
        (lambda: PFedMe(lam=0), "PFedMe.lam"),
        (lambda: PFedMe(lam=10, eta=0.2), "PFedMe.eta"),
        (lambda: PerFedAvg(alpha=float("inf")), "PerFedAvg.alpha"),
        (lambda: MRMTL(lam=float("nan")), "MRMTL.lam"),
        (lambda: MRMTL(weighting="size"), "MRMTL.weighting"),
    ],
)
def test_refused_by_name(make, field):
    with pytest.raises(FedlitError, match=field.replace(".", r"\.")):
        make()
