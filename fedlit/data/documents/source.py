"""Arguments that all readers of annotated documents share; documents are checked here."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

from fedlit.data.base.partitions import Partition, clients_named
from fedlit.data.base.reader import OnBadRecord, Reader
from fedlit.data.base.records import natural
from fedlit.data.documents.documents import BOTH, Annotation, Document, document_fault
from fedlit.data.documents.schema_and_masks import of_types, types_given, types_in
from fedlit.errors import FedlitError

DocumentSplit = Literal["subject", "record", "fold"]


class DocumentSource(Reader):
    """Annotated documents, from files; each is whole on one side of the split.

    A document in which nothing was looked for, or nothing that its client looks for, is left out.

    Args:
        partition: Who holds which documents; None for the reader's natural one.
        batch_size: Documents in a batch.
        eval_batch_size: Documents in a batch that is scored and not trained on; None: ``batch_size``. Language models
            write their answers to that many at once.
        split: ``subject`` (default) deals out whole subjects at random, ``record`` single documents; ``fold`` follows
            the source (where it has no validation part, that share of its training part).
        val_fraction: Share for validation; 0 for none.
        test_fraction: Share for test.
        types: Types of mention and relation to keep, others are dropped; a relation goes with its ends. Without any
            type of relation, documents are as ones in which nobody looked for relations.
        schema: Types of mention, and of relation with the pairs of types that they link, as
            ``{entities: [Chemical, Disease], relations: {CID: [[Chemical, Disease]]}}``; a document that does not keep
            to them is a bad record. None: those that occur.
        annotated: What clients looked for, by pattern (``site-b*: [entities]``), the first that matches; others looked
            for both. Where relations are not in it documents lose them; where mentions are not, documents keep them as
            input, and ``Document.annotated`` says that they are no target.
        mask_test: Whether test documents, too, keep only what their client looked for. False asks what a client learnt
            from the others.
        exclude: Patterns (``note-0*``) of document ids, or of files, to leave out.
        on_bad_record: ``error`` stops at a document that cannot be used, ``skip`` leaves it out and says so.
        merge_duplicates: Keep documents of equal text (but for case and white space), and the subjects that hold them,
            on one side of the split. With ``split`` ``fold`` they are counted.
        server_examples: Documents that the server holds, evenly of each site, with all that their annotators found.
            Their subjects and duplicates are kept from clients; drawn before the partition.
        seed: Of partition, split and shuffling; None: the run's seed, or 0 outside of a federated run.
    """

    def __init__(
        self,
        partition: Partition | None = None,
        batch_size: int = 4,
        eval_batch_size: int | None = None,
        split: DocumentSplit = "subject",
        val_fraction: float = 0.15,
        test_fraction: float = 0.25,
        types: list[str] | None = None,
        schema: dict[str, Any] | None = None,
        annotated: dict[str, list[Annotation]] | None = None,
        mask_test: bool = True,
        exclude: list[str] | None = None,
        on_bad_record: OnBadRecord = "error",
        merge_duplicates: bool = True,
        server_examples: int = 0,
        seed: int | None = None,
    ) -> None:
        super().__init__(partition, exclude, on_bad_record, seed)
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.split = split
        self.val_fraction = val_fraction
        self.test_fraction = test_fraction
        self.types = None if types is None else list(types)
        self.given_schema = schema
        self.schema: dict[str, Any] = {}
        self.annotated = {pattern: list(looked_for) for pattern, looked_for in (annotated or {}).items()}
        self.mask_test = mask_test
        self.merge_duplicates = merge_duplicates
        self.server_examples = server_examples
        self._check_arguments()

    @abstractmethod
    def read(self) -> list[Document]:
        """All documents. Readers ask :meth:`excluded` before, and :meth:`refuse` what they cannot read."""

    def config(self) -> dict[str, Any]:
        """Class name and constructor arguments, as JSON can hold them."""
        return super().config() | {"schema": self.given_schema}

    def stand_in_size(self, per_client: int = 24) -> tuple[int, int]:
        """Clients that the partition names (3 where it names none), and documents enough for all of them."""
        clients = clients_named(self.partition or self.default_partition) or 3
        return clients, clients * per_client + self.server_examples

    def use_stand_in(self, folder: Path) -> None:
        """Read generated files in the place of the data. Types are those of the generated files."""
        super().use_stand_in(folder)
        self.types = self.given_schema = None

    def _usable(self, read: Sequence[Document]) -> list[Document]:
        """Documents that are not excluded, whole and of the types asked for, in natural order; sets ``schema``."""
        count = Counter(own.id for own in read)
        twice = next((name for name, times in count.items() if times > 1), None)
        if twice is not None:
            raise FedlitError(f"two documents are named {twice!r}, ids must be unique: rename one, or leave it out")
        good = []
        for own in read:
            if self.excluded(own.id):
                continue
            fault = document_fault(own)
            if fault is None and not own.annotated:
                self._left_out[own.id] = "nothing was looked for in it"
            elif fault is None:
                good.append(own)
            else:
                self.refuse(own.id, f"document {own.id!r} {fault}")
        self._demand_some(good)
        good = self._of_types(good)
        given = None if self.given_schema is None else types_given(self.given_schema)
        usable = []
        for own in good:
            fault = None if given is None else given.fault(own)
            if fault is None:
                usable.append(replace(own, subject=own.subject or own.id))
            else:
                self.refuse(own.id, f"document {own.id!r} {fault}: mend either, or set data.types")
        self._demand_some(usable)
        self.schema = (given or types_in(usable)).plain()
        return sorted(usable, key=lambda own: natural(own.id))

    def _of_types(self, documents: list[Document]) -> list[Document]:
        """Documents without what ``types`` does not name."""
        if self.types is None:
            return documents
        there = types_in(documents)
        known = [*there.entities, *there.relations]
        odd = next((name for name in self.types if name not in known), None)
        if odd is not None:
            raise FedlitError(
                f"data.types: no mention or relation is of the type {odd!r}; there are {', '.join(known)}"
            )
        if not set(self.types) & set(there.entities):
            raise FedlitError(f"data.types names no type of mention: add one of {', '.join(there.entities)}")
        linked = bool(set(self.types) & set(there.relations))
        looked_for = BOTH if linked else BOTH - {"relations"}
        out = []
        for own in documents:
            left = of_types(own, self.types)
            left = replace(left, annotated=left.annotated & looked_for)
            if left.annotated:
                out.append(left)
            else:
                self._left_out[own.id] = "nothing of data.types was looked for in it"
        return out

    def _demand_some(self, usable: Sequence[Document]) -> None:
        if not usable:
            where = "" if self.root is None else f" in {self.root}"
            why = next((f", first {name!r}: {reason}" for name, reason in self._left_out.items()), "")
            raise FedlitError(f"no document left to use{where}: {len(self._left_out)} left out{why}")

    def _forget(self) -> None:
        super()._forget()
        self.ignored: Counter[str] = Counter()

    def _check_arguments(self) -> None:
        for name, choices in (("split", DocumentSplit), ("on_bad_record", OnBadRecord)):
            if getattr(self, name) not in get_args(choices):
                raise FedlitError(f"data.{name} is {getattr(self, name)!r}: give one of {', '.join(get_args(choices))}")
        for name in ("batch_size", "eval_batch_size"):
            if (value := getattr(self, name)) is not None and not value >= 1:
                raise FedlitError(f"data.{name} is {value}: give a number above 0")
        for name in ("val_fraction", "test_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise FedlitError(f"data.{name} is {getattr(self, name)}: give a share from 0 to 1")
        if self.val_fraction + self.test_fraction >= 1:
            raise FedlitError("data.val_fraction + data.test_fraction leave nothing to train on: lower them")
        if not self.server_examples >= 0:
            raise FedlitError(f"data.server_examples is {self.server_examples}: give a number, 0 for none")
        if self.given_schema is not None:
            types_given(self.given_schema)
        for pattern, looked_for in self.annotated.items():
            if not looked_for or not set(looked_for) <= BOTH:
                raise FedlitError(f"data.annotated of {pattern!r} is {looked_for}: give entities, relations, or both")
