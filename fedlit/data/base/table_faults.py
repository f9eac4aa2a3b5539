"""Why a table cannot be read, by a look at its first bytes and lines, and what to set or to mend."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from fedlit.data.base.listing import ending
from fedlit.data.base.names import few
from fedlit.data.base.table_format import TableFormat, content_of, encoding_of, is_csv, usual_delimiter

DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+")
_HEAD = 1 << 16
"""Bytes of a file that are looked at where it cannot be read."""


def no_column(path: Path, name: str, there: Sequence[str], mend: str, format: TableFormat | None = None) -> str:
    """What to say of a table that lacks a column."""
    twins = [other for other in there if other.rpartition("#")[0] == name and other.rpartition("#")[2].isdecimal()]
    if len(twins) > 1:
        return f"{path}: {len(twins)} columns are named {name!r}: say which one by {' or '.join(map(repr, twins))}"
    odd = len(there) <= 1 or there[0].startswith("#")
    what, better = explained(path, format, None) if odd else ("", "")
    seen = f" ({what})" if what else ""
    if not all(map(_is_name, there)):  # what is no header is a row of values, which are not quoted
        place = next(place for place, other in enumerate(there, 1) if not _is_name(other))
        there = [f"{len(there)}, of which number {place} is evidently no name: is line 1 a header"]
    return f"{path}: no column {name!r}, there are {few(there) or 'none'}{seen}: {better or mend}"


def _is_name(column: str) -> bool:
    """Whether it may be the name of a column: no number, no sentence."""
    try:
        float(column.rpartition("#")[0] or column)
    except ValueError:
        return len(column) <= 40 and len(column.split()) <= 5
    return False


def explained(path: Path, format: TableFormat | None, error: Exception | None) -> tuple[str, str]:
    """Why a table cannot be read, and the mend, by a look at its first bytes and lines; else by the parser's words.

    Args:
        path: The file.
        format: How it was read; None where no setting says so, and the file has to be mended.
        error: What the parser raised; None: it read the file, but not its columns. The answers may then be empty.

    Returns:
        What is seen, and what to do.
    """
    if isinstance(error, OSError) and error.strerror:
        return error.strerror, "give a file that can be read"
    if isinstance(error, UnicodeError):
        encoding = (format if format and is_csv(path) else TableFormat()).encoding.upper()
        fixed = format is None or not is_csv(path)
        mend = "save it in UTF-8" if fixed else "set data.encoding, perhaps to latin-1 or cp1252"
        return f"it is not {encoding}", mend
    lines = _first_lines(path, format or TableFormat()) if ending(path) not in (".parquet", ".jsonl") else []
    if lines:
        used = (format or TableFormat()).delimiter or usual_delimiter(path)
        other = max((";", "\t", "|", ","), key=lambda mark: lines[0].count(mark))
        if used not in lines[0] and other in lines[0] and other != used:
            called = {";": "semicolons separate", "\t": "tabs separate", ",": "commas separate"}
            cells = [cell.strip() for line in lines[1:] for cell in line.split(other)]
            seen = f"{called.get(other, f'{other!r} separates')} its columns"
            if format is None:
                return seen, "separate the columns by commas, and write decimals with a point"
            comma = other != "," and any(DECIMAL_COMMA.fullmatch(cell) for cell in cells)
            decimal = " and data.decimal to ','" if comma and format.decimal != "," else ""
            return seen, f"set data.delimiter to {'a tab' if other == chr(9) else repr(other)}{decimal}"
        if lines[0].startswith("#") or (len(lines) > 1 and used not in lines[0] and used in lines[1]):
            return "line 1 is no header, but a comment", "delete the lines above the header"
    if error is None:
        return "", ""
    longer = type(error).__name__ == "ParserWarning"
    if longer:
        what = "rows are longer than the header"
    elif isinstance(error, (ValueError, TypeError, KeyError)) and type(error).__module__ == "builtins":
        what = type(error).__name__  # its words may quote a cell
    else:
        what = " ".join(str(error).split())[:160]
    return what, "give a csv file in UTF-8, JSON lines or Parquet"


def _first_lines(path: Path, format: TableFormat) -> list[str]:
    """The first lines of a text file, but for ``sep=``; empty where there are none."""
    try:
        head = content_of(path, _HEAD)
        lines = head.decode(encoding_of(head, format), errors="replace").splitlines()
    except (OSError, EOFError):
        return []
    return [line for line in lines[:6] if line.strip() and not line.lower().startswith("sep=")]
