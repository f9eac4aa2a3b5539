"""Rules that hold a client's local training near the model it received."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from fedlit import tree
from fedlit.aggregators.averaging import FedAvg
from fedlit.aggregators.base import Loss, Tensors, require

FAMILY = "proximal and drift"


@dataclass(frozen=True)
class FedProx(FedAvg):
    """FedAvg whose clients pay ``mu / 2 * |w - w_global|^2`` for drifting.

    Li et al. 2020, arXiv:1812.06127, Algorithm 2; arXiv:2502.09744 uses ``mu = 1``. The anchor is a detached copy of
    what was received. In the public code of the latter it was the live model, so its term was always zero.

    Args:
        mu: Strength of the pull; 0 is FedAvg.
    """

    mu: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, 0 <= self.mu < float("inf"), "mu", "a finite number, at least 0")

    def objective(self, loss: Loss, w: Tensors, down: Tensors, memory: Tensors) -> Tensor:
        return proximal(loss(w), self.mu, w, down)


def proximal(value: Tensor, mu: float, w: Tensors, anchor: Tensors) -> Tensor:
    """``value + mu / 2 * |w - anchor|^2``; with ``mu = 0`` no operation at all, so bytes equal those without it."""
    return value + mu / 2 * tree.sq(tree.sub(w, anchor)) if mu else value
