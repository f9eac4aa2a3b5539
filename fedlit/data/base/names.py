"""Sites and subjects out of names."""

from __future__ import annotations

import re
from collections.abc import Sequence

from fedlit.data.base.records import BadRecord, Fold
from fedlit.errors import FedlitError


class NameRule:
    """A regular expression whose one group, searched in a name, is what is looked for.

    Args:
        argument: Which argument it came from, for errors.
        pattern: The expression; None is accepted and never used.

    Raises:
        FedlitError: If it is not a regular expression with a group.
    """

    def __init__(self, argument: str, pattern: str | None) -> None:
        self.argument = argument
        try:
            self.expression = re.compile(pattern or "()")
        except re.error as error:
            raise FedlitError(f"{argument} {pattern!r} is no regular expression ({error}): mend it") from error
        if not self.expression.groups:
            raise FedlitError(f"{argument} {pattern!r} has no group: put the part to take in parentheses")

    def of(self, name: str, inside: str | None = None) -> str:
        """The group's text in a name, or, where it is not in that, in a path.

        Args:
            name: The record's.
            inside: Path of its file below the folder that is read, without ending.

        Raises:
            BadRecord: It is in neither.
        """
        for place in (name, inside or ""):
            found = self.expression.search(place)
            if found is not None and found.group(1):
                return found.group(1)
        where = f"record {name!r}" if inside in (None, name) else f"record {name!r}, or its path {inside!r},"
        raise BadRecord(f"{where} does not match {self.argument} {self.expression.pattern!r}: widen it")


def few(names: Sequence[str], most: int = 8) -> str:
    """A list of names that fits one line."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


FOLDS: dict[str, Fold] = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
}
