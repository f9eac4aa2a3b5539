"""Partitions of annotated documents: every tag at every client, the rarest first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fedlit.data.base.partitions import Assignment, Partition, demand, group, numbered
from fedlit.data.base.records import Item


@dataclass(frozen=True)
class RareTagBalanced(Partition):
    """Documents dealt out so that every client has about the same number of each tag, and of documents.

    Greedy, as iterative stratification (Sechidis et al. 2011, doi:10.1007/978-3-642-23808-6_10): of the tags that are
    left the rarest is dealt out first, the documents with most of it before others, each to the client that lacks most
    of its share and has room. A tag is a type of mention or relation and counts as often as it occurs; of other
    records, a label. Ties go by the documents' ids: the seed plays no part.

    Args:
        clients: How many.
        unit: ``"subject"`` keeps all documents of a subject at one client, ``"record"`` does not.
    """

    clients: int
    unit: Literal["subject", "record"] = "subject"

    def assign(self, records: Sequence[Item], seed: int) -> Assignment:
        units = list(group(records, lambda r: r.subject if self.unit == "subject" else r.id).values())
        demand(self.clients, len(units), f"{self.unit}s")
        tags = [sum((_tags(records[i]) for i in members), Counter[str]()) for members in units]
        whole, more = divmod(len(records), self.clients)
        deal = _Deal([whole + (client < more) for client in range(self.clients)], tags)
        left = list(range(len(units)))
        while left:
            count = sum((tags[unit] for unit in left), Counter[str]())
            tag = min(count, key=lambda name: (count[name], name), default=None)
            having = [unit for unit in left if tag is None or tags[unit][tag]]
            for unit in sorted(having, key=lambda u: -tags[u][tag] if tag is not None else -len(units[u])):
                deal.give(unit, len(units[unit]), tag)
            left = [unit for unit in left if unit not in deal.client_of]
        held: list[list[int]] = [[] for _ in range(self.clients)]
        for unit, client in deal.client_of.items():
            held[client] += units[unit]
        return numbered(held)


class _Deal:
    """Who holds what so far, and what each client still lacks.

    Args:
        room: Documents that each client may still get.
        tags: Tags of each unit.
    """

    def __init__(self, room: list[int], tags: Sequence[Counter[str]]) -> None:
        self.room = room
        self.tags = tags
        self.client_of: dict[int, int] = {}
        total = sum(tags, Counter[str]())
        documents = sum(room)
        self.lacks = [{tag: n * own / documents for tag, n in total.items()} for own in room]
        self.units = [0] * len(room)

    def give(self, unit: int, size: int, tag: str | None) -> None:
        """A unit to the client that lacks most of ``tag``, of those with room for it; none is left without any unit."""
        left = len(self.tags) - len(self.client_of)
        empty = [client for client, held in enumerate(self.units) if not held]
        fits = [client for client, room in enumerate(self.room) if room >= size]
        among = empty if len(empty) >= left else fits or range(len(self.room))

        def wanted(client: int) -> tuple[float, ...]:
            lacking = self.lacks[client][tag] if tag is not None else 0.0
            # Without room for it the client with most room left gets it, whatever it lacks.
            return (lacking, self.room[client], -client) if fits else (self.room[client], lacking, -client)

        client = max(among, key=wanted)
        self.client_of[unit] = client
        self.units[client] += 1
        self.room[client] -= size
        for name, times in self.tags[unit].items():
            self.lacks[client][name] -= times


def _tags(record: Item) -> Counter[str]:
    """How often a record has each tag."""
    found: list[Any] = [*getattr(record, "entities", ()), *getattr(record, "relations", ())]
    if found:
        return Counter(str(tag.type) for tag in found)
    own = getattr(record, "labels", None)
    if own is not None:
        return Counter(own)
    return Counter() if hasattr(record, "entities") or record.label is None else Counter([record.label])
