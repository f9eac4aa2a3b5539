"""Data module of annotated documents: types, what each client looked for, splits by group. Readers subclass it."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch

from fedlit.data.base.batch import Batch
from fedlit.data.base.duplicates import content_key
from fedlit.data.base.grouped import GroupedDataModule, GroupProtocol
from fedlit.data.base.names import few
from fedlit.data.base.overview import Shown
from fedlit.data.base.partitions import Assignment, Partition
from fedlit.data.base.reader import OnBadRecord
from fedlit.data.base.records import SPLITS, natural
from fedlit.data.base.renaming import Rename
from fedlit.data.documents.dataset import Documents
from fedlit.data.documents.documents import (
    BOTH,
    Document,
    blank_fault,
    document_fault,
    without_margins,
)
from fedlit.data.documents.looked_for import Kinds, masked
from fedlit.data.documents.masks import Masks, patterns
from fedlit.data.documents.overview import documents_shown
from fedlit.data.documents.schema_and_masks import (
    annotation_counts,
    held_by_server,
    kept_types,
    of_types,
    searched_for,
    type_counts,
    types_given,
    types_in,
    with_types,
)
from fedlit.errors import FedlitError

DocumentSplit = Literal["subject", "record", "fold"]
_MEND = "use a partition with fewer, larger clients, or set data.val_fraction or data.test_fraction to 0"


class DocumentDataModule(GroupedDataModule[Document, Documents]):
    """Annotated documents; a reader adds ``read`` and ``write_stand_in``.

    Each document is whole on one side of the split.

    A document in which nothing was looked for, or nothing that its client looks for, is left out. Where the
    format cannot say what was looked for, a site without a single relation (mention) was not looked through for any.

    Args:
        partition: Who holds which documents; None for the reader's natural one.
        batch_size: Documents in a batch.
        eval_batch_size: Documents in a batch that is scored and not trained on; None: ``batch_size``. Language models
            write their answers to that many at once.
        split: ``subject`` (default) deals out whole subjects at random, ``record`` single documents; ``fold`` follows
            the source (where it has no validation part, that share of its training part).
        val_fraction: Share for validation; 0 for none.
        test_fraction: Share for test.
        types: Types of mention and relation to keep, others are dropped; a relation goes with its ends. Documents are
            then as ones in which nobody looked for the others.
        schema: Types of mention, and of relation with the pairs of types that they link, as
            ``{entities: [Chemical, Disease], relations: {CID: [[Chemical, Disease]]}}``, and ``symmetric: [Same]`` for
            relations without a direction; a document that does not keep to them is a bad record. None: those that
            occur.
        annotated: What clients looked for, by pattern (``site-b*: [entities]``), the first that matches; others looked
            for both. Where relations are not in it documents lose them; where mentions are not, documents keep them as
            input, and ``Document.annotated`` says that they are no target. By type: ``{entities: [Disease]}``,
            ``{entities: [Drug, Dose], relations: [Has]}``, ``{relations: null}`` for all types of relation; mentions
            of other types are taken out.
        mask_test: Whether test documents, too, keep only what their client looked for. False asks what a client learnt
            from the others.
        exclude: Patterns (``note-0*``) of document ids, or of files, to leave out.
        on_bad_record: ``error`` stops at a document that cannot be used, ``skip`` leaves it out and says so.
        merge_duplicates: Keep documents of equal text (but for case and white space), and the subjects that hold them,
            on one side of the split. With ``split`` ``fold`` they are counted.
        server_examples: Documents that the server holds, evenly of each site, with all that their annotators found.
            Their subjects and duplicates are kept from clients; drawn before the partition.
        seed: Seed of partition, split and shuffling; None: the run's seed, or 0 outside of a federated run.
        rename: Names in the data to other ones, as ``{labels: {asthma: Asthma, "?": null}, sites: {...}}``; see
            :class:`fedlit.data.base.reader.Reader`.
        external_sites: Sites that take no part, and are scored at the end; see there.

    Attributes:
        schema: Types in the documents, after :meth:`setup`, in the form of the argument.
        documents: All that clients hold, with everything that their annotators found.
    """

    noun: ClassVar[str] = "document"
    too_small: ClassVar[str] = f"has no document to train on: {_MEND}"
    split: DocumentSplit
    split_choices: ClassVar[object] = DocumentSplit
    usual_clients: ClassVar[int] = 3
    added_facts: ClassVar[Mapping[str, str | None]] = {"types": None}
    held_as: ClassVar[Mapping[str, str]] = {"schema": "given_schema"}
    says_what_was_looked_for: ClassVar[bool] = True
    """Whether the format says if something was looked for and not found."""

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
        annotated: dict[str, Kinds] | None = None,
        mask_test: bool = True,
        exclude: list[str] | None = None,
        on_bad_record: OnBadRecord = "error",
        merge_duplicates: bool = True,
        server_examples: int = 0,
        seed: int | None = None,
        rename: Rename | None = None,
        external_sites: list[str] | None = None,
    ) -> None:
        super().__init__(partition, exclude, on_bad_record, seed, rename, external_sites)
        self.batch_size, self.eval_batch_size, self.split = batch_size, eval_batch_size, split
        self.val_fraction, self.test_fraction = val_fraction, test_fraction
        self.merge_duplicates, self.server_examples = merge_duplicates, server_examples
        self.types = None if types is None else list(types)
        self.given_schema = schema
        self.schema: dict[str, Any] = {}
        self.annotated = dict(annotated or {})
        self.mask_test = mask_test
        self.check_arguments()
        if schema is not None:
            types_given(schema)
        self._patterns = patterns(self.annotated)

    @abstractmethod
    def read(self) -> list[Document]:
        """All documents. Readers ask :meth:`excluded` before, and :meth:`refuse` what they cannot read."""

    @property
    def protocol(self) -> GroupProtocol:
        """How documents are grouped and split."""
        return GroupProtocol(self.split, self.val_fraction, self.test_fraction, self.merge_duplicates, _MEND)

    @property
    def documents(self) -> list[Document]:
        """All that clients hold, with everything that their annotators found."""
        return self.records

    def use_stand_in(self, folder: Path) -> None:
        """Read generated files in the place of the data. Types are those of the generated files."""
        super().use_stand_in(folder)
        self.types = self.given_schema = None

    def shown(self, samples: int) -> Shown:
        types = {c: {s: self._types.looked_for(own) for s, own in parts.items()} for c, parts in self._parts.items()}
        return documents_shown(self._parts, types)

    def facts(self) -> dict[str, Any]:
        """The schema of the documents."""
        self.setup()
        return {"schema": self.schema}

    def collate(self, items: Batch | Sequence[Batch]) -> Batch:
        """A batch as it is, or single documents put together."""
        if isinstance(items, dict):
            return items
        together = {name: [item[name] for item in items] for name in ("document", "client")}
        return {**together, "index": torch.tensor([item["index"] for item in items], dtype=torch.int64)}

    def _usable(self, read: Iterable[Document]) -> list[Document]:
        """Documents that are not excluded, whole and of the types asked for, in natural order; sets ``schema``."""
        read = list(read)
        self._check_unique(own.id for own in read)
        good = []
        for own in read:
            if self.excluded(own.id):
                continue
            fault = document_fault(own) or blank_fault(own)
            if fault is None and not own.annotated:
                self._left_out[own.id] = "nothing was looked for in it"
            elif fault is None:
                good.append(own)
            else:
                self.refuse(own.id, f"document {own.id!r} {fault}")
        self._demand_some(good)
        shortened = [without_margins(own) for own in good]
        if count := sum(changed for _, changed in shortened):
            self.say(f"{count} mention(s) began or ended with white space, which was left out of them")
        good = self._of_types([own for own, _ in shortened])
        there = types_in(good)
        given = None if self.given_schema is None else types_given(self.given_schema)
        if given is not None:
            symmetric = [name for name in there.symmetric if name in given.relations]
            given = replace(given, symmetric=tuple(dict.fromkeys([*given.symmetric, *symmetric])))
        usable = []
        for own in good:
            fault = None if given is None else given.fault(own)
            if fault is None:
                usable.append(replace(own, subject=own.subject or own.id))
            else:
                self.refuse(own.id, f"document {own.id!r} {fault}: mend either, or set data.types")
        self._demand_some(usable)
        self._types = given or types_in(usable)
        self.schema = self._types.plain()
        self._keys = {own.id: content_key(own.text) for own in usable}
        return sorted(usable, key=lambda own: natural(own.id))

    def _names_of(self, document: Document) -> dict[str, Iterable[str]]:
        return {"types": {*(e.type for e in document.entities), *(r.type for r in document.relations)}}

    def _relabelled(self, document: Document) -> Document:
        return with_types(document, self.rename.get("types", {}))

    def _of_types(self, documents: list[Document]) -> list[Document]:
        """Documents without what ``types`` does not name; what is dropped, also by ``rename``, is not looked for."""
        if self.types is None:
            dropped = None in self.rename.get("types", {}).values()
            there = types_in(documents)
            return [searched_for(own, there) for own in documents] if dropped else documents
        kept = kept_types(types_in(documents), self.types)
        left = [searched_for(of_types(own, self.types), kept) for own in documents]
        idle = [own.id for own in left if not own.annotated]
        self._left_out |= dict.fromkeys(idle, "nothing of data.types was looked for in it")
        return [own for own in left if own.annotated]

    def _drawn_for_server(self, used: Sequence[Document], groups: Sequence[str]) -> tuple[list[int], set[int]]:
        return held_by_server(used, groups, self.server_examples, self.protocol.follows_source, self.seed or 0)

    def _assigned(self) -> Assignment:
        assignment = super()._assigned()
        apart = [own for held in self._outside.values() for own in held]
        names = [*assignment, *self._outside]
        self._masks = Masks(names, self._patterns, self.schema, self.stand_in, self.say)
        others = [*self._server, *apart]
        self.records = self._masks.searched(self.records, others, assignment, self.says_what_was_looked_for)
        return self._masked(assignment)

    def _cut(self, client: str, split: str, held: list[Document]) -> list[Document]:
        """Documents with what their client looked for."""
        if split == "test" and not self.mask_test:
            return held
        return [masked(own, self._masks.of[client]) or own for own in held]

    def _server_pieces(self, held: Sequence[Document]) -> list[Document]:
        return self._masks.for_server(self.records, held)

    def _external_pieces(self, site: str, held: Sequence[Document]) -> list[Document]:
        believed = site in self._masks.said
        seen = list(held) if believed else self._masks.for_server(self.records, held)
        kept = [masked(own, self._masks.of[site]) or own for own in seen] if self.mask_test else seen
        if not kept:
            raise FedlitError(f"external site {site!r} has no document in which anything was looked for: leave it out")
        return kept

    def _dataset(self, held: Sequence[tuple[str, Sequence[Document]]], split: str) -> Documents:
        pairs = [(own, client) for client, documents in held for own in documents]
        return Documents([own for own, _ in pairs], [client for _, client in pairs])

    def _describe_use(self) -> dict[str, Any]:
        return {"split": self.protocol.describe(), "schema": self.schema}

    def _describe_findings(self) -> dict[str, Any]:
        asked = {client: [*parts["train"], *parts["val"]] for client, parts in self._parts.items()}
        types = {client: self._types.looked_for(own) for client, own in asked.items()}
        return super()._describe_findings() | {"not_kept": dict(self.ignored), "types": types}

    def _describe_client(self, client: str) -> dict[str, Any]:
        parts = self._parts[client]
        held = [own for side in parts.values() for own in side]
        kinds = {kind for own in [*parts["train"], *parts["val"]] for kind in own.annotated}
        if self.says_what_was_looked_for:
            kinds = set(self._masks.of[client].annotated)
        return {
            "looked_for": sorted(kinds),
            "documents": {split: [own.id for own in parts[split]] for split in SPLITS},
            "annotated": {split: annotation_counts(parts[split]) for split in SPLITS},
            "type_counts": {split: type_counts(parts[split]) for split in SPLITS},
            "subjects": len({own.subject for own in held}),
            "sites": sorted({own.site for own in held}, key=natural),
        }

    def _masked(self, assignment: Assignment) -> Assignment:
        """The documents of each client in which something that it looks for was looked for."""
        out: Assignment = {}
        for client, indices in assignment.items():
            out[client] = [i for i in indices if masked(self.records[i], self._masks.of[client]) is not None]
            for i in set(indices).difference(out[client]):
                self._left_out[self.records[i].id] = f"nothing that client {client!r} looks for was looked for in it"
            if not out[client]:
                what = ", ".join(sorted(self._masks.of[client].annotated))
                raise FedlitError(f"client {client!r} has no document annotated with {what}: mend data.annotated")
        return out

    def _look_over(self) -> None:
        super()._look_over()
        for what in sorted(BOTH):
            with_none = [c for c, parts in self._parts.items() if not annotation_counts(parts["train"])[what]]
            without = [client for client in with_none if what in self._masks.of[client].annotated]
            if without and any(what in own.annotated for own in self.records):
                self.say(f"{len(without)} client(s) have no training document annotated with {what}: {few(without)}")
        self._masks.warn_of_lacking(self._parts, self._types)
        if len(self._parts) == 1:
            self.say("there is one client: name sites, or set data.partition (RareTagBalanced, IID) to make several")
        self._warn_of_left_out(len(self.records))
        if self._duplicates["repeats"] and not self._merges:
            self.say(
                f"{self._duplicates['values']} text(s) occur more than once ({self._duplicates['repeats']} repeats): "
                f"not kept on one side of the split"
            )
        if self._leaks["subjects"] or self._leaks["duplicates"]:
            self.say(
                f"{self._leaks['subjects']} subject(s) and {self._leaks['duplicates']} duplicated text(s) are in more "
                f"than one of train, val and test: data.split subject with merge_duplicates keeps them apart"
            )

    def _forget(self) -> None:
        super()._forget()
        self.ignored: Counter[str] = Counter()
