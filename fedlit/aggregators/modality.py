"""A mean for federations whose clients record different things, so that the few are not averaged away."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fedlit import tree
from fedlit.aggregators.averaging import FedAvg
from fedlit.aggregators.base import Tensors, require
from fedlit.aggregators.clustering import agglomerate
from fedlit.aggregators.parts.signatures import cosine, sketch
from fedlit.aggregators.server import Server, Update
from fedlit.errors import FedlitError

FAMILY = "similarity"


@dataclass(frozen=True)
class ModalityMean(FedAvg):
    """Each client receives the mean of its group, shrunk towards the mean of all; groups are found or given.

    Ours, an answer to a question that arXiv:2502.09744 leaves open: under FedAvg one ICG client among 19 ECG clients
    does no better than without training. A client of group g receives ``(1 - shrink) mean_g + shrink mean``, both
    weighted as in FedAvg. Without ``groups`` the server finds them, and needs no label: each client's updates are
    summed over the rounds, in a random projection, because a single round's are mostly noise; clients are joined by
    average linkage on the cosines of these sums, until no two groups are ``merge`` times as alike as clients typically
    are (the upper quartile of all pairs). If all are alike there is one group, and this is FedAvg; what a group's size
    may be is not bounded, as the case it is made for is a group of one. Of clients that sit a round out the group's
    mean is that of its clients who took part, or what it was where none did. A client that is new and in no group
    receives the mean of all. Groups are found where clients want opposite things; after a few dozen steps of
    fine-tuning on ECG and ICG they were not (``docs/results/modality.md``), so give them where the modality is known.

    Args:
        lr: Server learning rate, of the groups' steps.
        weighting: Of the clients, as in :class:`~fedlit.aggregators.averaging.FedAvg`.
        shrink: Share of the mean of all; 1 is FedAvg.
        merge: How alike two groups must be to be joined, in units of how alike clients typically are.
        groups: Each client's group by its name, where that is known, as that of a recording's modality is.
    """

    shrink: float = 0.1
    merge: float = 0.5
    groups: dict[str, str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, 0 <= self.shrink <= 1, "shrink", "a number in [0, 1]")
        require(self, 0 <= self.merge <= 1, "merge", "a number in [0, 1]")

    def participants(self, clients: Sequence[str], round: int) -> None:  # noqa: A002
        unknown = sorted(set(self.groups or {}) - set(clients))
        require(self, not unknown, "groups", f"names of clients, and of {list(clients)[:3]} ... {unknown[:1]} is none")

    def init(self, params: Tensors) -> Any:
        return {"params": params, "models": {}, "sums": {}}

    def down(self, state: Tensors, client: str) -> Any:
        own = state["models"].get(client)
        return tree.combine([own, state["params"]], [1 - self.shrink, self.shrink]) if own else state["params"]

    def aggregate(self, state: Tensors, updates: Sequence[Update], server: Server) -> Any:
        got = server.gather(updates)
        before = {client: self.down(state, client) for client in got}
        after = {client: tree.add(before[client], got[client], self.lr) for client in got}
        sums = {c: sketch(got[c], tree.zeros(got[c]), SKETCH)["sketch"] for c in got}
        sums = {**state["sums"], **{c: state["sums"][c] + s if c in state["sums"] else s for c, s in sums.items()}}
        parts = given(got, self.groups) if self.groups else found(sums, self.merge)
        server.log("groups", len(parts))
        weight, models = {u.client: u.weight for u in updates}, dict(state["models"])
        for part in parts:
            present = {client: after[client] for client in part if client in after}
            models.update(dict.fromkeys(part, mean_of(present, weight)) if present else {})
        return {"params": mean_of(after, weight), "models": models, "sums": sums}


SKETCH = 2**14
"""Numbers in the projection; cosines of it are off by 1 / sqrt(SKETCH), below a hundredth."""


def found(sums: Mapping[str, Tensor], merge: float) -> list[list[str]]:
    """Groups of clients by the cosines of their summed updates."""
    names = sorted(sums)
    alike = 1 - cosine([{"sum": sums[client]} for client in names])
    pairs = alike[~torch.eye(len(alike), dtype=torch.bool)]
    typical = float(pairs.quantile(0.75)) if len(pairs) else 0.0
    return [[names[i] for i in part] for part in agglomerate(alike, "mean", least=merge * typical)]


def given(clients: Iterable[str], groups: Mapping[str, str]) -> list[list[str]]:
    """Groups by name, of all clients that have one."""
    unknown = sorted(set(clients) - set(groups))
    if unknown:
        raise FedlitError(f"ModalityMean.groups has no group for client {unknown[0]!r}: name one")
    return [[client for client in sorted(groups) if groups[client] == name] for name in sorted({*groups.values()})]


def mean_of(models: Mapping[str, Any], weight: Mapping[str, float]) -> Any:
    """The weighted mean of models; where no weight is above 0, the plain one."""
    own = [weight[client] for client in models]
    own = own if any(own) else [1.0] * len(own)
    return tree.combine(list(models.values()), [x / sum(own) for x in own])
