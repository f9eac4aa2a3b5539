"""QFedAvg and AFL against arithmetic by hand, and against the points that theory says they reach."""

from __future__ import annotations

import math

import pytest
import torch
from quadratics import play, quadratic
from toys import GivenData, Regression, ToyData

from fedlit import tree
from fedlit.aggregators import FedAvg, Sealed, Server, Update, Work
from fedlit.aggregators.fairness import AFL, QFedAvg, project_simplex
from fedlit.errors import FedlitError
from fedlit.runs.checkpoint import read

DOUBLE = {"dtype": "float64"}


def state_of(folder):
    return read(folder.path / "checkpoints" / "last").state


def vector(*values):
    return torch.tensor(values, dtype=torch.float64)


def work(loss, steps=2.0, travel=1.0):
    return Work(*(torch.tensor(x, dtype=torch.float64) for x in (steps, steps, travel, steps, loss, math.nan)))


# -- QFedAvg -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize(("q", "by_hand"), [(0.0, -1 / 2), (1.0, 2 / 15), (2.0, 14 / 49)])
def test_qfedavg_by_hand(q, by_hand, sealed):
    """The paper's Algorithm 2: from w = 0, losses 4 and 1, models 1 and -2, learning rate 1/2, so L = 2.

    D = L (w - w_k) = (-2, 4). For q = 1: numerator 4 * -2 + 1 * 4 = -4; h = 4 + 2 * 4 = 12 and 16 + 2 = 18, so
    w = 4 / 30. For q = 2: 16 * -2 + 4 = -28; h = 2 * 4 * 4 + 2 * 16 = 64 and 2 * 16 + 2 = 34, so w = 28 / 98.
    """
    rule, down = QFedAvg(q=q), {"w": vector(0.0)}
    uploads = {
        c: rule.finish({"w": vector(w)}, down, {}, work(loss))[0] for c, w, loss in (("a", 1.0, 4.0), ("b", -2.0, 1.0))
    }
    updates = [Update(c, rule.weigh(7, None), lambda u=u: u, sealed=sealed) for c, u in uploads.items()]
    state = rule.aggregate(rule.init(down), updates, Server(0, torch.Generator()))
    assert state["params"]["w"].item() == pytest.approx(by_hand, rel=1e-14)


def test_the_lipschitz_constant_may_be_given():
    found = QFedAvg(lipschitz=5.0).finish({"w": vector(3.0)}, {"w": vector(1.0)}, {}, work(2.0))[0]
    assert (found["moved"]["w"].item(), found["scale"].item()) == (4.0, 5 * 4 + 2)  # F moved, L |moved|^2 + F
    by_rate = QFedAvg().finish({"w": vector(3.0)}, {"w": vector(1.0)}, {}, work(2.0, steps=10.0, travel=2.0))[0]
    assert tree.equal(found, by_rate)


def test_qfedavg_at_zero_is_uniform_fedavg_byte_for_byte(fit):
    rules = (FedAvg(weighting="uniform"), QFedAvg(q=0.0))
    states = [state_of(fit(rule, Regression(hidden=4, optimizer="adamw"), max_rounds=3)) for rule in rules]
    assert tree.equal(states[0], states[1])


@pytest.mark.parametrize("q", [0.0, 1.0, 5.0])
def test_qfedavg_reaches_the_fair_point_of_an_unbalanced_toy(q):
    """Nine clients at 0 and one at 1: sum F^q F' = 0 where 9 w^(2q + 1) = (1 - w)^(2q + 1)."""
    losses = {f"c{i}": quadratic([1.0], [float(i == 9)]) for i in range(10)}
    state, _ = play(QFedAvg(q=q), losses, [0.5], 300, [0.1])
    odds = 9 ** (-1 / (2 * q + 1))
    assert state["params"]["w"].item() == pytest.approx(odds / (1 + odds), rel=1e-6)


def test_qfedavg_raises_the_worst_clients_score(fit):
    """Four large clients agree, one small one does not; several mini-batch steps of the trainer."""
    generator, given = torch.Generator().manual_seed(5), {}
    for i in range(5):
        x = torch.randn(6 if i == 4 else 20, 3, generator=generator, dtype=torch.float64)
        given[f"client-{i}"] = (x, x @ (vector(-1, 1, 0) if i == 4 else vector(1, 0, 2)))

    def errors(rule):
        task, rounds = Regression(lr=0.05, **DOUBLE), {"max_rounds": 20, "check_val_every_n_rounds": 20}
        w = state_of(fit(rule, task, GivenData(given, 5), local_steps=5, **rounds))
        net = w["params"]["net.0.weight"][0], w["params"]["net.0.bias"]
        return [float((x @ net[0] + net[1] - y).square().mean()) for x, y in given.values()]

    rules = (FedAvg(), FedAvg(weighting="uniform"), QFedAvg(q=1.0), QFedAvg(q=5.0))
    plain, uniform, fair, fairer = (errors(rule) for rule in rules)
    assert max(plain) == plain[4]
    assert max(fairer) < max(fair) < max(uniform) < max(plain)
    assert torch.tensor(fair).std() < torch.tensor(plain).std()


def test_losses_at_and_below_zero():
    still = QFedAvg(q=0.5).finish({"w": vector(1.0)}, {"w": vector(1.0)}, {}, work(0.0))[0]
    assert all(torch.isfinite(leaf).all() for leaf in tree.leaves(still))
    with pytest.raises(FedlitError, match="powers of the loss.*-3"):
        QFedAvg().finish({"w": vector(1.0)}, {"w": vector(1.0)}, {}, work(-3.0))


# -- AFL ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("v", "expected"),
    [
        ((0.5, 1.0, -1.0), (0.25, 0.75, 0.0)),  # t = (1.5 - 1) / 2: the third lies below it
        ((0.2, 0.3, 0.5), (0.2, 0.3, 0.5)),
        ((5.0, 0.0), (1.0, 0.0)),
        ((-4.0, -4.0), (0.5, 0.5)),
        ((7.0,), (1.0,)),
    ],
)
def test_projection_by_hand(v, expected):
    assert project_simplex(vector(*v)).tolist() == pytest.approx(expected, abs=1e-15)


def test_projection_by_brute_force():
    ticks = torch.arange(0, 1.0001, 0.01, dtype=torch.float64)
    grid = torch.cartesian_prod(ticks, ticks)
    grid = torch.cat([grid, 1 - grid.sum(1, keepdim=True)], 1)
    grid = grid[grid[:, 2] > -1e-9]
    generator = torch.Generator().manual_seed(0)
    for v in torch.randn(40, 3, generator=generator, dtype=torch.float64):
        point, distances = project_simplex(v), (grid - v).norm(dim=1)
        assert point.sum().item() == pytest.approx(1, abs=1e-12)
        assert (point >= 0).all()
        assert (point - v).norm() <= distances.min() + 1e-12
        assert (point - grid[distances.argmin()]).norm() < 0.02


@pytest.mark.parametrize(
    ("minima", "point", "weights"),
    [
        # Equal curvatures: the centre of the smallest circle around the points.
        ([(0.0, 0.0), (4.0, 0.0), (2.0, 3.0)], (2.0, 5 / 6), (13 / 36, 13 / 36, 5 / 18)),
        ([(0.0, 0.0), (4.0, 0.0), (2.0, 0.5)], (2.0, 0.0), (0.5, 0.5, 0.0)),
    ],
    ids=["acute", "obtuse"],
)
def test_afl_reaches_the_minimax_point_of_three_quadratics(minima, point, weights):
    losses = {f"c{i}": quadratic([1.0, 1.0], m) for i, m in enumerate(minima)}
    state, _ = play(AFL(lambda_lr=0.05), losses, [0.0, 0.0], 1500, [0.1])
    assert state["params"]["w"].tolist() == pytest.approx(point, abs=1e-6)
    assert [float(x) for x in state["lambda"].values()] == pytest.approx(weights, abs=1e-6)


def test_afl_reaches_the_minimax_point_of_two_quadratics():
    """w^2 / 2 = 2 (w - 10)^2 at 20/3, where the slopes 20/3 and -40/3 balance at weights 2/3 and 1/3."""
    losses = {"a": quadratic([1.0], [0.0]), "b": quadratic([4.0], [10.0])}
    state, _ = play(AFL(lambda_lr=0.002), losses, [0.0], 1500, [0.1])
    assert state["params"]["w"].item() == pytest.approx(20 / 3, abs=1e-6)
    assert float(state["lambda"]["a"]) == pytest.approx(2 / 3, abs=1e-6)


def afl_round(rule, state, sent, num_clients=4):
    uploads = {c: {"params": {"w": vector(moved)}, "loss": vector(loss)[0]} for c, (moved, loss) in sent.items()}
    updates = [Update(c, 1.0, lambda u=u: u) for c, u in uploads.items()]
    return rule.aggregate(state, updates, Server(0, torch.Generator(), num_clients=num_clients))


def test_afl_when_some_clients_are_absent():
    """Two of four: the others keep their share of the simplex, those never heard of one number for each.

    N / |S| = 2. Round 1: w = 0.5 * 2 * (3 + 1) / 4; weights (1/4 + 0.1 * 2 * 1, 1/4 + 0.1 * 2 * 2, 1/4, 1/4) less 0.15.
    Round 2, c new with 0.1: w + 0.5 * 2 * (0.5 * 2 + 0.1 * 4); weights (0.3, 0.5 + 0.2, 0.1 + 0.6, 0.1), sum 1.8. Less
    0.2 would leave d negative, so d gets 0 and the others, sum 1.7, are lowered by 0.7 / 3.
    """
    rule = AFL(lr=0.5, lambda_lr=0.1)
    state = afl_round(rule, rule.init({"w": vector(0.0)}), {"a": (3.0, 1.0), "b": (1.0, 2.0)})
    assert state["params"]["w"].item() == pytest.approx(1.0)
    assert [float(x) for x in state["lambda"].values()] == pytest.approx([0.3, 0.5])
    assert float(state["unseen"]) == pytest.approx(0.1)
    state = afl_round(rule, state, {"b": (2.0, 1.0), "c": (4.0, 3.0)})
    assert state["params"]["w"].item() == pytest.approx(2.4)
    t = 0.7 / 3
    assert [float(x) for x in state["lambda"].values()] == pytest.approx([0.3 - t, 0.7 - t, 0.7 - t])
    assert float(state["unseen"]) == 0
    # Clients without weight move nothing, but their losses count.
    state = afl_round(rule, state, {"d": (9.0, 1.0)})
    assert state["params"]["w"].item() == pytest.approx(2.4)
    assert float(state["lambda"]["d"]) > 0
    assert "unseen" not in state


def test_afl_with_fixed_weights_is_uniform_fedavg(fit):
    rules, data = (FedAvg(weighting="uniform"), AFL(lambda_lr=0.0)), ToyData(**DOUBLE)
    states = [state_of(fit(rule, Regression(**DOUBLE), data, max_rounds=3)) for rule in rules]
    torch.testing.assert_close(states[0]["params"], states[1]["params"], rtol=1e-12, atol=1e-12)
    assert [float(x) for x in states[1]["lambda"].values()] == pytest.approx([1 / 3] * 3)


def test_afl_lowers_the_worst_loss_in_the_trainer(fit):
    data = ToyData(spread=0.7, **DOUBLE)
    data.setup()
    worst = []
    for rule in (FedAvg(weighting="uniform"), AFL(lambda_lr=0.05)):
        rounds = {"max_rounds": 25, "check_val_every_n_rounds": 25}
        state = state_of(fit(rule, Regression(lr=0.1, **DOUBLE), data, local_steps=3, **rounds))
        w, b = state["params"]["net.0.weight"][0], state["params"]["net.0.bias"]
        parts = [data.dataset(c, "train").tensors for c in data.clients]
        worst.append(max(float((x @ w + b - y).square().mean()) for x, y in parts))
    assert worst[1] < 0.9 * worst[0]


def test_afl_reads_single_losses_so_it_refuses_sealed_updates():
    rule, upload = AFL(), {"params": {"w": vector(1.0)}, "loss": vector(1.0)[0]}
    with pytest.raises(Sealed, match="sealed"):
        rule.aggregate(rule.init({"w": vector(0.0)}), [Update("a", 1.0, lambda: upload, sealed=True)],
                       Server(0, torch.Generator(), num_clients=1))  # fmt: skip


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: QFedAvg(q=-1.0), "QFedAvg.q"),
        (lambda: QFedAvg(q=math.inf), "QFedAvg.q"),
        (lambda: QFedAvg(lipschitz=0.0), "QFedAvg.lipschitz"),
        (lambda: AFL(lr=0.0), "AFL.lr"),
        (lambda: AFL(lambda_lr=-0.1), "AFL.lambda_lr"),
    ],
)
def test_refused_by_name(make, field):
    with pytest.raises(FedlitError, match=field.replace(".", r"\.")):
        make()
