"""Whose each row is: apart and together again, for equal and unequal clients and what a task tells."""

from __future__ import annotations

import pytest
import torch

from fedlit.engine.vectorized.modules import RowLayout, Unfoldable
from fedlit.tasks.row_owners import MIXED, ROWS, rows_of


def rows(count: int, *shape: int) -> torch.Tensor:
    return torch.arange(float(count * max(1, int(torch.tensor(shape).prod())))).reshape(count, *shape)


@pytest.mark.parametrize("sizes", [(3, 3), (1, 1, 1), (4, 2), (2, 4, 1), (5,), (1, 3, 3)], ids=str)
@pytest.mark.parametrize("each", [1, 2, 3])
@pytest.mark.parametrize("shape", [(), (2,), (3, 2)], ids=str)
def test_apart_and_together(sizes, each, shape):
    layout, x = RowLayout(sizes), rows(sum(sizes) * each, *shape)
    apart = layout.apart(x)
    assert apart.shape == (len(sizes), max(sizes) * each, *shape)
    assert torch.equal(layout.together(apart, x), x)
    start = 0
    for client, size in zip(apart, sizes, strict=True):
        own = x[start : start + size * each]
        assert torch.equal(client[: size * each], own)
        assert all(torch.equal(row, own[-1]) for row in client[size * each :])  # filled up with its own
        start += size * each


def test_each_client_s_gradient_is_of_its_own_rows():
    layout, x = RowLayout((3, 1)), rows(4, 2).requires_grad_()
    scale = torch.tensor([[[2.0]], [[5.0]]], requires_grad=True)
    layout.together(layout.apart(x) * scale, x).sum().backward()
    assert torch.equal(x.grad, torch.tensor([[2.0, 2.0]] * 3 + [[5.0, 5.0]]))
    assert scale.grad.flatten().tolist() == [float(sum(range(6))), 13.0]  # rows that fill up count for nothing


def test_outputs_of_another_width_go_back():
    layout, x = RowLayout((2, 1)), rows(3, 4)
    y = layout.apart(x)[..., :1] * 10
    assert layout.together(y, x).flatten().tolist() == [0.0, 40.0, 80.0]


def test_a_single_row_is_everybody_s():
    layout, x = RowLayout((2, 1)), rows(1, 4)
    apart = layout.apart(x)
    assert apart.shape == (2, 2, 4)
    assert torch.equal(apart, x.expand(2, 2, 4))
    assert torch.equal(layout.together(apart, x), x.expand(3, 4))


@pytest.mark.parametrize("x", [torch.ones(5, 2), torch.tensor(1.0), torch.ones(1), torch.ones(3)], ids=str)
def test_inputs_that_are_no_rows_are_named(x):
    with pytest.raises(Unfoldable, match="an input has"):
        RowLayout((2, 2)).apart(x)


def test_rows_that_a_task_tells_of():
    layout = RowLayout((2, 1))
    with rows_of([0, 0, 1, 2, 2, 2]):
        assert layout.rows() == (3, 3)
        assert layout.apart(rows(6)).tolist() == [[0, 1, 2], [3, 4, 5]]
        assert layout.of(rows(12)) == (6, 6)
    with rows_of([1, 2, 2]):
        assert layout.rows() == (1, 2)
    with rows_of([2]):  # the first client has none: what fills it up comes to nothing
        assert layout.rows() == (0, 1)
        apart = layout.apart(rows(1, 2))
        assert torch.equal(layout.together(apart, rows(1, 2)), rows(1, 2))
    assert layout.rows() == (2, 1)
    with rows_of([]), pytest.raises(Unfoldable):
        layout.of(rows(3))


def test_what_is_told_is_over_where_it_ends():
    with rows_of([0]):
        with rows_of(None):
            assert ROWS.get() is MIXED
            with pytest.raises(Unfoldable, match="several examples"):
                RowLayout((1, 1)).rows()
        assert ROWS.get() == (0,)
    assert ROWS.get() is None
    with pytest.raises(RuntimeError, match="within"), rows_of([0]):
        raise RuntimeError("within")
    assert ROWS.get() is None


def test_rows_out_of_order_are_named():
    with rows_of([1, 0]), pytest.raises(Unfoldable, match="not in the order"):
        RowLayout((1, 1)).rows()
