"""Uploads of which only a share of the values is sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fedlit import tree
from fedlit.aggregators.base import require
from fedlit.compression.base import Transform, empty, lossy, walk
from fedlit.errors import FedlitError

PLACE = torch.int32


@dataclass(frozen=True)
class TopK(Transform):
    """Of each tensor the values of largest magnitude, with their places; the server takes the others as 0.

    Stich, Cordonnier and Jaggi 2018, Sparsified SGD with Memory, arXiv:1809.07599, and Karimireddy et al. 2019, Error
    Feedback Fixes SignSGD, arXiv:1901.09847. With the upload ``u``, the residual ``e`` from 0, and ``top_k`` which
    keeps the ``k`` largest ``|p_i|``: ``p = u + e``, ``top_k(p)`` is sent, ``e <- p - top_k(p)``. Nothing is lost, it
    only arrives later: the sum of what was sent, and ``e``, is the sum of all ``u``. The papers have one step in
    place of a client's round.

    ``k`` is ``share`` of a tensor's values, at least 1, and is chosen tensor by tensor: over all tensors at once, those
    of a small scale (LoRA's A beside its B) would wait for ever. Of equal magnitudes the first are taken. A place costs
    4 bytes, so a tensor that this would not make shorter passes whole: of float32, one of one or two values, and any
    once ``share`` is 1/2.

    It suits rules that upload differences, ``w - down``, as most do. Of a rule that uploads whole tensors (EPFL its A
    and B) it would set all but a share to 0, and the residual would add up without end: with error feedback such
    a rule is refused before the first round, without it the loss is in ``compression_error``. Such rules do well with
    Int8 or BFloat16. A client that sits out for many rounds brings an old residual, and a rule that draws new adapters
    each round (FLoRA) meets residuals of the adapters before: take such a rule without error feedback.

    Args:
        share: Of the values that are sent.
        error_feedback: Whether a client keeps the residual. Without it what is small is never sent.
    """

    share: float = 0.01
    error_feedback: bool = True

    def __post_init__(self) -> None:
        require(self, 0 < self.share < 1, "share", "a number above 0 and below 1")

    @property
    def label(self) -> str:
        return f"top {100 * self.share:.4g} %"

    def wire(self, upload: Any) -> Any:
        total = 0

        def form_of(path: str, x: Tensor) -> Tensor:
            nonlocal total
            count = self._count(x)
            if x.numel() > torch.iinfo(PLACE).max:
                raise FedlitError(f"TopK: {path} has {x.numel()} values, whose places do not fit {PLACE}: take Int8")
            total += count
            return empty((count,), x.dtype) if count else x

        values = walk(form_of, upload)
        return {"tensors": values, "places": empty((total,), PLACE)} if total else values

    def encode(self, upload: Any, generator: torch.Generator) -> Any:
        places: list[Tensor] = []

        def code_of(_: str, x: Tensor) -> Tensor:
            count = self._count(x)
            if not count:
                return x
            chosen = largest(x.flatten(), count)
            places.append(chosen.to(PLACE))
            return x.flatten()[chosen]

        values = walk(code_of, upload)
        return {"tensors": values, "places": torch.cat(places)} if places else values

    def decode(self, wire: Any, like: Any) -> Any:
        at = 0

        def value_of(path: str, x: Tensor, t: Tensor) -> Tensor:
            nonlocal at
            count = self._count(t)
            if not count:
                return x
            chosen = wire["places"][at : at + count].long()
            at += count
            if chosen[0] < 0 or chosen[-1] >= t.numel() or (chosen.diff() <= 0).any():
                raise FedlitError(f"{path}: its places are not ascending from 0 to {t.numel() - 1}")
            out = torch.zeros(t.numel(), dtype=t.dtype)
            out[chosen] = x
            return out.reshape(t.shape)

        return walk(value_of, wire["tensors"], like) if any(self._count(t) for t in tree.leaves(like)) else wire

    def _count(self, x: Tensor) -> int:
        """How many values of a tensor are sent; 0 if it passes whole."""
        count = max(1, round(self.share * x.numel()))
        return count if lossy(x) and count * (PLACE.itemsize + x.element_size()) < x.numel() * x.element_size() else 0


def largest(x: Tensor, count: int) -> Tensor:
    """Places, ascending, of the largest magnitudes of a vector; of equal ones the first, on every machine."""
    magnitude = x.abs()
    least = magnitude.topk(count).values[-1]
    above = (magnitude > least).nonzero()[:, 0]
    equal = (magnitude == least).nonzero()[:, 0]
    return torch.cat([above, equal[: count - len(above)]]).sort().values
