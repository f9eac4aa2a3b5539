"""Other names for labels, sites, subjects and types, and warnings of names that differ by their spelling only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fedlit.data.base.names import few
from fedlit.data.base.spelling import alike, says_nothing
from fedlit.errors import FedlitError

Rename = dict[str, dict[str, str | None]]
"""New names by old ones, by what they name; None: such a label, or type, is none."""
MAY_VANISH: Mapping[str, bool] = {"labels": True, "sites": False, "subjects": False, "types": True}
"""What can be renamed, and whether it can be dropped."""


def check_rename(rename: Rename | None) -> Rename:
    """The argument, as plain text.

    Raises:
        FedlitError: It renames something unknown, drops what every record needs, or renames a new name again.
    """
    for what, names in (rename or {}).items():
        if what not in MAY_VANISH:
            raise FedlitError(f"data.rename renames {what!r}: give one of {', '.join(MAY_VANISH)}")
        for old, new in names.items():
            if not new and (new == "" or not MAY_VANISH[what]):
                raise FedlitError(f"data.rename gives {old!r} of {what} no name: give one, or use data.exclude")
            if new in names:
                raise FedlitError(f"data.rename renames {old!r} to {new!r}, which it renames too: write the last name")
    return {what: dict(names) for what, names in (rename or {}).items()}


def renamed(names: Iterable[str], given: Mapping[str, str | None]) -> tuple[str, ...]:
    """Names with their new ones in their place, each once; without those that are dropped."""
    found = (given.get(name, name) for name in names)
    return tuple(dict.fromkeys(name for name in found if name is not None))


def doubts(what: str, count: Mapping[str, int], *, chosen: bool = False) -> list[str]:
    """Warnings of names that are probably one, and of labels that say nothing; each with its mend.

    Args:
        what: ``labels``, ``sites``, ``subjects`` or ``types``.
        count: How often each name occurs: the commonest spelling is proposed.
        chosen: Whether the user gave them, and so knows of them.
    """
    names = sorted(count)
    out = []
    groups = alike(names)
    if groups:
        usual = {name: max(group, key=lambda own: (count[own], own)) for group in groups for name in group}
        pairs = [f"{name!r}: {new!r}" for name, new in usual.items() if name != new]
        mend = f"data.rename {{{what}: {{{few(pairs, 12)}}}}}"
        seen = few([" and ".join(map(repr, group)) for group in groups], 4)
        out.append(
            f"{len(groups)} group(s) of {what} differ by case, white space or Unicode form only, and count as "
            f"different ones: {seen}: if they are the same, set {mend}"
        )
    empty = [name for name in names if says_nothing(name)] if what == "labels" and not chosen else []
    if empty:
        mend = f"data.rename {{labels: {{{', '.join(f'{name!r}: null' for name in empty)}}}}}"
        out.append(f"{few([repr(name) for name in empty])} count as labels: if they stand for none, set {mend}")
    return out
