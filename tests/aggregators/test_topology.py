"""MetaFed against a plain sequential loop over the ring, written with nothing of the library."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F  # noqa: N812
from toys import Classifier, GivenData, Regression, ToyData, memories

from fedlit import codec, seeds, tree
from fedlit.aggregators import Server, Update
from fedlit.aggregators.topology import MetaFed, trust
from fedlit.errors import FedlitError
from fedlit.runs.checkpoint import read

CLIENTS = ["a", "b", "c"]
LR, STEPS = 0.1, 4


def examples(count=12):
    """Three clients, the last with labels that cannot be learned: the model that it hands on fits only it."""
    generator = torch.Generator().manual_seed(2)
    truth = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    out = {}
    for i, client in enumerate(CLIENTS):
        x = torch.randn(count + i, 4, generator=generator, dtype=torch.float64)
        y = (3 * x @ truth).argmax(1) if i < 2 else torch.randint(3, (len(x),), generator=generator)
        out[client] = (x, y)
    return out


def task():
    return Classifier(dtype="float64", lr=LR)


def features(w, x):
    hidden = torch.tanh(F.linear(x, w["network.first.weight"], w["network.first.bias"]))
    hidden = torch.tanh(F.linear(hidden, w["network.second.weight"], w["network.second.bias"]))
    return F.layer_norm(hidden, (6,), w["network.norm.weight"], w["network.norm.bias"])


def loss(w, x, y):
    return F.cross_entropy(F.linear(features(w, x), w["network.head.weight"], w["network.head.bias"]), y)


def textbook(data, cycles, personal_cycles, lam, threshold, teacher_threshold):
    """The relayed model, and each client's own, flag, and what lam was multiplied by on the way."""
    previous = {n: p.detach().clone() for n, p in task().named_parameters()}
    own, good, seen = {}, dict.fromkeys(CLIENTS, False), []
    for cycle in range(cycles + personal_cycles):
        for client in CLIENTS:
            x, y = data[client]
            w = {n: v.clone().requires_grad_() for n, v in (own[client] if good[client] else previous).items()}
            for _ in range(STEPS):
                value = loss(w, x, y)
                factor = 1.0
                if cycle >= cycles:
                    s, s_teacher = math.exp(-float(value.detach())), math.exp(-float(loss(previous, x, y)))
                    factor = 0.0
                    if s_teacher > s or s_teacher >= teacher_threshold:
                        factor = 10 ** min(1, 5 * (s_teacher - s)) / 10
                    seen.append(factor if good[client] else None)
                if good[client]:
                    value = value + lam * factor * F.mse_loss(features(w, x), features(previous, x).detach())
                grads = torch.autograd.grad(value, list(w.values()))
                w = {n: (v - LR * g).detach().requires_grad_() for (n, v), g in zip(w.items(), grads, strict=True)}
            own[client] = tree.detach(w)
            good[client] = good[client] or math.exp(-float(loss(own[client], x, y))) > threshold
            if cycle < cycles:
                previous = own[client]
    return previous, own, good, seen


def run(fit, rule, data, rounds):
    folder = fit(rule, task(), GivenData(data), max_rounds=rounds, local_steps=STEPS)
    memory = memories(folder)
    kept = {name.removesuffix(".safetensors"): codec.decode(blob)[0] for name, blob in memory.items()}
    return read(folder.path / "checkpoints" / "last").state, kept, folder


def close(a, b):
    torch.testing.assert_close(tree.ordered(a), tree.ordered(b), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(
    ("threshold", "teacher_threshold", "expected", "trusted"),
    [(0.0, 0.4, [1, 1, 1], [4, 4, 4]), (0.5, 0.4, [1, 1, 0], [4, 0, 0]), (0.65, 0.3, [1, 1, 0], [0, 4, 0]),
     (1.0, 0.5, [0, 0, 0], [0, 0, 0])],
)  # fmt: skip
def test_it_is_the_plain_loop_over_the_ring(fit, threshold, teacher_threshold, expected, trusted):
    """Two cycles of common knowledge and one of personalisation, in float64.

    ``trusted`` counts each client's steps in personalisation that followed the teacher: in the third case the first
    client becomes good enough in its very last turn.
    """
    data = examples()
    common, own, good, seen = textbook(data, 2, 1, 2.0, threshold, teacher_threshold)
    rule = MetaFed(cycles=2, lam=2.0, threshold=threshold, teacher_threshold=teacher_threshold)
    state, kept, _ = run(fit, rule, data, rounds=9)
    assert [float(kept[c]["good"]) for c in CLIENTS] == [float(good[c]) for c in CLIENTS] == expected
    assert [sum(bool(x) for x in seen[i : i + STEPS]) for i in (0, STEPS, 2 * STEPS)] == trusted
    assert list(state) == ["common"]
    close(state["common"], common)
    for client in CLIENTS:
        close(kept[client]["own"], own[client])


def test_in_the_first_two_cycles_it_is_the_plain_loop_too(fit):
    data = examples()
    relayed, own, _, _ = textbook(data, 2, 0, 1.0, 0.42, 0.5)
    state, kept, _ = run(fit, MetaFed(cycles=3, threshold=0.42), data, rounds=6)
    assert list(state) == ["relayed"]
    close(state["relayed"], relayed)
    for client in CLIENTS:
        close(kept[client]["own"], own[client])


@pytest.mark.parametrize(
    ("teacher", "own", "expected"),
    [(0.3, 0.4, 0.0), (0.5, 0.5, 0.1), (0.9, 0.9, 0.1), (0.6, 0.4, 1.0), (0.3, 0.2, 10**0.5 / 10), (0.9, 0.1, 1.0),
     (0.6, 0.8, 0.01)],
)  # fmt: skip
def test_how_far_the_common_model_is_trusted_by_hand(teacher, own, expected):
    """``10^min(1, 5 (s_T - s)) / 10``, and 0 for a teacher that is no better and below one half."""
    found = trust(torch.tensor(teacher).double(), torch.tensor(own).double(), 0.5)
    assert float(found) == pytest.approx(expected)


def test_without_the_features_term_the_ring_is_one_client_after_the_other(fit):
    """lam 0 and no model kept: one model trained through the clients' data in turn."""
    data = examples()
    w = {n: p.detach().clone() for n, p in task().named_parameters()}
    for client in [*CLIENTS, *CLIENTS]:
        for _ in range(STEPS):
            w = {n: v.requires_grad_() for n, v in w.items()}
            grads = torch.autograd.grad(loss(w, *data[client]), list(w.values()))
            w = {n: (v - LR * g).detach() for (n, v), g in zip(w.items(), grads, strict=True)}
    state, _, _ = run(fit, MetaFed(cycles=2, lam=0.0, threshold=1.0), data, rounds=6)
    close(state["common"], w)


def test_each_round_is_one_clients_turn_and_only_models_pass(fit):
    _, _, folder = run(fit, MetaFed(cycles=1), examples(), rounds=6)
    rows = [(int(r["round"]), r["client"], r["direction"], int(r["parameters"])) for r in folder.ledger.read()]
    size = sum(p.numel() for p in task().parameters())
    turns = [(1, "a"), (2, "b"), (3, "c"), (4, "a"), (5, "b"), (6, "c")]
    assert sorted({(r, c) for r, c, *_ in rows}) == turns
    assert [n for *_, direction, n in rows if direction == "down"] == [size] * 6
    assert [n for r, _, direction, n in rows if direction == "up"] == [size] * 3 + [0] * 3  # own models stay


def test_a_client_serves_its_own_model_and_before_its_turn_the_relayed_one():
    rule, model = MetaFed(), {"w": torch.ones(2)}
    down = rule.down(rule.init(model), "a")
    assert rule.personal(down, rule.init_memory(model)) is model
    own = {"w": torch.full((2,), 5.0)}
    for good in (0.0, 1.0):
        memory = {"own": own, "good": torch.tensor(good)}
        assert tree.equal(rule.personal(down, memory), own)
        assert tree.equal(rule.start(down, memory), own if good else model)


def test_a_model_once_good_enough_stays_so():
    rule, w = MetaFed(threshold=0.6), {"w": torch.ones(1, dtype=torch.bfloat16)}
    memory = {}
    for end_loss, expected in ((0.7, 0.0), (0.3, 1.0), (5.0, 1.0)):
        work = type("Work", (), {"end_loss": torch.tensor(end_loss, dtype=torch.float64)})
        _, memory = rule.finish(w, {"relayed": w}, memory, work)
        assert float(memory["good"]) == expected
        assert memory["good"].dtype == torch.bfloat16


def test_a_ring_of_one(fit):
    data = {"a": examples()["a"]}
    state, kept, _ = run(fit, MetaFed(cycles=2, threshold=0.0), data, rounds=4)
    assert list(state) == ["common"]
    assert list(kept) == ["a"]


def test_it_works_on_sealed_updates():
    rule, model = MetaFed(cycles=1), {"w": torch.zeros(2)}
    sent = [Update("a", 7.0, lambda: {"w": torch.tensor([0.1, 0.3])}, sealed=True)]
    server = Server(0, seeds.generator(0, "test"), num_clients=2)
    state = rule.aggregate(rule.init(model), sent, server)
    assert tree.equal(state, {"relayed": {"w": torch.tensor([0.1, 0.3])}})  # as it was sent, to the bit
    state = rule.aggregate(state, sent, Server(1, seeds.generator(0, "test"), num_clients=2))
    assert list(state) == ["common"]


def test_it_must_know_how_long_the_ring_is():
    rule, model = MetaFed(), {"w": torch.zeros(2)}
    with pytest.raises(FedlitError, match="how long its ring is"):
        rule.aggregate(rule.init(model), [Update("a", 1.0, lambda: model)], Server(0, seeds.generator(0, "test")))


def test_a_task_without_features_is_told_so(fit):
    with pytest.raises(FedlitError, match="needs features, and Regression gives none"):
        fit(MetaFed(cycles=2), Regression(), ToyData(num_clients=1), max_rounds=3)
    fit(MetaFed(cycles=2, lam=0.0), Regression(), ToyData(num_clients=1), max_rounds=3)


def test_a_run_too_short_is_warned_of(fit):
    with pytest.warns(UserWarning, match="MetaFed needs 3 rounds"):
        fit(MetaFed(cycles=2), Classifier(), ToyData(classes=3, features=4), max_rounds=2)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [({"cycles": 0}, "cycles"), ({"lam": -1}, "lam"), ({"threshold": 1.5}, "threshold"),
     ({"teacher_threshold": -0.1}, "teacher_threshold")],
)  # fmt: skip
def test_refused_by_name(wrong, field):
    with pytest.raises(FedlitError, match=rf"MetaFed\.{field}"):
        MetaFed(**wrong)
