"""Rules that look after the clients that a plain mean serves worst."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fedlit import tree
from fedlit.aggregators.base import Aggregator, Tensors, Work, require
from fedlit.aggregators.drift import population
from fedlit.aggregators.server import Server, Update
from fedlit.errors import FedlitError

FAMILY = "fairness"


@dataclass(frozen=True)
class QFedAvg(Aggregator):
    """Clients count by a power of their loss, so that losses become more even.

    Li et al. 2020, arXiv:1905.10497, Algorithm 2 (q-FedAvg), for ``min sum_k F_k^(q + 1) / (q + 1)``. With the loss
    ``F_k`` of the received model on all the client's training data and ``D_k = L (w - w_k)``:
    ``w <- w - sum_k F_k^q D_k / sum_k (q F_k^(q - 1) |D_k|^2 + L F_k^q)``. Clients weigh alike, as in the paper.
    Numerator and denominator are both uploaded, divided by ``L``, so only means are read, and ``q = 0`` is uniform
    FedAvg. A loss counts as at least 1e-10, so that ``F_k^(q - 1)`` is finite; the released code adds as much.

    Args:
        q: How much fairness: 0 is none, and in the limit only the worst client counts. The paper tunes it by data set.
        lipschitz: ``L``, an estimate for gradients' Lipschitz constant. None: one over the mean local learning rate,
            the paper's choice, tuned for ``q = 0`` under SGD; under Adam give it.
    """

    q: float = 1.0
    lipschitz: float | None = None

    measures = ("start_loss",)

    def __post_init__(self) -> None:
        require(self, 0 <= self.q < float("inf"), "q", "a finite number, at least 0")
        ok = self.lipschitz is None or 0 < self.lipschitz < float("inf")
        require(self, ok, "lipschitz", "a finite number above 0, or None")

    def finish(self, w: Tensors, down: Tensors, memory: Tensors, work: Work) -> tuple[Any, Any]:
        if work.start_loss < 0:
            raise FedlitError(f"QFedAvg takes powers of the loss, and this client's is {float(work.start_loss):.3g}")
        moved, loss = tree.sub(w, down), work.start_loss.clamp(min=1e-10)
        lipschitz = work.steps / work.travel if self.lipschitz is None else torch.full_like(loss, self.lipschitz)
        curvature = self.q * loss ** (self.q - 1) * lipschitz * tree.sq(moved).to(loss)
        return {"moved": tree.scale(moved, loss**self.q), "scale": curvature + loss**self.q}, memory

    def weigh(self, num_examples: int, work: Work) -> float:
        return 1.0

    def aggregate(self, state: Tensors, updates: Sequence[Update], server: Server) -> Any:
        mean = server.mean(updates)
        return {"params": tree.add(state["params"], tree.scale(mean["moved"], 1 / mean["scale"]))}


@dataclass(frozen=True)
class AFL(Aggregator):
    """The model for the worst mixture of clients: the server's weights climb towards the clients with large losses.

    Mohri et al. 2019, arXiv:1902.00146, for ``min_w max_lambda sum_k lambda_k L_k(w)`` over the simplex, by their
    Stochastic-AFL: ``w <- w + lr * N / |S| * sum_S lambda_k (w_k - w)`` and
    ``lambda_k <- P(lambda_k + lambda_lr * N / |S| * L_k(w))``, both from the same ``w`` and ``lambda``. ``P`` is the
    Euclidean projection onto the simplex of all N clients; who did not take part has the gradient 0, and ``N / |S|``
    makes up for it in expectation. The weights start uniform, and every mixture of clients is allowed.

    The paper takes one gradient step a round and returns the mean of all iterates; here ``w_k`` may be several steps
    away and the last iterate is kept. With few clients in a round ``N / |S|`` makes long steps: lower ``lr``.
    The server reads each client's loss, so sealed updates are refused.

    Args:
        lr: Server learning rate of the model.
        lambda_lr: Step of the clients' weights, per unit of loss.
    """

    lr: float = 1.0
    lambda_lr: float = 0.1

    measures = ("start_loss",)

    def __post_init__(self) -> None:
        require(self, 0 < self.lr < float("inf"), "lr", "a finite number above 0")
        require(self, 0 <= self.lambda_lr < float("inf"), "lambda_lr", "a finite number, at least 0")

    def init(self, params: Tensors) -> Any:
        return {"params": params, "lambda": {}}

    def finish(self, w: Tensors, down: Tensors, memory: Tensors, work: Work) -> tuple[Any, Any]:
        return {"params": tree.sub(w, down), "loss": work.start_loss}, memory

    def weigh(self, num_examples: int, work: Work) -> float:
        return 1.0

    def aggregate(self, state: Tensors, updates: Sequence[Update], server: Server) -> Any:
        losses = {client: upload["loss"] for client, upload in server.gather(updates).items()}
        total = population(self, server)
        scale = total / len(losses)
        # Clients never heard of have equal weights always: one number, `unseen`, stands for each of them.
        unseen = state.get("unseen", torch.tensor(1 / total, dtype=torch.float64))
        weights = {**dict.fromkeys(losses, unseen), **state["lambda"]}
        own = [float(weights[u.client]) for u in updates]
        params = state["params"]
        if sum(own) > 0:
            params = tree.add(params, server.mean(updates, own)["params"], self.lr * scale * sum(own))
        names, absent = sorted(weights), total - len(weights)
        climbed = [weights[c] + self.lambda_lr * scale * losses.get(c, 0.0) for c in names] + [unseen] * absent
        new = project_simplex(torch.stack(climbed))
        server.log("largest_lambda", float(new.max()))
        known = {"params": params, "lambda": dict(zip(names, new, strict=False))}
        return {**known, "unseen": new[-1]} if absent else known


def project_simplex(v: Tensor) -> Tensor:
    """The point of the simplex ``{x >= 0, sum x = 1}`` that is nearest to the vector ``v``.

    It is ``max(v - t, 0)`` with the one ``t`` for which the entries sum to 1: of the sorted entries the largest stay
    above it.
    """
    largest = v.sort(descending=True).values
    excess = (largest.cumsum(0) - 1) / torch.arange(1, len(v) + 1, dtype=v.dtype, device=v.device)
    above = int((largest > excess).sum())
    return (v - excess[above - 1]).clamp(min=0)
