"""Tables that fit a terminal and keep names apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

NARROWEST = 12
"""Characters of a name that a table always has room for."""
_SEPARATORS = "-_ ./:"


def apart(names: Sequence[str], width: int) -> dict[str, str]:
    """Names short enough for a column, all different, and none that is another's whole name.

    Of names that are too long what they all begin with gives way first, then their middle; where that leaves two alike,
    they are numbered. Short ones stay as they are.

    Args:
        names: Different ones.
        width: Characters; more where so many names cannot differ in that.
    """
    names = list(dict.fromkeys(names))
    if not names:
        return {}
    width = max(width, len(str(len(names))) + 2)
    if all(len(name) <= width for name in names):
        return {name: name for name in names}
    start = _shared(names)
    bare = {name: "…" + name[start:] if start > 1 else name for name in names}
    for tail in (width // 2, width - 2, 2 * width // 3, width // 3, 2):
        out = {name: _middle(text, width, tail) for name, text in bare.items()}
        if _clear(out):
            return out
    digits = len(str(len(names)))
    return {name: f"{name[: width - digits - 1]}…{place:0{digits}d}" for place, name in enumerate(names, 1)}


def fitted(headers: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> tuple[list[str], list[list[str]]]:
    """A table whose first column holds names and whose others hold numbers, in a terminal's width.

    Args:
        headers: Of the columns; may be of several lines.
        rows: Cells, names first.
        width: Characters.

    Returns:
        Headers and rows with names that fit, see :func:`apart`.
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
        if free - needed >= min(longest, 2 * NARROWEST):
            cap, wide = most, needed
            break
    short = apart(headers[1:], cap) if any(word > cap for word in words) else {}
    first = apart(names, max(NARROWEST, free - wide))
    return [headers[0], *(short.get(name, name) for name in headers[1:])], [[first[row[0]], *row[1:]] for row in rows]


def _shared(names: Sequence[str]) -> int:
    """How many characters all names begin with, up to the last that separates words."""
    first, last = min(names), max(names)
    same = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return max((first.rfind(mark, 0, same) + 1 for mark in _SEPARATORS), default=0) if len(names) > 1 else 0


def _middle(text: str, width: int, tail: int) -> str:
    """A text with an ellipsis in the place of its middle, ``tail`` characters kept at its end."""
    if len(text) <= width:
        return text
    return f"{text[: width - tail - 1]}…{text[len(text) - tail :]}"


def _clear(short: Mapping[str, str]) -> bool:
    """Whether all short names differ, and none is the whole name of another."""
    values = list(short.values())
    return len(set(values)) == len(values) and all(own not in short or own == name for name, own in short.items())
