"""Annotations read from what a model wrote, and counts of what was wrong with it."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from fedlit.data.documents.documents import Document, Entity, Relation


@dataclass(frozen=True)
class Counts:
    """What was wrong with an answer, or, added up, with many.

    Attributes:
        documents: Answers.
        unparsable: Answers of which nothing could be read: empty where the text is not, no JSON, or less than half of
            the words (case and order of the text kept) from the text.
        truncated: Answers that stop before their end: a tag or bracket left open, the text or its relations cut.
        altered: Answers whose copy of the text, white space aside, or of a mention, differs from it.
        realigned: Mentions whose place was found although the words there differ.
        not_found: Mentions without a place in the text.
        out_of_schema: Mentions and relations of a type that the schema (or the question) lacks, relations between
            types that it does not link.
        malformed: Items, tags and lines that are neither a mention nor a relation; relations of numbers not there.
    """

    documents: int = 0
    unparsable: int = 0
    truncated: int = 0
    altered: int = 0
    realigned: int = 0
    not_found: int = 0
    out_of_schema: int = 0
    malformed: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))

    def __sub__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, field.name) - getattr(other, field.name) for field in fields(self)))

    def to_dict(self) -> dict[str, int]:
        """Counts by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True)
class Parsed:
    """An answer as annotations of its text.

    Attributes:
        entities: In order of (start, stop, type), with ids ``P1``, ``P2``, ... in the order of the answer; after a
            question that gave mentions, those too, with their own ids.
        relations: Between them, in the order of the answer, each once.
        counts: Counts of what could not be taken over.
    """

    entities: tuple[Entity, ...]
    relations: tuple[Relation, ...]
    counts: Counts

    def to(self, *device: object, **options: object) -> Parsed:
        """Itself: it is on no device. Lightning asks this of all that is predicted."""
        return self

    def document(self, gold: Document) -> Document:
        """The document with these annotations in place of its own."""
        return replace(gold, entities=self.entities, relations=self.relations)
