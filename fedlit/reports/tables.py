"""Tables that fit a terminal and keep names apart."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from textwrap import wrap

NARROWEST = 12
"""Characters of a name that a table always has room for."""
GAP = "…"
"""Stands for any characters that are cut."""
_SEPARATORS = "-_ ./:"


def apart(names: Sequence[str], width: int) -> dict[str, str]:
    """Names short enough for a column, each of which fits one of the names alone, ``…`` being any characters.

    Of names that are too long their middle gives way, the same number of characters being left at the end of all; where
    that does not tell them apart, what they all begin with gives way first. Where nothing does they are longer than
    ``width``, and if need be whole. Short ones stay as they are.

    Args:
        names: Different ones.
        width: Characters.
    """
    names = list(dict.fromkeys(names))
    longest = max(map(len, names), default=0)
    if longest <= width:
        return {name: name for name in names}
    for size in range(max(2, width), longest):
        for short in _cut(names, size):
            if max(map(len, short)) <= size and len({*short}) == len(short) and _each_fits_one(short, names):
                return dict(zip(names, short, strict=True))
    return {name: name for name in names}


def fitted(headers: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> tuple[list[str], list[list[str]]]:
    """A table whose first column holds names and whose others hold numbers, in a terminal's width.

    Args:
        headers: Of the columns; may be of several lines.
        rows: Cells, names first.
        width: Characters.

    Returns:
        Headers and rows with names that fit: over lines between words, or as :func:`apart` has them.
    """
    columns = len(headers)
    numbers = [max((len(row[i]) for row in rows), default=0) for i in range(1, columns)]
    words = [max(map(len, header.split()), default=0) for header in headers[1:]]  # a header breaks between words
    names = list(dict.fromkeys(row[0] for row in rows))
    longest = max((len(name) for name in [*names, headers[0]]), default=0)
    free = width - 3 * columns - 1
    cap, wide = 6, sum(max(n, 6) for n in numbers)
    for most in range(max(words, default=0), 5, -1):
        needed = sum(max(n, min(word, most)) for n, word in zip(numbers, words, strict=True))
        if free - needed >= min(longest, NARROWEST):
            cap, wide = most, needed
            break
    short = apart(headers[1:], cap) if any(word > cap for word in words) else {}
    first = _by_words(names, max(NARROWEST, free - wide))
    return [headers[0], *(short.get(name, name) for name in headers[1:])], [[first[row[0]], *row[1:]] for row in rows]


def _by_words(names: Sequence[str], width: int) -> dict[str, str]:
    """Names whole, over lines between words, where their words let them; else :func:`apart`."""
    whole = {name: "\n".join(wrap(name, width, break_long_words=False, break_on_hyphens=False)) for name in names}
    narrow = all(len(line) <= width for name in whole.values() for line in name.split("\n"))
    same = all(name == " ".join(own.split("\n")) for name, own in whole.items())
    return whole if narrow and same else apart(names, width)


def _cut(names: Sequence[str], size: int) -> Iterator[list[str]]:
    """Names cut in one way after the other, the way that reads best first."""
    shared = os.path.commonprefix(list(names)) if len(names) > 1 else ""
    begin = max(shared.rfind(mark) for mark in _SEPARATORS) + 1 or len(shared)
    headless = [GAP + name[begin:] for name in names] if begin > 1 else list(names)
    half = size // 2
    for whole in (names, headless):
        for tail in (*range(half, size), *range(half - 1, 0, -1)):
            yield [_without_middle(name, size, tail) for name in whole]


def _without_middle(name: str, size: int, tail: int) -> str:
    return name if len(name) <= size else name[: size - 1 - tail] + GAP + name[len(name) - tail :]


def _each_fits_one(short: Sequence[str], names: Sequence[str]) -> bool:
    patterns = (re.compile(".*".join(map(re.escape, re.split(f"{GAP}+", own))), re.DOTALL) for own in short)
    return all(sum(pattern.fullmatch(name) is not None for name in names) == 1 for pattern in patterns)
