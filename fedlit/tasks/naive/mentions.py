"""Mentions without a model: what was annotated in a client's training documents is found again, word for word."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from fedlit.data.documents.documents import Document, Entity
from fedlit.instructions.parsed import Counts, Parsed

_WORD = re.compile(r"\w+|[^\w\s]")
Words = tuple[str, ...]


@dataclass(frozen=True)
class Dictionary:
    """A tagger by longest match, whole words, without regard to case.

    It holds words of a client's documents, so it stays in that client's memory and is written nowhere.

    Attributes:
        types: Type of mention by its words: the commonest of the annotations, the first by name of equally common ones.
    """

    types: Mapping[Words, str] = field(repr=False)

    @classmethod
    def of(cls, documents: Iterable[Document]) -> Dictionary:
        """The mentions of documents in which mentions were looked for; those with gaps are left out."""
        seen: dict[Words, Counter[str]] = defaultdict(Counter)
        for document in documents:
            for entity in document.entities if "entities" in document.annotated else ():
                words = tuple(word for word, _, _ in split(document.mention(entity)))
                if words and not entity.fragments:
                    seen[words][entity.type] += 1
        return cls({words: min(count, key=lambda name: (-count[name], name)) for words, count in seen.items()})

    def answer(self, document: Document) -> Parsed | None:
        """Mentions in a document, of the types that were looked for in it; None where no mentions were."""
        if "entities" not in document.annotated:
            return None
        asked = document.entity_types
        words, most = split(document.text), max(map(len, self.types), default=0)
        found: list[Entity] = []
        at = 0
        while at < len(words):
            for count in range(min(most, len(words) - at), 0, -1):
                kind = self.types.get(tuple(word for word, _, _ in words[at : at + count]))
                if kind is not None and (asked is None or kind in asked):
                    found.append(Entity(f"P{len(found) + 1}", kind, words[at][1], words[at + count - 1][2]))
                    at += count - 1
                    break
            at += 1
        return Parsed(tuple(found), (), Counts(documents=1))


def split(text: str) -> list[tuple[str, int, int]]:
    """Words and marks of a text, without case, each with its first character and one after its last."""
    return [(match.group().casefold(), match.start(), match.end()) for match in _WORD.finditer(text)]
