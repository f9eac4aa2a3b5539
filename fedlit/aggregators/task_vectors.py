"""The changes that clients made to one pretrained model, merged in one round (of files: :mod:`fedlit.cli.merge`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from fedlit import tree
from fedlit.aggregators.base import Aggregator, Tensors, Work, require
from fedlit.aggregators.server import Server, Update
from fedlit.tree import Tree

FAMILY = "task vectors"

Mode = Literal["sum", "mean", "ties", "dare"]


@dataclass(frozen=True)
class TaskVectors(Aggregator):
    """One-shot merging: the pretrained model plus ``coefficient`` times a merge of the clients' changes to it.

    Data vectors, Tian et al. 2024, arXiv:2408.13038: ``w <- w + coefficient * merge(tau)``, ``tau_k = w_k - w``, meant
    for one round of long local training; every further round does the same from the merged model. All clients count
    alike. The paper re-estimates batch normalisation afterwards; buffers do not travel here, so that is not done.

    - ``sum``: ``sum_k tau_k`` (Ilharco et al. 2023, arXiv:2212.04089); ``mean``: the same over the number of clients.
    - ``ties``: Yadav et al. 2023, arXiv:2306.01708, Algorithm 1: of each vector only the ``density`` largest entries
      stay; each coordinate elects the sign of their sum, and those of that sign are averaged. Where the sum is 0 the
      result is 0. Entries are ranked within each tensor, as in PEFT, not over the whole model as in the paper's code:
      there the smaller ones of LoRA's A and B would all go.
    - ``dare``: Yu et al. 2023, arXiv:2311.03099: each entry stays with probability ``density``, divided by it, and the
      vectors are summed.

    On LoRA, A and B are merged apart, and the sum of B times the sum of A is not the sum of BA. ``sum`` and ``mean``
    work on sealed updates; the others read single ones.

    Args:
        mode: How the vectors are merged.
        coefficient: What the merged vector is multiplied by.
        density: Share of the entries that stay, with ``ties`` and ``dare``.
    """

    mode: Mode = "ties"
    coefficient: float = 1.0
    density: float = 0.2

    def __post_init__(self) -> None:
        require(self, self.mode in get_args(Mode), "mode", f"one of {', '.join(get_args(Mode))}")
        require(self, 0 < self.coefficient < float("inf"), "coefficient", "a finite number above 0")
        require(self, 0 < self.density <= 1, "density", "a share in (0, 1]")

    def weigh(self, num_examples: int, work: Work) -> float:
        return 1.0

    def aggregate(self, state: Tensors, updates: Sequence[Update], server: Server) -> Any:
        if self.mode in ("sum", "mean"):
            merged = tree.scale(server.mean(updates), len(updates) if self.mode == "sum" else 1)
        else:
            merged = merge(list(server.gather(updates).values()), self.mode, self.density, server.generator)
        return {"params": add(state["params"], merged, self.coefficient)}


def merge(vectors: Sequence[Tree], mode: Mode, density: float, generator: torch.Generator) -> Any:
    """The merged vector of :class:`TaskVectors`, in float64 and without its coefficient.

    Args:
        vectors: One tree for each client; all have the same names and shapes.
        mode: How they are merged.
        density: Share of the entries that stay, with ``ties`` and ``dare``.
        generator: Draws what stays, with ``dare``.
    """

    def merge_leaf(*leaves: Tensor) -> Tensor:
        leaves = tuple(leaf.double() for leaf in leaves)
        if mode == "ties":
            return _ties(torch.stack([_largest(x, density) for x in leaves]))
        if mode == "dare":
            leaves = tuple(torch.bernoulli(torch.full_like(x, density), generator=generator) * x for x in leaves)
        return torch.stack(leaves).sum(dim=0) / {"sum": 1, "mean": len(leaves), "dare": density}[mode]

    return tree.map(merge_leaf, *(tree.ordered(vector) for vector in vectors))


def add(params: Tree, merged: Tree, coefficient: float) -> Any:
    """``params + coefficient * merged``, in float64 and cast back once."""
    return tree.map(lambda p, m: (p.double() + coefficient * m.double()).to(p.dtype), params, merged)


def _largest(x: Tensor, density: float) -> Tensor:
    """The tensor with all but its largest entries set to 0; of equal ones the first stay."""
    flat = x.flatten()
    kept = flat.abs().argsort(descending=True, stable=True)[: max(1, int(density * flat.numel()))]
    out = torch.zeros_like(flat)
    out[kept] = flat[kept]
    return out.view_as(x)


def _ties(stacked: Tensor) -> Tensor:
    elected = stacked.sum(dim=0).sign()
    agree = stacked.sign() == elected
    return (stacked * agree).sum(dim=0) / agree.sum(dim=0).clamp(min=1)
