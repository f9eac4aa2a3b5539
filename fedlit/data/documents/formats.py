"""What the formats of annotated documents share: one document of a file, and the checks that name file and line.

Errors say where a fault is, of which kind, and how long what stands there is; they never quote a document's words.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

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
        odd = next((place for place, c in enumerate(written, 1) if not (c.isascii() and c.isdecimal())), 0)
        why = f"character {odd} of {len(written)} is no digit" if written else "it is empty"
        raise BadRecord(f"{where} has no whole number as {what}, {why}: write a whole number")
    return int(written)


def kind_of(value: Any) -> str:
    """What a value out of JSON is, told without its contents."""
    if value is None:
        return "nothing"
    if isinstance(value, str):
        return f"text of {len(value)} character(s)"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return f"an object of {len(value)} field(s)"
    return "true or false" if isinstance(value, bool) else "a number"


def offsets_shown(start: int, stop: int) -> str:
    """A span as errors name it."""
    return f"{start} to {stop}"


def check_mention(
    where: str,
    text: str,
    parts: Iterable[tuple[int, int]],
    written: str,
    fold_case: bool = False,
    shown: Callable[[int, int], str] = offsets_shown,
) -> None:
    """Refuse a mention that is outside the text, or not what the text has there; white space does not count.

    Args:
        where: File and line, for errors.
        text: The text.
        parts: Start and stop of each part of the mention, in characters.
        written: Its words, as the file has them.
        fold_case: Whether case does not count.
        shown: A span as the file writes it, for errors.

    Raises:
        BadRecord: With ``where``, the offsets, how many characters are written, and where they would fit.
    """
    parts = list(parts)
    for start, stop in parts:
        if not 0 <= start < stop <= len(text):
            raise BadRecord(
                f"{where} has a mention of {len(written)} characters at {shown(start, stop)}, outside of a text of "
                f"{len(text)} characters: mend the offsets"
            )
    there = " ".join(text[start:stop] for start, stop in parts)
    seen, said = squeezed(there), squeezed(written)
    if fold_case:
        seen, said = seen.casefold(), said.casefold()
    if seen == said:
        return
    fit = _nearest(text, written, parts[0][0], fold_case) if len(parts) == 1 else None
    if fit is not None:
        why = f"it would fit at {shown(*fit)}: mend the offsets"
    else:
        differs = next(i for i, (a, b) in enumerate(zip_longest(seen, said), 1) if a != b)
        why = f"it differs from its character {differs} on: mend the offsets, or the words"
    raise BadRecord(
        f"{where} has a mention of {len(written)} characters at {shown(parts[0][0], parts[-1][1])}, which is not what "
        f"the text has there: {why}"
    )


def _nearest(text: str, written: str, start: int, fold_case: bool) -> tuple[int, int] | None:
    """Where words stand in a text next to a place; None where they do not, or are none."""
    words = r"\s+".join(map(re.escape, written.split()))
    found = re.finditer(words, text, re.IGNORECASE if fold_case else 0) if words else ()
    return min((match.span() for match in found), key=lambda span: abs(span[0] - start), default=None)


def written_error(document: Document, format: str, why: str) -> BadRecord:
    """Why a document cannot be written in a format."""
    return BadRecord(f"document {document.id!r} cannot be written as {format}: {why}")
