"""What readers of annotated documents share: which files, whose site and fold, one document named once."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path, PurePath
from typing import Any, ClassVar, Literal

from fedlit.data.base import arguments
from fedlit.data.base.listing import folder_proposal, nothing_to_read
from fedlit.data.base.names import FOLDS, NameRule, few
from fedlit.data.base.records import BadRecord, Fold
from fedlit.data.base.spelling import encodable
from fedlit.data.documents.documents import Document, blank_fault
from fedlit.data.documents.formats import Piece
from fedlit.data.documents.module import DocumentDataModule
from fedlit.data.files.text import Text, read_text
from fedlit.errors import FedlitError


class DocumentFiles(DocumentDataModule):
    """Annotated documents in the files of a folder.

    Folds are named by the folders, and by the files where those hold several documents: the last of ``train``, ``dev``,
    ``val`` and ``test`` (or a longer form) in a path.

    Args:
        root: The folder.
        site_by: What names the site: the ``file`` (without ending and fold: ``clinic-a_train.tsv`` is of ``clinic-a``),
            or the ``folder`` (without folds); None: the folder where each document has files of its own, else the file.
        site_pattern: Regular expression whose group, searched in the file's path in ``root``, is the site instead.
        subject_pattern: The same for the subject, searched in the document's id, and where that has it not in the
            file's path; None: each document is of another one.
        encoding: Encoding of the files, by Python's name; a byte order mark counts before it.
        kwargs: See :class:`fedlit.data.documents.module.DocumentDataModule`.
    """

    added_arguments: ClassVar[Mapping[str, object]] = {"encoding": "utf-8"}
    usual_site_by: ClassVar[SiteBy] = "folder"
    own_folders: ClassVar[tuple[str, ...]] = ()
    """Names of folders that tell files of one document apart, and are no part of its name."""

    def __init__(
        self,
        root: Path,
        site_by: SiteBy | None = None,
        site_pattern: str | None = None,
        subject_pattern: str | None = None,
        encoding: str = "utf-8",
        **kwargs: Any,
    ) -> None:
        self.root = Path(root)
        self.site_by = site_by
        self.site_pattern = site_pattern
        self.subject_pattern = subject_pattern
        self.encoding = encoding
        super().__init__(**kwargs)
        NameRule("data.site_pattern", site_pattern)
        NameRule("data.subject_pattern", subject_pattern)
        arguments.text_encoding(encoding)
        if site_by is not None:
            arguments.one_of("site_by", site_by, SiteBy)

    def use_stand_in(self, folder: Path) -> None:
        """Read generated files in the place of the data; their names say their sites."""
        self.site_pattern = self.subject_pattern = None
        self.encoding = "utf-8"
        if self.usual_site_by == "folder":
            self.site_by = None
        super().use_stand_in(folder)

    def inner(self, path: Path) -> PurePath:
        """Path of a file in ``root``; its name where ``root`` is the file."""
        root = Path(self.root or "")
        if not encodable(str(path)):
            raise FedlitError(f"{_plain(str(path))}: the file's name is not UTF-8: rename it")
        return PurePath(path.name) if path == root else PurePath(path.relative_to(root))

    def site(self, path: PurePath) -> str:
        """Site of a file, by its path in ``root``."""
        if self.site_pattern is not None:
            return NameRule("data.site_pattern", self.site_pattern).of(path.as_posix())
        return site_of(path, self.site_by or self.usual_site_by)

    def take(self, piece: Piece, path: PurePath, out: list[Document]) -> None:
        """Add a document to ``out``, with site, fold and subject by its names; or refuse it.

        A copy of a document that is there, to the letter, counts once; another document of its id is refused, by the
        name ``id#2``.
        """
        before = self._read.setdefault(piece.id, [])
        if any(where == piece.where for where, _ in before):  # read again
            before.clear()
        name = _plain(f"{piece.id}#{len(before) + 1}" if before else piece.id)
        if self.excluded(_plain(piece.id)) or (before and self.excluded(name)):
            return
        try:
            own = piece.parse()
            fault = blank_fault(own)
            if fault is not None:
                raise BadRecord(f"{piece.where}: document {own.id!r} {fault}")
            if before:
                before.append((piece.where, own))
                self._take_copy(name, piece, own, before[0])
                return
            subject = own.subject
            if self.subject_pattern is not None:
                inside = path.with_suffix("").as_posix()
                subject = NameRule("data.subject_pattern", self.subject_pattern).of(own.id, inside)
            site = self.site(path) if own.site == "site-unknown" else own.site
            out.append(replace(own, subject=subject, site=site, fold=own.fold or fold_of(self.fold_path(path))))
            before.append((piece.where, own))
            self.ignored.update(piece.not_kept)
            self._folders.add(path.parent)
        except BadRecord as error:
            self.refuse(name, str(error))

    def _take_copy(self, name: str, piece: Piece, own: Document, first: tuple[str, Document]) -> None:
        if own != first[1] or [r.concepts for r in own.relations] != [r.concepts for r in first[1].relations]:
            raise BadRecord(
                f"{piece.where}: document {piece.id!r} is also in {first[0]}, with other contents, ids must be unique: "
                f"rename one"
            )
        self._left_out[name] = f"a copy, to the letter, of {first[0]}"
        self._copies.append(piece.id)

    def _look_over(self) -> None:
        super()._look_over()
        root = Path(self.root or "")
        # Names of their own: only what folders are called is looked at.
        files = [root / folder / str(number) for number, folder in enumerate(sorted(self._folders))]
        proposal = "" if self.subject_pattern or self.stand_in else folder_proposal(files, root)
        if "data.subject_pattern" in proposal and self.split == "subject":
            self.say(f"each document counts as of another subject, and {proposal}")
        if self._copies:
            self.say(
                f"{len(self._copies)} document(s) are there again, to the letter, and count once, where they are read "
                f"first: {few(self._copies)}; see partition.json"
            )

    def read_file(self, path: Path) -> Text:
        """Contents of a file.

        Raises:
            BadRecord: It cannot be read, or is in another encoding.
        """
        return read_text(path, self.encoding)

    def fold_path(self, path: PurePath) -> PurePath:
        """The part of a file's path that may name a fold."""
        return path.parent

    def by_stem(self, endings: Sequence[str], layout: str) -> dict[str, dict[str, Path]]:
        """The files of each document by ending, by the path of the document without one."""
        found: dict[str, dict[str, Path]] = {}
        for path in self.files_to_read(layout):
            ending = path.suffix[1:]
            if ending in endings:
                inner = self.inner(path)
                folder = inner.parent
                if folder.name in self.own_folders:
                    folder = folder.parent
                stem = (folder / inner.stem).as_posix()
                twin = found.setdefault(stem, {}).setdefault(ending, path)
                if twin != path:
                    raise FedlitError(f"{path}: {twin} is the {ending} file of the same document: leave one")
        if not found:
            raise nothing_to_read(Path(self.root or ""), layout)
        return found

    def complete(self, stem: str, files: dict[str, Path], needed: Sequence[str]) -> bool:
        """Whether a document has all files that it needs; it is refused otherwise, unless it is excluded."""
        lacking = next((ending for ending in needed if ending not in files), None)
        if lacking is not None and not self.excluded(stem):
            there = next(iter(files.values()))
            self.refuse(stem, f"{there}: no {PurePath(stem).name}.{lacking} belongs to it: put it beside")
        return lacking is None

    def _forget(self) -> None:
        super()._forget()
        self._read: dict[str, list[tuple[str, Document]]] = {}
        self._copies: list[str] = []
        self._folders: set[PurePath] = set()


class FileOfDocuments(DocumentFiles):
    """Annotated documents in files that hold several.

    Args:
        root: A file, or a folder.
        files: Patterns (``*.tsv``) of the names of the files to read in the folder; None: the format's usual ones.
        kwargs: See :class:`DocumentFiles`.
    """

    usual_site_by: ClassVar[SiteBy] = "file"
    patterns: ClassVar[tuple[str, ...]]

    def __init__(self, root: Path, files: list[str] | None = None, **kwargs: Any) -> None:
        super().__init__(root, **kwargs)
        self.files = None if files is None else list(files)

    @abstractmethod
    def pieces(self, path: Path, content: str, site: str) -> list[Piece]:
        """The documents of a file.

        Raises:
            BadRecord: The file as a whole cannot be used.
        """

    def use_stand_in(self, folder: Path) -> None:
        """Read generated files in the place of the data."""
        self.files = None
        super().use_stand_in(folder)

    def fold_path(self, path: PurePath) -> PurePath:
        """All of it."""
        return path

    def read(self) -> list[Document]:
        """Documents of all files, in the order of their paths."""
        out: list[Document] = []
        for path in self._chosen():
            inner = self.inner(path)
            if self.excluded(inner.as_posix()):
                continue
            try:
                pieces = self.pieces(path, self.read_file(path).lines, self.site(inner))
                if not pieces:
                    raise BadRecord(f"{path}: holds no document: fill it, or move it out of data.root")
            except BadRecord as error:
                self.refuse(inner.as_posix(), str(error))
                continue
            for piece in pieces:
                self.take(piece, inner, out)
        return out

    def stand_in_path(self, folder: Path, site: str, fold: str, ending: str) -> Path:
        """Where documents of a site and fold go, for their names to be read back."""
        by_folder = (self.site_by or self.usual_site_by) == "folder"
        return folder / site / f"{fold}{ending}" if by_folder else folder / f"{site}_{fold}{ending}"

    def _chosen(self) -> list[Path]:
        root = Path(self.root or "")
        if root.is_file():
            return [root]
        patterns = list(self.files or self.patterns)
        layout = f"files named like {', '.join(patterns)}"
        found = self.files_to_read(layout)
        chosen = [path for path in found if any(fnmatchcase(path.name, pattern) for pattern in patterns)]
        if not chosen and self.files is None:
            raise nothing_to_read(root, layout)
        if not chosen:
            there = few([self.inner(path).as_posix() for path in found]) or "none"
            raise FedlitError(f"{root}: no {layout}, there are {there}: set data.root, or data.files")
        return chosen


def _plain(name: str) -> str:
    """A name that can be written: half a character as its number."""
    return name.encode("utf-8", "backslashreplace").decode()


SiteBy = Literal["file", "folder"]
_WORDS = r"(?i:train(?:ing)?|dev(?:el(?:op(?:ment)?)?)?|val(?:id(?:ation)?)?|test(?:ing)?)"
# A word begins with a capital or after what is no small letter; it ends before "set", a new word or what is no letter.
_FOLD = re.compile(rf"(?:(?<![a-z])|(?=[A-Z][a-z]))({_WORDS})(?:(?i:[_ -]?set)|(?=[A-Z][a-z])|(?![A-Za-z]))")


def fold_of(path: PurePath) -> Fold | None:
    """The fold that the last of train(ing), dev(elopment), val(idation) and test(ing) in a path names, or None."""
    found = _FOLD.findall(path.as_posix())
    return _fold(found[-1].lower()) if found else None


def site_of(path: PurePath, by: SiteBy) -> str:
    """The file's name without what follows its first dot, or its folder's path; without the words of a fold.

    ``clinic-a_train.conll`` and ``clinic-a_test.conll`` are of the site ``clinic-a``.

    Args:
        path: Path of a file in the folder of the data set.
        by: Which of the two.
    """
    named = path.name.split(".")[0] if by == "file" else path.parent.as_posix().strip(".")
    parts = [re.sub(r"^[-_ .]+|[-_ .]+$", "", _FOLD.sub("", part)) for part in named.split("/")]
    return "-".join(part for part in parts if part) or "site-unknown"


def _fold(word: str) -> Fold:
    for name, fold in FOLDS.items():
        if word.startswith(name):
            return fold
    raise AssertionError(word)
