"""What the formats of annotated documents share: one document of a file, and the checks that name file and line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from fedlit.data.base.records import BadRecord, Fold
from fedlit.data.documents.documents import BOTH, Annotation, Document, Entity, Relation, document_fault


@dataclass(frozen=True)
class Piece:
    """One document of a file, not read yet, so that a reader can leave a bad one out and go on.

    Attributes:
        id: Id of the document.
        where: File, and the line where it has several, for errors.
        parse: Gives the document, or raises ``BadRecord`` that names file, line and mend.
        not_kept: What the file says of it and a document cannot hold, counted by ``parse``.
    """

    id: str
    where: str
    parse: Callable[[], Document] = field(repr=False)
    not_kept: Counter[str] = field(default_factory=Counter, repr=False)


def document(
    where: str,
    id: str,
    text: str,
    entities: Iterable[Entity],
    relations: Iterable[Relation] = (),
    *,
    subject: str = "",
    site: str = "site-unknown",
    fold: Fold | None = None,
    annotated: frozenset[Annotation] = BOTH,
    entity_types: frozenset[str] | None = None,
    relation_types: frozenset[str] | None = None,
) -> Document:
    """A document with its mentions in order and each relation once, checked.

    Raises:
        BadRecord: It cannot be used.
    """
    ordered = tuple(sorted(entities, key=lambda entity: (entity.start, entity.stop, entity.type)))
    once = tuple(dict.fromkeys(relations))
    made = Document(id, text, ordered, once, subject or id, site, fold, annotated, entity_types, relation_types)
    fault = document_fault(made)
    if fault is not None:
        raise BadRecord(f"{where}: document {id!r} {fault}")
    return made


def squeezed(text: str) -> str:
    """White space of any kind and length as one blank: how formats differ in writing the same mention."""
    return " ".join(text.split())


def number(where: str, written: str, what: str) -> int:
    """A whole number from 0 on.

    Raises:
        BadRecord: It is none.
    """
    if not (written.isascii() and written.isdecimal()):
        raise BadRecord(f"{where} has {written!r} as {what}: write a whole number")
    return int(written)


def check_mention(
    where: str, text: str, parts: Iterable[tuple[int, int]], written: str, fold_case: bool = False
) -> None:
    """Refuse a mention that is outside the text, or not what the text has there; white space does not count.

    Raises:
        BadRecord: With ``where``, the offsets, what is written and what is there.
    """
    parts = list(parts)
    for start, stop in parts:
        if not 0 <= start < stop <= len(text):
            raise BadRecord(
                f"{where} has the mention {written!r} at {start} to {stop}, outside of a text of {len(text)} "
                f"characters: mend the offsets"
            )
    there = " ".join(text[start:stop] for start, stop in parts)
    seen, said = squeezed(there), squeezed(written)
    if (seen.casefold() != said.casefold()) if fold_case else (seen != said):
        raise BadRecord(
            f"{where} has the mention {written!r} at {parts[0][0]} to {parts[-1][1]}, where the text has {there!r}: "
            f"mend the offsets"
        )


def written_error(document: Document, format: str, why: str) -> BadRecord:
    """Why a document cannot be written in a format."""
    return BadRecord(f"document {document.id!r} cannot be written as {format}: {why}")
