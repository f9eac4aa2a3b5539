"""SCAFFOLD, FedDyn and MOON against textbook loops in plain torch, and against where theory says they end."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from quadratics import play, quadratic
from toys import Classifier, Regression, ToyData, close, last

from fedlit import tree
from fedlit.aggregators import FedAvg, Server, Update
from fedlit.aggregators.drift import MOON, SCAFFOLD, FedDyn, contrastive
from fedlit.data import SimulatedVitals
from fedlit.errors import FedlitError
from fedlit.tasks import ForecastingTask

DOUBLE = {"dtype": "float64"}


def gradients(data, client, y):
    """Of mean (x w + b - target)^2 / 2 over all of a client's examples, by the formula."""
    features, targets = data.dataset(client, "train").tensors
    error = (features @ y["net.0.weight"].T + y["net.0.bias"])[..., 0] - targets
    return {"net.0.weight": (error[:, None] * features).mean(0, keepdim=True), "net.0.bias": error.mean(0, True)}


def sampled(x):
    """Updates of two of four clients, as far as the server's half needs them."""
    return [Update(c, 1.0, lambda v=v: x(v)) for c, v in (("a", 1.0), ("b", 3.0))]


# -- SCAFFOLD ----------------------------------------------------------------------------------------------------------


def test_scaffold_with_one_full_batch_step_is_sgd_on_the_mean_gradient(fit):
    data, task = ToyData(batch_size=0, **DOUBLE), Regression(hidden=4, **DOUBLE)
    data.setup()
    plain = Regression(hidden=4, **DOUBLE)
    for _ in range(4):
        losses = [plain.losses(data.dataset(c, "train").tensors).mean() for c in data.clients]
        grads = torch.autograd.grad(sum(losses) / 3, list(plain.parameters()))
        with torch.no_grad():
            for p, g in zip(plain.parameters(), grads, strict=True):
                p -= 0.1 * g
    state, _ = last(fit(SCAFFOLD(), task, data, max_rounds=4, local_steps=1))
    assert close({n: p.detach() for n, p in plain.named_parameters()}, state["params"])


@pytest.mark.parametrize("server_lr", [1.0, 0.5])
def test_scaffold_with_several_steps_is_the_textbook_loop(fit, server_lr):
    data, steps, lr = ToyData(batch_size=0, **DOUBLE), 3, 0.1
    data.setup()
    x = {n: p.detach().clone() for n, p in Regression(**DOUBLE).named_parameters()}
    c, own = tree.zeros(x), {k: tree.zeros(x) for k in data.clients}
    for _ in range(3):
        moves, changes = [], []
        for k in data.clients:
            y = x
            for _ in range(steps):
                g = gradients(data, k, y)
                y = {n: y[n] - lr * (g[n] - own[k][n] + c[n]) for n in y}
            new = {n: own[k][n] - c[n] + (x[n] - y[n]) / (steps * lr) for n in x}
            moves.append(tree.sub(y, x))
            changes.append(tree.sub(new, own[k]))
            own[k] = new
        x = {n: x[n] + server_lr * sum(m[n] for m in moves) / 3 for n in x}
        c = {n: c[n] + sum(m[n] for m in changes) / 3 for n in x}
    rule = SCAFFOLD(lr=server_lr)
    state, kept = last(fit(rule, Regression(**DOUBLE), data, max_rounds=3, local_steps=steps))
    assert close({"params": x, "control": c}, state)
    assert close(own["client-01"], kept["client-01"])


def test_scaffolds_control_is_the_mean_gradient_under_a_schedule_too(fit):
    """(w_global - w_k) / sum of rates is the mean of the gradients weighted by their rates, whatever the schedule."""
    data, steps = ToyData(num_clients=1, batch_size=0, **DOUBLE), 4
    data.setup()
    y = {n: p.detach().clone() for n, p in Regression(**DOUBLE).named_parameters()}
    rates, seen = [0.1 * (1 - s / steps) for s in range(steps)], []
    for rate in rates:
        seen.append(gradients(data, "client-00", y))
        y = tree.add(y, seen[-1], -rate)
    mean = {n: sum(r * g[n] for r, g in zip(rates, seen, strict=True)) / sum(rates) for n in y}
    task = Regression(linear_schedule=True, **DOUBLE)
    state, kept = last(fit(SCAFFOLD(), task, data, max_rounds=1, local_steps=steps))
    assert close({"params": y, "control": mean}, state)
    assert close(mean, kept["client-00"])


def test_scaffolds_control_moves_by_the_share_that_takes_part():
    # Two of four clients: w + mean(1, 3) / 2 and c + 2/4 * mean(10, 30).
    rule, one = SCAFFOLD(lr=0.5), torch.ones(1, dtype=torch.float64)
    updates = sampled(lambda v: {"params": {"w": v * one}, "control": {"w": 10 * v * one}})
    server = Server(0, torch.Generator(), num_clients=4)
    state = rule.aggregate(rule.init({"w": one}), updates, server)
    assert (state["params"]["w"].item(), state["control"]["w"].item()) == (2.0, 10.0)
    with pytest.raises(FedlitError, match="SCAFFOLD .*num_clients"):
        rule.aggregate(rule.init({"w": one}), updates, Server(0, torch.Generator()))


# Curvatures 1 and 4 with minima 0 and 10: the minimum of the sum is (1 * 0 + 4 * 10) / 5 = 8. With many local steps
# FedAvg's clients reach about their own minima, and it ends near the mean of these.
TWO = {"flat": quadratic([1.0], [0.0]), "steep": quadratic([4.0], [10.0])}


def fedavg_ends_at(steps, lr):
    """The fixed point by the formula: client k contracts to its minimum m_k by 1 - (1 - lr a_k)^steps."""
    flat, steep = (1 - (1 - lr * a) ** steps for a in (1.0, 4.0))
    return steep * 10 / (flat + steep)


@pytest.mark.parametrize(("rule", "rounds"), [(SCAFFOLD(), 60), (FedDyn(alpha=1.0), 150)], ids=["SCAFFOLD", "FedDyn"])
def test_the_exact_minimiser_of_two_quadratics_that_fedavg_misses(rule, rounds):
    rates = [0.1] * 10
    state, _ = play(FedAvg(), TWO, [1.0], 100, rates)
    assert state["params"]["w"].item() == pytest.approx(fedavg_ends_at(10, 0.1), abs=1e-9)
    assert abs(state["params"]["w"].item() - 8) > 1.5
    state, _ = play(rule, TWO, [1.0], rounds, rates)
    assert state["params"]["w"].item() == pytest.approx(8, abs=1e-9)


def test_feddyn_reaches_the_minimiser_when_one_of_three_is_absent_each_round():
    three = {**TWO, "third": quadratic([2.0], [-1.0])}  # (40 - 2) / 7
    state, memories = play(FedDyn(alpha=1.0), three, [1.0], 400, [0.1] * 20,
                           chosen=lambda i: sorted(three)[: i % 3] + sorted(three)[i % 3 + 1 :])  # fmt: skip
    assert state["params"]["w"].item() == pytest.approx(38 / 7, abs=1e-8)
    # What each keeps is its gradient at the minimiser.
    assert memories["steep"]["w"].item() == pytest.approx(4 * (38 / 7 - 10), abs=1e-7)


# -- FedDyn ------------------------------------------------------------------------------------------------------------


def test_feddyn_is_the_textbook_loop(fit):
    data, steps, lr, alpha = ToyData(batch_size=0, **DOUBLE), 3, 0.1, 0.3
    data.setup()
    x = {n: p.detach().clone() for n, p in Regression(**DOUBLE).named_parameters()}
    h, own = tree.zeros(x), {k: tree.zeros(x) for k in data.clients}
    for _ in range(3):
        models = []
        for k in data.clients:
            y = x
            for _ in range(steps):
                g = gradients(data, k, y)
                y = {n: y[n] - lr * (g[n] - own[k][n] + alpha * (y[n] - x[n])) for n in y}
            own[k] = {n: own[k][n] - alpha * (y[n] - x[n]) for n in x}
            models.append(y)
        h = {n: h[n] - alpha / 3 * sum(y[n] - x[n] for y in models) for n in x}
        x = {n: sum(y[n] for y in models) / 3 - h[n] / alpha for n in x}
    state, kept = last(fit(FedDyn(alpha=alpha), Regression(**DOUBLE), data, max_rounds=3, local_steps=steps))
    assert close({"params": x, "h": h}, state)
    assert close(own["client-02"], kept["client-02"])


def test_feddyns_h_moves_by_the_share_that_takes_part():
    # Two of four clients that moved by 1 and 3 from 1: h = -alpha / 4 * 4 = -0.5, w = 1 + 2 + 0.5 / 0.5.
    rule, one = FedDyn(alpha=0.5), torch.ones(1, dtype=torch.float64)
    server = Server(0, torch.Generator(), num_clients=4)
    state = rule.aggregate(rule.init({"w": one}), sampled(lambda v: {"w": v * one}), server)
    assert (state["params"]["w"].item(), state["h"]["w"].item()) == (4.0, -0.5)


# -- MOON --------------------------------------------------------------------------------------------------------------


def test_contrastive_loss_by_hand():
    """Cosines 1 and 0 at T = 0.5 give -log(e^2 / (e^2 + 1)); equal ones give log 2; 0 and 1 give log(1 + e^2)."""
    x, y = torch.tensor([[2.0, 0.0]]).double(), torch.tensor([[0.0, 5.0]]).double()
    assert contrastive(x, 3 * x, y, 0.5).item() == pytest.approx(math.log(1 + math.exp(-2)), rel=1e-12)
    assert contrastive(x, y, x, 0.5).item() == pytest.approx(math.log(1 + math.exp(2)), rel=1e-12)
    assert contrastive(x, y, y, 0.5).item() == pytest.approx(math.log(2), rel=1e-12)
    both = contrastive(torch.cat([x, x]), torch.cat([x, y]), torch.cat([y, x]), 1.0)
    assert both.item() == pytest.approx((math.log(1 + math.exp(-1)) + math.log(1 + math.exp(1))) / 2, rel=1e-12)


def test_moon_is_the_papers_loop(fit):
    """As the paper's Algorithm 1 writes it, with copies of modules and the cross-entropy of two cosines."""
    mu, temperature, lr = 2.0, 0.7, 0.3
    data = ToyData(batch_size=0, features=4, classes=3, **DOUBLE)
    data.setup()
    shared = Classifier(lr=lr, **DOUBLE)
    previous = {k: copy.deepcopy(shared) for k in data.clients}
    cosine = torch.nn.CosineSimilarity(dim=-1)
    for _ in range(3):
        trained = {}
        for k in data.clients:
            net, batch = copy.deepcopy(shared), data.dataset(k, "train").tensors
            optimizer = torch.optim.SGD(net.parameters(), lr=lr)
            for _ in range(3):
                optimizer.zero_grad()
                z, near, far = (
                    net.features(batch),
                    shared.features(batch).detach(),
                    previous[k].features(batch).detach(),
                )
                logits = torch.stack([cosine(z, near), cosine(z, far)], 1) / temperature
                con = torch.nn.functional.cross_entropy(logits, torch.zeros(len(z), dtype=torch.long))
                (net.training_step(batch, 0) + mu * con).backward()
                optimizer.step()
            trained[k] = net
        counts = {k: len(data.dataset(k, "train")) for k in data.clients}
        with torch.no_grad():
            for name, p in shared.named_parameters():
                p.copy_(sum(n * trained[k].get_parameter(name) for k, n in counts.items()) / sum(counts.values()))
        previous = trained
    rule = MOON(mu=mu, temperature=temperature)
    state, kept = last(fit(rule, Classifier(lr=lr, **DOUBLE), data, max_rounds=3, local_steps=3))
    assert close({n: p.detach() for n, p in shared.named_parameters()}, state["params"])
    assert close({n: p.detach() for n, p in previous["client-01"].named_parameters()}, kept["client-01"])
    plain, _ = last(fit(FedAvg(), Classifier(lr=lr, **DOUBLE), data, max_rounds=3, local_steps=3))
    moved = tree.sub(plain["params"], state["params"])
    assert max(float(leaf.abs().max()) for leaf in tree.leaves(moved)) > 1e-3


def test_moon_with_mu_zero_is_fedavg_byte_for_byte(fit):
    data = ToyData(features=4, classes=3)
    runs = [fit(rule, Classifier(rank=2), data, max_rounds=2) for rule in (FedAvg(), MOON(mu=0.0))]
    states = [(run.path / "checkpoints" / "last" / "state.safetensors").read_bytes() for run in runs]
    assert states[0] == states[1]


def test_moon_trains_forecasters_and_names_the_method_that_a_task_lacks(fit):
    state, kept = last(fit(MOON(), ForecastingTask(), SimulatedVitals(), fast_dev_run=2))
    assert all(torch.isfinite(leaf).all() for leaf in tree.leaves(state))
    assert kept
    with pytest.raises(FedlitError, match=r"needs features.*Regression\.features"):
        fit(MOON())


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: SCAFFOLD(lr=0.0), "SCAFFOLD.lr"),
        (lambda: FedDyn(alpha=0.0), "FedDyn.alpha"),
        (lambda: FedDyn(alpha=math.nan), "FedDyn.alpha"),
        (lambda: MOON(mu=-1.0), "MOON.mu"),
        (lambda: MOON(temperature=0.0), "MOON.temperature"),
        (lambda: MOON(lr=0.0), "MOON.lr"),
    ],
)
def test_refused_by_name(make, field):
    with pytest.raises(FedlitError, match=field.replace(".", r"\.")):
        make()
