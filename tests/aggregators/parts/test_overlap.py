"""Penalties on two adapters: by hand, from their definition with dense matrices, and by finite differences."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from fedlit.aggregators.parts import lora, overlap

LAYER = lora.Layer("m", "m.lora_A.default.weight", "m.lora_B.default.weight")
PENALTIES = [*overlap.ON_WEIGHTS, "representations"]


def part(a, b) -> dict[str, torch.Tensor]:
    """One layer's adapter, which takes a gradient."""
    a, b = (torch.as_tensor(x, dtype=torch.float64).clone().requires_grad_() for x in (a, b))
    return {LAYER.a: a, LAYER.b: b}


def penalty(name: str, g, p, eps: float, x=None) -> torch.Tensor:
    if name != "representations":
        return overlap.ON_WEIGHTS[name](g, p, [LAYER], eps)
    read_ = torch.as_tensor(x, dtype=torch.float64) @ torch.cat([g[LAYER.a], p[LAYER.a]]).T
    return overlap.representations(g, p, [LAYER], eps, {"m.lora_A.default": read_})


EYE = [[1.0, 0.0], [0.0, 1.0]]
AG, AP = [[1.0, 0.0], [0.0, 2.0]], [[3.0, 4.0], [0.0, 1.0]]


@pytest.mark.parametrize(
    ("name", "g", "p", "eps", "by_hand"),
    [
        # cosines of (1,0) and (0,2) with (3,4) and (0,1): 3/5, 0, 4/5, 1
        ("rows", (AG, EYE), (AP, EYE), 0.0, (9 / 25 + 0 + 16 / 25 + 1) / 4),
        ("rows", (AG, EYE), (AP, EYE), 1.0, (9 / (2 * 26) + 0 + 64 / (5 * 26) + 4 / (5 * 2)) / 4),
        # A_g A_p^T = [[3, 0], [8, 2]]
        ("inner_products", (AG, EYE), (AP, EYE), 0.0, 13.0),
        # columns (1,0), (0,2) of B_g with (3,0), (4,1) of B_p: 1, 4/sqrt(17), 0, 1/sqrt(17)
        ("columns", (EYE, AG), (EYE, AP), 0.0, (1 + 16 / 17 + 0 + 1 / 17) / 4),
        # B_p A_p = [[1,1],[0,2]] [[3,4],[0,1]] = [[3,5],[0,2]], whose product with diag(1, 2) is 3 + 4
        ("updates", (AG, EYE), (AP, [[1.0, 1.0], [0.0, 2.0]]), 0.0, 49 / (5 * 38)),
        ("updates", (AG, EYE), (AP, [[1.0, 1.0], [0.0, 2.0]]), 2.0, 49 / (7 * 40)),
    ],
)
def test_penalties_by_hand(name, g, p, eps, by_hand):
    assert penalty(name, part(*g), part(*p), eps).item() == pytest.approx(by_hand, rel=1e-14)


def test_representations_by_hand():
    """x = (1,0) and (1,1), B = 1: z_g = (1,0), (1,2); z_p = A_p x = (3,0), (7,1); cosines 1 and 9/sqrt(5 * 50)."""
    value = penalty("representations", part(AG, EYE), part(AP, EYE), 0.0, [[1.0, 0.0], [1.0, 1.0]])
    assert value.item() == pytest.approx((1 + 81 / 250) / 2, rel=1e-14)


def test_gradient_of_one_cosine_by_hand():
    """f = <g, p>^2 / (|g|^2 |p|^2) at g = (1, 0), p = (3, 4): df/dp = 2 (3 16, -9 4) / 625, df/dg = (0, 24 / 25)."""
    g, p = part([[1.0, 0.0]], [[1.0], [0.0]]), part([[3.0, 4.0]], [[1.0], [0.0]])
    overlap.rows(g, p, [LAYER], 0.0).backward()
    assert p[LAYER.a].grad[0].tolist() == pytest.approx([96 / 625, -72 / 625], rel=1e-14)
    assert g[LAYER.a].grad[0].tolist() == pytest.approx([0.0, 24 / 25], abs=1e-14)


def test_gradient_of_inner_products_by_hand():
    """d/dA_p of sum |A_g A_p^T| is sign(A_g A_p^T)^T A_g, here [[1, 1], [0, 1]] times A_g; 0 where the product is 0."""
    g, p = part(AG, EYE), part(AP, EYE)
    overlap.inner_products(g, p, [LAYER], 0.0).backward()
    assert p[LAYER.a].grad.tolist() == [[1.0, 2.0], [0.0, 2.0]]


@pytest.fixture
def random_parts():
    generator = torch.Generator().manual_seed(0)

    def make(rank: int, *kernel: int) -> dict[str, torch.Tensor]:
        a = torch.randn(rank, 5, *kernel, generator=generator, dtype=torch.float64)
        return part(a, torch.randn(7, rank, *(1 for _ in kernel), generator=generator, dtype=torch.float64))

    return make


@pytest.mark.parametrize("kernel", [(), (3, 3)], ids=["linear", "convolution"])
def test_products_of_rank_size_are_the_dense_inner_product(random_parts, kernel):
    g, p = random_parts(2, *kernel), random_parts(3, *kernel)
    flat = [(x[LAYER.a].flatten(1), x[LAYER.b].flatten(1)) for x in (g, p)]
    (a, b), (c, d) = flat
    dense = ((b @ a) * (d @ c)).sum()
    identity = torch.trace((b.T @ d) @ (c @ a.T))
    found = overlap.inner(g[LAYER.a], g[LAYER.b], p[LAYER.a], p[LAYER.b])
    torch.testing.assert_close(found, dense, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found, identity, rtol=1e-12, atol=1e-12)
    cosine = F.cosine_similarity((b @ a).flatten(), (d @ c).flatten(), dim=0)
    torch.testing.assert_close(overlap.updates(g, p, [LAYER], 0.0), cosine**2, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", PENALTIES)
def test_gradients_are_those_of_finite_differences(random_parts, name):
    g, p = random_parts(2), random_parts(3)
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def value(a, b, c, d):
        return penalty(name, {LAYER.a: a, LAYER.b: b}, {LAYER.a: c, LAYER.b: d}, 1e-2, x)

    assert torch.autograd.gradcheck(value, (g[LAYER.a], g[LAYER.b], p[LAYER.a], p[LAYER.b]))


@pytest.mark.parametrize("name", PENALTIES)
@pytest.mark.parametrize("size", [0.0, 1e-12, 1e-6, 1e-4, 1e-2, 1.0])
def test_near_zero_b_the_penalty_and_its_gradient_stay_bounded(random_parts, name, size):
    eps = 1e-4
    g, p = random_parts(2), random_parts(3)
    for b in (g[LAYER.b], p[LAYER.b]):
        b.data.mul_(size)
    x = torch.nn.functional.normalize(torch.randn(4, 5, generator=torch.Generator().manual_seed(1)).double(), dim=1)
    value = penalty(name, g, p, eps, x)
    value.backward()
    grads = [t.grad for q in (g, p) for t in (q[LAYER.a], q[LAYER.b]) if t.grad is not None]
    assert torch.isfinite(value)
    assert all(torch.isfinite(t).all() for t in grads)
    if name != "inner_products":
        assert 0 <= value <= 1
        longest = max(q[LAYER.a].detach().norm().item() for q in (g, p))
        assert max(float(t.norm()) for t in grads) <= max(longest, 1) / (2 * eps**0.5)
    if name == "columns" and size == 0:
        assert value == 0
