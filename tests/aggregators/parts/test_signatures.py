"""Whatever the signatures, similarities are finite and rows sum to 1; and the numbers are those of a hand."""

from __future__ import annotations

import math
import re

import pytest
import torch

from fedlit.aggregators.partial import NORM
from fedlit.aggregators.parts.signatures import (
    DISTANCES,
    SIGNATURES,
    cosine,
    euclidean,
    frobenius,
    inverse_distance,
    layer_distances,
    mixed,
    rows_of,
    sketch,
    sketched,
    with_own,
)


def of(*rows):
    return [{"l": torch.tensor(row, dtype=torch.float64)} for row in rows]


def cases():
    """Random signatures of every awkward kind, drawn anew from fixed seeds."""
    for seed in range(60):
        g = torch.Generator().manual_seed(seed)
        n, layers = int(torch.randint(1, 7, (), generator=g)), int(torch.randint(1, 4, (), generator=g))
        scale = [0.0, 1e-300, 1e-30, 1.0, 1e30, 1e200, 1e308][seed % 7]
        dtype = torch.float64 if seed % 7 in (1, 5, 6) else torch.float32
        signatures = []
        for client in range(n):
            if client and seed % 3 == 0 and client % 2:
                signatures.append(signatures[-1])
                continue
            draw = {str(i): torch.rand(3, 2, generator=g, dtype=torch.float64) * 2 - 1 for i in range(layers)}
            signatures.append({k: ((0.0 if client == 2 else scale) * v).to(dtype) for k, v in draw.items()})
        yield signatures


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("own", [0.0, 0.5, 1.0])
def test_rows_are_finite_and_sum_to_one_whatever_comes(distance, own):
    for signatures in cases():
        apart = DISTANCES[distance](signatures)
        assert torch.isfinite(apart).all()
        assert (apart >= 0).all()
        assert (apart.diagonal() == 0).all()
        assert torch.equal(apart, apart.T)
        rows = inverse_distance(apart, own)
        assert torch.isfinite(rows).all()
        assert (rows >= 0).all()
        torch.testing.assert_close(rows.sum(1), torch.ones(len(rows), dtype=torch.float64), rtol=0, atol=1e-12)
        expected = own if len(rows) > 1 else 1.0
        torch.testing.assert_close(rows.diagonal(), torch.full((len(rows),), expected, dtype=torch.float64))


@pytest.mark.parametrize("name", DISTANCES)
def test_equal_clients_are_exactly_zero_apart(name):
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert (DISTANCES[name]([{"a": x}, {"a": x.clone()}, {"a": x.clone()}]) == 0).all()


def test_distances_by_hand():
    """Two tensors: clients 5 and 1 apart in them, so 3 on average and sqrt(26) over all."""
    a = {"x": torch.tensor([[0.0, 0.0]]), "y": torch.tensor([1.0])}
    b = {"x": torch.tensor([[3.0, 4.0]]), "y": torch.tensor([2.0])}
    assert frobenius([a, b])[0, 1] == pytest.approx(3.0, rel=1e-15)
    assert euclidean([a, b])[0, 1] == pytest.approx(math.sqrt(26), rel=1e-15)
    right, half, back = of([1.0, 0.0], [0.5, math.sqrt(3) / 2], [-2.0, 0.0])
    torch.testing.assert_close(cosine([right, half, back])[0], torch.tensor([0.0, 0.5, 2.0]).double())
    nothing = of([0.0, 0.0])
    assert cosine([*nothing, right, *nothing])[0].tolist() == [0.0, 0.5, 0.0]


def test_clients_at_distance_zero_share_all_of_it():
    rows = inverse_distance(frobenius(of([0.0], [0.0], [0.0], [5.0])), 0.5)
    assert rows[0].tolist() == [0.5, 0.25, 0.25, 0.0]
    torch.testing.assert_close(rows[3], torch.tensor([1, 1, 1, 3]).double() / 6)
    assert inverse_distance(frobenius(of([0.0], [0.0])), 0.5).tolist() == [[0.5, 0.5], [0.5, 0.5]]
    assert inverse_distance(frobenius(of([3.0])), 0.25).tolist() == [[1.0]]


def test_rows_in_proportion():
    rows = rows_of(torch.tensor([[1.0, 3.0], [0.0, 0.0]]).double())
    assert rows.tolist() == [[0.25, 0.75], [0.0, 1.0]]
    own = with_own(torch.tensor([[9.0, 1.0, 3.0], [0.0, 9.0, 0.0], [1.0, 1.0, 9.0]]).double(), 0.2)
    torch.testing.assert_close(own, torch.tensor([[0.2, 0.2, 0.6], [0, 1, 0], [0.4, 0.4, 0.2]]).double())


def test_a_mix_is_the_matrix_times_the_models():
    models = {
        c: {"w": torch.full((2, 2), float(i)), "b": torch.tensor(1.0 + i).bfloat16()} for i, c in enumerate("abc")
    }
    rows = torch.tensor([[1.0, 0.0, 0.0], [0.25, 0.25, 0.5], [0.0, 0.5, 0.5]]).double()
    out = mixed(models, rows)
    assert [float(out[c]["w"][0, 1]) for c in "abc"] == [0.0, 1.25, 1.5]
    assert out["b"]["b"].dtype == torch.bfloat16
    assert out["b"]["w"].dtype == torch.float32


def test_a_sketch_keeps_inner_products():
    """Each is right in the mean, with a standard deviation of about |x||y| / sqrt(size)."""
    g = torch.Generator().manual_seed(1)
    x, y = torch.randn(5000, generator=g), torch.randn(5000, generator=g)
    y = y + 0.5 * x
    zero = {"w": torch.zeros(5000)}
    exact, found = float(x @ y), []
    for seed in range(20):
        a, b = (sketch({"w": v}, zero, 1024, seed)["sketch"] for v in (x, y))
        found.append(float(a @ b))
    spread = float(x.norm() * y.norm()) / 1024**0.5
    assert abs(sum(found) / 20 - exact) < 3 * spread / 20**0.5
    assert 0.3 * spread < torch.tensor(found).std() < 2 * spread
    assert torch.equal(sketch({"w": x}, zero)["sketch"], sketch({"w": x}, zero)["sketch"])


def test_a_sketch_keeps_the_norm_of_what_has_one_sign():
    """Values without signs of their own would add up in each sum: 4096 ones in 64 sums to 64 times their norm."""
    ones = torch.ones(4096)
    squared = [
        float(sketched(torch.zeros(64, dtype=torch.float64), ones, torch.Generator().manual_seed(seed)).square().sum())
        for seed in range(100)
    ]
    assert sum(squared) / 100 == pytest.approx(4096, rel=4 * (2 / 64 / 100) ** 0.5)


def test_norm_layers_are_known_by_their_names():
    yes = [
        "norm.weight",
        "a.LayerNorm.bias",
        "layer.0.layer_norm.weight",
        "bn1.weight",
        "b.norm2.bias",
        "ln_1.b",
    ]
    no = ["head.weight", "q.weight", "mlp.fc1.bias", "lora_A.default.weight", "albn.weight"]
    assert all(re.search(NORM, name) for name in yes)
    assert not any(re.search(NORM, name) for name in no)


def test_signatures_take_what_they_say():
    w = {"norm.weight": torch.tensor([3.0]), "norm.bias": torch.tensor([4.0]), "q.lora_B.default.weight": torch.ones(2)}
    start = {name: torch.ones_like(value) for name, value in w.items()}
    assert {k: v.tolist() for k, v in SIGNATURES["norm"](w, start).items()} == {"norm (norm)": [4.0, 3.0]}
    assert set(SIGNATURES["lora_B"](w, start)) == {"q.lora_B.default.weight"}
    assert SIGNATURES["update"](w, start)["norm.bias"].tolist() == [3.0]
    assert SIGNATURES["weights"](w, start).keys() == w.keys()


def test_layers_come_by_name():
    a, b = ({"z": torch.tensor([0.0]), "a": torch.tensor([0.0])}, {"z": torch.tensor([2.0]), "a": torch.tensor([1.0])})
    assert layer_distances([a, b])[:, 0, 1].tolist() == [1.0, 2.0]
