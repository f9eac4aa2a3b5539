"""Signals in tables of samples (a column a channel, a row a sample), which another table lists and labels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from fedlit import seeds
from fedlit.data.base.listing import PACKED
from fedlit.data.base.names import few
from fedlit.data.base.records import BadRecord
from fedlit.data.base.table_format import SUFFIXES, is_csv
from fedlit.data.base.tables import column, numbers, read_table
from fedlit.data.classification.example_table import FileTable
from fedlit.data.classification.signals import SignalClasses
from fedlit.data.signals.table_clock import TableClock
from fedlit.data.signals.times import TimeFormat, TimeUnit
from fedlit.data.signals.unread_clock import unread_clock
from fedlit.errors import FedlitError

if TYPE_CHECKING:
    import pandas as pd

_ENDINGS = tuple(f"{suffix}{packed}" for suffix in SUFFIXES for packed in ("", *PACKED))


class SignalClassTable(FileTable, SignalClasses):
    """Recordings in tables (``.csv``, ``.tsv``, ``.jsonl``, packed ones, ``.parquet``) that a table names and labels.

    Empty cells are missing samples. With ``time_column`` a recording has the rate of its own clock, and rows that are
    missing become missing samples; a clock that runs back, repeats or is not even is a bad record, see
    :mod:`fedlit.data.signals.clock`. Without it rows are taken as evenly spaced, and a warning names a column that
    evidently is a clock.

    Args:
        root: The table of labels.
        columns: Columns of the recordings, in the order wanted; each is a channel.
        rate: Hz that all recordings are brought to; None: ``table_rate``.
        table_rate: Samples per second of the recordings (Hz). With ``time_column`` it may be left out, and is checked.
        path_column: Column of the table of labels with the recordings' files, which are also their ids unless
            ``id_column`` is given. An ending may be left out where one file alone has the name.
        folder: Where relative paths start; None: the folder of the table of labels.
        time_column: Column of the recordings with the time of each row: numbers, or date and time.
        time_unit: Unit of numbers in it: ``s``, ``ms``, ``us``, ``ns``, ``minutes``; None: found, or an error.
        time_zone: Zone of date and time that state none.
        time_format: Form of date and time in the codes of ``strptime``; None: found.
        window_seconds: None for whole recordings, which must then be of one length.
        kwargs: See :class:`fedlit.data.classification.example_table.ExampleTable`, whose ``delimiter``, ``decimal`` and
            ``encoding`` are of the recordings too, and :class:`fedlit.data.classification.signals.SignalClasses`.
    """

    kind: ClassVar[str] = "signal"
    rate: float

    def __init__(
        self,
        root: Path,
        columns: list[str],
        rate: float | None = None,
        table_rate: float | None = None,
        path_column: str = "record",
        folder: Path | None = None,
        time_column: str | None = None,
        time_unit: TimeUnit | None = None,
        time_zone: str | None = None,
        time_format: str | None = None,
        window_seconds: float | None = None,
        **kwargs: Any,
    ) -> None:
        self.columns = list(columns)
        if not self.columns or len(set(self.columns)) < len(self.columns):
            raise FedlitError(f"data.columns is {', '.join(self.columns) or 'empty'}: name each column once")
        if time_column in self.columns:
            raise FedlitError(f"data.time_column {time_column!r} is in data.columns too: take it out of one")
        if table_rate is None and time_column is None:
            raise FedlitError("data.table_rate is not given: give the recordings' rate (Hz), or data.time_column")
        if table_rate is not None and not 0 < table_rate < np.inf:
            raise FedlitError(f"data.table_rate is {table_rate}: give the recordings' samples per second")
        if rate is None and table_rate is None:
            raise FedlitError("data.rate is not given: give the rate (Hz) that all recordings are brought to")
        for name, value in (("time_unit", time_unit), ("time_zone", time_zone), ("time_format", time_format)):
            if time_column is None and value is not None:
                raise FedlitError(f"data.{name} has no effect without data.time_column: name that, or leave it out")
        self.table_rate = None if table_rate is None else float(table_rate)
        self.time_column, self.time_unit = time_column, time_unit
        self.time_zone, self.time_format = time_zone, time_format
        self.as_time  # noqa: B018  refuses what cannot be
        sampled = {"rate": rate if rate is not None else table_rate, "window_seconds": window_seconds}
        super().__init__(root, path_column=path_column, folder=folder, **sampled, **kwargs)

    @property
    def as_time(self) -> TimeFormat:
        """How the time column is written."""
        return TimeFormat(self.time_unit, self.time_zone, self.time_format)

    def value_of(self, name: str, cell: str) -> Any:
        """A function that reads the recording."""
        return self.values_of(name, self.file_of(cell))

    def file_of(self, cell: str) -> Path:
        """The file that a cell names, with its ending or without."""
        path = (self.folder or Path(self.root or "").parent) / cell.strip()
        try:
            with_ending = [path.parent / f"{path.name}{ending}" for ending in _ENDINGS]
            there = [path] if path.is_file() else [other for other in with_ending if other.is_file()]
        except OSError:
            there = []  # it can be no path, which is told
        if len(there) > 1:
            raise BadRecord(f"names {path}, and there are {few([p.name for p in there])}: add the ending")
        found = there[0] if there else super().file_of(cell)
        self._files.add(found)
        return found

    def read_file(self, path: Path) -> Any:
        """The channels as they are in the file: :meth:`read_signals`."""
        return self.read_signals(path)[0]

    def read_signals(self, path: Path) -> tuple[Mapping[str, npt.NDArray[np.floating]], float]:
        """The columns of a file, NaN where a sample is missing, and its rate (Hz)."""
        table = read_table(path, self.as_table, text=[])
        values = {name: numbers(path, table, name, self.as_table) for name in self.columns}
        if not len(table):
            raise BadRecord(f"{path}: has no rows: fill it in")
        if self._clock is None:
            rate = self.table_rate or self.rate
            unread = unread_clock(path, table, self.columns, None, rate)
            if unread is not None:
                self._unread[path.name] = unread
            return values, rate
        return self._by_clock(path, table, values)

    def _by_clock(
        self, path: Path, table: pd.DataFrame, values: dict[str, npt.NDArray[np.float64]]
    ) -> tuple[dict[str, npt.NDArray[np.floating]], float]:
        """The columns on the even grid of the clock."""
        assert self._clock is not None  # there is a time column
        cells = column(path, table, self._clock.column, "mend data.time_column or the table", self.as_table)
        times = self._clock.read(path, cells)
        ticks = self._clock.ticks(path, times, np.arange(len(table)), table[self.columns])
        if len(ticks.stretches) > 1:
            pauses = len(ticks.stretches) - 1
            raise BadRecord(f"{path}: has {pauses} pause(s) too long to be filled: make a file of each recording")
        stretch = ticks.stretches[0]
        out: dict[str, npt.NDArray[np.floating]] = {}
        for name, own in values.items():
            out[name] = np.full(int(stretch.places[-1]) + 1, np.nan, np.float32)
            with np.errstate(over="ignore"):  # too large for float32 is infinite, and refused as such
                out[name][stretch.places] = own[stretch.rows]
        return out, ticks.rate

    def _reads_csv(self) -> bool:
        return super()._reads_csv() or any(is_csv(path) for path in self._files)

    def describe(self) -> dict[str, Any]:
        """Contents of ``partition.json``, with what the clocks say."""
        out = super().describe()
        return out if self._clock is None else out | {"clock": self._clock.facts()}

    def _look_over(self) -> None:
        super()._look_over()
        for message in self._clock.warnings() if self._clock is not None else ():
            self.say(message)
        if self._unread:
            name, (own, said) = next(iter(self._unread.items()))
            self.say(
                f"{len(self._unread)} recording(s) have a column that evidently is a clock, and rows are taken as "
                f"evenly spaced: {name} (column {own!r} {said}): set data.time_column if it is one"
            )

    def _forget(self) -> None:
        super()._forget()
        self._files: set[Path] = set()
        self._unread: dict[str, tuple[str, str]] = {}
        named = self.time_column is not None
        self._clock = TableClock(str(self.time_column), self.as_time, self.table_rate) if named else None

    def write_stand_in(self, folder: Path) -> None:
        """The table, and csv files; the unit of times gives way to microseconds."""
        self.time_unit, self.time_zone, self.time_format = ("us" if self.time_column else None), None, None
        super().write_stand_in(folder)

    def stand_in_cell(self, folder: Path, number: int, of_class: int) -> str:
        """A recording two windows long: a rhythm that is faster by its class, under noise."""
        import pandas as pd

        rate = self.table_rate or self.rate
        clock = np.arange(round(2 * (self.window_seconds or 2.5) * rate)) / rate
        generator = seeds.numpy_generator(0, "stand-in signal of a class", number)
        rhythm = np.sin(2 * np.pi * (1 + of_class) * clock)
        noise = generator.normal(0, 0.3, (len(self.columns), len(clock)))
        table = pd.DataFrame({name: rhythm + own for name, own in zip(self.columns, noise, strict=True)})
        if self.time_column is not None:
            table[self.time_column] = np.round(np.arange(len(table)) / rate * 1e6).astype(np.int64)
        (folder / "signals").mkdir(exist_ok=True)
        as_table = {"sep": self.delimiter or ",", "decimal": self.decimal, "encoding": self.encoding}
        table.to_csv(folder / "signals" / f"signal-{number + 1}.csv", index=False, float_format="%.5g", **as_table)
        return f"signals/signal-{number + 1}.csv"
