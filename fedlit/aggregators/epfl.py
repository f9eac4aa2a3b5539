"""EPFL, which averages LoRA's A by how alike the clients' B are, and two answers to questions it leaves open."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from fedlit.aggregators.base import Tensors, Work, require
from fedlit.aggregators.parts import lora
from fedlit.aggregators.parts.signatures import (
    DistanceName,
    Signature,
    SignatureName,
    inverse_distance,
    layer_distances,
    sketched,
)
from fedlit.aggregators.similarity import SimilarityAggregator

FAMILY = "similarity"


@dataclass(frozen=True)
class EPFL(SimilarityAggregator):
    """Each client receives its own mean of LoRA's A, weighted by how near the clients' B are; B and head stay at home.

    Wang et al. 2025, arXiv:2504.10817: ``d_ij = mean over l in psi of |B_i^l - B_j^l|_F``, not squared,
    ``s_ij = (1 - lam) (1 / d_ij) / sum_{k != i} (1 / d_ik)``, ``s_ii = lam``, ``A_i <- sum_j s_ij A_j``. Up go A and
    the compared B, down only A. Clients at distance zero (all B are zero at first) share ``1 - lam`` equally: the
    released code meant to guard against that with a weight of 1e12, and compared a list with 0, so it never did.
    The distance means something only while all clients start from one A, as ``(B G, G^-1 A)`` is the same update as
    ``(B, A)``. Blocks are ordered by name, with numbers as numbers.

    Args:
        signature: ``lora_B``.
        distance: As in :class:`SimilarityAggregator`.
        share: What is mixed and travels; by default LoRA's A.
        lam: Weight of the client's own A.
        psi: Whose B are compared, of the adapted layers in order: ``first_half``, ``second_half`` or ``all``.
        sketch: Send, of each B, a random projection to so many numbers, where B has more; 0 sends B. Ours: B goes up
            for its distances only. By :func:`~fedlit.aggregators.parts.signatures.sketched`, a layer's ``d^2`` is kept
            on average, with a standard deviation of at most ``sqrt(2 / sketch)`` of it: 9 % for 256, hence about 4 % of
            ``d``. The mean over layers, drawn apart, has less. It hides B from no one who knows what B can be.
    """

    signature: SignatureName = "lora_B"
    distance: DistanceName = "frobenius"
    share: str = lora.A
    psi: Literal["first_half", "second_half", "all"] = "all"
    sketch: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, self.signature == "lora_B", "signature", "'lora_B'")
        require(self, self.psi in ("first_half", "second_half", "all"), "psi", "'first_half', 'second_half' or 'all'")
        require(self, self.sketch >= 0, "sketch", "a number of values a layer, 0 for all of B")

    def init(self, params: Tensors) -> Any:
        lora.layers(params, self)
        return super().init(params)

    def signed(self, w: Tensors, start: Tensors) -> Signature:
        found = super().signed(w, start)
        names = sorted(found, key=natural)
        half = len(names) // 2
        parts = {"first_half": names[:half], "second_half": names[half:], "all": names}
        return {name: self._sent(found[name], place) for place, name in enumerate(parts[self.psi])}

    def _sent(self, b: Tensor, place: int) -> Tensor:
        if not 0 < self.sketch < b.numel():
            return b
        generator = torch.Generator().manual_seed(place)
        return sketched(torch.zeros(self.sketch, dtype=torch.float64), b, generator).to(b.dtype)


@dataclass(frozen=True)
class ShrunkEPFL(EPFL):
    """EPFL whose similarity counts less for clients with few examples, who receive nearly the plain mean of A.

    Ours, an answer to a question that arXiv:2504.10817 leaves open. With few examples B is mostly noise, and so are
    the distances to it. With ``n_i`` training examples, ``p_j = n_j / sum n`` and ``r_i = n_i / (n_i + prior)``:
    ``s_ij <- r_i s_ij + (1 - r_i) p_j``. Prior 0 is EPFL, a large one averages A as FedSA-LoRA does.

    Args:
        signature: ``lora_B``.
        distance: As in :class:`EPFL`.
        share: As in :class:`EPFL`.
        lam: Weight of the client's own A before shrinkage.
        psi: As in :class:`EPFL`.
        sketch: As in :class:`EPFL`.
        prior: How many examples the plain mean counts for.
    """

    prior: float = 50.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, 0 <= self.prior < float("inf"), "prior", "a finite number, at least 0")

    def weigh(self, num_examples: int, work: Work) -> float:
        return float(num_examples)

    def mix(self, signatures: Sequence[Signature], weights: Sequence[float]) -> Tensor:
        count = torch.tensor(weights, dtype=torch.float64)
        trust = (count / (count + self.prior)).unsqueeze(1)
        return trust * super().mix(signatures, weights) + (1 - trust) * count / count.sum()


@dataclass(frozen=True)
class SelectiveEPFL(EPFL):
    """EPFL that compares clients by the layers whose distances tell most, chosen in each round.

    Ours, an answer to a question that arXiv:2504.10817 leaves open: which layers psi should hold. The distances of a
    layer are fitted by ``d_ij = a_i + a_j``, which holds where each client is merely so far from all others (more
    noise, more steps), and the mean squared rest over the squared mean distance is that layer's signal: who is near
    to whom. Compared are the layers with most of it. With fewer than four clients nothing can be told apart, and all
    are compared.

    Args:
        signature: ``lora_B``.
        distance: ``frobenius``.
        share: As in :class:`EPFL`.
        lam: Weight of the client's own A.
        psi: Of which layers some are chosen.
        sketch: As in :class:`EPFL`.
        keep: Share of the layers that are compared, at least one.
    """

    keep: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, self.distance == "frobenius", "distance", "'frobenius'")
        require(self, 0 < self.keep <= 1, "keep", "a number in (0, 1]")

    def mix(self, signatures: Sequence[Signature], weights: Sequence[float]) -> Tensor:
        pages = layer_distances(signatures)
        count = max(1, round(self.keep * len(pages))) if len(signatures) > 3 else len(pages)
        best = torch.argsort(signal(pages), descending=True, stable=True)[:count]
        return inverse_distance(pages[best.sort().values].mean(0), self.lam)


def signal(pages: Tensor) -> Tensor:
    """What ``d_ij = a_i + a_j`` leaves of each layer's distances: mean squared rest over squared mean distance."""
    n = pages.shape[-1]
    if n < 4:
        return torch.zeros(len(pages), dtype=pages.dtype)
    total = pages.sum(2)
    a = (total - total.sum(1, keepdim=True) / (2 * (n - 1))) / (n - 2)
    apart = ~torch.eye(n, dtype=torch.bool)
    rest = (pages - a.unsqueeze(1) - a.unsqueeze(2))[:, apart]
    mean = pages[:, apart].mean(1)
    tiny = torch.finfo(pages.dtype).tiny
    return torch.where(mean > 0, (rest / mean.clamp(min=tiny).unsqueeze(1)).square().mean(1), 0.0)


def natural(name: str) -> list[tuple[int, str]]:
    """Sorts ``block.10`` after ``block.2``."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
