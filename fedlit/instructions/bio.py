"""Mentions as a tag for each token, for models that label tokens: ``O``, ``B-Disease``, ``I-Disease``."""

from __future__ import annotations

from collections.abc import Sequence

from fedlit.data.documents.documents import Entity


def bio_tags(entities: Sequence[Entity], offsets: Sequence[tuple[int, int]]) -> tuple[list[str], int]:
    """A tag for each token.

    A token is of a mention when they share a character. Tags know neither nesting nor gaps: mentions are laid down from
    the longest to the shortest (the first in the text, then by type, of equally long ones), one that shares a token
    with a mention laid down before is left out, and a mention with gaps takes in what is between its parts.

    Args:
        entities: Mentions of a text.
        offsets: (start, stop) of each token in the text, in order; an empty one (``(0, 0)``, as tokenizers give special
            tokens) has the tag ``O``.

    Returns:
        The tags, and how many mentions were left out.
    """
    tags = ["O"] * len(offsets)
    left_out = 0
    for entity in sorted(entities, key=lambda e: (e.start - e.stop, e.start, e.type)):
        own = [i for i, (start, stop) in enumerate(offsets) if max(start, entity.start) < min(stop, entity.stop)]
        if not own or any(tags[i] != "O" for i in own):
            left_out += 1
            continue
        for i in own:
            tags[i] = f"I-{entity.type}"
        tags[own[0]] = f"B-{entity.type}"
    return tags, left_out


def bio_spans(tags: Sequence[str], offsets: Sequence[tuple[int, int]]) -> tuple[Entity, ...]:
    """The mentions of tagged tokens, with ids ``P1``, ``P2``, ... in order.

    ``I-`` goes on with a mention of its type that the token before is in, and begins one otherwise; tokens with empty
    offsets are passed over.
    """
    found: list[tuple[str, int, int]] = []
    before = "O"
    for tag, (start, stop) in zip(tags, offsets, strict=True):
        if start >= stop:
            continue
        type = tag[2:]
        if tag.startswith("I-") and before[2:] == type:
            found[-1] = (type, found[-1][1], stop)
        elif tag != "O":
            found.append((type, start, stop))
        before = tag
    return tuple(Entity(f"P{n}", type, start, stop) for n, (type, start, stop) in enumerate(found, start=1))
