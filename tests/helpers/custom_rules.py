"""Rules written as a user would write them, one for each thing that later rules will ask of the loop."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from fedlit import tree
from fedlit.aggregators import Aggregator, FedAvg


@dataclass(frozen=True)
class Similarity(Aggregator):
    """Each client receives its own mean, in which clients like it count more."""

    temperature: float = 1.0

    def init(self, params):
        return {"params": params, "models": {}}

    def down(self, state, client):
        return state["models"].get(client, state["params"])

    def aggregate(self, state, updates, server):
        sent = {u.client: tree.add(self.down(state, u.client), u.tensors) for u in updates}
        models = {}
        for u in updates:
            near = [
                math.exp(-float(tree.sq(tree.sub(sent[u.client], sent[o.client]))) / self.temperature) for o in updates
            ]
            moved = [tree.scale(sent[o.client], x / sum(near)) for o, x in zip(updates, near, strict=True)]
            total = moved[0]
            for other in moved[1:]:
                total = tree.add(total, other)
            models[u.client] = tree.map(lambda a, like: a.to(like.dtype), total, sent[u.client])
        return {**state, "models": {**state["models"], **models}}

    def global_model(self, state):
        return None


@dataclass(frozen=True)
class HeadOnly(FedAvg):
    """Only some parameters are trained and sent; the others keep their initial values."""

    part: str = "net.3"

    def init(self, params):
        return {"params": tree.pick(params, self.part)}


@dataclass(frozen=True)
class LateLoss(FedAvg):
    """The loss counts more in later steps."""

    def objective(self, loss, w, down, memory):
        return loss(w) * (loss.step + 1) / loss.steps


@dataclass(frozen=True)
class Influence(FedAvg):
    """Weights by the loss on the server's own validation data."""

    def aggregate(self, state, updates, server):
        losses = [server.validate(tree.add(state["params"], u.tensors)) for u in updates]
        return self.step(state, server.mean(updates, [math.exp(-x) for x in losses]))


@dataclass(frozen=True)
class Noisy(FedAvg):
    """Draws from the server's generator."""

    def step(self, state, mean):
        return super().step(state, mean)

    def aggregate(self, state: Any, updates: Any, server: Any) -> Any:
        mean = tree.map(
            lambda x: x + 0.01 * torch.randn(x.shape, generator=server.generator, dtype=x.dtype), server.mean(updates)
        )
        return self.step(state, mean)
