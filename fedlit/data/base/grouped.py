"""The course of readers whose records stay whole: groups and duplicates on one side of a split."""

from __future__ import annotations

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, TypeVar

from fedlit.data.base import arguments, groups
from fedlit.data.base.duplicates import duplicates, merged
from fedlit.data.base.groups import Sides
from fedlit.data.base.partitions import Assignment, clients_named
from fedlit.data.base.protocol import SplitProtocol
from fedlit.data.base.records import Foldable
from fedlit.data.base.template import DatasetT, PartitionedDataModule

ItemT = TypeVar("ItemT", bound=Foldable)


@dataclass(frozen=True)
class GroupProtocol(SplitProtocol):
    """Whole groups on one side of a split: subjects, and what holds equal values.

    Args:
        merge_duplicates: Whether equal values, and the groups that hold them, stay on one side.
        mend: What an error about a client of too few groups advises.
    """

    merge_duplicates: bool
    mend: str = groups.MEND

    def group(self, item: Foldable) -> str:
        """What an item is drawn with, and held back with."""
        return item.subject

    def unit(self, item: Foldable) -> str:
        """What an item is dealt out with in the split."""
        return self.group(item) if self.rule in ("subject", "fold") else item.id

    @property
    def follows_source(self) -> bool:
        """Whether the split is the one that the source publishes, which may have duplicates on both sides."""
        return self.rule == "fold"

    def split(
        self, items: Sequence[Foldable], held: Assignment, units: Sequence[str], classes: Sequence[str], seed: int
    ) -> dict[str, Sides]:
        """Indices of each client and split.

        Args:
            items: All that clients hold.
            held: Indices by client.
            units: What each item is dealt out with.
            classes: The class of each item, in which the split is even.
            seed: Seed of the draws.
        """
        shares = (self.val_fraction, self.test_fraction)
        if self.follows_source:
            return groups.split_folds(items, held, units, classes, *shares, seed)
        even = classes if self.rule != "record" else [""] * len(items)
        return groups.split_groups(held, units, even, *shares, seed, self.mend)


class GroupedDataModule(PartitionedDataModule[ItemT, ItemT, DatasetT], Generic[ItemT, DatasetT]):
    """Records that are pieces of a client as they are; those of one group are on one side of the split."""

    merge_duplicates: bool
    server_examples: int
    usual_clients: ClassVar[int]
    """Clients of a stand-in where the partition names no number."""

    def check_arguments(self) -> None:
        super().check_arguments()
        arguments.held_by_server("server_examples", self.server_examples)

    @property
    @abstractmethod
    def protocol(self) -> GroupProtocol:
        """How records are grouped and split."""

    @abstractmethod
    def _drawn_for_server(self, used: Sequence[ItemT], groups: Sequence[str]) -> tuple[list[int], set[int]]:
        """Which records the server holds, and all of their groups."""

    def stand_in_size(self, per_client: int = 24) -> tuple[int, int]:
        """Clients that the partition names (``usual_clients`` where it names none), and records enough for them."""
        clients = clients_named(self.partition or self.usual_partition()) or self.usual_clients
        return clients, clients * per_client + self.server_examples

    @property
    def _merges(self) -> bool:
        """Whether all duplicates end on one side of the split."""
        return self.protocol.merge_duplicates and not self.protocol.follows_source

    def _held_back(self, used: Sequence[ItemT]) -> tuple[list[int], set[int]]:
        keys = [self._keys[item.id] for item in used]
        self._duplicates = duplicates(used, keys)
        together, units = [self.protocol.group(item) for item in used], [self.protocol.unit(item) for item in used]
        if self.protocol.merge_duplicates:
            together, units = merged(together, keys), merged(units, keys)
        self._units = {item.id: unit for item, unit in zip(used, units, strict=True)}
        return self._drawn_for_server(used, together)

    def _likeness(self, record: ItemT) -> set[Hashable]:
        return {self.protocol.group(record), self._keys[record.id]}

    def _strata(self) -> list[str]:
        """The class of each record, in which the split is even."""
        return [""] * len(self.records)

    def _divided(self) -> dict[str, dict[str, list[ItemT]]]:
        units = [self._units[item.id] for item in self.records]
        self._sides = self.protocol.split(self.records, self.assignment, units, self._strata(), self.seed or 0)
        self._leaks = self._count_leaks()
        return {
            client: {split: self._cut(client, split, [self.records[i] for i in side]) for split, side in sides.items()}
            for client, sides in self._sides.items()
        }

    def _cut(self, client: str, split: str, held: list[ItemT]) -> list[ItemT]:
        """What a client's records of a split are cut to."""
        return held

    def _describe_findings(self) -> dict[str, Any]:
        return {
            "duplicates": self._duplicates | {"merged": self._merges},
            "leaks": self._leaks,
        }

    def _count_leaks(self) -> dict[Literal["subjects", "duplicates"], int]:
        """How many subjects, and how many values, are in more than one split."""
        subjects: dict[str, set[str]] = defaultdict(set)
        values: dict[bytes, set[str]] = defaultdict(set)
        for sides in self._sides.values():
            for split, side in sides.items():
                for i in side:
                    subjects[self.records[i].subject].add(split)
                    values[self._keys[self.records[i].id]].add(split)
        return {
            "subjects": sum(len(splits) > 1 for splits in subjects.values()),
            "duplicates": sum(len(splits) > 1 for splits in values.values()),
        }

    def _forget(self) -> None:
        super()._forget()
        self._keys: dict[str, bytes] = {}
