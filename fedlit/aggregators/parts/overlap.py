"""How far two adapters of the same layers overlap: penalties that are zero where they are orthogonal.

``shared`` and ``personal`` hold the A and B of every layer, each with its own rank. All but :func:`inner_products` are
squared cosines, so that their weight depends neither on width nor rank nor scaling; ``eps``, added to each squared
norm, keeps value and gradient finite where B is zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fedlit.aggregators.parts.lora import Layer

Part = Mapping[str, Any]


def rows(shared: Part, personal: Part, found: Sequence[Layer], eps: float) -> Tensor:
    """``mean cos^2`` of every shared row of A with every personal one: what both read from a layer's input."""
    return _mean(_pairs(_flat(shared[x.a]), _flat(personal[x.a]), eps) for x in found)


def inner_products(shared: Part, personal: Part, found: Sequence[Layer], eps: float) -> Tensor:
    """``sum |A_g A_p^T|`` over entries and layers, as the code of O-LoRA (arXiv:2310.14152) has it: not normalised."""
    return torch.stack([(_flat(shared[x.a]) @ _flat(personal[x.a]).T).abs().sum() for x in found]).sum()


def columns(shared: Part, personal: Part, found: Sequence[Layer], eps: float) -> Tensor:
    """``mean cos^2`` of every shared column of B with every personal one: what both write to a layer's output."""
    return _mean(_pairs(_flat(shared[x.b]).T, _flat(personal[x.b]).T, eps) for x in found)


def updates(shared: Part, personal: Part, found: Sequence[Layer], eps: float) -> Tensor:
    """``<B_g A_g, B_p A_p>^2 / (|B_g A_g|^2 |B_p A_p|^2)``, mean over layers, from products of rank size only."""

    def cosine(x: Layer) -> Tensor:
        g, p = (shared[x.a], shared[x.b]), (personal[x.a], personal[x.b])
        return inner(*g, *p) ** 2 / ((inner(*g, *g) + eps) * (inner(*p, *p) + eps))

    return _mean(cosine(x) for x in found)


def representations(
    shared: Part, personal: Part, found: Sequence[Layer], eps: float, seen: Mapping[str, Tensor]
) -> Tensor:
    """``mean cos^2(z_g, z_p)`` over tokens, then layers, where ``z = B (A x)``.

    Args:
        shared: Its A are the first rows of the joined adapter's.
        personal: Its A are the others.
        found: The layers.
        eps: Added to each squared norm.
        seen: What the joined A of each layer put out, by the module's name; layers that did not run are left out.
    """

    def cosine(x: Layer, read: Tensor) -> Tensor:
        read = (read if shared[x.a].dim() == 2 else read.movedim(1, -1)).to(shared[x.b].dtype)  # channels come second
        first = len(shared[x.a])
        g, p = read[..., :first] @ _flat(shared[x.b]).T, read[..., first:] @ _flat(personal[x.b]).T
        norms = ((g * g).sum(-1) + eps) * ((p * p).sum(-1) + eps)
        cosines: Tensor = (g * p).sum(-1) ** 2 / norms
        return cosines.mean()

    names = {x: x.a.removesuffix(".weight") for x in found}
    return _mean(cosine(x, seen[names[x]]) for x in found if names[x] in seen)


def inner(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """``<b a, d c>_F = tr((b^T d)(c a^T))``, without the ``(out, in)`` products."""
    return ((_flat(b).T @ _flat(d)) * (_flat(a) @ _flat(c).T)).sum()


Penalty = Callable[[Part, Part, Sequence[Layer], float], Tensor]
ON_WEIGHTS: dict[str, Penalty] = {
    "rows": rows, "inner_products": inner_products, "columns": columns, "updates": updates,
}  # fmt: skip
"""The penalties that need no data."""


def _flat(x: Tensor) -> Tensor:
    """A convolution's kernel as a matrix."""
    return x.flatten(1)


def _pairs(a: Tensor, b: Tensor, eps: float) -> Tensor:
    norms = torch.outer((a * a).sum(1) + eps, (b * b).sum(1) + eps)
    return ((a @ b.T) ** 2 / norms).mean()


def _mean(terms: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(terms)).mean()
