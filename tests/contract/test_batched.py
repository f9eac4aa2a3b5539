"""Clients that train in one pass give what they give one after the other, for every rule."""

from __future__ import annotations

import pytest

from fedlit import tree
from fedlit.runs.checkpoint import read

pytestmark = pytest.mark.filterwarnings("ignore:.*to come to its last part")

BOUND = {"float64": 1e-12, "float32": 5e-6}


def distance(a, b) -> float:
    """Largest difference of two trees' tensors, each relative to the largest value of the tensor, or 1."""
    x, y = tree.flatten(a), tree.flatten(b)
    assert x.keys() == y.keys()
    each = [
        float((x[path].double() - y[path].double()).abs().max() / max(1.0, float(y[path].double().abs().max())))
        for path in x
        if x[path].numel()
    ]
    return max(each, default=0.0)


@pytest.mark.parametrize("dtype", ["float64", pytest.param("float32", marks=pytest.mark.slow)])
def test_rounds_of_groups_equal_those_of_single_clients(rule, row, train, dtype):
    alone, together = (train(rule, dtype=dtype, clients_at_once=k) for k in (1, 3))
    one, other = (read(folder.path / "checkpoints" / "last") for folder in (alone, together))
    assert one.round == other.round
    assert distance(other.state, one.state) <= BOUND[dtype]
