"""How alike clients are: what of an upload is compared, how far apart two are, and which mixing that gives.

A signature is a flat dict of tensors. Distances and rows are float64 matrices over the clients of a round, in the
order given; rows are finite, not negative and sum to 1 whatever the signatures were.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from fedlit import tree
from fedlit.aggregators.partial import NORM
from fedlit.aggregators.parts.lora import B

FAMILY = "similarity"

SignatureName = Literal["lora_B", "weights", "norm", "update", "sketch"]
DistanceName = Literal["frobenius", "euclidean", "cosine"]
Signature = dict[str, Any]


def lora_b(w: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> Signature:
    """The B matrices of LoRA, comparable if all clients started from one A: ``(B G, G^-1 A)`` is the same update."""
    return {name: w[name] for name in w if re.search(B, name)}


def weights(w: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> Signature:
    """All that was trained."""
    return dict(w)


def norm(w: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> Signature:
    """Scale and shift of each normalisation layer, as one vector a layer."""
    layers: dict[str, list[Tensor]] = {}
    for name in sorted(w):
        if re.search(NORM, name):
            layers.setdefault(name.rpartition(".")[0] or name, []).append(w[name].flatten())
    return {f"{layer} (norm)": torch.cat(parts) for layer, parts in layers.items()}


def update(w: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> Signature:
    """What local training changed."""
    return {name: w[name] - start[name] for name in w}


def sketch(w: Mapping[str, Tensor], start: Mapping[str, Tensor], size: int = 1024, seed: int = 0) -> Signature:
    """A seeded random projection of the update, by which inner products are kept in expectation.

    A count sketch (Charikar et al. 2002): every entry is added, with a random sign, to one of ``size`` sums. So it
    costs one pass, where a Gaussian projection costs ``size``.
    """
    generator, out = torch.Generator().manual_seed(seed), torch.zeros(size, dtype=torch.float64)
    for name in sorted(w):
        out = sketched(out, w[name] - start[name], generator)
    return {"sketch": out}


def sketched(sums: Tensor, values: Tensor, generator: torch.Generator) -> Tensor:
    """The sums of a count sketch with more values in it.

    For ``m`` sums the squared norm of a sketch has the squared norm ``|x|^2`` of what went in as its mean, and a
    standard deviation of at most ``|x|^2 sqrt(2 / m)``; as it is linear, so has the squared distance of two.

    Args:
        sums: float64 (m,).
        values: Of any shape; each is added, with a random sign, to one of the sums.
        generator: Of places and signs, the same for all that are to be compared.
    """
    flat = values.flatten().double()
    place = torch.randint(len(sums), flat.shape, generator=generator).to(flat.device)
    sign = 2 * torch.randint(2, flat.shape, generator=generator).to(flat) - 1
    return sums.to(flat.device).index_add(0, place, sign * flat)


SIGNATURES: dict[str, Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], Signature]] = {
    "lora_B": lora_b,
    "weights": weights,
    "norm": norm,
    "update": update,
    "sketch": sketch,
}


def layer_distances(signatures: Sequence[Signature]) -> Tensor:
    """Euclidean distance of each pair of clients in each tensor, ``(tensors, clients, clients)``, tensors by name.

    Exactly zero for equal tensors: no matrix product whose rounding would make clients that are alike differ.
    """
    pages = [_pairs(_column(signatures, name)) for name in sorted(signatures[0])]
    return torch.stack(pages) if pages else torch.zeros(0, len(signatures), len(signatures), dtype=torch.float64)


def frobenius(signatures: Sequence[Signature]) -> Tensor:
    """Mean over tensors of the Frobenius norm of the difference, not squared; EPFL's."""
    pages = layer_distances(signatures)
    return (pages / max(len(pages), 1)).sum(0).clamp(max=torch.finfo(torch.float64).max)


def euclidean(signatures: Sequence[Signature]) -> Tensor:
    """Euclidean norm of the difference over all tensors."""
    pages = layer_distances(signatures)
    largest = pages.amax() if pages.numel() else torch.zeros((), dtype=torch.float64)
    if largest == 0:
        return pages.sum(0)
    return ((pages / largest).square().sum(0).sqrt() * largest).clamp(max=torch.finfo(torch.float64).max)


def cosine(signatures: Sequence[Signature]) -> Tensor:
    """1 minus the cosine over all tensors, in [0, 2]; two that are all zero are 0 apart, one of them 1/2 from others.

    Half the squared distance of the unit vectors, which is exactly zero for equal ones.
    """
    columns = [_column(signatures, name) for name in sorted(signatures[0])]
    whole = torch.cat(columns, 1) if columns else torch.zeros(len(signatures), 1, dtype=torch.float64)
    whole = whole / whole.abs().amax(1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
    length = whole.norm(dim=1, keepdim=True)
    return _pairs(whole / length.clamp(min=1e-300)).square() / 2


DISTANCES: dict[str, Callable[[Sequence[Signature]], Tensor]] = {
    "frobenius": frobenius,
    "euclidean": euclidean,
    "cosine": cosine,
}


def _column(signatures: Sequence[Signature], name: str) -> Tensor:
    return torch.stack([signature[name].flatten().double() for signature in signatures])


def _pairs(rows: Tensor) -> Tensor:
    """Euclidean distances between rows, safe against squares that overflow or vanish."""
    largest = rows.abs().amax() if rows.numel() else rows.sum()
    if largest == 0:
        return rows.new_zeros(len(rows), len(rows))
    apart = torch.cdist(rows / largest, rows / largest, compute_mode="donot_use_mm_for_euclid_dist")
    return (apart * largest).clamp(max=torch.finfo(rows.dtype).max)


def rows_of(affinity: Tensor) -> Tensor:
    """Rows that sum to 1, in proportion to affinities that are not negative; a row without any keeps to itself."""
    largest = affinity.amax(1, keepdim=True)
    eye = torch.eye(len(affinity), dtype=affinity.dtype)
    scaled = torch.where(largest > 0, affinity / largest.clamp(min=torch.finfo(torch.float64).tiny), eye)
    return scaled / scaled.sum(1, keepdim=True)


def with_own(others: Tensor, own: float) -> Tensor:
    """Rows with ``own`` on the diagonal and the rest in proportion to ``others``; 1 on it where there are no others."""
    eye = torch.eye(len(others), dtype=others.dtype)
    others = others * (1 - eye)
    alone = others.sum(1, keepdim=True) == 0
    return torch.where(alone, eye, own * eye + (1 - own) * rows_of(others))


def inverse_distance(distances: Tensor, own: float) -> Tensor:
    """Weights of others as one over their distance; those at distance zero share all of it equally.

    ``s_ij = (1 - own) (1 / d_ij) / sum_{k != i} (1 / d_ik)`` and ``s_ii = own``.
    """
    far = distances.clone().fill_diagonal_(float("inf"))
    nearest = far.amin(1, keepdim=True)
    near = torch.where(nearest == 0, (far == 0).double(), nearest / far.clamp(min=torch.finfo(torch.float64).tiny))
    return with_own(near.nan_to_num(0.0), own)  # inf / inf: a client that is alone


def mixed(models: Mapping[str, Any], rows: Tensor) -> dict[str, Any]:
    """Each client's mix of all models, ``sum_j rows[i, j] model_j``, in float64 and cast back once."""
    stacks = tree.map(lambda *leaves: torch.stack(leaves), *models.values())
    shares = rows.to(tree.leaves(stacks)[0].device)
    blended = tree.map(lambda x: torch.tensordot(shares, x.double(), dims=1).to(x.dtype), stacks)
    return {client: tree.map(lambda x, i=i: x[i].clone(), blended) for i, client in enumerate(models)}
