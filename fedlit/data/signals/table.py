"""Tables of signals: csv, JSON lines or Parquet, one column a signal, one row a sample."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from fedlit.data.base.listing import folder_proposal, inside, nothing_to_read, record_names
from fedlit.data.base.names import NameRule, few
from fedlit.data.base.partitions import BySubject, Partition
from fedlit.data.base.records import BadRecord, Record
from fedlit.data.base.table_format import SUFFIXES, TableFormat, is_csv, is_table
from fedlit.data.base.tables import column, numbers, read_table
from fedlit.data.generated.population import stand_in_channels
from fedlit.data.signals.clock import Places, Stretch
from fedlit.data.signals.module import SignalDataModule
from fedlit.data.signals.neighbours import subjects_rows
from fedlit.data.signals.splits import SplitRule
from fedlit.data.signals.table_clock import TableClock
from fedlit.data.signals.times import ReadTimes, TimeFormat, TimeUnit
from fedlit.data.signals.unread_clock import unread_clock
from fedlit.errors import FedlitError

if TYPE_CHECKING:
    import pandas as pd


class SignalTable(SignalDataModule):
    """Signals from tables (``.csv``, ``.tsv``, ``.jsonl``, packed ones, ``.parquet``), clients by subject.

    Empty cells are missing samples. With ``time_column`` each file has the rate of its own clock, rows that are missing
    become missing samples, and a clock that runs back, repeats or is not even is a bad record, see
    :mod:`fedlit.data.signals.clock`. Without it rows are taken as evenly spaced, and a warning names a column that
    evidently is a clock.

    The id of a record is its file's name, or its path below ``root`` where names repeat, then the subject, if it is in
    a column, a number, if the subject's rows lie in several stretches, and the column, if there are several.

    Args:
        root: A file, or a folder with files (folders in it too).
        columns: Column to kind, for instance ``{"ECG": "ecg", "ICG": "icg"}``; each column is a record of its own. Of
            two columns of one name ``ECG#1`` is the first.
        table_rate: Samples per second of the tables (Hz). With ``time_column`` it may be left out, and is checked.
        subject_pattern: Regular expression whose group, searched in the record's name and then in its file's path below
            ``root``, is the subject; None for the record's name.
        subject_column: A column that names the subject of each row, in the place of the file's name. A subject's rows
            in two places of the table are two records, unless the table is written row by row for several subjects at
            once (see :mod:`fedlit.data.signals.neighbours`), or a clock says when they were.
        site_pattern: As ``subject_pattern``, for the site; None: unknown.
        site_column: A column that names the site; it must be the same in all rows of a subject and file.
        split: One subject a client cannot be split by subject, so the default here is by time.
        time_column: Column with the time of each row: numbers, or date and time.
        time_unit: Unit of numbers in it: ``s``, ``ms``, ``us``, ``ns``, ``minutes``. None: what ``table_rate``, the
            column's name or the size of the numbers (since 1970) says; where none does, an error.
        time_zone: Zone of date and time that state none, as ``Europe/Berlin``: summer time is then no gap.
        time_format: Form of date and time in the codes of ``strptime``; None: found, ISO 8601 and the common ones.
        delimiter: What separates the columns of csv files; None: commas, or what the file says by ``sep=``.
        decimal: Decimal mark of csv files.
        encoding: Encoding of csv files.
        kwargs: See :class:`fedlit.data.signals.module.SignalDataModule`.
    """

    default_partition: ClassVar[Partition] = BySubject()
    added_arguments: ClassVar[Mapping[str, object]] = {
        **dict.fromkeys(("time_column", "time_unit", "time_zone", "time_format", "delimiter")),
        "decimal": ".",
        "encoding": "utf-8",
    }

    def __init__(
        self,
        root: Path,
        columns: dict[str, str],
        table_rate: float | None = None,
        subject_pattern: str | None = None,
        subject_column: str | None = None,
        site_pattern: str | None = None,
        site_column: str | None = None,
        split: SplitRule = "time",
        time_column: str | None = None,
        time_unit: TimeUnit | None = None,
        time_zone: str | None = None,
        time_format: str | None = None,
        delimiter: str | None = None,
        decimal: str = ".",
        encoding: str = "utf-8",
        **kwargs: Any,
    ) -> None:
        self.root = Path(root)
        self.columns = dict(columns)
        self.table_rate = None if table_rate is None else float(table_rate)
        self.subject_pattern, self.subject_column = subject_pattern, subject_column
        self.site_pattern, self.site_column = site_pattern, site_column
        self.time_column, self.time_unit = time_column, time_unit
        self.time_zone, self.time_format = time_zone, time_format
        self.delimiter, self.decimal, self.encoding = delimiter, decimal, encoding
        if not self.columns:
            raise FedlitError("data.columns is empty: name the columns to read and their kinds")
        if self.table_rate is not None and not 0 < self.table_rate < np.inf:
            raise FedlitError(f"data.table_rate is {table_rate}: give the tables' samples per second")
        if self.table_rate is None and time_column is None:
            raise FedlitError("data.table_rate is not given: give the tables' samples per second, or data.time_column")
        if time_column in self.columns:
            raise FedlitError(f"data.time_column {time_column!r} is in data.columns too: take it out of one")
        idle = {"time_unit": time_unit, "time_zone": time_zone, "time_format": time_format}
        for name, value in idle.items() if time_column is None else ():
            if value is not None:
                raise FedlitError(f"data.{name} has no effect without data.time_column: name that, or leave it out")
        NameRule("data.subject_pattern", subject_pattern)
        NameRule("data.site_pattern", site_pattern)
        self.as_table, self.as_time  # noqa: B018  both refuse what cannot be
        super().__init__(split=split, **kwargs)

    @property
    def as_table(self) -> TableFormat:
        """How csv files are written."""
        return TableFormat(self.delimiter, self.decimal, self.encoding)

    @property
    def as_time(self) -> TimeFormat:
        """How the time column is written."""
        return TimeFormat(self.time_unit, self.time_zone, self.time_format)

    def read(self) -> Iterable[Record]:
        """One record per file, subject, stretch and column."""
        root = Path(self.root or "")
        files = [root] if root.is_file() else self.files_to_read("tables")
        files = [path for path in files if is_table(path)]
        if not files:
            raise nothing_to_read(root, f"table ({', '.join(SUFFIXES)})")
        names = record_names(files, root)
        for path in files:
            if self.excluded(names[path]):
                continue
            try:
                records = self._read_table(path, names[path])
            except BadRecord as error:
                self.refuse(names[path], str(error))
                continue
            yield from records
        self._say_what_was_found(files, root)

    def _read_table(self, path: Path, name: str) -> list[Record]:
        table, times = self._load(path)
        out = []
        for subject, blocks in self._subjects(path, name, table).items():
            rows = np.sort(np.concatenate(blocks))
            site = self._site(path, name, subject, table.iloc[rows])
            if times is None or self._clock is None:
                rate = self.table_rate or 0.0
                made = [Stretch(own, np.arange(len(own)), np.empty((0, 2), np.int64)) for own in blocks]
            else:
                found = self._clock.ticks(path, times, rows, table[list(self.columns)])
                rate, made = found.rate, found.stretches
            stem = name if self.subject_column is None else f"{name}-{subject}"
            for number, stretch in enumerate(made, 1):
                recording = stem if len(made) == 1 else f"{stem}-{number}"
                if len(made) > 1 and not self._long_enough(stretch, rate):
                    self._short.append(recording)
                    self._left_out[recording] = "is a stretch of rows shorter than a window"
                    continue
                out += self._channels(table, stretch, recording, stem if len(made) > 1 else "", subject, site, rate)
            if len(made) > 1 and all(not self._long_enough(stretch, rate) for stretch in made):
                raise BadRecord(
                    f"{path}: rows of subject {subject!r} lie in {len(made)} places, and none is as long as a window "
                    f"(data.context_length + data.prediction_length): sort the rows by subject, or set data.time_column"
                )
        return out

    def _long_enough(self, stretch: Stretch, rate: float) -> bool:
        samples = (int(stretch.places[-1]) + 1) * (self.rate or rate) / rate
        return samples >= self.context_length + self.prediction_length

    def _channels(
        self, table: pd.DataFrame, stretch: Stretch, recording: str, whole: str, subject: str, site: str, rate: float
    ) -> list[Record]:
        """The records of a stretch of rows; ``whole`` names all stretches, where there are several."""
        out = []
        for own, kind in self.columns.items():
            name = f"{recording}-{own}" if len(self.columns) > 1 else recording
            if self.excluded(name):
                continue
            values = np.full(int(stretch.places[-1]) + 1, np.nan, np.float32)
            with np.errstate(over="ignore"):  # too large for float32 is infinite, and refused as such
                values[stretch.places] = table[own].to_numpy()[stretch.rows].astype(np.float32)
            made = Record(name, subject, site, kind, rate, values, recording=recording, pauses=stretch.pauses)
            out.append(replace(made, part_of=f"{whole}-{own}") if whole else made)
        return out

    def _load(self, path: Path) -> tuple[pd.DataFrame, ReadTimes | None]:
        """The columns that are asked for, and the clock's times; subjects and sites are text: 007 is not 7."""
        marks = [name for name in (self.subject_column, self.site_column) if name]
        table = read_table(path, self.as_table, text=marks)
        for name in marks:
            column(path, table, name, "mend data.columns or the table", self.as_table)
        for name in self.columns:
            table[name] = numbers(path, table, name, self.as_table)
        if not len(table):
            raise BadRecord(f"{path}: has no rows: fill it in")
        for what, given in (("subject", self.subject_column), ("site", self.site_column)):
            if given is not None and (table[given].isna() | (table[given] == "")).any():
                raise BadRecord(f"{path}: column {given!r} has empty cells, or NA: name every row's {what}")
        if self._clock is not None:
            cells = column(path, table, self._clock.column, "mend data.time_column or the table", self.as_table)
            return table[[*self.columns, *marks]], self._clock.read(path, cells)
        groups = None if self.subject_column is None else np.unique(table[self.subject_column], return_inverse=True)[1]
        unread = unread_clock(path, table, [*self.columns, *marks], groups, self.table_rate or 0.0)
        if unread is not None:
            self._unread[path] = unread
        return table[[*self.columns, *marks]], None

    def _subjects(self, path: Path, name: str, table: pd.DataFrame) -> dict[str, list[Places]]:
        """Rows of each subject, in stretches that follow on each other; in one, where a clock tells."""
        if self.subject_column is None:
            return {self._by_pattern("subject", path, name) or name: [np.arange(len(table))]}
        return subjects_rows(table[self.subject_column])

    def _site(self, path: Path, name: str, subject: str, rows: pd.DataFrame) -> str:
        if self.site_column is None:
            return self._by_pattern("site", path, name) or "site-unknown"
        sites = rows[self.site_column].unique()
        if len(sites) != 1:
            raise BadRecord(f"{path}: subject {subject!r} has {len(sites)} sites: give each row of a subject one site")
        return str(sites[0])

    def _by_pattern(self, what: str, path: Path, name: str) -> str | None:
        """Subject or site by its pattern; None where there is no pattern."""
        pattern = getattr(self, f"{what}_pattern")
        root = Path(self.root or "")
        return None if pattern is None else NameRule(f"data.{what}_pattern", pattern).of(name, inside(path, root))

    def _say_what_was_found(self, files: list[Path], root: Path) -> None:
        """Warn of what is odd, but not wrong in itself."""
        for what in ("subject", "site"):
            if getattr(self, f"{what}_pattern") is not None and getattr(self, f"{what}_column") is not None:
                self.say(f"data.{what}_pattern has no effect beside data.{what}_column: leave one of them out")
        if self.as_table != TableFormat() and not any(is_csv(path) for path in files):
            self.say(f"{root}: has no csv file, on which alone data.delimiter, data.decimal and data.encoding act")
        proposal = folder_proposal(files, root) if not root.is_file() else ""
        if proposal and self.subject_pattern is None and self.subject_column is None and not self.stand_in:
            self.say(f"each file counts as a subject, and {proposal}")
        for message in self._clock.warnings() if self._clock is not None else ():
            self.say(message)
        if self._unread:
            named = [f"{path.name} (column {own!r} {said})" for path, (own, said) in self._unread.items()]
            own = next(iter(self._unread.values()))[0]
            self.say(
                f"{len(named)} table(s) have a column that evidently is a clock, and rows are taken as evenly spaced: "
                f"{few(named, 4)}: set data.time_column to {own!r}"
            )
        if self._short:
            self.say(
                f"{len(self._short)} stretch(es) of rows are shorter than a window, and left out: {few(self._short)}"
            )

    def _describe_findings(self) -> dict[str, Any]:
        return {**super()._describe_findings(), **({"clock": self._clock.facts()} if self._clock is not None else {})}

    def _forget(self) -> None:
        super()._forget()
        self._clock = None if self.time_column is None else TableClock(self.time_column, self.as_time, self.table_rate)
        self._unread: dict[Path, tuple[str, str]] = {}
        self._short: list[str] = []

    def write_stand_in(self, folder: Path) -> None:
        """Twenty-four subjects, a csv file each; name patterns give way to the columns or the file's name."""
        import pandas as pd

        self.subject_pattern = self.site_pattern = None
        self.time_unit, self.time_zone, self.time_format = ("us" if self.time_column else None), None, None
        rate = self.table_rate or 100.0
        seconds = self.stand_in_seconds(rate)
        for number in range(24):
            made = stand_in_channels(number, rate, seconds, ("ecg", "icg"))
            table = pd.DataFrame({c: made["ICG" if kind == "icg" else "II"] for c, kind in self.columns.items()})
            if self.time_column is not None:
                table[self.time_column] = np.round(np.arange(len(table)) / rate * 1e6).astype(np.int64)
            if self.subject_column is not None:
                table[self.subject_column] = f"subject-{number + 1:02d}"
            if self.site_column is not None:
                table[self.site_column] = f"site-{number % 6 + 1}"
            table.to_csv(
                folder / f"subject-{number + 1:02d}.csv",
                index=False,
                float_format="%.5g",
                sep=self.delimiter or ",",
                decimal=self.decimal,
                encoding=self.encoding,
            )
