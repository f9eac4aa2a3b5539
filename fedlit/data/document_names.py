"""Fold and site out of the names of files and folders."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Literal

from fedlit.data.example_table import FOLDS
from fedlit.data.records import Fold

SiteBy = Literal["file", "folder"]
_WORDS = r"(?i:train(?:ing)?|dev(?:el(?:op(?:ment)?)?)?|val(?:id(?:ation)?)?|test(?:ing)?)"
# A word begins with a capital or after what is no small letter; it ends before "set", a new word or what is no letter.
_FOLD = re.compile(rf"(?:(?<![a-z])|(?=[A-Z][a-z]))({_WORDS})(?:(?i:[_ -]?set)|(?=[A-Z][a-z])|(?![A-Za-z]))")


def fold_of(path: PurePath) -> Fold | None:
    """The fold that the last of train(ing), dev(elopment), val(idation) and test(ing) in a path names, or None."""
    found = _FOLD.findall(path.as_posix())
    return _fold(found[-1].lower()) if found else None


def site_of(path: PurePath, by: SiteBy) -> str:
    """The file's name without what follows its first dot, or its folder's path; without the words of a fold.

    ``clinic-a_train.conll`` and ``clinic-a_test.conll`` are of the site ``clinic-a``.

    Args:
        path: Of a file, in the folder of the data set.
        by: Which of the two.
    """
    named = path.name.split(".")[0] if by == "file" else path.parent.as_posix().strip(".")
    parts = [re.sub(r"^[-_ .]+|[-_ .]+$", "", _FOLD.sub("", part)) for part in named.split("/")]
    return "-".join(part for part in parts if part) or "site-unknown"


def _fold(word: str) -> Fold:
    for name, fold in FOLDS.items():
        if word.startswith(name):
            return fold
    raise AssertionError(word)
