"""Rules that correct the drift of clients towards their own minima, instead of only holding them back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from fedlit import tree
from fedlit.aggregators.averaging import FedAvg
from fedlit.aggregators.base import Aggregator, Loss, Tensors, Work, require
from fedlit.aggregators.server import Server, Update
from fedlit.errors import FedlitError

FAMILY = "proximal and drift"


@dataclass(frozen=True)
class SCAFFOLD(Aggregator):
    """Control variates at the server and at each client point local steps along the mean gradient.

    Karimireddy et al. 2020, arXiv:1910.06378, Algorithm 1, option II. A client descends ``L_k + <c - c_k, w>``, then
    ``c_k+ = c_k - c + (w_global - w_k) / (K eta)``, its mean gradient along the way. At the server
    ``w <- w + lr * mean_S(w_k - w)`` and ``c <- c + |S| / N * mean_S(c_k+ - c_k)``, from zero. Clients weigh alike,
    as in the paper. ``K eta`` is here the sum of the learning rates, so that a schedule is accounted for.

    Made for SGD without momentum. Under Adam ``(w_global - w_k) / (K eta)`` is a mean of rescaled steps and no
    gradient, in other units than the loss it is added to: option II then corrects by the wrong amount, and the
    gradients of option I are not taken here. A client uploads twice the parameters.

    Args:
        lr: Server learning rate, the paper's eta_g.
    """

    lr: float = 1.0

    def __post_init__(self) -> None:
        require(self, 0 < self.lr < float("inf"), "lr", "a finite number above 0")

    def init(self, params: Tensors) -> Any:
        return {"params": params, "control": tree.zeros(params)}

    def init_memory(self, params: Tensors) -> Any:
        return tree.zeros(params)

    def down(self, state: Tensors, client: str) -> Any:
        return state

    def start(self, down: Tensors, memory: Tensors) -> Any:
        return down["params"]

    def objective(self, loss: Loss, w: Tensors, down: Tensors, memory: Tensors) -> Tensor:
        return loss(w) + tree.dot(tree.sub(down["control"], memory), w)

    def finish(self, w: Tensors, down: Tensors, memory: Tensors, work: Work) -> tuple[Any, Any]:
        moved = tree.sub(w, down["params"])
        control = tree.sub(tree.sub(memory, down["control"]), tree.scale(moved, 1 / work.travel))
        return {"params": moved, "control": tree.sub(control, memory)}, control

    def weigh(self, num_examples: int, work: Work) -> float:
        return 1.0

    def aggregate(self, state: Tensors, updates: Sequence[Update], server: Server) -> Any:
        mean, part = server.mean(updates), len(updates) / population(self, server)
        control = tree.add(state["control"], mean["control"], part)
        return {"params": tree.add(state["params"], mean["params"], self.lr), "control": control}


@dataclass(frozen=True)
class FedDyn(Aggregator):
    """A linear and a proximal term that change from round to round, so that local minima come to agree.

    Acar et al. 2021, arXiv:2111.04263, Algorithm 1. A client descends
    ``L_k(w) - <g_k, w> + alpha / 2 * |w - w_global|^2``, then ``g_k <- g_k - alpha (w_k - w_global)``. At the server
    ``h <- h - alpha / N * sum_S (w_k - w)`` over all N clients and ``w <- mean_S w_k - h / alpha``, from zero.
    Clients weigh alike, as in Algorithm 1; the released code divides alpha by a client's share of the examples.
    The norm is squared; some public code takes it unsquared.

    Args:
        alpha: Strength of both terms.
    """

    alpha: float = 0.01

    def __post_init__(self) -> None:
        require(self, 0 < self.alpha < float("inf"), "alpha", "a finite number above 0")

    def init(self, params: Tensors) -> Any:
        return {"params": params, "h": tree.zeros(params)}

    def init_memory(self, params: Tensors) -> Any:
        return tree.zeros(params)

    def objective(self, loss: Loss, w: Tensors, down: Tensors, memory: Tensors) -> Tensor:
        return loss(w) - tree.dot(memory, w) + self.alpha / 2 * tree.sq(tree.sub(w, down))

    def finish(self, w: Tensors, down: Tensors, memory: Tensors, work: Work) -> tuple[Any, Any]:
        moved = tree.sub(w, down)
        return moved, tree.add(memory, moved, -self.alpha)

    def weigh(self, num_examples: int, work: Work) -> float:
        return 1.0

    def aggregate(self, state: Tensors, updates: Sequence[Update], server: Server) -> Any:
        mean, part = server.mean(updates), len(updates) / population(self, server)
        h = tree.add(state["h"], mean, -self.alpha * part)
        return {"params": tree.add(tree.add(state["params"], mean), h, -1 / self.alpha), "h": h}


@dataclass(frozen=True)
class MOON(FedAvg):
    """FedAvg whose clients keep their features near the global model's and away from their own last model's.

    Li, He and Song 2021, arXiv:2103.16257, Algorithm 1. To the loss comes ``mu`` times the mean over the batch of
    ``-log(e^(s(z, z_global) / T) / (e^(s(z, z_global) / T) + e^(s(z, z_last) / T)))`` with cosine similarity ``s``.
    ``z`` is what the network's head sees: no projection head is added, the paper has one. A client that has not
    trained yet has the initial model for its last; in round 0 that is the global one too, and the term has no
    gradient. Needs a task with ``features(batch)``; a step takes three more forward passes.

    Args:
        mu: Weight of the contrastive loss; the paper tunes it in 0.1, 1, 5, 10. 0 is FedAvg.
        temperature: ``T``; 0.5 is the paper's.
    """

    mu: float = 1.0
    temperature: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, 0 <= self.mu < float("inf"), "mu", "a finite number, at least 0")
        require(self, 0 < self.temperature < float("inf"), "temperature", "a finite number above 0")

    def init_memory(self, params: Tensors) -> Any:
        return params

    def objective(self, loss: Loss, w: Tensors, down: Tensors, memory: Tensors) -> Tensor:
        if not self.mu:
            return loss(w)
        with torch.no_grad():
            shared, last = loss.features(down), loss.features(memory)
        return loss(w) + self.mu * contrastive(loss.features(w), shared, last, self.temperature)

    def finish(self, w: Tensors, down: Tensors, memory: Tensors, work: Work) -> tuple[Any, Any]:
        return tree.sub(w, down), w


def contrastive(z: Tensor, near: Tensor, far: Tensor, temperature: float) -> Tensor:
    """Mean of ``-log(e^(s(z, near) / T) / (e^(s(z, near) / T) + e^(s(z, far) / T)))``, of features (batch, d)."""
    to_near, to_far = (functional.cosine_similarity(z, other, dim=-1) for other in (near, far))
    return functional.softplus((to_far - to_near) / temperature).mean()


def population(rule: Aggregator, server: Server) -> int:
    """How many clients there are, in this round or not.

    Raises:
        FedlitError: The server does not know.
    """
    if server.num_clients is None:
        raise FedlitError(f"{type(rule).__name__} scales by the share of clients that take part: give num_clients")
    return server.num_clients
