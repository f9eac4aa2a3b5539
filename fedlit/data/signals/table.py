"""Tables of signals: csv or Parquet, one column a signal, one row a sample."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from fedlit.data.base.listing import nothing_to_read
from fedlit.data.base.names import NameRule
from fedlit.data.base.partitions import BySubject, Partition
from fedlit.data.base.records import BadRecord, Record
from fedlit.data.base.tables import SUFFIXES, column, is_table, numbers, read_table
from fedlit.data.generated.population import stand_in_channels
from fedlit.data.signals.module import SignalDataModule
from fedlit.data.signals.splits import SplitRule
from fedlit.errors import FedlitError

if TYPE_CHECKING:
    import pandas as pd


class SignalTable(SignalDataModule):
    """Signals from csv and Parquet files, clients by subject.

    Empty cells are missing samples.

    Args:
        root: A file, or a folder with files (folders in it too).
        columns: Column to kind, for instance ``{"ECG": "ecg", "ICG": "icg"}``; each column is a record of its own.
        table_rate: Samples per second of the tables (Hz).
        subject_pattern: Regular expression whose group, searched in the file's name, is the subject; None for the
            whole name without suffix.
        subject_column: A column that names the subject of each row, in the place of the file's name.
        site_pattern: As ``subject_pattern``, for the site; None: unknown.
        site_column: A column that names the site; it must be the same in all rows of a subject and file.
        split: One subject a client cannot be split by subject, so the default here is by time.
        kwargs: See :class:`fedlit.data.signals.module.SignalDataModule`.
    """

    default_partition: ClassVar[Partition] = BySubject()

    def __init__(
        self,
        root: Path,
        columns: dict[str, str],
        table_rate: float,
        subject_pattern: str | None = None,
        subject_column: str | None = None,
        site_pattern: str | None = None,
        site_column: str | None = None,
        split: SplitRule = "time",
        **kwargs: Any,
    ) -> None:
        self.root = Path(root)
        self.columns = dict(columns)
        self.table_rate = float(table_rate)
        self.subject_pattern = subject_pattern
        self.subject_column = subject_column
        self.site_pattern = site_pattern
        self.site_column = site_column
        if not self.columns:
            raise FedlitError("data.columns is empty: name the columns to read and their kinds")
        if not self.table_rate > 0:
            raise FedlitError(f"data.table_rate is {table_rate}: give the tables' samples per second")
        NameRule("data.subject_pattern", subject_pattern)
        NameRule("data.site_pattern", site_pattern)
        super().__init__(split=split, **kwargs)

    def read(self) -> Iterable[Record]:
        """One record per file, subject and column."""
        root = Path(self.root or "")
        files = [root] if root.is_file() else self.files_to_read("csv or Parquet tables")
        files = [path for path in files if is_table(path)]
        if not files:
            raise nothing_to_read(root, f"table ({', '.join(SUFFIXES)})")
        for path in files:
            if self.excluded(path.stem):
                continue
            try:
                records = self._read_table(path)
            except BadRecord as error:
                self.refuse(path.stem, str(error))
                continue
            yield from records

    def _read_table(self, path: Path) -> list[Record]:
        marks = [name for name in (self.subject_column, self.site_column) if name]
        table = _load(path, list(self.columns), marks)
        out = []
        for subject, rows in self._subjects(path, table):
            site = self._site(path, subject, rows)
            stem = path.stem if self.subject_column is None else f"{path.stem}-{subject}"
            for own, kind in self.columns.items():
                name = f"{stem}-{own}" if len(self.columns) > 1 else stem
                if self.excluded(name):
                    continue
                with np.errstate(over="ignore"):  # too large for float32 is infinite, and refused as such
                    values = rows[own].to_numpy(np.float32)
                out.append(Record(name, subject, site, kind, self.table_rate, np.ascontiguousarray(values)))
        return out

    def _subjects(self, path: Path, table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
        if self.subject_column is not None:
            if table[self.subject_column].isna().any():
                raise BadRecord(f"{path}: column {self.subject_column!r} has empty cells: name every row's subject")
            return [(str(name), rows) for name, rows in table.groupby(self.subject_column, sort=False)]
        if self.subject_pattern is None:
            return [(path.stem, table)]
        return [(NameRule("data.subject_pattern", self.subject_pattern).of(path.stem), table)]

    def _site(self, path: Path, subject: str, rows: pd.DataFrame) -> str:
        if self.site_column is not None:
            sites = rows[self.site_column].unique()
            if len(sites) != 1:
                raise BadRecord(
                    f"{path}: subject {subject!r} has {len(sites)} sites: give each row of a subject one site"
                )
            return str(sites[0])
        if self.site_pattern is None:
            return "site-unknown"
        return NameRule("data.site_pattern", self.site_pattern).of(path.stem)

    def write_stand_in(self, folder: Path) -> None:
        """Twenty-four subjects, a csv file each; name patterns give way to the columns or the file's name."""
        import pandas as pd

        self.subject_pattern = self.site_pattern = None
        seconds = self.stand_in_seconds(self.table_rate)
        for number in range(24):
            made = stand_in_channels(number, self.table_rate, seconds, ("ecg", "icg"))
            table = pd.DataFrame({c: made["ICG" if kind == "icg" else "II"] for c, kind in self.columns.items()})
            if self.subject_column is not None:
                table[self.subject_column] = f"subject-{number + 1:02d}"
            if self.site_column is not None:
                table[self.site_column] = f"site-{number % 6 + 1}"
            table.to_csv(folder / f"subject-{number + 1:02d}.csv", index=False, float_format="%.5g")


def _load(path: Path, signals: list[str], marks: list[str]) -> pd.DataFrame:
    """The columns of a table that are asked for, ``marks`` as text: subject 007 is not subject 7."""
    table = read_table(path, text=marks)
    mend = "mend data.columns or the table"
    for name in signals:
        table[name] = numbers(path, table, name)
    for name in marks:
        column(path, table, name, mend)
    return table[[*signals, *marks]]
