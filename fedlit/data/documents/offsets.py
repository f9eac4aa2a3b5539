"""What offsets count: characters, as here, or the units of another tool; and with a mark or other line breaks."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Literal

from fedlit.data.base import arguments
from fedlit.data.base.records import BadRecord
from fedlit.data.documents.documents import Document
from fedlit.data.documents.formats import check_mention, offsets_shown, squeezed
from fedlit.data.files.text import MARK, Text

Offsets = Literal["characters", "utf16", "bytes"]
"""Characters; UTF-16 units, of which an emoji is two (JavaScript, Java, C#); bytes of UTF-8 (Go, Rust, Perl)."""
Spans = Sequence[tuple[int, int]]
UNITS: Mapping[Offsets, str] = {
    "utf16": "UTF-16 units, of which an emoji is two",
    "bytes": "bytes of UTF-8",
}
OTHERS: Mapping[Offsets | Literal["breaks"], str] = {
    "utf16": "set data.offsets utf16",
    "bytes": "set data.offsets bytes",
    "breaks": "write the text's line breaks as \\n",
}
"""What offsets may count in the place of characters, and the mend."""


def checked_offsets(given: Offsets | None) -> Offsets | None:
    """The argument ``offsets``, which is one of these."""
    if given is not None:
        arguments.one_of("offsets", given, Offsets)
    return given


class Ruler:
    """Offsets of a text in a unit, as characters.

    Args:
        text: The text.
        unit: What offsets count; ``breaks`` is characters, ``\\r\\n`` being one.
    """

    def __init__(self, text: str, unit: Offsets | Literal["breaks"]) -> None:
        self.starts: list[int] | None = None
        widest = max(map(ord, text), default=0)
        sizes: Iterable[int] | None = None
        if unit == "utf16" and widest > 0xFFFF:
            sizes = (1 + (c > "\uffff") for c in text)
        elif unit == "bytes" and widest > 0x7F:
            sizes = (len(c.encode("utf-8", "surrogatepass")) for c in text)
        elif unit == "breaks" and "\r\n" in text:
            sizes = (int(text[i : i + 2] != "\r\n") for i in range(len(text)))
        if sizes is not None:
            self.starts = [0, *accumulate(sizes)]

    def spans(self, spans: Spans) -> list[tuple[int, int]] | None:
        """Spans in characters; None where one begins or ends within a character or outside of the text."""
        if self.starts is None:
            return list(spans)
        places = [[self._character(self.starts, offset) for offset in span] for span in spans]
        found = [(a, b) for a, b in places if a is not None and b is not None]
        return found if len(found) == len(places) else None

    @staticmethod
    def _character(starts: list[int], offset: int) -> int | None:
        place = bisect_left(starts, offset)
        return place if place < len(starts) and starts[place] == offset else None


class Places:
    """Where mentions stand in a text.

    Args:
        text: The text.
        unit: What offsets count.
    """

    def __init__(self, text: str, unit: Offsets = "characters") -> None:
        self.text, self.unit = text, unit
        self.ruler = Ruler(text, unit)

    def of(self, where: str, spans: Spans, written: str | None) -> list[tuple[int, int]]:
        """The parts of a mention, in characters, in order; checked where its words are written.

        Raises:
            BadRecord: They are outside of the text, within a character, or not what is written.
        """
        found = self.ruler.spans(spans)
        if found is None:
            raise BadRecord(
                f"{where} has a mention at {spans[0][0]} to {spans[-1][1]}, outside of the text or within a character "
                f"where offsets count {UNITS[self.unit]}: mend the offsets, or data.offsets"
            )
        if written is None:
            self._check_room(where, spans)
            return found
        try:
            check_mention(where, self.text, found, written, shown=self._shown)
        except BadRecord as error:
            for unit, meaning in UNITS.items() if self.unit == "characters" else ():
                if _stand(self.text, Ruler(self.text, unit).spans(spans), written):
                    raise BadRecord(f"{error}, or set data.offsets {unit}: it fits if they count {meaning}") from None
            raise
        return found

    def _shown(self, start: int, stop: int) -> str:
        """A span of characters in the unit of the file."""
        if self.ruler.starts is not None:
            start, stop = self.ruler.starts[start], self.ruler.starts[stop]
        return offsets_shown(start, stop)

    def _check_room(self, where: str, spans: Spans) -> None:
        """Refuse a mention that ends outside of the text if characters are counted, and within it otherwise."""
        if self.unit != "characters" or spans[-1][1] <= len(self.text):
            return
        for unit, meaning in UNITS.items():
            if Ruler(self.text, unit).spans(spans) not in (None, list(spans)):
                raise BadRecord(
                    f"{where} has a mention at {spans[0][0]} to {spans[-1][1]}, outside of a text of {len(self.text)} "
                    f"characters: mend the offsets, or set data.offsets {unit}: it fits if they count {meaning}"
                )


def _stand(text: str, spans: Spans | None, written: str) -> bool:
    """Whether the words stand at these places."""
    return spans is not None and squeezed(" ".join(text[a:b] for a, b in spans)) == squeezed(written)


class Doubts:
    """Mentions without their words, that stand elsewhere if offsets do not count characters.

    Attributes:
        first: Where the first of them is, by what offsets may count.
        after: How many there are of each.
        cut: How many of these cut words, or have white space at an end: in characters, and in the other unit.
    """

    def __init__(self) -> None:
        self.first: dict[str, str] = {}
        self.after: Counter[str] = Counter()
        self.cut: Counter[tuple[str, bool]] = Counter()

    def note(self, where: str, text: str, mentions: Sequence[Spans]) -> None:
        """Take the unchecked mentions of a document in."""
        if text.isascii() and "\r\n" not in text:
            return
        for unit in OTHERS:
            ruler = Ruler(text, unit)
            moved = [(spans, ruler.spans(spans)) for spans in mentions] if ruler.starts else []
            for spans, other in moved:
                if other != list(spans):
                    self.first.setdefault(unit, where)
                    self.after[unit] += 1
                    self.cut[unit, False] += not whole(text, spans)
                    self.cut[unit, True] += other is None or not whole(text, other)

    def fault(self) -> str | None:
        """Why offsets are surely not characters; None where that is not so."""
        for unit, mend in OTHERS.items():
            if self.cut[unit, False] > 1 and not self.cut[unit, True]:
                return (
                    f"{self.first[unit]}: from here on {self.cut[unit, False]} of {self.after[unit]} mentions cut a "
                    f"word or hold white space at an end if offsets count characters, and none if they count "
                    f"{_unit(unit)}: {mend}, or data.offsets characters if they are right"
                )
        return None

    def warning(self) -> str | None:
        """What cannot be known; None where nothing is in doubt."""
        unsure = [unit for unit in OTHERS if self.after[unit] and (unit == "utf16" or self.cut[unit, False])]
        unsure = [unit for unit in unsure if unit == "utf16" or not self.cut[unit, True]]
        if not unsure:
            return None
        unit = unsure[0]
        return (
            f"{self.first[unit]}: from here on {self.after[unit]} mention(s) have no words to check their offsets by, "
            f"and would stand elsewhere if these count {_unit(unit)}: "
            f"{OTHERS[unit]} if so, else data.offsets characters, or give each mention its text"
        )


def _unit(unit: Offsets | Literal["breaks"]) -> str:
    return "each line break as one" if unit == "breaks" else UNITS[unit]


def whole(text: str, spans: Spans) -> bool:
    """Whether spans are in a text, cut no word, and neither begin nor end with white space."""

    def inside(at: int) -> bool:
        return 0 < at < len(text) and text[at - 1].isalnum() and text[at].isalnum()

    return all(
        0 <= a < b <= len(text) and not (inside(a) or inside(b) or text[a].isspace() or text[b - 1].isspace())
        for a, b in spans
    )


def as_counted(text: Text, parse: Callable[[str], Document]) -> tuple[Document, str]:
    """A document whose mentions were counted in its text as it is, or as tools on other systems see it.

    Where mentions do not stand where they should, they are looked for with the byte order mark counted, and with the
    line breaks of the other systems; all have to fit.

    Args:
        text: The file.
        parse: Gives the document of a text, or refuses it where mentions do not fit.

    Returns:
        The document, and how it was counted; empty for the text as it is.

    Raises:
        BadRecord: They fit in no way; of the text as it is.
    """
    try:
        return parse(text.content), ""
    except BadRecord as error:
        for how, content, shift in _ways(text):
            try:
                return _moved(parse(content), shift), how
            except BadRecord:
                continue
        if text.marked:
            raise BadRecord(
                f"{error} (the text's byte order mark is not counted; counted, they fit no better)"
            ) from None
        raise


def _ways(text: Text) -> Iterator[tuple[str, str, int]]:
    """How else a text may have been counted, as which text, and by how much offsets are then too high."""
    content = text.content
    breaks = [("", content)]
    if "\r\n" in content:
        breaks.append(("line breaks as one character", content.replace("\r\n", "\n")))
    elif "\n" in content:
        breaks.append(("line breaks as two characters", content.replace("\n", "\r\n")))
    for mark in ("", MARK) if text.marked else ("",):
        for how, changed in breaks:
            named = " and ".join([*(["the byte order mark"] if mark else []), *([how] if how else [])])
            if named:
                yield named, mark + changed, len(mark)


def _moved(document: Document, back: int) -> Document:
    """A document without the first characters of its text."""
    if not back:
        return document
    entities = tuple(
        replace(
            entity,
            start=entity.start - back,
            stop=entity.stop - back,
            fragments=tuple((a - back, b - back) for a, b in entity.fragments),
        )
        for entity in document.entities
    )
    return replace(document, text=document.text[back:], entities=entities)
