"""Clocks in tables that nobody named: what they say, and whether it contradicts what the arguments say."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fedlit.data.base.records import BadRecord
from fedlit.data.signals.clock import AGREES, nominal
from fedlit.data.signals.times import TimeFormat, read_times

if TYPE_CHECKING:
    import pandas as pd

_WORDS = (
    "time|timestamp|datetime|date|clock|epoch|elapsed|secs?|seconds?|msecs?|millis|milliseconds?|t|ts|"
    "zeit|zeitstempel|zeitpunkt|uhrzeit|datum|sekunden|temps|horodatage|tiempo|tempo|tid"
)
_CLOCK = re.compile(rf"(?:.*[\W_])?(?:{_WORDS})(?:[\W_].*)?|.*(?<=[a-z])(?:Time|Timestamp|Date)")
_LEAST = 20
"""Rows from which on a column without a clock's name is looked at."""
_STEADY = 0.9
"""Share of steps that are within a tenth of their median, in a column of even times."""
_MOST_BACK = 0.25
"""Share of steps back from which on a column of numbers is a clock only if it is one in another order of the rows."""


def unread_clock(
    path: Path, table: pd.DataFrame, asked: Collection[str], groups: npt.NDArray[Any] | None, rate: float
) -> tuple[str, str] | None:
    """The column of a table that evidently is a clock, and what it says.

    A clock is named so and holds times, or is a column of numbers that rises steadily but for jumps. One that counts
    rows without a jump says nothing, and so does a signal that is named like a clock.

    Args:
        path: The table.
        table: All its columns.
        asked: Columns that are read as something else.
        groups: Which recording each row is of, shape ``(rows,)``; None for one.
        rate: Samples per second (Hz) that the arguments say.

    Returns:
        The column's name, and its rate and what is odd; None where no column is a clock.
    """
    others = [name for name in map(str, table.columns) if name not in asked]
    named = [name for name in others if _CLOCK.fullmatch(name if name[:1].islower() else name.lower())]
    for name in [*named, *(name for name in others if name not in named)]:
        said = _said(path, name, table[name], groups, rate, named=name in named)
        if said is not None:
            return name, said
    return None


def _said(
    path: Path, name: str, values: pd.Series[Any], groups: npt.NDArray[Any] | None, rate: float, named: bool
) -> str | None:
    """What a column says if it is a clock, else None."""
    import pandas as pd

    numeric = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    there = values.notna().to_numpy()
    values, groups = values[there], None if groups is None else groups[there]
    if len(values) < max(3, len(there) / 2) or not (named or (numeric and len(values) >= _LEAST)):
        return None
    times, known = _times(path, name, values, rate)
    if times is None:
        return None
    steps = np.diff(times)
    if groups is not None:
        order = np.argsort(groups, kind="stable")
        steps = np.diff(times[order])[groups[order][1:] == groups[order][:-1]]
    forward = steps[steps > 0]
    if not len(forward):
        return None
    step = float(np.median(forward))
    if numeric and (steps < 0).mean() > _MOST_BACK:
        # Or a signal that is named like a clock.
        shuffled = _steady(np.diff(np.sort(times)))
        return f"is out of order, with {int((steps < 0).sum())} step(s) back" if shuffled else None
    back, twice, jumps = int((steps < 0).sum()), int((steps == 0).sum()), int((steps > 1.5 * step).sum())
    odd = [
        f"{count} {what}"
        for count, what in ((jumps, "gap(s)"), (back, "step(s) back"), (twice, "time(s) twice"))
        if count
    ]
    if not named:
        if not _steady(steps):
            return None
        if step == 1 and (times % 1 == 0).all():
            return f"counts rows, with {', '.join(odd)}" if odd else None
    near = forward[np.abs(forward / step - 1) <= 0.5]
    found = nominal(1 / float(near.mean()))
    if known:
        differs = "" if abs(found / rate - 1) <= AGREES else f", where data.table_rate is {rate:g}"
        odd.insert(0, f"{found:g} Hz{differs}")
    return f"says {', '.join(odd)}" if odd else "is even"


def _steady(steps: npt.NDArray[np.float64]) -> bool:
    """Whether steps are those of even times, but for a few."""
    forward = steps[steps > 0]
    return bool(len(forward)) and bool((np.abs(steps / np.median(forward) - 1) < 0.1).mean() >= _STEADY)


def _times(path: Path, name: str, values: pd.Series[Any], rate: float) -> tuple[npt.NDArray[np.float64] | None, bool]:
    """Times, and whether they are in seconds; None where a column holds none."""
    import pandas as pd

    try:
        return read_times(path, name, values, TimeFormat(), rate).seconds, True
    except BadRecord:
        if pd.api.types.is_numeric_dtype(values) and np.isfinite(values.to_numpy(np.float64)).all():
            return values.to_numpy(np.float64), False
        return None, False
