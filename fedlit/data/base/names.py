"""Sites and subjects out of names and tables."""

from __future__ import annotations

import csv
import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

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

    def of(self, name: str) -> str:
        """The group's text in ``name``."""
        found = self.expression.search(name)
        if found is None or not found.group(1):
            raise BadRecord(f"record {name!r} does not match {self.argument} {self.expression.pattern!r}: widen it")
        return found.group(1)


def read_rows(path: Path, key: str, delimiter: str = ",") -> dict[str, Mapping[str, str]]:
    """Rows of a csv file by one column. Cells that a short row lacks are empty, rows without any text are passed over.

    Raises:
        FedlitError: If it cannot be read, has no such column, or two rows of one key.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restkey="", restval="", delimiter=delimiter)
            rows = [row for row in reader if any(row.values())]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        what = getattr(error, "strerror", None) or error
        kind = "csv file" if delimiter == "," else "table separated by tabs,"
        raise FedlitError(f"{path}: {what}: give a {kind} in UTF-8") from error
    if not rows or key not in rows[0]:
        raise FedlitError(no_column(path, key, list(rows[0]) if rows else ["no rows"], "name the column so"))
    twice = [name for name, count in Counter(row[key] for row in rows).items() if count > 1]
    if twice:
        raise FedlitError(f"{path}: {key} {twice[0]!r} is listed more than once: keep one row")
    return {row[key]: row for row in rows}


def no_column(path: Path, column: str, there: Sequence[str], mend: str) -> str:
    """What to say of a table that lacks a column."""
    if len(there) == 1 and re.search(r"[;\t]", there[0]):
        mend = "separate the columns by commas, and write decimals with a point"
    return f"{path}: no column {column!r}, there are {', '.join(there)}: {mend}"


def read_columns(path: Path, columns: Sequence[str], mend: str) -> list[tuple[int, dict[str, str]]]:
    """Cells of some columns of a csv or Parquet file, as text; an absent value is empty. Rows count from 1.

    Raises:
        FedlitError: If it cannot be read, or lacks a column; ``mend`` says what to do about that.
    """
    import pandas as pd

    try:
        with warnings.catch_warnings():
            # Longer rows than the header would shift the columns, or be cut off with a warning.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            if path.suffix.lower() == ".parquet":
                table = pd.read_parquet(path)
            else:
                table = pd.read_csv(path, index_col=False, dtype=str, na_filter=False, encoding="utf-8-sig")
    except Exception as error:  # pandas and pyarrow raise many kinds on damaged files
        longer = isinstance(error, pd.errors.ParserWarning)
        what = "rows are longer than the header" if longer else getattr(error, "strerror", None)
        what = what or " ".join(str(error).split())[:160]
        raise FedlitError(
            f"{path}: cannot be read as a table ({what}): give a csv file in UTF-8, or Parquet"
        ) from error
    for column in columns:
        if column not in table.columns:
            raise FedlitError(no_column(path, column, [str(name) for name in table.columns], mend))
    cells = [["" if pd.isna(cell) else str(cell) for cell in table[column]] for column in columns]
    return [(row, dict(zip(columns, own, strict=True))) for row, own in enumerate(zip(*cells, strict=True), 1)]


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
