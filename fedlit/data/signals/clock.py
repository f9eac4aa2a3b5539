"""Rows of a table put on an even grid by their clock: own rate, missing rows as gaps, what runs back refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedlit.data.base.records import BadRecord
from fedlit.data.signals.times import Times

Places = npt.NDArray[np.int64]
JITTER = 0.25
"""Standard deviation of the steps of an even clock, in steps, at most. Whole milliseconds at 398 Hz have 0.2."""
MOST_SHORT = 0.01
"""Share of steps of an even clock that may be shorter than half a step."""
MOST_GAPS = 0.1
"""Share of steps of an even clock after which rows may be missing."""
AGREES = 0.01
"""A clock agrees with ``table_rate`` within this share."""
NOMINAL = 1e-3
"""A rate, or the time of a step, this close to a whole number is that number."""
MOST_MISSING = 10_000_000
"""Samples that are put into the gaps of a record at most (40 MB): a longer pause begins another record."""


@dataclass(frozen=True)
class Stretch:
    """Rows that make a record.

    Attributes:
        rows: Positions in the table, in order, shape ``(rows,)``.
        places: Sample that each row is, from 0, shape ``(rows,)``.
        pauses: First sample, and sample after the last, of each gap, shape ``(gaps, 2)``.
    """

    rows: Places
    places: Places
    pauses: Places


@dataclass(frozen=True)
class Ticks:
    """What a clock says.

    Attributes:
        rate: Samples per second (Hz).
        stretches: One, or several where a pause is too long to be filled.
        copies: Rows left out that are equal to the row before, time included.
    """

    rate: float
    stretches: list[Stretch]
    copies: int


def ticks(
    path: Path,
    name: str,
    seconds: Times,
    rows: Places,
    copied: Callable[[Places], npt.NDArray[np.bool_]],
    rate: float | None,
    hint: str = "",
) -> Ticks:
    """Samples that rows are, by their clock.

    The step is the mean of the steps within half a step of the median. A row that follows later than one and a half
    steps has a gap before it, of as many whole steps as fit, unless it alone is late and the next in time again; rows
    without a gap between them are neighbours, whatever their jitter.

    Args:
        path: The table, for errors.
        name: The clock's column.
        seconds: Of the rows, shape ``(rows,)``.
        rows: Their positions in the table.
        copied: Of positions in ``rows``, whether each row's values are those of the row before.
        rate: Samples per second (Hz) that the clock must agree with; None: it alone says.
        hint: What to say more of a clock that runs back.

    Raises:
        BadRecord: The clock runs back, repeats, is not even, or disagrees with ``rate``.
    """
    steps = np.diff(seconds)
    back = np.flatnonzero(steps < 0)
    if len(back):
        row = rows[back[0] + 1] + 2
        what = f"runs back in row {row}, at {len(back)} place(s) in all"
        raise _bad(path, name, what, f"sort the rows by time, or make a file of each recording{hint}")
    repeats = np.flatnonzero(steps == 0) + 1
    if len(repeats):
        differ = repeats[~copied(repeats)]
        if len(differ):
            what = (
                f"repeats in row {rows[differ[0]] + 2}, where the values are others: {len(repeats)} of {len(rows)} "
                f"rows have the time of the row before"
            )
            mend = "give a finer clock, keep one row of each time, or give data.table_rate without data.time_column"
            raise _bad(path, name, what, mend)
        kept = np.delete(np.arange(len(rows)), repeats)
        rows, seconds = rows[kept], seconds[kept]
        steps = np.diff(seconds)
    if not len(steps):
        raise _bad(path, name, "has a single time", "give two rows or more")
    step = _step(path, name, steps)
    found = nominal(1 / step)
    if rate is not None and abs(found / rate - 1) > AGREES:
        what = f"says {found:g} Hz, and data.table_rate {rate:g} Hz"
        raise _bad(path, name, what, "leave data.table_rate out, or mend one of the two (data.time_unit?)")
    gap = steps > 1.5 * step
    # One row that came late, and the next in time again.
    gap[:-1] &= steps[:-1] + steps[1:] > 2.5 * step
    lacking = np.where(gap, np.round(steps / step).astype(np.int64) - 1, 0)
    return Ticks(found if rate is None else rate, _stretches(rows, lacking), len(repeats))


def nominal(rate: float) -> float:
    """A measured rate (Hz) as it was meant: whole Hz, or whole seconds a sample, else to five digits."""
    for size in (rate, 1 / rate):
        whole = round(size)
        if whole and abs(size / whole - 1) <= NOMINAL:
            return float(whole if size == rate else 1 / whole)
    return float(f"{rate:.5g}")


def _step(path: Path, name: str, steps: Times) -> float:
    """Seconds from one row to the next, of a clock that is even."""
    middle = float(np.median(steps))
    near = steps[(steps >= 0.5 * middle) & (steps <= 1.5 * middle)]
    step = float(near.mean())
    short, gaps = int((steps < 0.5 * middle).sum()), int((steps > 1.5 * middle).sum())
    jitter = float(near.std()) / step
    if short > max(1, MOST_SHORT * len(steps)) or gaps > max(3, MOST_GAPS * len(steps)) or jitter > JITTER:
        what = (
            f"is not even: of {len(steps)} steps, {middle:.4g} s in the median, {short} are shorter than half of it, "
            f"{gaps} longer than one and a half, and the others deviate by {jitter:.0%}"
        )
        instead = "or, if its rows are evenly spaced, give data.table_rate without data.time_column"
        raise _bad(path, name, what, f"resample the table to even steps, {instead}")
    return step


def _stretches(rows: Places, lacking: Places) -> list[Stretch]:
    """Rows in stretches that lack no more samples than may be put in."""
    ends = [len(rows)]
    if lacking.sum() > MOST_MISSING:
        ends, filled = [], 0
        for gap in np.flatnonzero(lacking):
            filled += int(lacking[gap])
            if filled > MOST_MISSING:
                ends.append(int(gap) + 1)
                filled = 0
        ends.append(len(rows))
    out = []
    for first, stop in zip([0, *ends], ends, strict=False):
        own = lacking[first : stop - 1]
        places = np.concatenate([[0], np.cumsum(own + 1)]).astype(np.int64)
        after = np.flatnonzero(own)
        out.append(Stretch(rows[first:stop], places, np.stack([places[after] + 1, places[after + 1]], 1)))
    return out


def _bad(path: Path, name: str, what: str, mend: str) -> BadRecord:
    return BadRecord(f"{path}: time column {name!r} {what}: {mend}")
