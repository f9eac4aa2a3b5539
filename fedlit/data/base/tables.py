"""Tables out of files: csv in the forms that programs write, Parquet, JSON lines; with errors that say what to set."""

from __future__ import annotations

import csv
import io
import json
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fedlit.data.base.listing import ending
from fedlit.data.base.records import BadRecord
from fedlit.data.base.spelling import encodable
from fedlit.data.base.table_faults import DECIMAL_COMMA, explained, no_column
from fedlit.data.base.table_format import TableFormat, content_of, encoding_of, usual_delimiter
from fedlit.errors import FedlitError

if TYPE_CHECKING:
    import pandas as pd


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
        if ending(path) == ".parquet":
            return _whole(_parquet(path), text)
        if ending(path) == ".jsonl":
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
        values = pd.Series([cell or None for cell in as_text(plain)], index=values.index, dtype=object)
    found = pd.to_numeric(values, errors="coerce")
    wrong = np.flatnonzero((found.isna() & values.notna()).to_numpy())
    if not len(wrong):
        return np.asarray(found.to_numpy(np.float64, na_value=np.nan))
    cells = [str(values.iloc[int(place)]).strip() for place in wrong[:20]]
    if decimal != "." and all(decimal in cell for cell in cells):
        mend = f"they hold points, and data.decimal is {decimal!r}: write no marks between thousands"
    elif all(DECIMAL_COMMA.fullmatch(cell) for cell in cells):
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
    cells = [as_text(own) for own in wanted]
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
    cells = [as_text(table[name]) for name in names]
    rows = [dict(zip(names, own, strict=True)) for own in zip(*cells, strict=True) if any(own)]
    return by_name(path, key, ((row[key], row) for row in rows))


def by_name(path: Path, key: str, rows: Iterable[tuple[str, Mapping[str, str]]]) -> dict[str, Mapping[str, str]]:
    """Rows of the table ``path`` by their cells of the column ``key``.

    Raises:
        FedlitError: There is no row, or two of one name.
    """
    rows = list(rows)
    if not rows:
        raise FedlitError(f"{path}: has no rows: fill it in")
    twice = [name for name, count in Counter(name for name, _ in rows).items() if count > 1]
    if twice:
        raise FedlitError(f"{path}: {key} {twice[0]!r} is listed more than once: keep one row")
    return dict(rows)


def as_text(cells: Iterable[Any]) -> list[str]:
    """Cells as text; an absent one is empty."""
    return ["" if cell is None or cell != cell else str(cell) for cell in cells]


def _csv(path: Path, format: TableFormat, text: Sequence[str] | None) -> pd.DataFrame:
    import pandas as pd

    content = content_of(path)
    encoding = encoding_of(content[:4], format)
    stated = re.match(r"\ufeff?sep=(.)\r?\n", content[:32].decode(encoding, errors="replace"), re.IGNORECASE)
    said = stated.group(1) if stated else None
    delimiter = format.delimiter or said or usual_delimiter(path)
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
    content = content_of(path)
    # Lines end at line feeds alone: other marks of line ends may stand in strings.
    for number, line in enumerate(content.decode(encoding_of(content[:4], TableFormat())).split("\n"), 1):
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
