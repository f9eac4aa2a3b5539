"""Mentions without a model: what was annotated in a client's training documents is found again, word for word."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from fedlit.data.documents.documents import Document, Entity
from fedlit.instructions.parsed import Counts, Parsed
from fedlit.instructions.schema import Schema

_WORD = re.compile(r"\w+|[^\w\s]")
Words = tuple[str, ...]


@dataclass(frozen=True)
class Dictionary:
    """A tagger by longest match, whole words, without regard to case.

    It holds words of a client's documents, so it stays in that client's memory and is written nowhere. Modifiers, which
    belong to relations, are not in it. Text without blanks between words is one word, so there it finds little.

    Attributes:
        schema: Types to find.
        types: Type of mention by its words: the commonest of the annotations, the first by name of equally common ones.
        lengths: By the first word, how many words the mentions that begin with it have, the most first.
    """

    schema: Schema
    types: Mapping[Words, str] = field(repr=False)
    lengths: Mapping[str, tuple[int, ...]] = field(repr=False)

    @classmethod
    def of(cls, documents: Iterable[Document], schema: Schema) -> Dictionary:
        """The mentions of documents in which mentions were looked for; those with gaps are left out."""
        seen: dict[Words, Counter[str]] = defaultdict(Counter)
        main = {entity.name for entity in schema.main}
        for document in documents:
            for entity in document.entities if "entities" in document.annotated else ():
                words = tuple(word for word, _, _ in split(document.mention(entity)))
                if words and not entity.fragments and entity.type in main:
                    seen[words][entity.type] += 1
        lengths: dict[str, set[int]] = defaultdict(set)
        for words in seen:
            lengths[words[0]].add(len(words))
        return cls(
            schema,
            {words: min(count, key=lambda name: (-count[name], name)) for words, count in seen.items()},
            {word: tuple(sorted(each, reverse=True)) for word, each in lengths.items()},
        )

    def answer(self, document: Document) -> Parsed | None:
        """Mentions in a document, of the types that were looked for in it; None where no mentions were."""
        sought = self.schema.of(document)
        if sought is None or "entities" not in document.annotated:
            return None
        asked = {entity.name for entity in sought.main}
        words = split(document.text)
        plain = [word for word, _, _ in words]
        found: list[Entity] = []
        at = 0
        while at < len(words):
            for count in self.lengths.get(plain[at], ()):
                kind = self.types.get(tuple(plain[at : at + count])) if at + count <= len(plain) else None
                if kind is not None and kind in asked:
                    found.append(Entity(f"P{len(found) + 1}", kind, words[at][1], words[at + count - 1][2]))
                    at += count - 1
                    break
            at += 1
        return Parsed(tuple(found), (), Counts(documents=1))


def split(text: str) -> list[tuple[str, int, int]]:
    """Words and marks of a text, without case, each with its first character and one after its last."""
    return [(match.group().casefold(), match.start(), match.end()) for match in _WORD.finditer(text)]
