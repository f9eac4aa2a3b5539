"""Annotated documents as JSON lines: one object a line, offsets from 0 in characters, the end not included.

``{"id": "note-1", "text": "No fever.", "entities": [{"id": "T1", "type": "problem", "start": 3, "end": 8}],``
``"relations": [{"type": "negates", "head": "T2", "tail": "T1"}], "subject": "patient-7", "site": "ward-2",``
``"fold": "train", "annotated": ["entities", "relations"]}``

Only ``id`` and ``text`` are needed. A mention can have its ``text``, which is checked, ``fragments`` ([[start, end],
...]) and a ``concept``, a relation ``concepts`` ([[head, tail], ...]) and ``symmetric`` (true: without a direction).
Without ``annotated``, what was looked for is what is there: where ``relations`` is left out nobody looked for them,
where it is ``[]`` somebody did and found none. By type: ``"annotated": {"entities": ["Disease"]}``. ``meta`` may hold
anything and is not read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import PurePath
from typing import Any, TypeVar

from fedlit.data.base.names import FOLDS
from fedlit.data.base.records import BadRecord
from fedlit.data.documents.documents import BOTH, Document, Entity, Relation
from fedlit.data.documents.formats import Piece, document, kind_of
from fedlit.data.documents.looked_for import FORM, LookedFor, looked_for_in
from fedlit.data.documents.offsets import Doubts, Offsets, Places

EndT = TypeVar("EndT")
_KEYS = ("id", "text", "entities", "relations", "subject", "site", "fold", "annotated", "meta")
_ENTITY = {"id": str, "type": str, "start": int, "end": int}
_RELATION = {"type": str, "head": str, "tail": str}


def jsonl_pieces(
    content: str,
    name: str,
    site: str = "site-unknown",
    offsets: Offsets = "characters",
    doubts: Doubts | None = None,
) -> list[Piece]:
    """The documents of a file.

    Args:
        content: Content of the file.
        name: Name of the file, for errors.
        site: Site of documents that name none.
        offsets: What offsets count.
        doubts: Takes in mentions without their words.

    A line that is no JSON object with an ``id`` is named by its number, and refused when it is parsed.
    """
    out = []
    for place, line in enumerate(content.split("\n"), 1):
        if not line.strip():
            continue
        here = f"{name}: line {place}"
        given, fault = _object(line, here)

        def parse(given: dict[str, Any] = given, fault: str = fault, here: str = here) -> Document:
            if fault:
                raise BadRecord(fault)
            return _parsed(given, here, site, offsets, doubts)

        out.append(Piece(f"{PurePath(name).name}:{place}" if fault else given["id"], here, parse))
    return out


def _object(line: str, here: str) -> tuple[dict[str, Any], str]:
    """The object of a line; and why there is none with an id."""
    try:
        given = json.loads(line)
    except (ValueError, RecursionError) as error:
        return {}, f"{here} is not JSON ({error}): write one object a line"
    if not isinstance(given, dict):
        return {}, f"{here} is {type(given).__name__}, not an object: write one object a line"
    id = given.get("id")
    return given, "" if isinstance(id, str) and id else f"{here} has {kind_of(id)} as id: give text"


def parse_jsonl(content: str, name: str = "text") -> list[Document]:
    """All documents of a file.

    Raises:
        BadRecord: Naming file, line, field and mend.
    """
    return [piece.parse() for piece in jsonl_pieces(content, name)]


def write_jsonl(documents: Iterable[Document]) -> str:
    """Contents of a file, with every field but ``meta``."""
    return "".join(json.dumps(_plain(own), ensure_ascii=False) + "\n" for own in documents)


def _plain(own: Document) -> dict[str, Any]:
    out: dict[str, Any] = {"id": own.id, "text": own.text, "entities": [], "relations": []}
    for e in own.entities:
        mention: dict[str, Any] = {"id": e.id, "type": e.type, "start": e.start, "end": e.stop}
        if e.fragments:
            mention["fragments"] = [list(part) for part in e.fragments]
        if e.concept is not None:
            mention["concept"] = e.concept
        out["entities"].append(mention)
    for r in own.relations:
        more: dict[str, Any] = {"concepts": [list(pair) for pair in r.concepts]} if r.concepts else {}
        more |= {"symmetric": True} if r.symmetric else {}
        out["relations"].append({"type": r.type, "head": r.head, "tail": r.tail} | more)
    known = {
        "subject": own.subject or None,
        "site": own.site,
        "fold": own.fold,
        "annotated": looked_for_in(own).plain(),
    }
    return out | {name: value for name, value in known.items() if value is not None}


def _parsed(given: Mapping[str, Any], here: str, site: str, offsets: Offsets, doubts: Doubts | None) -> Document:
    _only(given, _KEYS, here, "document")
    entities = _rows(given, "entities", _ENTITY, ("fragments", "concept", "text"), here)
    relations = _rows(given, "relations", _RELATION, ("concepts", "symmetric"), here)
    annotated = given.get("annotated", sorted(BOTH & given.keys()))
    looked_for = LookedFor.read(annotated)
    if looked_for is None:
        raise BadRecord(
            f"{here} has {kind_of(annotated)} as annotated that is none: give a list of entities and relations, as "
            f"{FORM}"
        )
    if relations and "relations" not in looked_for.annotated:
        raise BadRecord(f"{here} has relations, and annotated does not say so: add relations to it, or take them out")
    fold = given.get("fold")
    if fold is not None and str(fold).lower() not in FOLDS:
        raise BadRecord(f"{here} has {kind_of(fold)} as fold that is none: give one of {', '.join(FOLDS)}")
    text = _text(given, "text", here)
    places = Places(text, offsets)
    if doubts is not None and offsets == "characters":
        doubts.note(here, text, [[*_parts(row, here)] for row in entities if row.get("text") is None])
    return document(
        here,
        _text(given, "id", here),
        text,
        [_entity(row, here, places) for row in entities],
        [_relation(row, here) for row in relations],
        subject=_text(given, "subject", here) if given.get("subject") is not None else "",
        site=_text(given, "site", here) if given.get("site") is not None else site,
        fold=None if fold is None else FOLDS[str(fold).lower()],
        annotated=looked_for.annotated,
        entity_types=looked_for.entity_types,
        relation_types=looked_for.relation_types,
    )


def _parts(row: Mapping[str, Any], here: str) -> tuple[tuple[int, int], ...]:
    """Start and end of each part of a mention."""
    return _pairs(row.get("fragments", []), "fragments", int, here) or ((row["start"], row["end"]),)


def _entity(row: Mapping[str, Any], here: str, places: Places) -> Entity:
    given = _parts(row, here)
    words = None if row.get("text") is None else _text(row, "text", here)
    concept = None if row.get("concept") is None else _text(row, "concept", here)
    if (row["start"], row["end"]) != (given[0][0], given[-1][1]):
        raise BadRecord(
            f"{here}: {row['id']!r} is at {row['start']} to {row['end']}, its fragments are not: mend either"
        )
    parts = places.of(here, given, words)
    return Entity(
        row["id"], row["type"], parts[0][0], parts[-1][1], tuple(parts) if row.get("fragments") else (), concept
    )


def _relation(row: Mapping[str, Any], here: str) -> Relation:
    concepts = _pairs(row.get("concepts", []), "concepts", str, here)
    symmetric = row.get("symmetric", False)
    if not isinstance(symmetric, bool):
        raise BadRecord(f"{here} has {kind_of(symmetric)} as symmetric: give true or false")
    return Relation(row["type"], row["head"], row["tail"], concepts, symmetric)


def _rows(
    given: Mapping[str, Any], field: str, needed: Mapping[str, type], extra: tuple[str, ...], here: str
) -> list[dict[str, Any]]:
    """The objects of a list, each with the fields it needs, of their types."""
    rows = given.get(field, [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise BadRecord(f"{here} has {field} that are no list of objects: mend them")
    for place, row in enumerate(rows, 1):
        _only(row, (*needed, *extra), here, f"{field} {place}")
        for key, kind in needed.items():
            value = row.get(key)
            # bool is an int to Python
            if not isinstance(value, kind) or isinstance(value, bool) or value == "":
                what = "a whole number" if kind is int else "text"
                raise BadRecord(f"{here}: {field} {place} has {kind_of(value)} as {key}: give {what}")
    return rows


def _only(given: Mapping[str, Any], known: Sequence[str], here: str, what: str) -> None:
    odd = next(((place, key) for place, key in enumerate(given, 1) if key not in known), None)
    if odd is None:
        return
    place, key = odd
    # A name like none of those known may be a word of the text, where tools key mentions by their words.
    shown = repr(key) if get_close_matches(key, known, 1) else f"{place} (of {len(key)} characters), not known"
    raise BadRecord(f"{here}: {what} has the field {shown}, there are {', '.join(known)}: rename or remove it")


def _text(given: Mapping[str, Any], key: str, here: str) -> str:
    value = given.get(key)
    if not isinstance(value, str) or (not value and key != "text"):
        raise BadRecord(f"{here} has {kind_of(value)} as {key}: give text")
    return value


def _pairs(given: list[list[EndT]], key: str, kind: type[EndT], here: str) -> tuple[tuple[EndT, EndT], ...]:
    good = isinstance(given, list) and all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(end, kind) for end in pair) for pair in given
    )
    if not good:
        raise BadRecord(f"{here} has {kind_of(given)} as {key}: give a list of pairs")
    return tuple((a, b) for a, b in given)
