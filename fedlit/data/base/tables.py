"""Tables out of files: csv in the forms that programs write, Parquet, JSON lines; with errors that say what to set."""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import io
import json
import lzma
import re
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fedlit.data.base import arguments
from fedlit.data.base.listing import PACKED
from fedlit.data.base.names import few
from fedlit.data.base.records import BadRecord
from fedlit.errors import FedlitError

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
"""Endings of tables; all but the last may be packed (``.csv.gz``)."""
_OPEN: Mapping[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_NUMBER = re.compile(r"[-+]?\d+,\d+")
_HEAD = 1 << 16
"""Bytes of a file that are looked at where it cannot be read."""


@dataclass(frozen=True)
class TableFormat:
    """How a csv file is written.

    Args:
        delimiter: What separates columns; None: what a first line ``sep=;`` says, else tabs in ``.tsv`` files and
            commas in others.
        decimal: Decimal mark.
        encoding: Python's name of it; a byte order mark counts before it.

    Raises:
        FedlitError: One of them cannot be.
    """

    delimiter: str | None = None
    decimal: str = "."
    encoding: str = "utf-8"

    def __post_init__(self) -> None:
        for name, mark in (("delimiter", self.delimiter), ("decimal", self.decimal)):
            if mark is not None and len(mark) != 1:
                raise FedlitError(f"data.{name} is {mark!r}: give one character")
        if self.delimiter == self.decimal:
            raise FedlitError(f"data.delimiter and data.decimal are both {self.decimal!r}: give two characters")
        arguments.text_encoding(self.encoding)


def is_table(path: Path) -> bool:
    """Whether a file is named like a table."""
    return _kind(path) in SUFFIXES


def is_csv(path: Path) -> bool:
    """Whether a file is named like a table that a :class:`TableFormat` describes."""
    return _kind(path) in (".csv", ".tsv")


def read_table(path: Path, format: TableFormat | None = None, text: Sequence[str] | None = None) -> pd.DataFrame:
    """All columns of a table. Blanks around their names are dropped; a name that occurs twice becomes ``ECG#1`` and
    ``ECG#2``.

    Args:
        path: A file of one of :data:`SUFFIXES`; one of another ending is taken for csv.
        format: How it is written, if it is csv; None where no setting says so.
        text: Columns whose cells stay text (``007``), others become numbers where they can; None: all of them. Absent
            cells of text are empty in csv files, and missing values in others.

    Raises:
        BadRecord: It cannot be read; the message says what to set, or to mend.
    """
    try:
        if _kind(path) == ".parquet":
            return _whole(_parquet(path), text)
        if _kind(path) == ".jsonl":
            return _whole(_json_lines(path), text)
        return _csv(path, format or TableFormat(), text)
    except BadRecord:
        raise
    except Exception as error:  # pandas and pyarrow raise many kinds on damaged files
        what, mend = explained(path, format, error)
        raise BadRecord(f"{path}: cannot be read as a table ({what}): {mend}") from error


def column(path: Path, table: pd.DataFrame, name: str, mend: str, format: TableFormat | None = None) -> pd.Series[Any]:
    """A column of a table that was read from ``path`` in a format.

    Raises:
        BadRecord: There is none of that name, or several.
    """
    if name in table.columns:
        return table[name]
    raise BadRecord(no_column(path, name, [str(other) for other in table.columns], mend, format))


def numbers(path: Path, table: pd.DataFrame, name: str, format: TableFormat | None = None) -> npt.NDArray[np.float64]:
    """A column as numbers, shape ``(rows,)``; an empty cell is NaN.

    Raises:
        BadRecord: A cell is no number: its row (the header is row 1) and what may be the cause.
    """
    import pandas as pd

    values = column(path, table, name, "mend data.columns or the table", format)
    decimal = format.decimal if format else "."
    if values.dtype.kind not in "fiub":  # blanks around numbers, and an own decimal mark beside them
        # A point beside another mark is none of decimals: it is exchanged, so that the cell is no number.
        marks = str.maketrans({decimal: ".", ".": decimal})
        plain = [cell.strip().translate(marks) if isinstance(cell, str) else cell for cell in values]
        plain = ["" if cell is None or cell != cell else str(cell) for cell in plain]
        values = pd.Series([cell or None for cell in plain], index=values.index, dtype=object)
    found = pd.to_numeric(values, errors="coerce")
    wrong = np.flatnonzero((found.isna() & values.notna()).to_numpy())
    if not len(wrong):
        return np.asarray(found.to_numpy(np.float64, na_value=np.nan))
    cells = [str(values.iloc[int(place)]).strip() for place in wrong[:20]]
    if decimal != "." and all(decimal in cell for cell in cells):
        mend = f"they hold points, and data.decimal is {decimal!r}: write no marks between thousands"
    elif all(_NUMBER.fullmatch(cell) for cell in cells):
        mend = "decimals are written with a comma: set data.decimal to ','"
    elif len(wrong) == 1 and wrong[0] == 0 and len(values) > 1:
        mend = "row 2 holds units or a second header: delete it"
    else:
        mend = "mend the cell, or leave it empty if the value is missing"
    raise BadRecord(
        f"{path}: column {name!r} is not all numbers, {len(wrong)} cell(s) are not, the first in row "
        f"{int(wrong[0]) + 2}: {mend}"
    )


def read_columns(
    path: Path, columns: Sequence[str], mend: str, format: TableFormat | None = None
) -> list[tuple[int, dict[str, str]]]:
    """Cells of some columns of a table, as text; an absent value is empty. Rows count from 1, without the header.

    Raises:
        FedlitError: It cannot be read, or lacks a column; ``mend`` says what to do about that.
    """
    table = read_table(path, format)
    wanted = [column(path, table, name, mend, format) for name in columns]
    cells = [["" if cell is None or cell != cell else str(cell) for cell in own] for own in wanted]
    rows = [(row, dict(zip(columns, own, strict=True))) for row, own in enumerate(zip(*cells, strict=True), 1)]
    for row, own in rows:
        for name, cell in own.items():
            if not cell.isascii() and not encodable(cell):
                what = f"holds half a character (a lone surrogate) in row {row}, column {name!r}"
                raise BadRecord(f"{path}: {what}: write that cell anew")
    return rows


def read_rows(path: Path, key: str, format: TableFormat | None = None) -> dict[str, Mapping[str, str]]:
    """Rows of a table by one column. Cells that a short row lacks are empty, rows without any text are passed over.

    Raises:
        FedlitError: It cannot be read, has no such column, or two rows of one key.
    """
    table = read_table(path, format)
    column(path, table, key, "name the column so", format)
    names = [str(name) for name in table.columns]
    cells = [["" if cell is None or cell != cell else str(cell) for cell in table[name]] for name in names]
    rows = [dict(zip(names, own, strict=True)) for own in zip(*cells, strict=True) if any(own)]
    if not rows:
        raise FedlitError(f"{path}: has no rows: fill it in")
    twice = [name for name, count in Counter(row[key] for row in rows).items() if count > 1]
    if twice:
        raise FedlitError(f"{path}: {key} {twice[0]!r} is listed more than once: keep one row")
    return {row[key]: row for row in rows}


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


def encodable(text: str) -> bool:
    """Whether a text can be written as UTF-8: half a character, a lone surrogate, cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


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
    lines = _first_lines(path, format or TableFormat()) if _kind(path) not in (".parquet", ".jsonl") else []
    if lines:
        used = (format or TableFormat()).delimiter or _usual_delimiter(path)
        other = max((";", "\t", "|", ","), key=lambda mark: lines[0].count(mark))
        if used not in lines[0] and other in lines[0] and other != used:
            called = {";": "semicolons separate", "\t": "tabs separate", ",": "commas separate"}
            cells = [cell.strip() for line in lines[1:] for cell in line.split(other)]
            seen = f"{called.get(other, f'{other!r} separates')} its columns"
            if format is None:
                return seen, "separate the columns by commas, and write decimals with a point"
            comma = other != "," and any(_NUMBER.fullmatch(cell) for cell in cells)
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


def _kind(path: Path) -> str:
    packed = path.suffix.lower() in PACKED
    return (path.with_suffix("") if packed else path).suffix.lower()


def _bytes(path: Path, most: int = -1) -> bytes:
    opener = _OPEN.get(path.suffix.lower())
    with opener(path, "rb") if opener else path.open("rb") as file:
        content: bytes = file.read(most)
    return content


def _encoding(head: bytes, format: TableFormat) -> str:
    return next((name for mark, name in _MARKS.items() if head.startswith(mark)), format.encoding)


def _first_lines(path: Path, format: TableFormat) -> list[str]:
    """The first lines of a text file, but for ``sep=``; empty where there are none."""
    try:
        head = _bytes(path, _HEAD)
        lines = head.decode(_encoding(head, format), errors="replace").splitlines()
    except (OSError, EOFError):
        return []
    return [line for line in lines[:6] if line.strip() and not line.lower().startswith("sep=")]


def _usual_delimiter(path: Path) -> str:
    return "\t" if _kind(path) == ".tsv" else ","


def _csv(path: Path, format: TableFormat, text: Sequence[str] | None) -> pd.DataFrame:
    import pandas as pd

    content = _bytes(path)
    encoding = _encoding(content[:4], format)
    stated = re.match(rb"sep=(.)\r?\n", content[: 2 * 8].removeprefix(codecs.BOM_UTF8), re.IGNORECASE)
    if stated is None and encoding == "utf-16":
        stated_text = re.match(r"sep=(.)\r?\n", content[:24].decode("utf-16", errors="replace"), re.IGNORECASE)
        said = stated_text.group(1) if stated_text else None
    else:
        said = stated.group(1).decode("latin-1") if stated else None
    delimiter = format.delimiter or said or _usual_delimiter(path)
    lines = io.TextIOWrapper(io.BytesIO(content), encoding=encoding, newline="")
    if said:
        lines.readline()
    names = [name.strip() for name in next(csv.reader(lines, delimiter=delimiter), [])]
    if not names:
        raise BadRecord(
            f"{path}: cannot be read as a table (it has no header): give one whose first row names the columns"
        )
    kept = _told_apart(names)
    dtype: Any = (
        str
        if text is None
        else {own: str for own, name in zip(kept, names, strict=True) if name in text or own in text}
    )
    with warnings.catch_warnings():
        # Longer rows than the header would shift the columns, or be cut off with a warning.
        warnings.simplefilter("error", pd.errors.ParserWarning)
        return pd.read_csv(
            io.BytesIO(content),
            sep=delimiter,
            decimal=format.decimal,
            encoding=encoding,
            header=0,
            names=kept,
            index_col=False,
            dtype=dtype,
            na_filter=text is not None,
            skiprows=1 if said else 0,
            low_memory=False,
        )


def _parquet(path: Path) -> pd.DataFrame:
    import pandas as pd

    table = pd.read_parquet(path)
    for place, kind in enumerate(table.dtypes):
        if kind.kind == "O":  # cells that are arrays compare cell by cell
            cells = [cell.tolist() if isinstance(cell, np.ndarray) else cell for cell in table.iloc[:, place]]
            table.isetitem(place, pd.Series(cells, index=table.index, dtype=object))
    return table


def _json_lines(path: Path) -> pd.DataFrame:
    import pandas as pd

    rows = []
    content = _bytes(path)
    # Lines end at line feeds alone: other marks of line ends may stand in strings.
    for number, line in enumerate(content.decode(_encoding(content[:4], TableFormat())).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise BadRecord(f"{path}: line {number} is not JSON ({error}): mend the line") from error
        if not isinstance(row, dict):
            raise BadRecord(f"{path}: line {number} is no object: write each row as an object")
        rows.append(row)
    return pd.DataFrame(rows, dtype=object)


def _whole(table: pd.DataFrame, text: Sequence[str] | None) -> pd.DataFrame:
    """A table whose columns of text are text, with names as text."""
    import pandas as pd

    table.columns = _told_apart([str(name).strip() for name in table.columns])
    for name in table.columns if text is None else [name for name in text if name in table.columns]:
        cells = [cell if cell is None or cell != cell else str(cell) for cell in table[name]]
        table[name] = pd.Series(cells, index=table.index, dtype=object)
    return table


def _told_apart(names: Sequence[str]) -> list[str]:
    """Names, those that occur more than once with their number."""
    count, seen = Counter(names), Counter[str]()
    out = []
    for name in names:
        seen[name] += 1
        out.append(f"{name}#{seen[name]}" if count[name] > 1 else name)
    return out
