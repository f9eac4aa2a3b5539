"""Data module of examples to classify: labels, duplicates, splits by group, windows. Readers subclass it."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from fedlit.data.base import groups
from fedlit.data.base.duplicates import content_key
from fedlit.data.base.grouped import GroupedDataModule
from fedlit.data.base.groups import ClassSplit
from fedlit.data.base.names import few
from fedlit.data.base.overview import Shown
from fedlit.data.base.partitions import Partition
from fedlit.data.base.reader import OnBadRecord
from fedlit.data.base.records import SPLITS, BadRecord, natural
from fedlit.data.base.renaming import Rename, renamed
from fedlit.data.base.skews import Dirichlet, PairwiseDirichlet
from fedlit.data.classification import examples
from fedlit.data.classification.examples import Example, Examples, Modality
from fedlit.data.classification.overview import example_samples, examples_shown
from fedlit.data.classification.protocol import ExampleProtocol, FHBenchExamples
from fedlit.data.classification.reach import Reach, cut_off, told
from fedlit.data.classification.review import absent_classes, blanks_kept, duplicates_and_leaks, overruled, rare
from fedlit.data.classification.value_store import ValueStore
from fedlit.errors import FedlitError


class ClassificationDataModule(GroupedDataModule[Example, Examples]):
    """Examples to classify; a reader adds ``read`` and ``write_stand_in``.

    Args:
        partition: Who holds which examples; None for the reader's natural one, or FHBench's with ``parity``.
        batch_size: Examples in a batch.
        split: ``subject`` (default) deals out whole subjects, ``stratified`` single examples, both evenly in each
            client's classes; ``record`` single examples at random; ``fold`` follows the source (which has no validation
            part: that share of its training part). A group is on one side of the split at all clients.
        val_fraction: Share for validation; 0 for none.
        test_fraction: Share for test.
        fraction: Share of the subjects to use, the same in every class; with ``parity``, of the examples.
        parity: Do as the code of FHBench (arXiv 2504.10817): official parts pooled, windows cut before the partition
            and dealt out whatever subject they are from, 40 % train, 30 % test, 30 % val of each client and class.
            Subjects and duplicates leak between train and test; ``describe()["leaks"]`` counts them. Blank examples
            are kept and counted; otherwise they are bad records.
        exclude: Patterns (``HR0*``) of record ids to leave out.
        on_bad_record: ``error`` stops at a record that cannot be used, ``skip`` leaves it out and says so.
        merge_duplicates: Keep examples with equal values, and the subjects that hold them, on one side of the split.
            Not with ``split`` ``fold`` or ``parity``: there they are counted.
        server_examples: Records that the server holds, for rules that ask for them. Their subjects and duplicates
            are kept from clients (not with ``parity``); drawn before the partition.
        cache_folder: Keep decoded values in a file in this folder, removed at the end, in the place of memory.
        seed: Seed of partition, split and shuffling; None: the run's seed, or 0 outside of a federated run.
        rename: Names in the data to other ones, as ``{labels: {asthma: Asthma, "?": null}, sites: {...}}``; see
            :class:`fedlit.data.base.reader.Reader`.
        external_sites: Sites that take no part, and are scored at the end; see there.

    Attributes:
        classes: Names in the order of the label indices, after :meth:`setup`.
    """

    modality: ClassVar[Modality]
    default_partition: ClassVar[Partition] = Dirichlet(20, 0.1, min_records=10)
    parity_partition: ClassVar[Partition] = PairwiseDirichlet(20, 0.1)
    split: ClassSplit
    split_choices: ClassVar[object] = ClassSplit
    usual_clients: ClassVar[int] = 20
    added_facts: ClassVar[Mapping[str, str | None]] = {"cut": None}
    multi_label: bool = False
    rate: float | None = None
    """Samples per second (Hz) of the values, where they are sampled."""
    class_names: Sequence[str] | None = None
    unit: ClassVar[str] = ""
    """What the length of a record is counted in, where some of it may be cut off; see ``_reach``."""
    _absent: dict[str, list[str]]
    _reach: Reach | None
    _reaches: dict[str, Reach]
    cache_values: ClassVar[bool] = True
    """Whether values that are read by a function are read once and kept; False where reading is cheap."""

    def __init__(
        self,
        partition: Partition | None = None,
        batch_size: int = 32,
        split: ClassSplit = "subject",
        val_fraction: float = 0.15,
        test_fraction: float = 0.25,
        fraction: float = 1.0,
        parity: bool = False,
        exclude: list[str] | None = None,
        on_bad_record: OnBadRecord = "error",
        merge_duplicates: bool = True,
        server_examples: int = 0,
        cache_folder: Path | None = None,
        seed: int | None = None,
        rename: Rename | None = None,
        external_sites: list[str] | None = None,
    ) -> None:
        super().__init__(partition, exclude, on_bad_record, seed, rename, external_sites)
        self.batch_size, self.split, self.fraction, self.parity = batch_size, split, fraction, parity
        self.val_fraction, self.test_fraction = val_fraction, test_fraction
        self.merge_duplicates, self.server_examples = merge_duplicates, server_examples
        self.cache_folder = cache_folder
        self.classes: list[str] = []
        self.check_arguments()
        if not 0 < fraction <= 1:
            raise FedlitError(f"data.fraction is {fraction}: give a share above 0, 1 for all")

    @abstractmethod
    def read(self) -> list[Example]:
        """All examples. Readers :meth:`refuse` what they cannot read; a function in ``values`` raises ``BadRecord``."""

    def cut(self, example: Example) -> list[Example]:
        """Windows of a record, with ids of their own: after the split, or before the partition with ``parity``."""
        return [example]

    @property
    def protocol(self) -> ExampleProtocol:
        """How examples are grouped and split."""
        kind = FHBenchExamples if self.parity else ExampleProtocol
        return kind(self.split, self.val_fraction, self.test_fraction, self.merge_duplicates and not self.parity)

    @property
    def examples(self) -> list[Example]:
        """The records of clients."""
        return self.records

    def mend_of_fold(self, example: Example) -> str:
        """What to do about an example without a fold, with ``split`` ``fold``."""
        return "set data.split to subject"

    def mend_of_cuts(self) -> str:
        """What to do about what is cut off; a reader with a ``unit`` says it."""
        return "see partition.json"

    def value_fault(self, value: object) -> str | None:
        """Why a value cannot be used, or None."""
        return examples.value_fault(value, self.modality)

    def blank(self, value: object) -> str | None:
        """What a value that holds nothing says, or None; it is a bad record, but with ``parity``."""
        return examples.blank(value, self.modality)

    def usual_partition(self) -> Partition:
        """The partition where none is given."""
        return self.parity_partition if self.parity else self.default_partition

    def use_stand_in(self, folder: Path) -> None:
        """Read generated files, all of them, in the place of the data."""
        super().use_stand_in(folder)
        self.fraction = 1.0

    def shown(self, samples: int) -> Shown:
        whole = {c: {s: [self.records[i] for i in own] for s, own in sides.items()} for c, sides in self._sides.items()}
        rate = self.rate if self.modality in ("audio", "signal") else None
        train = {client: parts["train"] for client, parts in self._parts.items()}
        drawn = example_samples(train, rate, samples)
        seconds = {name: reach.given for name, reach in self._reaches.items()} if self.unit == "s" else {}
        return examples_shown(whole, self._parts, self.classes, rate, seconds)._replace(samples=drawn)

    def facts(self) -> dict[str, Any]:
        """Classes, number of labels, modality, rate, and the training examples of each class at each client."""
        self.setup()
        return {
            "classes": self.classes,
            "multi_label": self.multi_label,
            "modality": self.modality,
            "rate": self.rate,
            "class_counts": {client: self._class_counts(client, "train") for client in self.clients},
        }

    @property
    def names_are_given(self) -> bool:
        """Whether the user, or the source, lists the classes."""
        return self.class_names is not None

    def _names_of(self, example: Example) -> dict[str, Iterable[str]]:
        return {"labels": example.labels}

    def _relabelled(self, example: Example) -> Example | None:
        labels = renamed(example.labels, self.rename.get("labels", {}))
        return replace(example, labels=labels) if labels or self.multi_label else None

    @property
    def _cuts(self) -> bool:
        """Whether records are cut into several examples."""
        return type(self).cut is not ClassificationDataModule.cut

    def _usable(self, read: Iterable[Example]) -> list[Example]:
        return self._load(self._drawn(self._labelled(list(read))))

    def _labelled(self, read: Sequence[Example]) -> list[Example]:
        """Examples that are not excluded and whose labels are classes; sets ``classes``."""
        self._check_unique(example.id for example in read)
        usable = []
        for example in read:
            if self.excluded(example.id):
                continue
            fault = examples.label_fault(example, self.class_names, self.multi_label)
            if fault is None and self.protocol.follows_source and example.fold is None:
                fault = f"has no fold: {self.mend_of_fold(example)}"
            if fault is None:
                usable.append(example)
            else:
                self.refuse(example.id, f"record {example.id!r} {fault}")
        self._demand_some(usable)
        self.classes = list(self.class_names or sorted({n for e in usable for n in e.labels}, key=natural))
        if len(self.classes) < 2:
            raise FedlitError(f"the records' only label is {few(self.classes) or 'none'}: two classes are needed")
        held = {name for example in usable for name in example.labels}
        if idle := [name for name in self.classes if name not in held]:
            self.say(f"{len(idle)} of {len(self.classes)} classes have no record: {few(idle)}")
        return usable

    def _drawn(self, usable: list[Example]) -> list[Example]:
        """The share of the examples that is used, in natural order of their ids."""
        if self.protocol.windows_first:
            usable = self._pieces(usable)
        units = [self.protocol.group(example) for example in usable]
        chosen = groups.draw(units, groups.strata(usable), self.fraction, self.seed or 0)
        return sorted((usable[i] for i in chosen), key=lambda example: natural(example.id))

    def _load(self, drawn: Sequence[Example]) -> list[Example]:
        """Read and check every value once; keep what was read by a function."""
        store = ValueStore(self.cache_folder)
        usable: list[tuple[Example, int | None]] = []
        pieces = self.protocol.windows_first and self._cuts
        for example in drawn:
            self._reach = None
            try:
                value = example.value
            except BadRecord as error:
                self.refuse(example.id, str(error))
                continue
            fault = self.value_fault(value)
            if fault is None and (blank := self.blank(value)) is not None:
                self._blank += [example.id] * self.parity
                fault = None if self.parity else blank
            if fault is not None:
                self.refuse(example.id, f"record {example.id!r} {fault}")
                continue
            if not pieces:
                self._note_reach(example)
            self._keys[example.id] = content_key(value)
            # A window that is kept must not keep its whole record with it.
            window = pieces and not callable(example.values)
            value = value.copy() if window and isinstance(value, np.ndarray) else value
            kept = window or (callable(example.values) and self.cache_values)
            usable.append((example, store.add(value) if kept else None))
            if pieces or not self._cuts:
                self._shapes[example.id] = getattr(value, "shape", ())
        values = store.values()
        loaded = [e if number is None else replace(e, values=values[number]) for e, number in usable]
        loaded = self._of_one_shape(loaded)
        self._demand_some(loaded)
        return loaded

    def _of_one_shape(self, loaded: list[Example]) -> list[Example]:
        """Those of the commonest shape; the others are refused, for they do not fit one batch."""
        usual = max((count := Counter(self._shapes.values())), key=lambda shape: count[shape], default=())
        kept = []
        for example in loaded:
            shape = self._shapes.get(example.id, usual)
            if shape == usual:
                kept.append(example)
            else:
                mend = "bring all to one size"
                self.refuse(example.id, f"record {example.id!r} is {shape}, the others are {usual}: {mend}")
        return kept

    def _pieces(self, records: Sequence[Example]) -> list[Example]:
        """The records, or, where they are cut, their windows."""
        if not self._cuts:
            return list(records)
        out: list[Example] = []
        for record in records:
            self._reach = None
            try:
                pieces = self.cut(record)
            except BadRecord as error:
                self.refuse(record.id, str(error))
                continue
            self._note_reach(record)
            for piece in pieces:
                fault = examples.label_fault(piece, self.classes, self.multi_label)
                if fault is not None:
                    raise FedlitError(f"record {piece.id!r} {fault}")
            out += pieces
        return out

    def _note_reach(self, record: Example) -> None:
        """Keep what reading or cutting the record said of how much of it is used."""
        if self._reach is not None:
            self._reaches[record.id] = self._reach

    def _drawn_for_server(self, used: Sequence[Example], groups_of: Sequence[str]) -> tuple[list[int], set[int]]:
        by_fold = self.protocol.follows_source
        return groups.held_by_server(used, groups_of, self.server_examples, by_fold, self.seed or 0)

    def _strata(self) -> list[str]:
        return groups.strata(self.records)

    def _cut(self, client: str, split: str, held: list[Example]) -> list[Example]:
        return held if self.protocol.windows_first else self._pieces(held)

    def _server_pieces(self, held: Sequence[Example]) -> list[Example]:
        return list(held) if self.protocol.windows_first else self._pieces(held)

    def _dataset(self, held: Sequence[tuple[str, Sequence[Example]]], split: str) -> Examples:
        pairs = [(example, client) for client, own in held for example in own]
        return Examples([e for e, _ in pairs], [client for _, client in pairs], self.classes, self.multi_label)

    def _class_counts(self, client: str, split: str) -> dict[str, int]:
        return examples.class_counts(self._parts[client][split], self.classes)

    def _describe_use(self) -> dict[str, Any]:
        return {
            "parity": self.parity,
            "split": self.protocol.describe(),
            "fraction": self.fraction,
            "classes": self.classes,
            "multi_label": self.multi_label,
        }

    def _describe_findings(self) -> dict[str, Any]:
        cut = {"cut": cut_off(self._reaches.values(), self.unit)} if self._reaches else {}
        own = {"absent_classes": self._absent, "blank": self._blank, "official_test_in_training": self._official_test()}
        return super()._describe_findings() | own | cut

    def _official_test(self) -> int:
        """Records of the source's own test part that clients train on."""
        return sum(self.records[i].fold == "test" for sides in self._sides.values() for i in sides["train"])

    def _describe_client(self, client: str) -> dict[str, Any]:
        sides = {split: [self.records[i] for i in self._sides[client][split]] for split in SPLITS}
        held = [example for own in sides.values() for example in own]
        reaches = [self._reaches[example.id] for example in held if example.id in self._reaches]
        cut = {"cut": cut_off(reaches, self.unit)} if reaches else {}
        return cut | {
            "records": {split: [example.id for example in own] for split, own in sides.items()},
            "examples": {split: len(self._parts[client][split]) for split in SPLITS},
            "class_counts": {split: self._class_counts(client, split) for split in SPLITS},
            "subjects": len({example.subject for example in held}),
            "sites": sorted({example.site for example in held}, key=natural),
            "kinds": sorted({example.kind for example in held}),
        }

    def _look_over(self) -> None:
        super()._look_over()
        self._absent = absent_classes(self._parts)
        count = Counter(name for example in self.records for name in example.labels)
        tested = {name for parts in self._parts.values() for example in parts["test"] for name in example.labels}
        self._say_if(overruled(self))
        if self.cache_folder is not None and self.modality == "text":
            self.say("data.cache_folder has no effect: texts are kept in memory")
        if self._absent:
            named = [f"{client} ({few(lacking, 3)})" for client, lacking in self._absent.items()]
            self.say(f"{len(named)} client(s) test classes that they have no training example of: {few(named)}")
        if len(tested) == 1 and not self.multi_label:
            self.say(f"all test examples are of one class ({tested.pop()}): scores tell nothing of the others")
        if self.class_names is None and self.protocol.by_subject:
            self._say_if(rare(self.classes, count))
        self._say_if(told(cut_off(self._reaches.values(), self.unit), self.mend_of_cuts()))
        self._say_if(blanks_kept(self._blank))
        self._warn_of_left_out(len(self.records))
        for message in duplicates_and_leaks(self._duplicates, self._leaks, self._merges, self.protocol.label):
            self.say(message)

    def _say_if(self, message: str | None) -> None:
        if message is not None:
            self.say(message)

    def _forget(self) -> None:
        super()._forget()
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._absent = {}
        self._blank: list[str] = []
        self._reach = None
        self._reaches = {}
