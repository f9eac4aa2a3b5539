"""FedALA and APPLE, against their papers' loops written out."""

from __future__ import annotations

import math

import pytest
import torch
from toys import Regression, ToyData, close, last

from fedlit import tree
from fedlit.aggregators import FedAvg, LocalOnly, Sealed, Server, Update
from fedlit.aggregators.mixing import APPLE, FedALA
from fedlit.errors import FedlitError

DOUBLE = {"dtype": "float64"}
NAMES = ("net.0.weight", "net.0.bias")


class Plain:
    """Linear regressions in one vector (weights, then the bias), for loops that know nothing of fedlit."""

    def __init__(self, clients=3):
        self.data = ToyData(num_clients=clients, batch_size=0, **DOUBLE)
        self.data.setup()
        self.sets = {k: self.data.dataset(k, "train").tensors for k in self.data.clients}
        total = sum(len(y) for _, y in self.sets.values())
        self.shares = {k: len(y) / total for k, (_, y) in self.sets.items()}
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


# -- FedALA ------------------------------------------------------------------------------------------------------------
def fedala_loop(plain, rounds, mixed, mix_steps, model_steps, lr, scale, first_mix=1.0):
    """Algorithm 1 of arXiv:2212.01197 with the same number of steps in each round; ``W`` is cut after each step."""
    w, own, ends = plain.start, {}, 0
    mix = {k: torch.full((4,), first_mix).double() for k in plain.sets}
    for _ in range(rounds):
        for k in plain.sets:
            v, steps = w, mix_steps + model_steps
            if k in own:
                for _ in range(mix_steps):
                    v = torch.where(mixed, own[k] + (w - own[k]) * mix[k], w)
                    move = lr * scale**2 * plain.gradient(k, v) * (w - own[k])
                    ends += int((mixed & ((mix[k] - move < 0) | (mix[k] - move > 1))).sum())
                    mix[k] = torch.where(mixed, (mix[k] - move).clamp(0, 1), mix[k])
                v, steps = torch.where(mixed, own[k] + (w - own[k]) * mix[k], w), model_steps
            for _ in range(steps):
                v = v - lr * plain.gradient(k, v)
            own[k] = v
        w = sum(plain.shares[k] * v for k, v in own.items())
    return w, own, mix, ends


@pytest.mark.parametrize(
    ("pattern", "mixed"),
    [(".", [True] * 4), ("weight", [True, True, True, False]), ("bias", [False, False, False, True])],
)
def test_fedala_is_the_loop_of_its_paper(fit, pattern, mixed):
    plain, rule = Plain(), FedALA(mixed=pattern, mix_share=0.4, mix_scale=1.5)
    w, own, mix, ends = fedala_loop(plain, 4, torch.tensor(mixed), 2, 3, 0.1, 1.5)
    assert ends or pattern != "."  # some weights were cut to an end
    state, kept = last(fit(rule, Regression(**DOUBLE), plain.data, max_rounds=4, local_steps=5))
    assert close(state["params"], plain.params(w))
    for k in plain.sets:
        assert close(kept[k]["own"], plain.params(own[k]))
        assert close(kept[k]["mix"], {n: x for n, x in plain.params(mix[k]).items() if n in kept[k]["mix"]})
        v = torch.where(torch.tensor(mixed), own[k] + (w - own[k]) * mix[k], w)
        assert close(rule.personal(state["params"], kept[k]), plain.params(v))
    assert min(float(x.min()) for x in mix.values()) < 0.99


def test_fedala_with_one_mixing_step_is_the_loop_even_at_the_ends(fit):
    """One step in a round is cut at once, so nothing differs from the paper however large the steps are."""
    plain = Plain()
    w, own, mix, ends = fedala_loop(plain, 6, torch.ones(4).bool(), 1, 2, 0.1, 30.0)
    assert ends > 10
    rule = FedALA(mix_share=0.3, mix_scale=30.0)
    state, kept = last(fit(rule, Regression(**DOUBLE), plain.data, max_rounds=6, local_steps=3))
    assert close(state["params"], plain.params(w))
    assert close(kept, {k: {"own": plain.params(own[k]), "mix": plain.params(mix[k])} for k in own})


def falling(lr, step, steps):
    """The learning rate of `Regression(linear_schedule=True)`."""
    return lr * (1 - step / steps)


@pytest.mark.parametrize(("steps", "rate"), [(1, 1.0), (1, 8.0), (3, 0.05)])
def test_fedala_as_fhbench_has_it_is_the_loop(fit, steps, rate):
    """``W`` at a rate of its own, by a pass before the round's own steps, of the last tensors only, under a schedule.

    Cut to [0, 1] after each step, as in the paper; with one step in a pass that is so here at any rate.
    """
    plain, lr, mixed = Plain(), 0.2, torch.tensor([False] * 3 + [True])
    w, own, mix, ends = plain.start, {}, {k: torch.ones(4).double() for k in plain.sets}, 0
    for _ in range(5):
        for k in plain.sets:
            v, total = w, steps
            if k in own:
                total = 2 * steps
                for _ in range(steps):
                    v = torch.where(mixed, own[k] + (w - own[k]) * mix[k], w)
                    moved = mix[k] - rate * plain.gradient(k, v) * (w - own[k])
                    ends += int((mixed & ((moved < 0) | (moved > 1))).sum())
                    mix[k] = torch.where(mixed, moved.clamp(0, 1), mix[k])
                v = torch.where(mixed, own[k] + (w - own[k]) * mix[k], w)
            for step in range(total - steps, total):
                v = v - falling(lr, step, total) * plain.gradient(k, v)
            own[k] = v
        w = sum(own.values()) / len(own)
    rule = FedALA(mixed="bias", mix_share=1.0, mix_on_top=True, mix_rate=rate, weighting="uniform")
    task = Regression(lr=lr, linear_schedule=True, **DOUBLE)
    state, kept = last(fit(rule, task, plain.data, max_rounds=5, local_steps=steps))
    assert close(state["params"], plain.params(w))
    for k in plain.sets:
        assert close(kept[k]["own"], plain.params(own[k]))
        assert close(kept[k]["mix"], {NAMES[1]: mix[k][3:]})
    assert min(float(x.min()) for x in mix.values()) < 0.999
    assert (ends > 0) == (rate >= 1)


def test_fedala_trains_its_model_for_the_steps_that_are_asked_for_and_its_weights_on_top():
    """Of 7 steps, and of the first round, which has nothing to mix."""
    rule = FedALA(mix_share=0.4, mix_on_top=True)
    assert [rule.local_steps(7, r) for r in (0, 1, 2)] == [7, 10, 10]
    assert FedALA(mix_share=0.4).local_steps(7, 1) == 7
    down = {"w": torch.ones(2)}
    memory = {"own": {"w": torch.zeros(2)}, "mix": {"w": torch.full((2,), 0.5)}}
    for steps, share in ((1, 1.0), (7, 1.0), (7, 0.4), (9, 0.05), (30, 0.35)):
        rule, phases = FedALA(mix_share=share, mix_on_top=True), []
        loss = type("Loss", (), {"__call__": lambda self, p: (p["w"] ** 2).sum()})()
        loss.steps = rule.local_steps(steps, 1)
        for step in range(loss.steps):
            loss.step = step
            w = tree.map(lambda x: x.clone().requires_grad_(), rule.start(down, memory))
            rule.objective(loss, w, down, memory).backward()
            phases.append(w["model"]["w"].grad is not None)
        assert phases == [False] * (loss.steps - steps) + [True] * steps


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_fedala_that_never_mixes_is_fedavg(fit, optimizer):
    task = {"hidden": 4, "optimizer": optimizer, "weight_decay": 0.1}
    state, kept = last(fit(FedALA(mix_share=0.0), Regression(**task), max_rounds=3))
    assert tree.equal(state, last(fit(FedAvg(), Regression(**task), max_rounds=3))[0])
    assert all((x == 1).all() for memory in kept.values() for x in tree.leaves(memory["mix"]))


def test_the_first_phase_moves_the_weights_only_and_the_second_the_model_only():
    rule, down = FedALA(mix_share=0.5), {"w": torch.ones(2)}
    memory = {"own": {"w": torch.zeros(2)}, "mix": {"w": torch.full((2,), 0.5)}}

    class Loss:
        steps = 4

        def __call__(self, params):
            return (params["w"] ** 2).sum()

    for step, moved in enumerate(["shift", "shift", "model", "model"]):
        w = tree.map(lambda x: x.clone().requires_grad_(), rule.start(down, memory))
        loss = Loss()
        loss.step = step
        rule.objective(loss, w, down, memory).backward()
        assert {name for name in w if w[name]["w"].grad is not None} == {moved}
        assert w[moved]["w"].grad.any()


@pytest.mark.parametrize(("optimizer", "expected"), [("sgd", 0.01 * 4 * 4), ("adamw", 0.01 * 4)])
def test_the_speed_of_the_weights_is_as_documented(optimizer, expected):
    """``W`` starts at 0.5 with the gradient 1: SGD moves it by ``lr * scale^2``, Adam by ``lr * scale``."""
    rule, down = FedALA(mix_scale=4.0), {"w": torch.ones(1).double()}
    memory = {"own": {"w": torch.zeros(1).double()}, "mix": {"w": torch.full((1,), 0.5).double()}}
    w = tree.map(lambda x: x.clone().requires_grad_(), rule.start(down, memory))
    kind = torch.optim.SGD if optimizer == "sgd" else torch.optim.AdamW
    stepper = kind(tree.leaves(w), lr=0.01, weight_decay=0.1)
    loss = type("Loss", (), {"step": 0, "steps": 2, "__call__": lambda self, p: p["w"].sum()})()
    rule.objective(loss, w, down, memory).backward()
    stepper.step()
    _, kept = rule.finish(tree.detach(w), down, memory, None)
    assert kept["mix"]["w"].item() == pytest.approx(0.5 - expected, rel=1e-6)


def test_fedala_whose_pattern_matches_nothing_refuses(fit):
    with pytest.raises(FedlitError, match=r"FedALA\.mixed 'lora_' matches none of .*net\.0\.weight"):
        fit(FedALA(mixed="lora_"))


def test_a_client_that_never_trained_serves_the_global_model():
    down = {"w": torch.full((2,), 3.0)}
    rule = FedALA()
    assert torch.equal(rule.personal(down, rule.init_memory({"w": torch.ones(2)}))["w"], down["w"])


# -- APPLE -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("mu", "pull_rounds", "weighting"), [(0.0, 1, "examples"), (2.0, 3, "examples"), (2.0, 9, "uniform")]
)
def test_apple_is_the_loop_of_its_paper(fit, mu, pull_rounds, weighting):
    """Algorithm 1 of arXiv:2110.08394 from the second round on; in the first each client trains its core alone."""
    plain, lr, scale = Plain(), 0.1, 0.4
    clients = list(plain.sets)
    shares = [plain.shares[k] if weighting == "examples" else 1 / 3 for k in clients]
    p0 = torch.tensor(shares, dtype=torch.float64)
    p = {k: p0.clone() for k in clients}
    cores = {}
    for i, k in enumerate(clients):
        core, share = plain.start, torch.ones(()).double()
        for _ in range(3):
            g = plain.gradient(k, share * core)
            move = torch.dot(g, core) + mu * (share - 1)
            core, share = core - lr * share * g, share - lr * scale**2 * move
        cores[k] = core
        p[k][i] += share - 1
    for r in range(1, 4):
        pull = (math.cos(math.pi * r / pull_rounds) + 1) / 2 if r < pull_rounds else 0.0
        sent = {}
        for i, k in enumerate(clients):
            core = cores[k]
            for _ in range(3):
                every = torch.stack([core if c == k else cores[c] for c in clients])
                g = plain.gradient(k, p[k] @ every)
                move = every @ g + pull * mu * (p[k] - p0)
                core, p[k] = core - lr * p[k][i] * g, p[k] - lr * scale**2 * move
            sent[k] = core
        cores = sent
    rule = APPLE(mu=mu, pull_rounds=pull_rounds, mix_scale=scale, weighting=weighting)
    state, kept = last(fit(rule, Regression(**DOUBLE), plain.data, max_rounds=4, local_steps=3))
    assert close(state["cores"], {k: plain.params(core) for k, core in cores.items()})
    for k in clients:
        far = dict(zip(clients, p[k] - p0, strict=True))
        assert close(kept[k], {"own": far.pop(k), "others": far})
        served = p[k] @ torch.stack([cores[c] for c in clients])
        assert close(rule.personal(rule.down(state, k), kept[k]), plain.params(served))
    assert max(float((p[k] - p0).abs().max()) for k in clients) > 1e-2


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_apple_as_fhbench_has_it_is_the_loop(fit, decay):
    """``p`` at a rate of its own, which neither the schedule of the model's nor its weight decay touches."""
    plain, lr, rate, mu, pulled = Plain(), 0.1, 0.02, 0.5, 4
    clients = list(plain.sets)
    even, unit = torch.full((3,), 1 / 3, dtype=torch.float64), torch.eye(3, dtype=torch.float64)
    p, zero = dict.fromkeys(clients, even), torch.zeros(4).double()
    cores = {}
    for r in range(4):
        pull, sent = (math.cos(math.pi * r / pulled) + 1) / 2, {}
        for i, k in enumerate(clients):
            core, q = cores.get(k, plain.start), p[k]
            p0, there = (even, torch.ones(3).double()) if r else (unit[i], unit[i])
            q = q - even + p0  # in the first round a core is alone, and its share is 1
            for step in range(3):
                every = torch.stack([core if c == k else cores.get(c, zero) for c in clients])
                g = plain.gradient(k, (q * there) @ every)
                core, q = (
                    core - falling(lr, step, 3) * (q[i] * g + decay * core),
                    q - rate * there * (every @ g + pull * mu * (q - p0)),
                )
            sent[k], p[k] = core, q - p0 + even
        cores = sent
    rule = APPLE(mu=mu, pull_rounds=pulled, mix_rate=rate, weighting="uniform")
    task = Regression(lr=lr, linear_schedule=True, weight_decay=decay, **DOUBLE)
    state, kept = last(fit(rule, task, plain.data, max_rounds=4, local_steps=3))
    assert close(state["cores"], {k: plain.params(core) for k, core in cores.items()})
    for k in clients:
        far = dict(zip(clients, p[k] - even, strict=True))
        assert close(kept[k], {"own": far.pop(k), "others": far})
    assert max(float((p[k] - even).abs().max()) for k in clients) > 1e-3


def test_apple_of_one_client_whose_share_is_held_is_local_training(fit):
    data, task = ToyData(num_clients=1, **DOUBLE), {"hidden": 4, "optimizer": "adamw", **DOUBLE}
    state, _ = last(fit(APPLE(mix_scale=1e-200), Regression(**task), data, max_rounds=3))
    _, alone = last(fit(LocalOnly(), Regression(**task), data, max_rounds=3))
    assert close(state["cores"], alone)


def test_apple_pulls_its_shares(fit):
    far = []
    for mu in (0.0, 20.0):
        _, kept = last(fit(APPLE(mu=mu, pull_rounds=100), max_rounds=5, local_steps=5))
        far.append(float(sum(tree.sq(memory) for memory in kept.values())))
    assert far[1] < far[0] / 4


def test_apple_serves_a_client_that_never_trained_the_mean_of_the_cores(fit):
    rule = APPLE(weighting="examples")
    state, kept = last(fit(rule, max_rounds=2))
    memory = rule.init_memory(state["params"])
    sizes = {k: 10 + i for i, k in enumerate(kept)}  # of ToyData
    mean = tree.combine([state["cores"][k] for k in sizes], [n / sum(sizes.values()) for n in sizes.values()])
    served = rule.personal(rule.down(state, "new"), memory)
    for name in NAMES:
        torch.testing.assert_close(served[name], mean[name])
    before = rule.personal(rule.down(rule.init(mean), "new"), memory)
    assert tree.equal(before, mean)


def test_apple_cores_of_absent_clients_stay(fit):
    state, kept = last(fit(APPLE(), data=ToyData(num_clients=4), clients_per_round=1, max_rounds=2))
    assert state["cores"].keys() == kept.keys()
    assert len(kept) in (1, 2)
    again, _ = last(fit(APPLE(), data=ToyData(num_clients=4), clients_per_round=1, max_rounds=5))
    assert again["cores"].keys() >= kept.keys()


def test_apple_refuses_sealed_updates():
    params = {"w": torch.zeros(1)}
    sealed = [Update("a", 1.0, lambda: params, sealed=True)]
    with pytest.raises(Sealed, match="sealed"):
        APPLE().aggregate(APPLE().init(params), sealed, Server(0, torch.Generator()))


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: FedALA(mixed="("), "FedALA.mixed"),
        (lambda: FedALA(mix_share=1.0), "FedALA.mix_share"),
        (lambda: FedALA(mix_scale=0.0), "FedALA.mix_scale"),
        (lambda: FedALA(lr=0), "FedALA.lr"),
        (lambda: FedALA(mix_share=0.0, mix_on_top=True), "FedALA.mix_share"),
        (lambda: FedALA(mix_rate=0.0), "FedALA.mix_rate"),
        (lambda: APPLE(mix_rate=float("inf")), "APPLE.mix_rate"),
        (lambda: APPLE(mu=-1), "APPLE.mu"),
        (lambda: APPLE(pull_rounds=0), "APPLE.pull_rounds"),
        (lambda: APPLE(mix_scale=float("inf")), "APPLE.mix_scale"),
        (lambda: APPLE(weighting="size"), "APPLE.weighting"),
    ],
)
def test_refused_by_name(make, field):
    with pytest.raises(FedlitError, match=field.replace(".", r"\.")):
        make()
