"""Readers of annotated documents: PubTator, CoNLL, brat, i2b2 2010 and JSON lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any, ClassVar

from fedlit.data.base import arguments
from fedlit.data.base.partitions import Partition
from fedlit.data.base.records import BadRecord
from fedlit.data.documents.brat import parse_brat, write_brat
from fedlit.data.documents.conll import ONLY_ENTITIES, Unit, conll_pieces, write_conll
from fedlit.data.documents.documents import Document
from fedlit.data.documents.files import DocumentFiles, FileOfDocuments
from fedlit.data.documents.formats import Piece
from fedlit.data.documents.generated import CHEMICALS, NOTES, by_site_and_fold, put, stand_in_documents
from fedlit.data.documents.i2b2 import parse_i2b2, write_i2b2
from fedlit.data.documents.jsonl import jsonl_pieces, write_jsonl
from fedlit.data.documents.offsets import Doubts, Offsets, as_counted, checked_offsets
from fedlit.data.documents.partitions import RareTagBalanced
from fedlit.data.documents.pubtator import Pairs, pubtator_pieces, write_pubtator
from fedlit.errors import FedlitError


class PubTatorFolder(FileOfDocuments):
    """PubTator files, each of many abstracts: BC5CDR, NCBI disease (see :mod:`fedlit.data.documents.pubtator`).

    Abstracts name no site: clients are made by :class:`fedlit.data.documents.partitions.RareTagBalanced`, or, where
    files are cohorts, by ``BySite``.

    Args:
        root: A file, or the folder with ``*PubTator*`` files.
        pairs: Mentions that a relation between concepts links: the ``first`` of each, or ``every`` pair.
        offsets: What offsets count: ``characters`` (None), ``utf16`` units, of which an emoji is two, or ``bytes``.
        kwargs: See :class:`fedlit.data.documents.files.FileOfDocuments`.
    """

    default_partition: ClassVar[Partition] = RareTagBalanced(3)
    patterns: ClassVar[tuple[str, ...]] = ("*[Pp]ub[Tt]ator*",)
    says_what_was_looked_for: ClassVar[bool] = False
    added_arguments: ClassVar[Mapping[str, object]] = {"offsets": None}

    def __init__(self, root: Path, pairs: Pairs = "first", offsets: Offsets | None = None, **kwargs: Any) -> None:
        super().__init__(root, **kwargs)
        self.pairs = pairs
        self.offsets = checked_offsets(offsets)
        arguments.one_of("pairs", pairs, Pairs)

    def pieces(self, path: Path, content: str, site: str) -> list[Piece]:
        """Abstracts of a file."""
        return pubtator_pieces(content, str(path), self.pairs, self.offsets or "characters")

    def write_stand_in(self, folder: Path) -> None:
        """One file a site and fold."""
        self.offsets = None
        made = stand_in_documents(*self.stand_in_size(), CHEMICALS, "CID")
        for (site, fold), own in by_site_and_fold(made).items():
            put(self.stand_in_path(folder, site, fold, ".PubTator.txt"), write_pubtator(own))


class ConllFolder(FileOfDocuments):
    """Files of a token and its BIO or BIOES tag on each line (see :mod:`~fedlit.data.documents.conll`), without
    relations.

    Args:
        root: A file, or the folder with ``.conll``, ``.bio``, ``.iob`` or ``.tsv`` files.
        unit: What is a document: ``marked`` begins at ``-DOCSTART-`` or ``###id`` lines, ``sentence``, ``file``.
        tag_column: Column of the tag, from 0, or from -1 backwards.
        default_type: Type of tags that name none (``B``, ``I``).
        raw_suffix: Ending (``.txt``) of a file of the same name with the text that the tokens are of, where each file
            is one document; None: tokens are joined by blanks, sentences by line breaks.
        kwargs: See :class:`fedlit.data.documents.files.FileOfDocuments`.
    """

    patterns: ClassVar[tuple[str, ...]] = ("*.conll", "*.bio", "*.iob", "*.tsv")

    def __init__(
        self,
        root: Path,
        unit: Unit = "marked",
        tag_column: int = -1,
        default_type: str | None = None,
        raw_suffix: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(root, **kwargs)
        self.unit = unit
        self.tag_column = tag_column
        self.default_type = default_type
        self.raw_suffix = raw_suffix
        arguments.one_of("unit", unit, Unit)

    def pieces(self, path: Path, content: str, site: str) -> list[Piece]:
        """Documents of a file."""
        raw = None
        if self.raw_suffix is not None:
            beside = path.with_suffix(self.raw_suffix)
            if not beside.is_file():
                raise BadRecord(f"{path}: no {beside.name} beside it: put the raw text there, or unset data.raw_suffix")
            raw = self.read_file(beside).content
        stem = self.inner(path).with_suffix("").as_posix()
        return conll_pieces(content, str(path), stem, self.unit, self.tag_column, self.default_type, raw)

    def write_stand_in(self, folder: Path) -> None:
        """One file a site and fold, or a document, where documents are files."""
        made = stand_in_documents(*self.stand_in_size(), CHEMICALS, "CID", ONLY_ENTITIES)
        self.tag_column, suffix = -1, ".conll"
        alone = self.unit == "file" or self.raw_suffix is not None
        for (site, fold), own in by_site_and_fold(made).items():
            for part in [[d] for d in own] if alone else [own]:
                kind = f"-{part[0].id}_{fold}" if alone else f"_{fold}"
                put(folder / site / f"{site}{kind}{suffix}", write_conll(part))
                if self.raw_suffix is not None:
                    put(folder / site / f"{site}{kind}{self.raw_suffix}", part[0].text)
        if alone and self.site_by is None:
            self.site_by = "folder"


class JSONLDocuments(FileOfDocuments):
    """JSON lines, one document each (format: :mod:`fedlit.data.documents.jsonl`). Their own site and fold come first.

    Args:
        root: A file, or the folder with ``.jsonl`` files.
        offsets: What offsets count: ``characters``, ``utf16`` units, of which an emoji is two, as JavaScript and Java
            count, or ``bytes``. None: characters, unless mentions show that these are not meant, which is an error;
            a warning where nothing shows either.
        kwargs: See :class:`fedlit.data.documents.files.FileOfDocuments`.
    """

    patterns: ClassVar[tuple[str, ...]] = ("*.jsonl",)
    added_arguments: ClassVar[Mapping[str, object]] = {"offsets": None}

    def __init__(self, root: Path, offsets: Offsets | None = None, **kwargs: Any) -> None:
        super().__init__(root, **kwargs)
        self.offsets = checked_offsets(offsets)

    def pieces(self, path: Path, content: str, site: str) -> list[Piece]:
        """Lines of a file."""
        return jsonl_pieces(content, str(path), site, self.offsets or "characters", self._doubts)

    def read(self) -> list[Document]:
        """Documents of all files, in the order of their paths.

        Raises:
            FedlitError: Offsets that cannot be checked surely count something else than characters.
        """
        found = super().read()
        fault = self._doubts.fault() if self.offsets is None else None
        if fault is not None:
            raise FedlitError(fault)
        return found

    def _look_over(self) -> None:
        super()._look_over()
        warning = self._doubts.warning() if self.offsets is None else None
        if warning is not None:
            self.say(warning)

    def _forget(self) -> None:
        super()._forget()
        self._doubts = Doubts()

    def write_stand_in(self, folder: Path) -> None:
        """One file a site and fold."""
        self.offsets = None
        made = stand_in_documents(*self.stand_in_size(), NOTES, "TrAP")
        for (site, fold), own in by_site_and_fold(made).items():
            put(self.stand_in_path(folder, site, fold, ".jsonl"), write_jsonl(own))


class BratFolder(DocumentFiles):
    """brat's ``.txt`` and ``.ann`` files side by side, one document each (see :mod:`fedlit.data.documents.brat`).

    Attributes and notes are not kept; ``describe()["not_kept"]`` counts them.

    Args:
        root: The folder, with one in it for each site.
        offsets: What offsets count: ``characters`` (None), ``utf16`` units, of which an emoji is two, or ``bytes``.
        kwargs: See :class:`fedlit.data.documents.files.DocumentFiles`.
    """

    says_what_was_looked_for: ClassVar[bool] = False
    added_arguments: ClassVar[Mapping[str, object]] = {"offsets": None}

    def __init__(self, root: Path, offsets: Offsets | None = None, **kwargs: Any) -> None:
        super().__init__(root, **kwargs)
        self.offsets = checked_offsets(offsets)

    def read(self) -> list[Document]:
        """One document for each ``.txt`` file, named by its path without the ending."""
        found = self.by_stem(("txt", "ann"), "texts (.txt) and annotations (.ann)")
        out: list[Document] = []
        for stem, files in found.items():
            not_kept: Counter[str] = Counter()

            def parse(stem: str = stem, files: dict[str, Path] = files, not_kept: Counter[str] = not_kept) -> Document:
                ann, name = self.read_file(files["ann"]).lines, str(files["ann"])

                def given(text: str) -> Document:
                    own, ignored = parse_brat(text, ann, stem, name, self.offsets or "characters")
                    not_kept.clear()
                    not_kept.update(ignored)
                    return own

                own, how = as_counted(self.read_file(files["txt"]), given)
                self._counted_otherwise.update([how] if how else [])
                return own

            if self.complete(stem, files, ("txt", "ann")):
                self.take(Piece(stem, str(files["txt"]), parse, not_kept), PurePath(stem), out)
        return out

    def _look_over(self) -> None:
        super()._look_over()
        for how, count in sorted(self._counted_otherwise.items()):
            self.say(f"{count} document(s) are annotated in a text that counts {how}: offsets are read so")

    def _forget(self) -> None:
        super()._forget()
        self._counted_otherwise: Counter[str] = Counter()

    def write_stand_in(self, folder: Path) -> None:
        """One folder a site, and one in it a fold."""
        self.offsets = None
        for own in stand_in_documents(*self.stand_in_size(), CHEMICALS, "CID"):
            text, ann = write_brat(own)
            put(folder / own.site / f"{own.fold}" / f"{own.id}.txt", text)
            put(folder / own.site / f"{own.fold}" / f"{own.id}.ann", ann)


class I2B2Folder(DocumentFiles):
    """Notes of i2b2 2010: ``.txt``, ``.con``, ``.rel`` and ``.ast`` files (see :mod:`fedlit.data.documents.i2b2`).

    Files of a note are in one folder, or in folders named ``txt``, ``concept``, ``rel`` and ``ast`` in one; that folder
    (``beth``, ``partners``) is the site. In a note without a ``.rel`` file nobody looked for relations; one without a
    ``.con`` file is a bad record.

    Args:
        root: The folder.
        assertions: Make types of the assertions (``problem-absent``), which are passed over otherwise.
        kwargs: See :class:`fedlit.data.documents.files.DocumentFiles`.
    """

    own_folders: ClassVar[tuple[str, ...]] = ("txt", "concept", "concepts", "con", "rel", "ast")

    def __init__(self, root: Path, assertions: bool = False, **kwargs: Any) -> None:
        super().__init__(root, **kwargs)
        self.assertions = assertions

    def read(self) -> list[Document]:
        """One document for each ``.txt`` file."""
        found = self.by_stem(("txt", "con", "rel", "ast"), "notes (.txt) and concepts (.con)")
        needed = ("txt", "con", "ast") if self.assertions else ("txt", "con")
        out: list[Document] = []
        for stem, files in found.items():

            def parse(stem: str = stem, files: dict[str, Path] = files) -> Document:
                text = self.read_file(files["txt"]).content
                lines = {suffix: self.read_file(path).lines for suffix, path in files.items() if suffix != "txt"}
                ast = lines["ast"] if self.assertions else None
                return parse_i2b2(text, lines["con"], lines.get("rel"), ast, stem, str(files["con"])[:-4])

            if self.complete(stem, files, needed):
                self.take(Piece(stem, str(files["txt"]), parse), PurePath(stem), out)
        return out

    def write_stand_in(self, folder: Path) -> None:
        """One folder a site, with those for text, concepts, assertions and relations in it."""
        for own in stand_in_documents(*self.stand_in_size(), NOTES, "TrAP"):
            files = write_i2b2(own)
            problems = [line for line in files[".con"].splitlines() if line.endswith('t="problem"')]
            files[".ast"] = "".join(f'{line}||a="present"\n' for line in problems)
            for suffix, content in files.items():
                kind = {".con": "concept"}.get(suffix, suffix[1:])
                put(folder / own.site / f"{own.fold}" / kind / f"{own.id}{suffix}", content)
