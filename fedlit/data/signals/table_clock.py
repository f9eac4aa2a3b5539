"""The clocks of the tables of a data set: one unit in all, and what was found in them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fedlit.data.base.names import few
from fedlit.data.base.records import BadRecord
from fedlit.data.signals.clock import Places, Ticks, ticks
from fedlit.data.signals.times import ReadTimes, TimeFormat, read_times

if TYPE_CHECKING:
    import pandas as pd

HOUR = 3600.0


class TableClock:
    """Reads the time column of one table after the other.

    Args:
        column: Its name.
        format: How it is written.
        rate: Samples per second (Hz) that all clocks must agree with; None: each has its own.
    """

    def __init__(self, column: str, format: TimeFormat, rate: float | None) -> None:
        self.column, self.format, self.rate = column, format, rate
        self._unit: ReadTimes | None = None
        self._copies: dict[str, int] = {}
        self._hours: list[str] = []

    def read(self, path: Path, values: pd.Series[Any]) -> ReadTimes:
        """The times of a table.

        Raises:
            BadRecord: They cannot be read, or are in another unit than those of the tables before.
        """
        times = read_times(path, self.column, values, self.format, self.rate)
        if self._unit is not None and self._unit.unit != times.unit:
            raise BadRecord(
                f"{path}: time column {self.column!r} is in {times.unit} (by {times.by or 'its form'}), and in other "
                f"tables in {self._unit.unit}: set data.time_unit, or mend the table"
            )
        self._unit = times
        return times

    def ticks(self, path: Path, times: ReadTimes, rows: Places, values: pd.DataFrame) -> Ticks:
        """What the clock says of some rows of a table.

        Args:
            path: The table.
            times: Of all its rows.
            rows: Positions of those that make one recording.
            values: What is read besides the time, of all rows.

        Raises:
            BadRecord: See :func:`fedlit.data.signals.clock.ticks`.
        """

        def copied(repeats: Places) -> npt.NDArray[np.bool_]:
            this, before = values.iloc[rows[repeats]], values.iloc[rows[repeats - 1]]
            equal = this.to_numpy() == before.to_numpy()
            return np.asarray((equal | (this.isna().to_numpy() & before.isna().to_numpy())).all(axis=1))

        hint = ", or set data.time_zone if summer time set it back" if times.local else ""
        found = ticks(path, self.column, times.seconds[rows], rows, copied, self.rate, hint)
        if found.copies:
            self._copies[path.name] = self._copies.get(path.name, 0) + found.copies
        pauses = np.concatenate([np.diff(stretch.pauses, axis=1) for stretch in found.stretches]) / found.rate
        if times.local and (np.abs(pauses - HOUR) < 1.5 / found.rate).any():
            self._hours.append(path.name)
        return found

    def facts(self) -> dict[str, Any]:
        """What ``partition.json`` says of the clocks."""
        unit = self._unit
        return {
            "column": self.column,
            "unit": None if unit is None else unit.unit,
            "unit_by": None if unit is None or not unit.by else unit.by,
            "copies_left_out": sum(self._copies.values()),
        }

    def warnings(self) -> Sequence[str]:
        """What is odd, but not wrong in itself."""
        said = []
        if self._unit is not None and self._unit.by == "its steps":
            said.append(
                f"the unit of time column {self.column!r} is not stated, its fractions are taken as seconds: set "
                f"data.time_unit"
            )
        if self._copies:
            said.append(
                f"{sum(self._copies.values())} row(s) that are equal to the row before, time included, are left out of "
                f"{few(list(self._copies))}"
            )
        if self._hours:
            said.append(
                f"time column {self.column!r} states no zone and jumps by an hour in {few(self._hours)}: if that is "
                f"summer time, set data.time_zone"
            )
        return said
