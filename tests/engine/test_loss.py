"""The loss that rules see: against direct calls of the task, through the live and the functional path alike."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import lightning as L  # noqa: N812
import pytest
import torch
from toys import Classifier, Regression, ToyData
from transformers import BatchEncoding

from fedlit import tree
from fedlit.aggregators import FedAvg
from fedlit.engine.batches import batch_length, split_batch
from fedlit.engine.loss import BatchLoss
from fedlit.engine.serial import SerialEngine
from fedlit.errors import FedlitError
from fedlit.runs.checkpoint import read


def batch(size: int = 5) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(size)
    x = torch.randn(size, 4, generator=generator, dtype=torch.float64)
    return [x, torch.arange(size) % 3]


def engine(task: Any) -> SerialEngine:
    return SerialEngine(task, L.Fabric(accelerator="cpu", devices=1))


@pytest.fixture
def task() -> Classifier:
    return Classifier(rank=2, dtype="float64")


@pytest.fixture(params=["live", "functional"])
def at(request, task):
    """The loss at a model other than the initial one, that model, and a copy of the task with it inside."""
    on = engine(task)
    moved = tree.map(lambda p: p + 0.1, on.initial())
    twin = Classifier(rank=2, dtype="float64")
    twin.load_state_dict({**twin.state_dict(), **moved})
    with torch.no_grad():
        w, live = on.network.bind(moved)
    if request.param == "functional":  # the network itself holds other values all the while
        on.load({})
        w, live = {name: p.clone().requires_grad_() for name, p in moved.items()}, {}
    return BatchLoss(on.network, live, 3, 1, batch()), w, twin


def test_the_loss_is_the_training_step(at):
    loss, w, twin = at
    assert torch.equal(loss(w), twin.training_step(loss.batch, 1))


@pytest.mark.parametrize("method", ["features", "logits"])
def test_features_and_logits_are_the_task_s(at, method):
    loss, w, twin = at
    assert torch.equal(getattr(loss, method)(w), getattr(twin, method)(loss.batch))


@pytest.mark.parametrize("method", ["features", "logits"])
def test_a_task_without_them_is_named(method):
    on = engine(Regression())
    with pytest.raises(FedlitError, match=rf"needs {method}, and Regression gives none"):
        getattr(BatchLoss(on.network, {}, 1, 0, batch()), method)(on.initial())


def test_outputs_are_what_the_modules_give(at):
    loss, w, twin = at
    value, outputs = loss.outputs(w, r"lora_A\.default$")
    x = loss.batch[0]
    first = twin.network["first"]
    inner = torch.tanh(first(x))
    assert torch.equal(value, twin.training_step(loss.batch, 1))
    assert sorted(outputs) == ["network.first.lora_A.default", "network.second.lora_A.default"]
    assert torch.equal(outputs["network.first.lora_A.default"], x @ first.lora_A["default"].weight.T)
    second = inner @ twin.network["second"].lora_A["default"].weight.T
    torch.testing.assert_close(outputs["network.second.lora_A.default"], second, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("of", ["loss", "features", "logits", "outputs"])
def test_gradients_flow_and_are_the_task_s(at, of):
    loss, w, twin = at
    pattern = r"first\.lora_A\.default$"

    def scalar(form: Any, whole: Any) -> Any:
        if of == "outputs":
            return form["network.first.lora_A.default"].square().sum()
        return whole if of == "loss" else whole.square().sum()

    if of == "outputs":
        mine = scalar(loss.outputs(w, pattern)[1], None)
        a = twin.network["first"].lora_A["default"].weight
        theirs = (loss.batch[0] @ a.T).square().sum()
    else:
        mine = scalar(None, loss(w) if of == "loss" else getattr(loss, of)(w))
        theirs = scalar(None, twin.training_step(loss.batch, 1) if of == "loss" else getattr(twin, of)(loss.batch))
    names = sorted(w)
    wanted = torch.autograd.grad(theirs, [dict(twin.named_parameters())[n] for n in names], allow_unused=True)
    for name, got, want in zip(
        names, torch.autograd.grad(mine, [w[n] for n in names], allow_unused=True), wanted, strict=True
    ):
        assert (got is None) == (want is None), name
        if got is not None:
            torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    assert any(g is not None and g.abs().sum() > 0 for g in wanted)


def hooks(task: Any) -> int:
    return sum(len(module._forward_hooks) for module in task.modules())


def test_hooks_are_gone_afterwards_and_after_an_error(task):
    on = engine(task)
    before = hooks(task)
    loss = BatchLoss(on.network, {}, 1, 0, batch())
    loss.outputs(on.initial(), "lora_A")
    assert hooks(task) == before
    loss.batch = [torch.zeros(5, 7, dtype=torch.float64), torch.zeros(5, dtype=torch.int64)]
    with pytest.raises(RuntimeError, match="shape"):
        loss.outputs(on.initial(), "lora_A")
    assert hooks(task) == before


def test_outputs_of_nothing_are_refused(task):
    on = engine(task)
    with pytest.raises(FedlitError, match=r"modules that match 'lora_C', and there are none"):
        BatchLoss(on.network, {}, 1, 0, batch()).outputs(on.initial(), "lora_C")


@pytest.mark.parametrize(("size", "parts"), [(6, 2), (5, 2), (7, 3), (3, 3)])
def test_losses_on_the_parts_make_up_the_whole(at, size, parts):
    loss, w, _ = at
    loss.batch = batch(size)
    pieces = loss.split(parts)
    lengths = [len(piece.batch[0]) for piece in pieces]
    assert sum(lengths) == size
    assert lengths == sorted(lengths, reverse=True)
    assert max(lengths) - min(lengths) <= 1
    assert [(piece.step, piece.steps) for piece in pieces] == [(loss.step, loss.steps)] * parts
    mean = sum(piece(w) * n for piece, n in zip(pieces, lengths, strict=True)) / size
    torch.testing.assert_close(mean, loss(w), rtol=1e-12, atol=1e-12)


def test_a_batch_that_is_too_short_is_repeated(at):
    loss, w, _ = at
    loss.batch = batch(2)
    assert [torch.equal(piece(w), loss(w)) for piece in loss.split(3)] == [True] * 3


Pair = namedtuple("Pair", ["x", "y"])  # noqa: PYI024 - what a collate function may give
X, Y = torch.arange(10.0).reshape(5, 2), torch.arange(5)
TABLE = torch.arange(8.0)  # of another length: every part needs it whole
RAGGED = [TABLE[:i] for i in (1, 2, 3, 4, 1)]  # one for each example
NAMES = ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize(
    ("whole", "first", "second"),
    [
        (X, X[:3], X[3:]),
        ([X, Y], [X[:3], Y[:3]], [X[3:], Y[3:]]),
        ((X, Y), (X[:3], Y[:3]), (X[3:], Y[3:])),
        (Pair(X, Y), Pair(X[:3], Y[:3]), Pair(X[3:], Y[3:])),
        ({"x": X, "names": NAMES}, {"x": X[:3], "names": NAMES[:3]}, {"x": X[3:], "names": NAMES[3:]}),
        ({"x": X, "t": TABLE, "s": torch.tensor(2.0)}, {"x": X[:3], "t": TABLE, "s": torch.tensor(2.0)},
         {"x": X[3:], "t": TABLE, "s": torch.tensor(2.0)}),
        ((X, (Y, X)), (X[:3], (Y[:3], X[:3])), (X[3:], (Y[3:], X[3:]))),
        ([{"x": X}, {"y": Y}], [{"x": X[:3]}, {"y": Y[:3]}], [{"x": X[3:]}, {"y": Y[3:]}]),
        ({"x": X, "r": RAGGED}, {"x": X[:3], "r": RAGGED[:3]}, {"x": X[3:], "r": RAGGED[3:]}),
        ([X, "cpu", None, 3], [X[:3], "cpu", None, 3], [X[3:], "cpu", None, 3]),
    ],
    ids=["tensor", "list", "tuple", "named tuple", "names", "other lengths", "nested tuple", "nested dicts",
         "ragged", "no tensors"],
)  # fmt: skip
def test_batches_of_all_forms_are_split(whole, first, second):
    same = torch.utils._pytree
    for got, want in zip(split_batch(whole, 2), (first, second), strict=True):
        (a, form), (b, wanted) = same.tree_flatten(got), same.tree_flatten(want)
        assert form == wanted
        for x, y in zip(a, b, strict=True):
            assert torch.equal(x, y) if isinstance(y, torch.Tensor) else x == y


def test_parts_of_a_tokenizer_s_batch_are_such_too():
    parts = split_batch(BatchEncoding({"x": X}), 2)
    assert [type(part) for part in parts] == [BatchEncoding] * 2
    assert [part.x.tolist() for part in parts] == [X[:3].tolist(), X[3:].tolist()]


def test_the_length_of_a_batch():
    assert batch_length([X, Y], 7) == 5
    assert batch_length({"s": torch.tensor(1.0), "x": X}, 7) == 5
    assert batch_length([{"x": X}], 7) == 5
    assert batch_length(["no tensor"], 7) == 7


def test_a_batch_without_a_length_is_not_split():
    with pytest.raises(FedlitError, match="a str has no tensor"):
        split_batch("text", 2)


@dataclass(frozen=True)
class Halves(FedAvg):
    """The mean of the losses on two halves, by the live and the functional path at once."""

    def objective(self, loss, w, down, memory):
        a, b = loss.split(2)
        other = tree.map(lambda p: p * 1.0, w)
        return (a(w) + b(other)) / 2


def test_halves_train_as_the_whole_does(fit):
    data = {"data": ToyData(classes=3, features=4, dtype="float64", batch_size=4, examples=8)}
    states = [
        read(fit(rule, Classifier(rank=2, dtype="float64"), **data, max_rounds=1).path / "checkpoints" / "last").state
        for rule in (FedAvg(), Halves())
    ]
    torch.testing.assert_close(*states, rtol=1e-12, atol=1e-12)
