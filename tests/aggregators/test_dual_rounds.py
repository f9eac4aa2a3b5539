"""Whole rounds of the rules with two adapters, against plain loops in float64 that know nothing of PEFT."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn import functional as F  # noqa: N812
from toys import Classifier, ToyData, memories

from fedlit import codec
from fedlit.aggregators.orthogonal import FedDAT, FedDPA, OrthogonalDualLoRA
from fedlit.runs.checkpoint import read

DOUBLE = {"dtype": "float64"}
PENALTIES = ["rows", "inner_products", "columns", "updates", "representations"]
STEPS, LR, SCALING, EPS = 3, 0.1, 2.0, 1e-4
LAYERS = ("first", "second")


class Plain:
    """The classifier with any number of adapters a layer, written out; what trains is a flat dict of tensors."""

    def __init__(self, shared_rank: int, local_head: bool) -> None:
        named = {n: p.detach().clone() for n, p in Classifier(rank=4, alpha=8.0, **DOUBLE).named_parameters()}
        self.frozen = {n: p for n, p in named.items() if "lora" not in n and "head" not in n}
        self.shared, self.personal = {}, {}
        for layer in LAYERS:
            a, b = (named[f"network.{layer}.lora_{kind}.default.weight"] for kind in "AB")
            self.shared |= {f"{layer}.A": a[:shared_rank], f"{layer}.B": b[:, :shared_rank]}
            self.personal |= {f"{layer}.A": a[shared_rank:], f"{layer}.B": b[:, shared_rank:]}
        head = {f"head.{end}": named[f"network.head.{end}"] for end in ("weight", "bias")}
        (self.personal if local_head else self.shared).update(head)

    def __call__(self, x, adapters, head):
        """Logits; ``adapters`` is ``[(weight, parameters)]``. Also each layer's input."""
        h, inputs = x, {}
        for layer in LAYERS:
            inputs[layer] = h
            frozen = f"network.{layer}.base_layer."
            z = h @ self.frozen[frozen + "weight"].T + self.frozen[frozen + "bias"]
            for weight, p in adapters:
                z = z + SCALING * weight * (h @ p[f"{layer}.A"].T @ p[f"{layer}.B"].T)
            h = torch.tanh(z)
        h = F.layer_norm(h, h.shape[-1:], self.frozen["network.norm.weight"], self.frozen["network.norm.bias"])
        return h @ head["head.weight"].T + head["head.bias"], inputs


def descend(loss, trees):
    """One step of gradient descent on every tensor of the dicts; those that the loss does not touch stay."""
    flat = [(t, n) for t in trees for n in sorted(t)]
    for t, n in flat:
        t[n] = t[n].detach().requires_grad_()
    grads = torch.autograd.grad(loss(), [t[n] for t, n in flat], allow_unused=True)
    for (t, n), grad in zip(flat, grads, strict=True):
        t[n] = (t[n] - LR * (0 if grad is None else grad)).detach()


def federate(plain: Plain, data: ToyData, step, rounds: int = 2):
    """``step(shared, personal, received, x, y, index)`` moves both; the server takes the weighted mean of shared."""
    data.setup()
    shared, personal = plain.shared, {c: dict(plain.personal) for c in data.clients}
    for _ in range(rounds):
        trained, sizes = [], []
        for client in data.clients:
            x, y = data.dataset(client, "train").tensors
            own = dict(shared)
            for index in range(STEPS):
                step(own, personal[client], shared, x, y, index)
            trained.append(own)
            sizes.append(len(x))
        shared = {n: sum(k * t[n] for k, t in zip(sizes, trained, strict=True)) / sum(sizes) for n in shared}
    return shared, personal


def assert_same(folder, shared, personal):
    def renamed(params):
        out = {}
        for name, x in params.items():
            layer, kind = name.split(".")
            out[f"network.{name}" if layer == "head" else f"network.{layer}.lora_{kind}.default.weight"] = x
        return out

    memory = memories(folder)
    kept = {name.removesuffix(".safetensors"): codec.decode(blob)[0] for name, blob in memory.items()}
    state = read(folder.path / "checkpoints" / "last").state["params"]
    torch.testing.assert_close(state, renamed(shared), rtol=1e-12, atol=1e-12)
    assert kept.keys() == personal.keys()
    for client, params in personal.items():
        torch.testing.assert_close(kept[client], renamed(params), rtol=1e-12, atol=1e-12)


def toys(**arguments):
    data = ToyData(classes=3, features=4, batch_size=0, **DOUBLE)
    return Classifier(rank=4, alpha=8.0, **DOUBLE, **arguments), data


def dense_penalty(name, g, p, inputs):
    """Written with dense matrices and loops over pairs."""
    terms = []
    for layer in LAYERS:
        a, b, c, d = g[f"{layer}.A"], g[f"{layer}.B"], p[f"{layer}.A"], p[f"{layer}.B"]

        def cos2(u, v):
            return (u @ v) ** 2 / ((u @ u + EPS) * (v @ v + EPS))

        if name == "rows":
            pairs = [cos2(u, v) for u, v in itertools.product(a, c)]
        elif name == "columns":
            pairs = [cos2(u, v) for u, v in itertools.product(b.T, d.T)]
        elif name == "updates":
            pairs = [cos2((b @ a).flatten(), (d @ c).flatten())]
        elif name == "inner_products":
            pairs = [abs(u @ v) * a.shape[0] * c.shape[0] * len(LAYERS) for u, v in itertools.product(a, c)]
        else:
            pairs = [cos2(b @ a @ x, d @ c @ x) for x in inputs[layer]]
        terms.append(sum(pairs) / len(pairs))
    return sum(terms) / len(terms)


@pytest.mark.parametrize("gradient", ["both", "personal"])
@pytest.mark.parametrize("name", PENALTIES)
def test_orthogonal_dual_lora_is_the_plain_loop(fit, name, gradient):
    local_head = gradient == "both"
    plain, (task, data) = Plain(1, local_head), toys()

    def step(shared, personal, received, x, y, index):
        def loss():
            adapters, head = [(1.0, shared), (1.0, personal)], personal if local_head else shared
            logits, inputs = plain(x, adapters, head)
            felt = shared if gradient == "both" else {n: t.detach() for n, t in shared.items()}
            if gradient == "personal":
                _, inputs = plain(x, [(1.0, felt), (1.0, personal)], {n: t.detach() for n, t in head.items()})
            return F.cross_entropy(logits, y) + 0.3 * dense_penalty(name, felt, personal, inputs)

        descend(loss, [shared, personal])

    rule = OrthogonalDualLoRA(lam=0.3, penalty=name, gradient=gradient, shared_rank=1,
                              local="head" if local_head else None)  # fmt: skip
    folder = fit(rule, task, data, max_rounds=2, local_steps=STEPS)
    assert_same(folder, *federate(plain, data, step))


@pytest.mark.parametrize("local_head", [False, True])
def test_feddpa_is_the_plain_loop(fit, local_head):
    """alpha 0.3; 0.5 of three steps, rounded, is two for the personal adapter, and one for the shared one alone."""
    plain, (task, data) = Plain(2, local_head), toys()

    def step(shared, personal, received, x, y, index):
        head = personal if local_head else shared
        if index < 2:
            mixed = [(0.3, personal), (0.7, {n: t.detach() for n, t in shared.items()})]
            fixed = head if local_head else {n: t.detach() for n, t in shared.items()}
            descend(lambda: F.cross_entropy(plain(x, mixed, fixed)[0], y), [personal])
        else:
            descend(lambda: F.cross_entropy(plain(x, [(1.0, shared)], head)[0], y), [shared])

    rule = FedDPA(alpha=0.3, local="head" if local_head else None)
    folder = fit(rule, task, data, max_rounds=2, local_steps=STEPS)
    assert_same(folder, *federate(plain, data, step))


def divergence(p, q):
    """Kullback and Leibler's, mean over examples, from its definition; p is the constant one."""
    return (p * (p / q).log()).sum(-1).mean()


@pytest.mark.parametrize("local_head", [False, True])
def test_feddat_is_the_plain_loop(fit, local_head):
    plain, (task, data) = Plain(2, local_head), toys()

    def step(shared, personal, received, x, y, index):
        head = personal if local_head else shared

        def loss():
            teacher = plain(x, [(0.5, personal), (0.5, received)], head)[0]
            student = plain(x, [(1.0, shared)], head)[0]
            t, s = (logits / 3 for logits in (teacher, student))
            first = F.cross_entropy(student, y) + 9 * divergence(t.detach().softmax(-1), s.softmax(-1))
            second = F.cross_entropy(teacher, y) + 9 * divergence(s.detach().softmax(-1), t.softmax(-1))
            return first / 2 + second / 2

        descend(loss, [shared, personal])

    folder = fit(FedDAT(local="head" if local_head else None), task, data, max_rounds=2, local_steps=STEPS)
    assert_same(folder, *federate(plain, data, step))
