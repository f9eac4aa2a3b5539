"""Sites and subjects out of names and tables."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from pathlib import Path

from fedlit.data.records import BadRecord
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

    def of(self, name: str) -> str:
        """The group's text in ``name``."""
        found = self.expression.search(name)
        if found is None or not found.group(1):
            raise BadRecord(f"record {name!r} does not match {self.argument} {self.expression.pattern!r}: widen it")
        return found.group(1)


def read_rows(path: Path, key: str) -> dict[str, Mapping[str, str]]:
    """Rows of a csv file by one column.

    Raises:
        FedlitError: If it cannot be read, or has no such column.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise FedlitError(f"{path}: {error}: give a csv file in UTF-8") from error
    if not rows or key not in rows[0]:
        there = ", ".join(rows[0]) if rows else "no rows"
        raise FedlitError(f"{path}: no column {key!r}, there are {there}: name the column so")
    return {row[key]: row for row in rows}
