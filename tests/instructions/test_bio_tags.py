"""Mentions as tags of tokens, and back."""

from __future__ import annotations

import re

from drawn_documents import documents
from hypothesis import given, settings

from fedlit.data.documents.documents import Entity
from fedlit.instructions.bio import bio_spans, bio_tags

OFFSETS = [(0, 0), (0, 2), (3, 5), (5, 8), (9, 12), (0, 0)]


def test_tags_of_a_text():
    mentions = [Entity("a", "X", 0, 2), Entity("b", "Y", 4, 12)]
    assert bio_tags(mentions, OFFSETS) == (["O", "B-X", "B-Y", "I-Y", "I-Y", "O"], 0)


def test_the_longest_stays_and_the_rest_is_counted():
    mentions = [Entity("a", "X", 0, 5), Entity("b", "Y", 3, 12), Entity("c", "Z", 9, 12), Entity("d", "X", 8, 9)]
    assert bio_tags(mentions, OFFSETS) == (["O", "O", "B-Y", "I-Y", "I-Y", "O"], 3)
    beside = [Entity("a", "X", 0, 2), Entity("b", "X", 3, 5)]
    assert bio_tags(beside, OFFSETS)[0] == ["O", "B-X", "B-X", "O", "O", "O"]


def test_spans_of_any_tags():
    tags = ["B-X", "I-X", "I-X", "I-Y", "B-Y", "I-Z"]
    assert [(one.type, one.start, one.stop) for one in bio_spans(tags, OFFSETS)] == [
        ("X", 0, 5), ("Y", 5, 8), ("Y", 9, 12)
    ]  # fmt: skip
    assert bio_spans(["O"] * 6, OFFSETS) == ()


@settings(deadline=None, max_examples=100)
@given(documents(gaps=False, flat=True))
def test_flat_mentions_at_bounds_of_tokens_come_back(document):
    bounds = {0, len(document.text), *(at for one in document.entities for at in (one.start, one.stop))}
    bounds |= {found.start() for found in re.finditer(r"\b", document.text)}
    cuts = sorted(bounds)
    tags, left_out = bio_tags(document.entities, list(zip(cuts, cuts[1:], strict=False)))
    back = bio_spans(tags, list(zip(cuts, cuts[1:], strict=False)))
    assert left_out == 0
    assert [(one.type, one.start, one.stop) for one in back] == [
        (one.type, one.start, one.stop) for one in document.entities
    ]
