"""Random partitions that make clients unlike each other: Dirichlet, pairwise Dirichlet, quantity skew.

All of them end: a draw that leaves a client with too little is repaired by moving records from the largest clients,
never redrawn without end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from fedlit import seeds
from fedlit.data.base.partitions import Assignment, Partition, deal, demand, group, numbered
from fedlit.data.base.records import Item
from fedlit.errors import FedlitError

Attribute = Literal["site", "label", "kind"]
PAIR_DRAWS = 100
"""Draws of a pair before it is repaired; with many classes nearly every first draw is good."""


@dataclass(frozen=True)
class Dirichlet(Partition):
    """Each class is spread over the clients by proportions from a symmetric Dirichlet.

    Hsu, Qi and Brown 2019, arXiv 1909.06335; here drawn per class.

    Args:
        clients: How many.
        alpha: Concentration: small for clients of few classes, large for equal mixes.
        by: What counts as the class.
        min_records: Least records of a client.
    """

    clients: int
    alpha: float
    by: Attribute = "label"
    min_records: int = 1

    def assign(self, records: Sequence[Item], seed: int) -> Assignment:
        demand(
            self.clients, len(records) // max(self.min_records, 1), f"times min_records = {self.min_records} records"
        )
        generator = seeds.numpy_generator(seed, "Dirichlet")
        held: list[list[int]] = [[] for _ in range(self.clients)]
        for members in classes(records, self.by):
            shares = proportions(generator, self.alpha, self.clients)
            for client, chosen in zip(held, cut_by_shares(generator.permutation(members), shares), strict=True):
                client += chosen
        return numbered(repaired(held, max(self.min_records, 1)))


@dataclass(frozen=True)
class PairwiseDirichlet(Partition):
    """Clients in pairs of equal size; a Dirichlet splits each class between the two of a pair only.

    The way of the FHBench code (arXiv 2504.10817), after Lin et al. 2021, arXiv 2102.04761: each pair gets a random
    equal slice; a client that has its fair share gets no more; a draw is good when the smaller client has at least half
    of the fair share. Much closer to equal mixes than the standard Dirichlet with the same alpha.

    Of an odd number, the last client is in no pair: as in that code it gets a random slice of a client's size, so its
    mix of classes is that of all. With 5 clients that is a fifth of them; an even number has none.

    Args:
        clients: How many.
        alpha: Concentration.
        by: What counts as the class.
    """

    clients: int
    alpha: float
    by: Attribute = "label"

    def assign(self, records: Sequence[Item], seed: int) -> Assignment:
        demand(self.clients, len(records), "records")
        generator = seeds.numpy_generator(seed, "PairwiseDirichlet")
        order = [[int(i)] for i in generator.permutation(len(records))]
        alone = order[len(order) - len(order) // self.clients :] if self.clients % 2 else []
        held: list[list[int]] = []
        for part in deal(order[: len(order) - len(alone)], self.clients // 2) if self.clients > 1 else []:
            held += self._pair(records, [i for single in part for i in single], generator)
        return numbered([*held, *([[i for single in alone for i in single]] if alone else [])])

    def _pair(self, records: Sequence[Item], mine: list[int], generator: np.random.Generator) -> list[list[int]]:
        least = max(1, len(mine) // 4)
        members = [[mine[i] for i in chosen] for chosen in classes([records[i] for i in mine], self.by)]
        pair: list[list[int]] = [[], []]
        for _ in range(PAIR_DRAWS):
            pair = [[], []]
            for same in members:
                shares = proportions(generator, self.alpha, 2)
                room = shares * [len(client) < len(mine) / 2 for client in pair]
                # A share of exactly 0 for the only client with room: it takes the class all the same.
                shares = (
                    room / room.sum() if room.sum() > 0 else np.array([len(c) < len(mine) / 2 for c in pair], float)
                )
                for client, chosen in zip(pair, cut_by_shares(generator.permutation(same), shares), strict=True):
                    client += chosen
            if min(map(len, pair)) >= least:
                return pair
        return repaired(pair, least)


@dataclass(frozen=True)
class QuantitySkew(Partition):
    """Clients of unequal size and equal mix: sizes from a symmetric Dirichlet (Li et al. 2022, arXiv 2102.02079).

    Args:
        clients: How many.
        alpha: Concentration: small for very unequal sizes.
    """

    clients: int
    alpha: float

    def assign(self, records: Sequence[Item], seed: int) -> Assignment:
        demand(self.clients, len(records), "records")
        generator = seeds.numpy_generator(seed, "QuantitySkew")
        shares = proportions(generator, self.alpha, self.clients)
        return numbered(repaired(cut_by_shares(generator.permutation(len(records)), shares), 1))


def classes(records: Sequence[Item], by: Attribute) -> list[list[int]]:
    """Indices of the records of each class.

    Raises:
        FedlitError: Where a record has no such attribute.
    """
    for record in records:
        if getattr(record, by, None) is None:
            raise FedlitError(f"record {record.id!r} has no {by}: partition by another attribute, or leave it out")
    return list(group(records, lambda record: str(getattr(record, by))).values())


def proportions(generator: np.random.Generator, alpha: float, count: int) -> npt.NDArray[np.float64]:
    """A draw from the symmetric Dirichlet, shape ``(count,)``; for tiny alpha all may fall to one."""
    if not alpha > 0:
        raise FedlitError(f"alpha is {alpha}: give a number above 0")
    drawn = generator.dirichlet(np.full(count, alpha))
    if not np.isfinite(drawn).all() or drawn.sum() <= 0:
        drawn = np.eye(count)[generator.integers(count)]
    return np.asarray(drawn / drawn.sum())


def cut_by_shares(items: npt.NDArray[np.int64], shares: npt.NDArray[np.float64]) -> list[list[int]]:
    """Items in order, cut so that the pieces have these shares, to within one item."""
    edges = np.round(np.cumsum(shares) * len(items)).astype(int)
    edges[-1] = len(items)
    return [[int(i) for i in piece] for piece in np.split(items, edges[:-1])]


def repaired(held: list[list[int]], least: int) -> list[list[int]]:
    """Move records from the largest client to each that has fewer than ``least``. Needs ``least`` a client in all."""
    held = [list(indices) for indices in held]
    for client in held:
        while len(client) < least:
            client.append(max(held, key=len).pop())
    return held
