"""What is odd in examples that were read and split, but not wrong in itself: the words of warnings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from fedlit.data.base.names import few
from fedlit.data.base.records import SPLITS
from fedlit.data.classification.examples import Example

USUAL: Mapping[str, object] = {"split": "subject", "val_fraction": 0.15, "test_fraction": 0.25}
"""Arguments that say how to split, and their defaults."""


def overruled(data: Any) -> str | None:
    """A warning of arguments that are given, and that another one overrules; else None.

    With ``parity`` the split is the published one. With ``split`` ``fold`` the source's parts are taken: a share is
    then of use only to ask for no part, and that for validation where the source has none.
    """
    if data.parity:
        idle, why = list(USUAL), "the published split is used: leave it out, or data.parity"
    elif data.protocol.follows_source:
        own_val = any(example.fold == "val" for example in data.records)
        idle = [name for name in (["val_fraction"] * own_val + ["test_fraction"]) if getattr(data, name)]
        why = "the source's own parts are used: leave it out, or data.split"
    else:
        return None
    given = [f"data.{name} {value}" for name in idle if (value := getattr(data, name)) != USUAL[name]]
    return f"{'parity: ' * data.parity}{', '.join(given)} has no effect, {why}" if given else None


def absent_classes(parts: Mapping[str, Mapping[str, Sequence[Example]]]) -> dict[str, list[str]]:
    """Classes that a client tests and has no training example of, by client."""
    out = {}
    for client, own in parts.items():
        of = {split: {name for example in own[split] for name in example.labels} for split in ("train", "test")}
        if lacking := sorted(of["test"] - of["train"]):
            out[client] = lacking
    return out


def rare(classes: Sequence[str], count: Mapping[str, int]) -> str | None:
    """A warning of classes with fewer records than a split needs; else None."""
    named = [f"{name} ({count[name]})" for name in classes if count[name] < len(SPLITS)]
    if not named:
        return None
    return (
        f"{len(named)} class(es) of fewer than {len(SPLITS)} records, too few to train, validate and test on: "
        f"{few(named)}; mend labels that are misspelt"
    )


def blanks_kept(blank: Sequence[str]) -> str | None:
    """A warning of blank examples that ``parity`` keeps; else None."""
    if not blank:
        return None
    return f"parity: {len(blank)} example(s) of a single value are kept, as in the published protocol: {few(blank)}"


def duplicates_and_leaks(
    duplicates: Mapping[str, int], leaks: Mapping[Literal["subjects", "duplicates"], int], merged: bool, label: str
) -> Iterator[str]:
    """Warnings of values that occur more than once, and of what is on several sides of the split."""
    if duplicates["repeats"]:
        done = "kept on one side of the split" if merged else "not kept on one side of the split"
        yield (
            f"{duplicates['values']} value(s) occur more than once ({duplicates['repeats']} repeats), "
            f"{duplicates['with_different_labels']} of them under different labels: {done}"
        )
    if leaks["subjects"] or leaks["duplicates"]:
        yield (
            f"{label}{leaks['subjects']} subject(s) and {leaks['duplicates']} duplicated value(s) are in more than one "
            f"of train, val and test: figures on unseen subjects will be lower; data.split subject with "
            f"merge_duplicates keeps them apart"
        )
