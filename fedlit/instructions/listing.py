"""Mentions as a JSON list in reading order, one a line: ``{"type": "Disease", "text": "fever"}``.

Where a mention is: its text's first occurrence that starts at or after the start of the mention listed before it and is
no mention of that type listed already; occurrences that are whole words (no letter or digit adjoins them) go before
those that are not. That finds nearly every mention without a number. Where it would find another place, the mention
has ``"occurrence": n``, counted from 1 over the occurrences in the note, whole words first, then the rest.

A mention with gaps has a list of texts, and always a list of occurrences.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fedlit.data.documents.documents import Entity
from fedlit.instructions.markup import Parts, parts, reading_order

BRACKET = re.compile(r"[\[{]")
WORK = 30  # characters looked at, for each there is: no nest of open brackets makes the time quadratic


class Places:
    """Finds what is listed in a text, item by item."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._cursor = 0
        self._listed: set[tuple[str, Parts]] = set()
        self._occurrences: dict[str, list[int]] = {}

    def occurrences(self, wanted: str) -> list[int]:
        """Starts of all occurrences, overlapping ones too: whole words in order, then the others in order."""
        if wanted not in self._occurrences:
            starts, at = [], self.text.find(wanted) if wanted else -1
            while at >= 0:
                starts.append(at)
                at = self.text.find(wanted, at + 1)
            self._occurrences[wanted] = sorted(starts, key=lambda start: not self._whole(start, start + len(wanted)))
        return self._occurrences[wanted]

    def _whole(self, start: int, stop: int) -> bool:
        def inside(at: int) -> bool:
            return 0 < at < len(self.text) and self.text[at - 1].isalnum() and self.text[at].isalnum()

        return not inside(start) and not inside(stop)

    def find(self, label: str, wanted: str | Sequence[str], occurrence: Sequence[int] | None) -> Parts | None:
        """Parts of a mention, or None: not in the text, or as often as it was listed. Nothing is noted."""
        if isinstance(wanted, str):
            if occurrence is None:
                return self._next(label, wanted)
            wanted = [wanted]
        found = []
        for word, number in zip(wanted, occurrence or [1] * len(wanted), strict=False):
            starts = self.occurrences(word)
            if not 0 < number <= len(starts):
                return None
            found.append((starts[number - 1], starts[number - 1] + len(word)))
        return tuple(found) or None

    def _next(self, label: str, wanted: str) -> Parts | None:
        before: Parts | None = None
        for start in self.occurrences(wanted):
            place = ((start, start + len(wanted)),)
            if (label, place) in self._listed:
                continue
            if start >= self._cursor:
                return place
            before = before or place
        return before

    def note(self, label: str, found: Parts) -> None:
        """Take an item as listed."""
        self._listed.add((label, found))
        self._cursor = found[0][0]


def items(text: str, entities: Sequence[Entity], numbers: Mapping[str, int] | None = None) -> list[dict[str, Any]]:
    """The list of a text's mentions, each with its ``id`` where there are numbers, by a mention's id."""
    places = Places(text)
    out: list[dict[str, Any]] = []
    for entity in reading_order(entities):
        where = parts(entity)
        texts = [text[a:b] for a, b in where]
        item: dict[str, Any] = {"id": numbers[entity.id]} if numbers else {}
        item |= {"type": entity.type, "text": texts[0] if len(where) == 1 else texts}
        if len(where) > 1 or places.find(entity.type, texts[0], None) != where:
            counts = [places.occurrences(text).index(a) + 1 for text, (a, _) in zip(texts, where, strict=True)]
            item["occurrence"] = counts[0] if len(where) == 1 else counts
        places.note(entity.type, where)
        out.append(item)
    return out


def lines(listed: Sequence[Mapping[str, Any]]) -> str:
    """A JSON list, one item a line."""
    body = ",\n".join(json.dumps(item, ensure_ascii=False) for item in listed)
    return f"[\n{body}\n]" if body else "[]"


def read(written: str) -> tuple[list[Any], bool] | None:
    """What a text lists as JSON, in order, whatever stands around it: one list, several, or bare objects.

    Returns:
        Objects that name a type, and whatever stands in their place; and whether the JSON breaks off. None where there
        is no JSON.
    """
    decoder = json.JSONDecoder()
    listed: list[Any] = []
    astray: list[Any] = []  # of brackets that hold no object: a remark, unless there is nothing else
    cut, some, at, work = False, False, 0, WORK * len(written)
    while work >= 0 and (bracket := BRACKET.search(written, at)):
        at = bracket.start()
        try:
            value, at = decoder.raw_decode(written, at)
        except json.JSONDecodeError as error:
            cut |= error.pos >= len(written.rstrip()) or error.msg.startswith("Unterminated")
            work -= error.pos - at
            at += 1
        except (ValueError, RecursionError):  # a number of thousands of digits, a thousand brackets
            break
        else:
            found, some = list(_flat(value)), True
            (listed if any(isinstance(item, dict) for item in found) else astray).extend(found)
    return (listed or astray, cut) if some or cut else None


def _flat(value: Any, depth: int = 0) -> Iterator[Any]:
    """Objects that name a type, and what else is in a list; nothing of ours is deeper than four brackets."""
    if isinstance(value, dict) and ("type" in value or not value):
        yield from [value] if value else []
    elif isinstance(value, (dict, list)) and depth < 4:
        for item in value.values() if isinstance(value, dict) else value:
            yield from _flat(item, depth + 1)
    else:
        yield value
