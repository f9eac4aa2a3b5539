"""Annotated texts: a document with its entities and the relations between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from fedlit.data.base.records import Fold
from fedlit.data.base.spelling import encodable

Annotation = Literal["entities", "relations"]
"""What somebody looked for in a document. Without it, nothing found does not mean nothing there."""
BOTH: frozenset[Annotation] = frozenset({"entities", "relations"})


@dataclass(frozen=True, slots=True)
class Entity:
    """One mention.

    Attributes:
        id: Unique in its document; relations name the mention by it.
        type: For instance ``"Disease"``.
        start: First character, an index into the document's text.
        stop: One after the last.
        fragments: Parts (start, stop) of a mention with gaps, in order, from ``start`` to ``stop``; empty without.
        concept: Identifier in a vocabulary (``"MESH:D003000"``), where the source gives one.
    """

    id: str
    type: str
    start: int
    stop: int
    fragments: tuple[tuple[int, int], ...] = ()
    concept: str | None = None


@dataclass(frozen=True, slots=True)
class Relation:
    """A link between two mentions of one document.

    Attributes:
        type: For instance ``"CID"`` (a chemical induces a disease).
        head: ``id`` of a mention.
        tail: ``id`` of another.
        concepts: Where the source links concepts: the pairs of them that this stands for. Not compared.
        symmetric: Whether the source gives it no direction. Not compared.
    """

    type: str
    head: str
    tail: str
    concepts: tuple[tuple[str, str], ...] = field(default=(), compare=False)
    symmetric: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Document:
    """A text as its annotators left it; partitions and splits deal in these.

    Attributes:
        id: Unique in a data set.
        text: As the offsets count it: nothing stripped, nothing normalised.
        entities: In order of ``(start, stop, type)``.
        relations: In the order of the source, each once.
        subject: Patient or source document; documents of one subject stay on one side of a split.
        site: Where it was written; ``"site-unknown"`` where the source does not say.
        fold: Part of the split that the source publishes.
        annotated: What was looked for.
        entity_types: Types of mention that were looked for; None: all that there are.
        relation_types: The same of relations: all between mentions that were looked for.
    """

    id: str
    text: str = field(repr=False)
    entities: tuple[Entity, ...] = field(default=(), repr=False)
    relations: tuple[Relation, ...] = field(default=(), repr=False)
    subject: str = ""
    site: str = "site-unknown"
    fold: Fold | None = None
    annotated: frozenset[Annotation] = BOTH
    entity_types: frozenset[str] | None = None
    relation_types: frozenset[str] | None = None

    @property
    def kind(self) -> str:
        """``document``, for partitions."""
        return "document"

    @property
    def label(self) -> str:
        """The types of entity and relation that it holds, joined by ``+``; ``"none"`` without any: for partitions."""
        return "+".join(sorted({e.type for e in self.entities} | {r.type for r in self.relations})) or "none"

    def mention(self, entity: Entity) -> str:
        """The characters of a mention; those of fragments are joined by a blank."""
        return " ".join(self.text[a:b] for a, b in entity.fragments or ((entity.start, entity.stop),))

    def to(self, *device: object, **options: object) -> Document:
        """Itself: a text is on no device. Lightning asks this of all that batches hold."""
        return self

    def by_id(self) -> Mapping[str, Entity]:
        """Mentions by their id."""
        return {entity.id: entity for entity in self.entities}


_ADD = "add it to what is annotated, or take it out"


def document_fault(document: Document) -> str | None:
    """Why a document cannot be used, or None: an empty text, a span outside it, a relation with a mention it lacks."""
    if not encodable(document.text):
        return "holds half a character (a lone surrogate) in its text: write it whole, or take it out"
    if not document.text.strip():
        return "has an empty text: fill it in, or leave the document out"
    names = [("id", document.id), ("subject", document.subject), ("site", document.site)]
    for e in document.entities:
        names += [("id of a mention", e.id), ("type of a mention", e.type), ("concept of a mention", e.concept or "")]
    for r in document.relations:
        names += [("type of a relation", r.type)]
        names += [("concept of a relation", end) for pair in r.concepts for end in pair]
    odd = next((what for what, name in names if not encodable(name)), None)
    if odd is not None:
        return f"holds half a character (a lone surrogate) in the {odd}: write it whole, or take it out"
    length = len(document.text)
    seen: set[str] = set()
    for entity in document.entities:
        parts = entity.fragments or ((entity.start, entity.stop),)
        if not all(0 <= a < b <= length for a, b in parts) or (entity.start, entity.stop) != (
            parts[0][0],
            parts[-1][1],
        ):
            return f"has the mention {entity.id!r} at {entity.start} to {entity.stop}, and {length} characters: mend it"
        if any(left[1] > right[0] for left, right in zip(parts, parts[1:], strict=False)):
            return f"has the mention {entity.id!r} with fragments out of order or overlapping: mend it"
        if entity.id in seen:
            return f"has two mentions of the id {entity.id!r}: give each its own"
        seen.add(entity.id)
        if document.entity_types is not None and entity.type not in document.entity_types:
            return f"has a mention of the type {entity.type!r}, which is not among those looked for in it: {_ADD}"
    for number, relation in enumerate(document.relations, 1):
        lacking = [end for end in ("head", "tail") if getattr(relation, end) not in seen]
        if lacking:  # not quoted: some tools write the mention's words there
            what = f"a relation {relation.type!r}, number {number} of those that differ"
            return f"has {what}, whose {lacking[0]} is no mention of it: mend the relation"
        if document.relation_types is not None and relation.type not in document.relation_types:
            return f"has a relation of the type {relation.type!r}, which is not among those looked for in it: {_ADD}"
    return None


def blank_fault(document: Document) -> str | None:
    """Why a mention cannot be meant, or None: there is nothing but white space at a part of it."""
    for entity in document.entities:
        for start, stop in entity.fragments or ((entity.start, entity.stop),):
            if document.text[start:stop].isspace():
                return f"has the mention {entity.id!r} of white space at {start} to {stop}: mend its offsets"
    return None


def without_margins(document: Document) -> tuple[Document, int]:
    """A document whose mentions neither begin nor end with white space, and how many did. None may be blank."""
    entities = []
    for entity in document.entities:
        parts = []
        for start, stop in entity.fragments or ((entity.start, entity.stop),):
            words = document.text[start:stop]
            start, stop = start + len(words) - len(words.lstrip()), stop - len(words) + len(words.rstrip())
            parts.append((start, stop))
        fragments = tuple(parts) if entity.fragments else ()
        if (fragments, parts[0][0], parts[-1][1]) != (entity.fragments, entity.start, entity.stop):
            entity = replace(entity, start=parts[0][0], stop=parts[-1][1], fragments=fragments)
        entities.append(entity)
    changed = sum(new is not old for new, old in zip(entities, document.entities, strict=True))
    entities.sort(key=lambda entity: (entity.start, entity.stop, entity.type))
    return (replace(document, entities=tuple(entities)), changed) if changed else (document, 0)
