"""Clusters of clients, found at the server from what they send, each with a model of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from fedlit import tree
from fedlit.aggregators.averaging import FedAvg
from fedlit.aggregators.base import Tensors, require
from fedlit.aggregators.parts.signatures import cosine
from fedlit.aggregators.server import Server, Update

FAMILY = "similarity"


@dataclass(frozen=True)
class ClusteredFL(FedAvg):
    """FedAvg whose clusters of clients are split in two where their updates disagree, again and again.

    Sattler et al. 2019, arXiv:1910.01991, Algorithms 1 and 2: once a cluster's mean update is shorter than ``eps1``
    while a client's is longer than ``eps2``, it stands at a point that is stationary for the cluster and not for its
    clients, and is split so that the largest cosine between updates across the two parts is smallest. Each part goes
    on from the cluster's model. A client that was absent from a split is put, when it next reports, to the part
    whose mean update at the split is nearest to its own; a new client walks down from the first cluster likewise.
    Defaults are those of the released code; both scale with model and learning rate. Its warm-up rounds and the
    paper's bound ``gamma_max`` on noise, off by default there, are left out.

    Args:
        lr: Server learning rate.
        weighting: Of the clients within a cluster, as in :class:`~fedlit.aggregators.averaging.FedAvg`.
        eps1: Length of the mean update below which a cluster counts as stationary.
        eps2: Length of a client's update above which it is not; more than ``eps1``.
    """

    eps1: float = 0.4
    eps2: float = 1.6

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, 0 <= self.eps1 < float("inf"), "eps1", "a finite number, at least 0")
        require(self, self.eps1 < self.eps2 < float("inf"), "eps2", "a finite number above eps1")

    def init(self, params: Tensors) -> Any:
        return {"models": {"1": params}, "directions": {}, "clusters": {}}

    def down(self, state: Tensors, client: str) -> Any:
        return state["models"][str(int(state["clusters"].get(client, 1)))]

    def aggregate(self, state: Tensors, updates: Sequence[Update], server: Server) -> Any:
        got = server.gather(updates)
        out = {part: dict(state[part]) for part in ("models", "directions", "clusters")}
        members: dict[int, list[Update]] = {}
        for u in sorted(updates, key=lambda u: u.client):
            members.setdefault(int(state["clusters"].get(u.client, 1)), []).append(u)
        for at, present in sorted(members.items()):
            if f"{2 * at}" in state["models"]:  # they missed a split: what they trained is no more in use
                late = {u.client: descend(at, got[u.client], state["directions"]) for u in present}
                out["clusters"].update({c: torch.tensor(cluster) for c, cluster in late.items()})
                continue
            parts = divide([got[u.client] for u in present], server.mean(present), self.eps1, self.eps2)
            for key, part in enumerate(parts, at if len(parts) == 1 else 2 * at):
                step = server.mean([present[i] for i in part])
                out["models"][str(key)] = tree.add(state["models"][str(at)], step, self.lr)
                out["clusters"].update({present[i].client: torch.tensor(key) for i in part})
                out["directions"].update({str(key): step} if len(parts) == 2 else {})
        server.log("clusters", sum(f"{2 * int(key)}" not in out["models"] for key in out["models"]))
        return out

    def global_model(self, state: Tensors) -> Any | None:
        return None


def divide(updates: Sequence[Any], mean: Tensors, eps1: float, eps2: float) -> list[list[int]]:
    """The two parts that a cluster is split into, or the one that it stays."""
    longest = max(float(tree.sq(u)) for u in updates) ** 0.5
    if len(updates) < 2 or float(tree.sq(mean)) ** 0.5 >= eps1 or longest <= eps2:
        return [list(range(len(updates)))]
    return bipartition(updates)


def bipartition(updates: Sequence[Any]) -> list[list[int]]:
    """The two parts across which the largest cosine is smallest: joining the most alike until two are left."""
    return agglomerate(1 - cosine([tree.flatten(u) for u in updates]), "max", until=2)


def descend(cluster: int, update: Tensors, directions: Tensors) -> int:
    """The cluster below this one, or itself, that the update points to most."""
    while f"{2 * cluster}" in directions:
        near = [float(cosine([update, directions[f"{2 * cluster + i}"]])[0, 1]) for i in (0, 1)]
        cluster = 2 * cluster + (near[1] < near[0])
    return cluster


def agglomerate(
    similarity: Tensor, linkage: Literal["max", "mean"], least: float = -float("inf"), until: int = 1
) -> list[list[int]]:
    """Groups made by joining the two most alike ones until ``until`` are left or none are ``least`` alike.

    Two groups are as alike as their most alike members (``max``) or as all pairs across on average (``mean``). Of
    equally alike ones the first are joined. Groups and members are sorted.
    """
    groups = {i: [i] for i in range(len(similarity))}
    between = similarity.clone().fill_diagonal_(-float("inf"))
    while len(groups) > until:
        at = int(between.argmax())
        i, j = sorted(divmod(at, len(between)))
        if between[i, j] < least:
            break
        a, b = len(groups[i]), len(groups[j])
        joined = (a * between[i] + b * between[j]) / (a + b) if linkage == "mean" else between[i].maximum(between[j])
        groups[i] = sorted(groups[i] + groups.pop(j))
        joined[i] = joined[j] = -float("inf")
        between[i], between[:, i] = joined, joined
        between[j], between[:, j] = -float("inf"), -float("inf")
    return sorted(groups.values())
