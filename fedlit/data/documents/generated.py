"""Generated documents for stand-ins: no text of anyone's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from fedlit import seeds
from fedlit.data.base.records import Fold
from fedlit.data.documents.documents import BOTH, Annotation, Document, Entity, Relation
from fedlit.data.documents.formats import document

Kinds = Mapping[str, Sequence[str]]
"""Type of mention to its words."""
CHEMICALS: Kinds = {
    "Chemical": ("lithium", "aspirin", "valproic acid", "caffeine", "heparin"),
    "Disease": ("fever", "cardiac arrhythmia", "nausea", "seizures", "liver injury"),
}
NOTES: Kinds = {
    "treatment": ("antibiotics", "beta blocker", "surgery", "insulin", "oxygen"),
    "problem": ("chest pain", "pneumonia", "shortness of breath", "anaemia", "infection"),
}
FOLDS: tuple[Fold, ...] = ("train", "train", "val", "test")
_COMMON = ("patients", "weeks", "study", "noted", "clinical", "history", "stable", "review", "daily", "further")
_LINKED, _APART = ("was followed by", "caused", "led to"), ("was given without", "was unrelated to", "did not cause")


def stand_in_document(
    number: int, kinds: Kinds, relation: str, site: str, fold: Fold, annotated: frozenset[Annotation] = BOTH
) -> Document:
    """A document of a title and three sentences, its words between blanks; no two numbers give the same.

    Args:
        number: Number of the document.
        kinds: Two types: head and tail of the relation.
        relation: Its type; a sentence in two says it.
        site: Where it is from.
        fold: On which side of a published split.
        annotated: What was looked for; without relations there are none.
    """
    generator = seeds.numpy_generator(0, "stand-in document", number, relation)
    types = list(kinds)
    text = f"Stand-in note {number} ."
    entities: list[Entity] = []
    relations = []
    for sentence in range(3):
        words = [str(generator.choice(_COMMON)) for _ in range(int(generator.integers(1, 5)))]
        text += "\n" + " ".join(words)
        linked = bool(generator.integers(2)) or (sentence == 0 and number % 2 == 0)
        for end, type in enumerate(types):
            if end:
                text += " " + str(generator.choice(_LINKED if linked else _APART))
            which = int(generator.integers(len(kinds[type])))
            start = len(text) + 1
            text += " " + kinds[type][which]
            entities.append(Entity(f"T{len(entities) + 1}", type, start, len(text), concept=f"S{end}{which}"))
        text += " ."
        if linked:
            relations.append(Relation(relation, entities[-2].id, entities[-1].id))
    kept = relations if "relations" in annotated else []
    name = f"{10_000_000 + number}"
    return document(name, name, text, entities, kept, site=site, fold=fold, annotated=annotated)


def stand_in_documents(
    clients: int, count: int, kinds: Kinds, relation: str, annotated: frozenset[Annotation] = BOTH
) -> list[Document]:
    """Documents in turn of ``site-1``, ``site-2``, ...; half for training, a quarter for validation, one for test."""
    return [
        stand_in_document(i, kinds, relation, f"site-{i % clients + 1}", FOLDS[i // clients % 4], annotated)
        for i in range(count)
    ]


def by_site_and_fold(documents: Sequence[Document]) -> dict[tuple[str, str], list[Document]]:
    """Documents by ``(site, fold)``."""
    out: dict[tuple[str, str], list[Document]] = {}
    for own in documents:
        out.setdefault((own.site, own.fold or "train"), []).append(own)
    return out


def put(path: Path, content: str) -> None:
    """Write a file, with its folder, line breaks as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8", newline="")
