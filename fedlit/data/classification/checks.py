"""Arguments that all readers of examples share; examples are checked, drawn and loaded here."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, get_args

from fedlit.data.base import groups as example_splits
from fedlit.data.base.duplicates import content_key, duplicates
from fedlit.data.base.groups import ClassSplit
from fedlit.data.base.names import few
from fedlit.data.base.partitions import Partition, clients_named
from fedlit.data.base.reader import OnBadRecord, Reader
from fedlit.data.base.records import BadRecord, natural
from fedlit.data.base.skews import Dirichlet, PairwiseDirichlet
from fedlit.data.classification import examples
from fedlit.data.classification.examples import Example, Examples, Modality
from fedlit.data.classification.value_store import ValueStore
from fedlit.errors import FedlitError


class ExampleSource(Reader):
    """Examples to classify, from files.

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
            Subjects and duplicates leak between train and test; ``describe()["leaks"]`` counts them.
        exclude: Patterns (``HR0*``) of record ids to leave out.
        on_bad_record: ``error`` stops at a record that cannot be used, ``skip`` leaves it out and says so.
        merge_duplicates: Keep examples with equal values, and the subjects that hold them, on one side of the split.
            Not with ``split`` ``fold`` or ``parity``: there they are counted.
        server_examples: Records that the server holds, for rules that ask for them. Their subjects and duplicates
            are kept from clients (not with ``parity``); drawn before the partition.
        cache_folder: Keep decoded values in a file in this folder, removed at the end, in the place of memory.
        seed: Of partition, split and shuffling; None: the run's seed, or 0 outside of a federated run.
    """

    modality: ClassVar[Modality]
    default_partition: ClassVar[Partition] = Dirichlet(20, 0.1, min_records=10)
    parity_partition: ClassVar[Partition] = PairwiseDirichlet(20, 0.1)
    parity_means: ClassVar[str] = "split as the paper's code, whose subjects and duplicates leak between train and test"
    multi_label: bool = False
    class_names: Sequence[str] | None = None
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
    ) -> None:
        super().__init__(partition, exclude, on_bad_record, seed)
        self.batch_size = batch_size
        self.split = split
        self.val_fraction = val_fraction
        self.test_fraction = test_fraction
        self.fraction = fraction
        self.parity = parity
        self.merge_duplicates = merge_duplicates
        self.server_examples = server_examples
        self.cache_folder = cache_folder
        self.classes: list[str] = []
        self._check_arguments()

    @abstractmethod
    def read(self) -> list[Example]:
        """All examples. Readers :meth:`refuse` what they cannot read; a function in ``values`` raises ``BadRecord``."""

    def cut(self, example: Example) -> list[Example]:
        """Windows of a record, with ids of their own: after the split, or before the partition with ``parity``."""
        return [example]

    def usual_partition(self) -> Partition:
        """Where none is given."""
        return self.parity_partition if self.parity else self.default_partition

    def use_stand_in(self, folder: Path) -> None:
        """Read generated files, all of them, in the place of the data."""
        super().use_stand_in(folder)
        self.fraction = 1.0

    def stand_in_size(self, per_client: int = 24) -> tuple[int, int]:
        """Clients that the partition names (20 where it names none), and examples enough for all of them."""
        clients = clients_named(self.partition or self.usual_partition()) or 20
        return clients, clients * per_client + self.server_examples

    @property
    def _cuts(self) -> bool:
        """Whether records are cut into several examples."""
        return type(self).cut is not ExampleSource.cut

    @property
    def _merges(self) -> bool:
        return self.merge_duplicates and not self.parity and self.split != "fold"

    def _labelled(self, read: Sequence[Example]) -> list[Example]:
        """Examples that are not excluded and whose labels are classes; sets ``classes``."""
        count = Counter(example.id for example in read)
        twice = next((name for name, times in count.items() if times > 1), None)
        if twice is not None:
            raise FedlitError(f"two records are named {twice!r}, ids must be unique: rename one, or leave its file out")
        usable = []
        for example in read:
            if self.excluded(example.id):
                continue
            fault = examples.label_fault(example, self.class_names, self.multi_label)
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
        if self.parity:
            usable = self._pieces(usable)
        units = [example.id if self.parity else example.subject for example in usable]
        chosen = example_splits.draw(units, example_splits.strata(usable), self.fraction, self.seed or 0)
        return sorted((usable[i] for i in chosen), key=lambda example: natural(example.id))

    def _load(self, drawn: Sequence[Example]) -> list[Example]:
        """Read and check every value once; keep what was read by a function."""
        store = ValueStore(self.cache_folder)
        usable: list[tuple[Example, int | None]] = []
        for example in drawn:
            try:
                value = example.value
            except BadRecord as error:
                self.refuse(example.id, str(error))
                continue
            fault = examples.value_fault(value, self.modality)
            if fault is not None:
                self.refuse(example.id, f"record {example.id!r} {fault}")
                continue
            self._keys[example.id] = content_key(value)
            # A window that is kept must not keep its whole record with it.
            window = self.parity and self._cuts and not callable(example.values)
            kept = window or (callable(example.values) and self.cache_values)
            usable.append((example, store.add(value.copy() if window else value) if kept else None))
            if self.parity or not self._cuts:
                self._shapes[example.id] = getattr(value, "shape", ())
        values = store.values()
        loaded = [e if number is None else replace(e, values=values[number]) for e, number in usable]
        loaded = self._of_one_shape(loaded)
        self._demand_some(loaded)
        self._duplicates = duplicates(loaded, [self._keys[example.id] for example in loaded])
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
            try:
                pieces = self.cut(record)
            except BadRecord as error:
                self.refuse(record.id, str(error))
                continue
            for piece in pieces:
                fault = examples.label_fault(piece, self.classes, self.multi_label)
                if fault is not None:
                    raise FedlitError(f"record {piece.id!r} {fault}")
            out += pieces
        return out

    def _demand_some(self, usable: Sequence[Example]) -> None:
        if not usable:
            where = "" if self.root is None else f" in {self.root}"
            why = next((f", first {name!r}: {reason}" for name, reason in self._left_out.items()), "")
            raise FedlitError(f"no record left to use{where}: {len(self._left_out)} left out{why}")

    def _forget(self) -> None:
        super()._forget()
        self._keys: dict[str, bytes] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._absent: dict[str, list[str]] = {}
        self._made: dict[tuple[tuple[str, ...], str], Examples] = {}

    def _check_arguments(self) -> None:
        for name, choices in (("split", ClassSplit), ("on_bad_record", OnBadRecord)):
            if getattr(self, name) not in get_args(choices):
                raise FedlitError(f"data.{name} is {getattr(self, name)!r}: give one of {', '.join(get_args(choices))}")
        if not self.batch_size >= 1:
            raise FedlitError(f"data.batch_size is {self.batch_size}: give a number above 0")
        for name in ("val_fraction", "test_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise FedlitError(f"data.{name} is {getattr(self, name)}: give a share from 0 to 1")
        if self.val_fraction + self.test_fraction >= 1:
            raise FedlitError("data.val_fraction + data.test_fraction leave nothing to train on: lower them")
        if not 0 < self.fraction <= 1:
            raise FedlitError(f"data.fraction is {self.fraction}: give a share above 0, 1 for all")
        if not self.server_examples >= 0:
            raise FedlitError(f"data.server_examples is {self.server_examples}: give a number, 0 for none")
