"""The data of the study: titles of BC5CDR's abstracts, dealt to sites."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from fedlit.data import PubTatorFolder
from fedlit.data.documents.documents import Document, Relation


def title(document: Document) -> Document:
    """The first line; relations are those of concepts that are both mentioned there, between their first mentions."""
    end = document.text.index("\n")
    entities = tuple(own for own in document.entities if own.stop <= end)
    first: dict[str, str] = {}
    for own in entities:
        if own.concept is not None:
            first.setdefault(own.concept, own.id)
    pairs = [(link.type, pair) for link in document.relations for pair in link.concepts]
    there = [(kind, a, b) for kind, (a, b) in pairs if a in first and b in first]
    relations = dict.fromkeys(Relation(kind, first[a], first[b]) for kind, a, b in there)
    return replace(document, text=document.text[:end], entities=entities, relations=tuple(relations))


def pairs(document: Document) -> list[tuple[str, str]]:
    """Each chemical with each disease: the ids of the first mentions of both concepts."""
    first: dict[tuple[str, str], str] = {}
    for own in document.entities:
        if own.concept is not None:
            first.setdefault((own.type, own.concept), own.id)
    chemicals, diseases = ([id for (type, _), id in first.items() if type == one] for one in ("Chemical", "Disease"))
    return list(product(chemicals, diseases))


class Titles(PubTatorFolder):
    """Titles of some abstracts of BC5CDR: those of its training file to train on, of its test file to test.

    Args:
        root: Folder of the corpus.
        train: How many training titles, in the order of their ids.
        test: How many of the test file.
        kwargs: See :class:`fedlit.data.PubTatorFolder`.
    """

    def __init__(self, root: Path, train: int, test: int, **kwargs: Any) -> None:
        super().__init__(root, split="fold", val_fraction=0.0, **kwargs)
        self.train, self.test = train, test

    def read(self) -> list[Document]:
        """The first so many of each file."""
        wanted = {"train": self.train, "val": 0, "test": self.test}
        out: list[Document] = []
        for own in sorted(super().read(), key=lambda one: one.id):
            if own.fold is not None and wanted[own.fold]:
                wanted[own.fold] -= 1
                out.append(title(own))
        return out
