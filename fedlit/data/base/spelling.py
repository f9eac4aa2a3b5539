"""Names that people write: which of them differ by their spelling only, and which say nothing."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

NOTHING = frozenset(
    ("", "-", "--", ".", "?", "??", "na", "n/a", "n.a.", "nan", "none", "null", "nil", "unknown", "unk", "undefined",
     "missing", "not available", "not applicable", "#n/a", "tbd")
)  # fmt: skip
"""What stands in a cell in the place of a label, as :func:`plain` writes it."""


def plain(name: str) -> str:
    """A name without what people do not see: case, white space of any kind and length, forms of Unicode (NFKC)."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def alike(names: Iterable[str]) -> list[list[str]]:
    """Groups of two names or more that differ by case, white space or Unicode form only; sorted."""
    groups: dict[str, set[str]] = {}
    for name in names:
        groups.setdefault(plain(name), set()).add(name)
    return sorted(sorted(group) for group in groups.values() if len(group) > 1)


def says_nothing(label: str) -> bool:
    """Whether a label stands for an absent one (``NA``, ``?``, ``unknown``)."""
    return plain(label) in NOTHING


def encodable(text: str) -> bool:
    """Whether a text can be written as UTF-8: half a character, a lone surrogate, cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
