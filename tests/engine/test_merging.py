"""Batches of several clients as one, against what is cut from it again."""

from __future__ import annotations

from collections import namedtuple
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._pytree import tree_flatten

from fedlit.engine.batches import Unmergeable, merged, split_batch

Pair = namedtuple("Pair", ["x", "y"])  # noqa: PYI024 - what a collate function may give
X, Y = torch.arange(20.0).reshape(10, 2), torch.arange(10)
NAMES = [f"name {i}" for i in range(10)]
TABLE = torch.arange(7.0)


def alike(a: Any, b: Any) -> bool:
    (x, form), (y, other) = tree_flatten(a), tree_flatten(b)
    return form == other and all(
        torch.equal(u, v) if isinstance(v, torch.Tensor) else u == v for u, v in zip(x, y, strict=True)
    )


def cut(value: Any, a: int, b: int) -> Any:
    """Examples from a to b, the hand-written inverse of merging for the forms below."""
    if isinstance(value, torch.Tensor) and value.ndim and len(value) == 10:
        return value[a:b]
    if isinstance(value, list) and len(value) == 10:
        return value[a:b]
    if isinstance(value, dict):
        return {k: cut(v, a, b) for k, v in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(cut(v, a, b) for v in value))
    if isinstance(value, list | tuple):
        return type(value)(cut(v, a, b) for v in value)
    return value


FORMS = {
    "tensor": X,
    "list": [X, Y],
    "tuple": (X, Y),
    "named tuple": Pair(X, Y),
    "nested": {"in": [X, {"y": Y}], "names": NAMES},
    "tuple in a list": [(X, Y), Y],
    "constants": {"x": X, "none": None, "mode": "mean", "number": 3, "scalar": torch.tensor(2.0), "table": TABLE},
    "pieces": {"x": X, "pieces": [torch.ones(20 + i) for i in range(10)]},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("ends", [(0, 5, 10), (0, 4, 6, 10), (0, 1, 10), (0, 3, 4, 8, 10)], ids=str)
def test_what_was_cut_is_put_together(form, ends):
    whole = FORMS[form]
    pieces = [cut(whole, a, b) for a, b in zip(ends, ends[1:], strict=False)]
    joined, sizes = merged(pieces)
    assert sizes == tuple(b - a for a, b in zip(ends, ends[1:], strict=False))
    assert alike(joined, whole)


@pytest.mark.parametrize("form", FORMS)
def test_it_is_the_inverse_of_the_rules_split(form):
    pieces = split_batch(FORMS[form], 3)
    joined, sizes = merged(pieces)
    assert sizes == (4, 3, 3)
    assert alike(joined, FORMS[form])


def test_one_batch_is_itself():
    batch = [X, Y]
    joined, sizes = merged([batch])
    assert joined is batch
    assert sizes == (10,)


def test_values_and_order():
    joined, sizes = merged([[X[:1], ["a"]], [X[4:6], ["b", "c"]]])
    assert sizes == (1, 2)
    assert torch.equal(joined[0], torch.tensor([[0.0, 1.0], [8.0, 9.0], [10.0, 11.0]]))
    assert joined[1] == ["a", "b", "c"]


def test_gradients_pass_through():
    a, b = X[:2].clone().requires_grad_(), X[2:3].clone().requires_grad_()
    (joined,), _ = merged([[a], [b]])
    (joined * torch.tensor([[1.0], [2.0], [3.0]])).sum().backward()
    assert torch.equal(a.grad, torch.tensor([[1.0, 1.0], [2.0, 2.0]]))
    assert torch.equal(b.grad, torch.tensor([[3.0, 3.0]]))


@pytest.mark.parametrize(
    ("batches", "reason"),
    [
        ([[torch.ones(2, 3)], [torch.ones(2, 4)]], "differ in shape"),
        ([[torch.ones(2, 3)], [torch.ones(2, 3, 1)]], "differ in shape"),
        ([[torch.ones(2)], [torch.ones(2, dtype=torch.float64)]], "differ in shape"),
        ([["text"], ["text"]], "no tensor that tells their length"),
        ([[X], ["text"]], "no tensor that tells their length"),
        ([[torch.ones(0, 2)], [X]], "no tensor that tells their length"),
        ([[X], (X,)], "differ in their types"),
        ([{"x": X}, {"x": X, "y": Y}], "differ in their keys"),
        ([[X, Y], [X]], "differ in their lengths"),
        ([{"x": X, "mode": "a"}, {"x": X, "mode": "b"}], "belongs to no example"),
        ([{"x": X, "t": TABLE}, {"x": X, "t": TABLE + 1}], "belongs to no example"),
        ([{"x": X, "t": TABLE}, {"x": X, "t": TABLE[:3]}], "belongs to no example"),
        ([{"x": X, "s": torch.tensor(1.0)}, {"x": X, "s": torch.tensor(2.0)}], "belongs to no example"),
        ([{"x": X, "n": None}, {"x": X, "n": 1}], "differ in their types"),
        ([{"x": X, "l": [1, 2]}, {"x": X, "l": [1, 3]}], "belongs to no example"),
    ],
)  # fmt: skip
def test_what_cannot_be_one_batch(batches, reason):
    with pytest.raises(Unmergeable, match=reason):
        merged(batches)


@pytest.mark.parametrize("make", [lambda: np.arange(3), lambda: [torch.ones(2), torch.ones(2)]], ids=["array", "list"])
def test_constants_that_have_no_single_truth(make):
    """Nothing of an example: equal ones belong to all, others cannot be merged, and neither is an error."""
    joined, _ = merged([{"x": X, "c": make()}, {"x": X, "c": make()}])
    assert len(joined["c"]) == len(make())


def test_constants_that_compare_by_identity():
    one = SimpleNamespace(a=1)
    assert merged([{"x": X, "c": one}, {"x": X[:3], "c": one}])[0]["c"] is one
    with pytest.raises(Unmergeable):
        merged([{"x": X, "c": object()}, {"x": X, "c": object()}])
