"""What is matched, against nervaluate 1.2.1 (the ``dict`` loader, whose ends are inclusive)."""

from __future__ import annotations

import random

import pytest

from fedlit.data.documents.documents import Document, Entity
from fedlit.metrics.spans.matching import match_entities

nervaluate = pytest.importorskip("nervaluate", reason="nervaluate 1.2.1 is not installed")


def mention(type: str, start: int, stop: int) -> Entity:
    return Entity(f"{type}{start}-{stop}", type, start, stop)


def note(name: str, *entities: Entity) -> Document:
    return Document(name, "x" * 400, entities)


def reference(gold: Document, said: Document) -> dict[str, dict[str, int]]:
    def rows(document):
        return [{"label": one.type, "start": one.start, "end": one.stop - 1} for one in document.entities]

    found = nervaluate.Evaluator([rows(gold)], [rows(said)], tags=["Chemical", "Disease"], loader="dict").evaluate()
    return {
        name: {"strict": by["strict"].correct, "type": by["ent_type"].correct} for name, by in found["entities"].items()
    }


def flat(draw: random.Random, far: bool) -> tuple[Document, Document]:
    """Mentions that do not overlap each other; with ``far``, none overlaps two of the other side."""
    gold, said, at = [], [], 0
    for _ in range(draw.randrange(1, 8)):
        length = draw.randrange(3, 9)
        gold.append(mention(draw.choice(["Chemical", "Disease"]), at, at + length))
        if draw.random() < 0.8:
            type = gold[-1].type if draw.random() < 0.8 else "Disease"
            shift = draw.choice([0, 0, 1, 2]) if far else draw.randrange(0, 9)
            if not said or said[-1].stop <= at + shift:
                said.append(mention(type, at + shift, at + shift + draw.randrange(2, length + 1)))
        at += length + (12 if far else draw.randrange(0, 3))
    return note("1", *gold), note("1", *said)


def test_strict_and_lenient_are_nervaluates_strict_and_type_where_one_meets_one():
    draw = random.Random(0)
    compared = 0
    for _ in range(150):
        gold, said = flat(draw, far=True)
        for type, theirs in reference(gold, said).items():
            ours = match_entities(gold, said, type)
            assert (ours.strict, ours.lenient) == (theirs["strict"], theirs["type"])
            compared += ours.lenient
    assert compared > 200


def test_where_one_meets_several_nervaluate_finds_no_more():
    """There the first prediction takes a mention that it is not, which an exact one after it then misses; and the
    nearest one is taken, which leaves another without a partner. We count what can be matched."""
    draw = random.Random(1)
    fewer = 0
    for _ in range(300):
        gold, said = flat(draw, far=False)
        for type, theirs in reference(gold, said).items():
            ours = match_entities(gold, said, type)
            assert ours.strict >= theirs["strict"]
            assert ours.lenient >= theirs["type"]
            fewer += (ours.strict, ours.lenient) != (theirs["strict"], theirs["type"])
    assert fewer > 0
    gold, said = note("1", mention("Disease", 0, 9)), note("1", mention("Disease", 0, 2), mention("Disease", 0, 9))
    assert (match_entities(gold, said, "Disease").strict, reference(gold, said)["Disease"]["strict"]) == (1, 0)
