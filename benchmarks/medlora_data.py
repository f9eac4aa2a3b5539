"""The data of ``medlora.py``: beginnings of BC5CDR's abstracts, dealt to sites."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedlit.data import PubTatorFolder
from fedlit.data.documents import Document, Relation

SENTENCE = re.compile(r"(?<=[.?!])\s+(?=[A-Z0-9(])|\n")


def beginning(document: Document, words: int) -> Document:
    """The title and as many whole sentences as stay within so many words; at least the title and one sentence.

    Relations are those of concepts that are both mentioned there, between their first mentions.
    """
    ends = [found.start() for found in SENTENCE.finditer(document.text)] + [len(document.text)]
    ends = [end for end in ends if not any(own.start < end < own.stop for own in document.entities)]
    fitting = [end for end in ends[1:] if len(document.text[:end].split()) <= words]
    end = max(fitting, default=ends[min(1, len(ends) - 1)])
    entities = tuple(own for own in document.entities if own.stop <= end)
    first: dict[str, str] = {}
    for own in entities:
        if own.concept is not None:
            first.setdefault(own.concept, own.id)
    pairs = [(link.type, pair) for link in document.relations for pair in link.concepts]
    there = [(kind, a, b) for kind, (a, b) in pairs if a in first and b in first]
    relations = dict.fromkeys(Relation(kind, first[a], first[b]) for kind, a, b in there)
    return replace(document, text=document.text[:end], entities=entities, relations=tuple(relations))


class Beginnings(PubTatorFolder):
    """The beginnings of some abstracts of BC5CDR: its training and development files for train and val, its test file.

    Args:
        root: Folder of the corpus.
        train: Training abstracts, in the order of their ids.
        val: Abstracts of the development file.
        test: Abstracts of the test file.
        words: See :func:`beginning`.
        kwargs: See :class:`fedlit.data.PubTatorFolder`.
    """

    def __init__(
        self, root: Path, train: int = 240, val: int = 40, test: int = 100, words: int = 60, **kwargs: Any
    ) -> None:
        super().__init__(root, split="fold", **kwargs)
        self.train, self.val, self.test, self.words = train, val, test, words

    def read(self) -> list[Document]:
        """The first so many of each file."""
        wanted = {"train": self.train, "val": self.val, "test": self.test}
        out: list[Document] = []
        for own in sorted(super().read(), key=lambda one: one.id):
            if own.fold is not None and wanted[own.fold]:
                wanted[own.fold] -= 1
                out.append(beginning(own, self.words))
        return out
