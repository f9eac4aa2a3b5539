"""Mentions marked in a text by span tags, and back: ``the <span class="drug">aspirin</span> was stopped``.

Nothing of the text is changed but what could be taken for a tag or for an escape: ``<`` becomes ``&lt;`` where ``span``
or ``/span`` follows, and ``&`` becomes ``&amp;`` where ``lt;`` or ``amp;`` follows. So ``p < 0.05 & <b>`` stays as it
is, a model learns to copy, and every text comes back to the character.

Nested mentions are nested tags; of two mentions of the same extent the outer one is the first by type. A mention with
gaps has one tag for each part, the first with ``id="n"``, the others with ``continues="n"``. Mentions that cross have
no nesting; with ``crossing="split"`` the one that ends later is cut where the other ends, and goes on as a part.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from fedlit.data.documents.documents import Entity
from fedlit.errors import FedlitError

Crossing = Literal["split", "error", "drop"]
Parts = tuple[tuple[int, int], ...]

ESCAPED = re.compile(r"<(?=\s?/?\s?span)|&(?=lt;|amp;)", re.IGNORECASE | re.ASCII)
TAG = re.compile(r"<\s?(/?)\s?span\b([^<>]*)>", re.IGNORECASE | re.ASCII)  # whatever it finds in a text was escaped
CUT_TAG = re.compile(r"<\s?/?\s?span\b[^<>]*\Z", re.IGNORECASE | re.ASCII)
ATTRIBUTE = re.compile(r"""(class|id|continues)\s?=\s?(?:"([^"]*)"|'([^']*)'|([^\s"']+))""", re.IGNORECASE)


def escape(text: str) -> str:
    """A piece of a note as it stands between tags."""
    return ESCAPED.sub(lambda found: "&lt;" if found[0] == "<" else "&amp;", text)


def unescape(text: str) -> str:
    """What :func:`escape` was given."""
    return re.sub("&(?:lt|amp);", lambda found: "<" if found[0] == "&lt;" else "&", text)


def parts(entity: Entity) -> Parts:
    """Character spans of a mention: its fragments, with touching ones joined."""
    return joined(entity.fragments or ((entity.start, entity.stop),))


def joined(pieces: Sequence[tuple[int, int]]) -> Parts:
    """Pieces in order of their start, those that touch or overlap made one."""
    out: list[tuple[int, int]] = []
    for start, stop in sorted(pieces):
        if out and start <= out[-1][1]:
            out[-1] = (out[-1][0], max(stop, out[-1][1]))
        else:
            out.append((start, stop))
    return tuple(out)


def reading_order(entities: Collection[Entity]) -> list[Entity]:
    """Entities in the order in which their tags open: by start, the longer first, then by type."""
    return sorted(entities, key=lambda entity: (entity.start, -entity.stop, entity.type, parts(entity)))


def settle(entities: Sequence[Entity], crossing: Crossing, where: str) -> tuple[list[Entity], list[Entity]]:
    """Mentions to mark, and mentions left out because they cross one that starts before them.

    Args:
        entities: Mentions of one text.
        crossing: ``"drop"`` leaves out, ``"error"`` refuses, ``"split"`` keeps all.
        where: Names the document in the error.

    Raises:
        FedlitError: Two mentions cross and ``crossing`` is ``"error"``.
    """
    kept: list[Entity] = []
    dropped: list[Entity] = []
    for entity in reading_order(entities):
        other = None if crossing == "split" else next((two for two in kept if crosses(two, entity)), None)
        if other is None:
            kept.append(entity)
        elif crossing == "drop":
            dropped.append(entity)
        else:
            raise FedlitError(
                f"{where} has the mentions {other.type!r} at {other.start} to {other.stop} and {entity.type!r} at "
                f"{entity.start} to {entity.stop}, which cross: tags cannot nest them; set crossing to 'split' or "
                "'drop', or take the JSON format"
            )
    return kept, dropped


def crosses(first: Entity, second: Entity) -> bool:
    """Whether parts of two mentions overlap with neither inside the other."""
    return any(a < c < b < d or c < a < d < b for a, b in parts(first) for c, d in parts(second))


def write(text: str, entities: Sequence[Entity], numbers: Mapping[str, int] | None = None) -> str:
    """The text with its mentions marked.

    Args:
        text: The note.
        entities: Any, crossing ones too.
        numbers: By a mention's id; without it, only mentions in several parts are numbered.
    """
    events = _events(entities)
    opened = Counter(entity.id for _, entity in events if entity is not None)
    several = [entity.id for entity in reading_order(entities) if opened[entity.id] > 1]
    numbers = numbers or {name: number for number, name in enumerate(several, start=1)}
    out: list[str] = []
    done, begun = 0, set()
    for position, entity in events:
        out.append(escape(text[done:position]))
        done = position
        if entity is None:
            out.append("</span>")
            continue
        word = "continues" if entity.id in begun else "id"
        number = f' {word}="{numbers[entity.id]}"' if entity.id in numbers else ""
        out.append(f'<span class="{entity.type}"{number}>')
        begun.add(entity.id)
    return "".join([*out, escape(text[done:])])


def _events(entities: Sequence[Entity]) -> list[tuple[int, Entity | None]]:
    """Positions at which tags open (with their mention) and close (None), properly nested."""
    starting: dict[int, list[tuple[int, int, Entity]]] = {}
    bounds: set[int] = set()
    for order, entity in enumerate(reading_order(entities)):
        for start, stop in parts(entity):
            starting.setdefault(start, []).append((-stop, order, entity))
            bounds |= {start, stop}
    events: list[tuple[int, Entity | None]] = []
    stack: list[tuple[int, int, Entity]] = []
    for position in sorted(bounds):
        opening = starting.get(position, [])
        while any(-opened[0] == position for opened in stack):
            top = stack.pop()
            events.append((position, None))
            if -top[0] > position:  # it goes on, as a part of its own
                opening.append(top)
        for mention in sorted(opening, key=lambda mention: mention[:2]):
            stack.append(mention)
            events.append((position, mention[2]))
    return events


@dataclass(frozen=True)
class Marked:
    """A text that came with tags.

    Attributes:
        text: Without them.
        marks: ``(class, number, parts in the text)``, in order of their opening tags; number None where none was given.
        unclosed: Tags open at the end, or cut; their mentions are left out.
        unmatched: Closing tags with nothing open, and tags around nothing.
    """

    text: str
    marks: tuple[tuple[str, str | None, Parts], ...]
    unclosed: int
    unmatched: int


def read(marked: str) -> Marked:
    """The way back from :func:`write`, for anything."""
    cut = CUT_TAG.search(marked)
    marked = marked[: cut.start()] if cut else marked
    out: list[str] = []
    spans: list[tuple[dict[str, str], list[int]]] = []
    stack: list[list[int]] = []
    done = length = unmatched = 0
    for tag in TAG.finditer(marked):
        out.append(unescape(marked[done : tag.start()]))
        length, done = length + len(out[-1]), tag.end()
        if not tag[1]:
            found = ATTRIBUTE.findall(tag[2])
            spans.append(({name.lower(): a or b or c for name, a, b, c in found}, [length]))
            stack.append(spans[-1][1])
        elif stack:
            stack.pop().append(length)
        else:
            unmatched += 1
    out.append(unescape(marked[done:]))
    marks: list[tuple[str, str | None, list[tuple[int, int]]]] = []
    begun: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for given, span in spans:
        if len(span) < 2 or span[0] == span[1]:
            unmatched += len(span) == 2
            continue
        label, number = given.get("class", ""), given.get("id")
        goes_on = given.get("continues")
        if goes_on and (label, goes_on) in begun:
            begun[label, goes_on].append((span[0], span[1]))
            continue
        marks.append((label, number or goes_on, [(span[0], span[1])]))
        begun.setdefault((label, number or goes_on or ""), marks[-1][2])
    closed = tuple((label, number, joined(pieces)) for label, number, pieces in marks)
    return Marked("".join(out), closed, len(stack) + bool(cut), unmatched)
