"""The course of every reader: read, check, hold back the server's, partition, split, cut, describe."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Generic, TypeVar, cast

from torch.utils.data import Dataset

from fedlit.data.base import arguments
from fedlit.data.base.batch import Batch, collate
from fedlit.data.base.external import set_apart, without_overlap
from fedlit.data.base.names import few
from fedlit.data.base.partitions import Assignment, Partition, statistics
from fedlit.data.base.protocol import SplitProtocol
from fedlit.data.base.reader import OnBadRecord, Reader
from fedlit.data.base.records import SPLITS, Item
from fedlit.data.base.renaming import doubts
from fedlit.errors import FedlitError

SERVER = "server"
KEPT = 1000
"""Data sets that are kept ready, so that memory does not grow with the clients that were asked for."""

RecordT = TypeVar("RecordT", bound=Item)
"""What is read, and partitioned."""
PieceT = TypeVar("PieceT")
"""What a client trains on, cut out of records: a row of windows, an example, a document."""
DatasetT = TypeVar("DatasetT", bound="Dataset[Any]")


class PartitionedDataModule(Reader, Generic[RecordT, PieceT, DatasetT]):
    """Records of many clients, split and cut.

    Attributes:
        records: Those that clients may hold, in natural order of their ids, after :meth:`setup`.
        assignment: Indices into ``records`` by client.
    """

    noun: ClassVar[str] = "record"
    too_small: ClassVar[str] = "has no window to train on: use a partition with larger clients"
    """Why a client with nothing to train on cannot take part."""
    split: str
    val_fraction: float
    test_fraction: float
    split_choices: ClassVar[object]
    server_reason: ClassVar[str] = "is of a group that the server holds"
    """Why a record that is like the server's goes to nobody."""

    def check_arguments(self) -> None:
        """Refuse arguments that all modules share and that cannot be; subclasses assign them."""
        arguments.one_of("split", self.split, self.split_choices)
        arguments.one_of("on_bad_record", self.on_bad_record, OnBadRecord)
        arguments.above_zero(batch_size=self.batch_size, eval_batch_size=self.eval_batch_size)
        arguments.shares(val_fraction=self.val_fraction, test_fraction=self.test_fraction)
        if self.val_fraction + self.test_fraction >= 1:
            raise FedlitError("data.val_fraction + data.test_fraction leave nothing to train on: lower them")

    @abstractmethod
    def read(self) -> Iterable[RecordT]:
        """All records. Readers ask :meth:`excluded` before they read one, and :meth:`refuse` what they cannot use."""

    @abstractmethod
    def _usable(self, read: Iterable[RecordT]) -> list[RecordT]:
        """The records that can be used, in natural order of their ids."""

    @abstractmethod
    def _relabelled(self, record: RecordT) -> RecordT | None:
        """The record with the labels, or types, that ``rename`` gives it; None if it is then without one it needs."""

    @abstractmethod
    def _names_of(self, record: RecordT) -> dict[str, Iterable[str]]:
        """The ``labels``, or ``types``, in a record."""

    @abstractmethod
    def _held_back(self, used: Sequence[RecordT]) -> tuple[list[int], set[int]]:
        """Which records the server holds, and which no client may have, those among them."""

    @abstractmethod
    def _divided(self) -> dict[str, dict[str, list[PieceT]]]:
        """The pieces of each client and split."""

    @abstractmethod
    def _server_pieces(self, held: Sequence[RecordT]) -> list[PieceT]:
        """What the server's records are cut to."""

    @abstractmethod
    def _dataset(self, held: Sequence[tuple[str, Sequence[PieceT]]], split: str) -> DatasetT:
        """A data set of the pieces of several clients."""

    @abstractmethod
    def _describe_use(self) -> dict[str, Any]:
        """How records are split and cut, for :meth:`describe`."""

    @abstractmethod
    def _describe_client(self, client: str) -> dict[str, Any]:
        """What a client holds, for :meth:`describe`."""

    @abstractmethod
    def _describe_findings(self) -> dict[str, Any]:
        """What was found in the records, for :meth:`describe`."""

    @property
    def names_are_given(self) -> bool:
        """Whether the user, or the source, lists the labels, and so knows what they say."""
        return False

    @property
    @abstractmethod
    def protocol(self) -> SplitProtocol:
        """How records are split."""

    @property
    def parity_means(self) -> str:
        """What a reader of figures must know of the split; empty for a split by the arguments."""
        return self.protocol.means

    def usual_partition(self) -> Partition:
        """The partition where none is given."""
        return self.default_partition

    def setup(self, stage: str | None = None) -> None:
        """Read, check, partition, split, cut. A second call does nothing."""
        if self._ready:
            return
        self.seed = self.seed or 0
        used, self._outside = self._set_apart(self._usable(self._renamed(self.read())))
        served, away = self._held_back(used)
        self._server = [used[i] for i in served]
        self._left_out |= {used[i].id: self.server_reason for i in away.difference(served)}
        self.records = [record for i, record in enumerate(used) if i not in away]
        self.assignment = self._assigned()
        self._parts = self._divided()
        self._served = self._server_pieces(self._server)
        self._tested = {
            name: {"train": [], "val": [], "test": self._external_pieces(name, held)}
            for name, held in self._outside.items()
        }
        self._look_over()
        self._warn_of_names()
        self.clients, self.external = list(self.assignment), list(self._outside)
        self._ready = True

    def dataset(self, clients: str | Sequence[str], split: str) -> DatasetT:
        """Pieces of one client, or of several together; of an external site, which has test data alone, likewise.

        Raises:
            FedlitError: There is no such client, or no such split, or none is asked for.
        """
        self.setup()
        names = [clients] if isinstance(clients, str) else list(clients)
        if not names:
            raise FedlitError("no client is asked for: `clients` of a data module is empty before its setup()")
        parts: Mapping[str, Mapping[str, list[PieceT]]] = {**self._parts, **self._tested}
        for name in names:
            if name not in parts:
                raise FedlitError(f"no client {name!r}: there are {few(list(parts))}")
        if split not in SPLITS:
            raise FedlitError(f"no split {split!r}: there are {', '.join(SPLITS)}")
        key = (tuple(names), split)
        if key not in self._made:
            if len(self._made) >= KEPT:
                del self._made[next(iter(self._made))]  # the oldest
            self._made[key] = self._dataset([(name, parts[name][split]) for name in names], split)
        return self._made[key]

    def server_dataset(self) -> DatasetT | None:
        """What the server itself holds; None where it holds nothing."""
        self.setup()
        return self._dataset([(SERVER, self._served)], "val") if self._server else None

    def collate(self, items: Batch | Sequence[Batch]) -> Batch:
        """A batch as it is, or single items put together."""
        return collate(items)

    def describe(self) -> dict[str, Any]:
        """Contents of ``partition.json``: who holds which records, what was left out and why."""
        self.setup()
        return {
            "data": type(self).__name__,
            "root": None if self.root is None else str(self.root),
            "simulated": self.simulated,
            "stand_in": self.stand_in,
            "seed": self.seed,
            "partition": (self.partition or self.usual_partition()).config(),
            **self._describe_use(),
            "clients": {client: self._describe_client(client) for client in self.clients},
            "server": [record.id for record in self._server],
            **({"external": {n: [r.id for r in own] for n, own in self._outside.items()}} if self._outside else {}),
            "statistics": statistics(self.records, self.assignment),
            **self._describe_findings(),
            "passed_over": sorted(str(path) for path in self._passed_over),
            "excluded": [{"record": record, "reason": reason} for record, reason in sorted(self._left_out.items())],
            "warnings": list(self._warnings),
        }

    def _likeness(self, record: RecordT) -> set[Hashable]:
        """What no record of an external site may have in common with one that takes part."""
        return {record.subject}

    def _external_pieces(self, site: str, held: Sequence[RecordT]) -> list[PieceT]:
        """What the records of an external site are cut to."""
        return self._server_pieces(held)

    def _set_apart(self, usable: list[RecordT]) -> tuple[list[RecordT], dict[str, list[RecordT]]]:
        """Records of sites that take part, and those of ``external_sites``."""
        if not self.external_sites:
            return usable, {}
        if self.stand_in:
            self.say("stand-in: its sites have other names, so data.external_sites sets none of them apart")
            return usable, {}
        inside, outside = set_apart(usable, self.external_sites)
        outside, alike = without_overlap(inside, outside, self._likeness)
        reason = "of an external site, and of a subject, or a copy of a record, that takes part"
        self._left_out |= {record.id: reason for record in alike}
        if alike:
            self.say(
                f"data.external_sites: {len(alike)} record(s) are of subjects, or copies of records, that sites in "
                "training hold: they are left out"
            )
        return inside, outside

    def _assigned(self) -> Assignment:
        """Indices into ``records`` by client, in order of their names."""
        partition = self.partition or self.usual_partition()
        try:
            assignment = dict(sorted(partition.assign(self.records, self.seed or 0).items()))
        except FedlitError as error:
            if self.partition is not None:
                raise
            raise FedlitError(f"{error}; data.partition is not given, and is {partition}: give one") from error
        held = {i for indices in assignment.values() for i in indices}
        self._left_out |= {r.id: "left out by the partition" for i, r in enumerate(self.records) if i not in held}
        return assignment

    def _renamed(self, read: Iterable[RecordT]) -> Iterable[RecordT]:
        """Records under the names that ``rename`` gives; a name that none has is told of."""
        if not self.rename:
            yield from read
            return
        sites, subjects = self.rename.get("sites", {}), self.rename.get("subjects", {})
        met: set[tuple[str, str]] = set()
        for record in read:
            met |= self._named(record)
            change: Any = {}
            if record.site in sites:
                change["site"] = sites[record.site]
            if record.subject in subjects:
                change["subject"] = subjects[record.subject]
            new = self._relabelled(replace(cast(Any, record), **change) if change else record)
            if new is None:
                self._left_out[record.id] = "is left without a label by data.rename"
            else:
                yield new
        idle = [
            f"{name!r} of {what}" for what, names in self.rename.items() for name in names if (what, name) not in met
        ]
        if idle:
            self.say(f"data.rename: nothing is named {few(idle)}")

    def _look_over(self) -> None:
        """Refuse clients with nothing to train on, and warn of what is odd, but not wrong in itself."""
        for client, parts in self._parts.items():
            if not parts["train"]:
                raise FedlitError(f"client {client!r} {self.too_small}")

    def say_subjects_are_unknown(self, count: int, mend: str) -> None:
        """Warn that each record counts as a subject of its own, where the split goes by subject."""
        if self.split == "subject" and self.protocol.by_subject and not self.stand_in:
            self.say(
                f"{count} record(s) count as a subject each: where subjects have several records, one may train and be "
                f"tested on: set {mend} if it is so)"
            )

    def _warn_of_names(self) -> None:
        """Warn of sites, subjects, labels and types that are spelt in several ways, and of labels that say nothing."""
        if self.stand_in:
            return
        count: dict[str, Counter[str]] = defaultdict(Counter)
        for record in self.records:
            for what, name in self._named(record):
                count[what][name] += 1
        for what in sorted(count):
            for doubt in doubts(what, count[what], chosen=self.names_are_given):
                self.say(doubt)

    def _named(self, record: RecordT) -> set[tuple[str, str]]:
        """All names in a record, with what they name."""
        own = {"sites": [record.site], "subjects": [record.subject], **self._names_of(record)}
        return {(what, name) for what, names in own.items() for name in names}

    def _warn_of_left_out(self, kept: int) -> None:
        """Warn of records that were skipped, and of patterns in ``exclude`` that name none."""
        if self._skipped:
            names = few(self._skipped)
            self.say(f"{len(self._skipped)} bad record(s) skipped, {kept} kept: {names}; see partition.json")
        idle = [pattern for pattern in self.exclude if pattern not in self._used_patterns]
        if idle:
            self.say(f"data.exclude: no record is named like {few(idle)}")

    def _check_unique(self, ids: Iterable[str]) -> None:
        twice = next((name for name, count in Counter(ids).items() if count > 1), None)
        if twice is not None:
            mend = "rename one, or leave its file out"
            raise FedlitError(f"two {self.noun}s are named {twice!r}, ids must be unique: {mend}")

    def _demand_some(self, usable: Sequence[object]) -> None:
        if not usable:
            where = "" if self.root is None else f" in {self.root}"
            why = next((f", first {name!r}: {reason}" for name, reason in self._left_out.items()), "")
            raise FedlitError(f"no {self.noun} left to use{where}: {len(self._left_out)} left out{why}")

    def _forget(self) -> None:
        super()._forget()
        self._made: dict[tuple[tuple[str, ...], str], DatasetT] = {}
