"""Columns of times as seconds: numbers of a unit, or date and time in the forms that programs write."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from fedlit.data.base import arguments
from fedlit.data.base.records import BadRecord
from fedlit.errors import FedlitError

if TYPE_CHECKING:
    import pandas as pd

TimeUnit = Literal["s", "ms", "us", "ns", "minutes"]
Times = npt.NDArray[np.float64]
SECONDS: dict[str, float] = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9, "minutes": 60.0}
_NAMED = {
    "ms": "ms|msecs?|millis|milliseconds?|millisekunden",
    "us": "us|µs|usecs?|micros|microseconds?",
    "ns": "ns|nsecs?|nanos|nanoseconds?",
    "minutes": "mins?|minutes?|minuten",
    "s": "s|secs?|seconds?|sekunden",
}
_EPOCH = (3e8, 4.2e9)
"""Seconds since 1970 of the years 1979 to 2103."""
_ISO = re.compile(r"\d{4}[-/]\d\d[-/]\d\d([T ]\d\d:?\d\d.*)?")
_ZONE = r"[T ]\d\d.*\d\s*(?:Z|[+-]\d\d:?(?:\d\d)?)$"
_DAY = re.compile(r"(\d{1,2})([./-])(\d{1,2}|[A-Za-z]{3})\2(\d{4})")
_NUMBER = re.compile(r"[-+]?[\d.]+(e[-+]?\d+)?", re.IGNORECASE)
_TIME = re.compile(r"\d{1,3}:\d\d(:\d\d([.,]\d+)?)?(\s*[AP]\.?M\.?)?", re.IGNORECASE)


@dataclass(frozen=True)
class TimeFormat:
    """How a column of times is written.

    Args:
        unit: Of numbers; None: found, by ``table_rate``, the column's name or the numbers' size.
        zone: Of date and time without one, as ``Europe/Berlin``.
        format: Of date and time, in the codes of ``strptime``; None: found.

    Raises:
        FedlitError: One of them cannot be, or they exclude each other.
    """

    unit: TimeUnit | None = None
    zone: str | None = None
    format: str | None = None

    def __post_init__(self) -> None:
        if self.unit is not None:
            arguments.one_of("time_unit", self.unit, TimeUnit)
            other = "time_zone" if self.zone else "time_format" if self.format else ""
            if other:
                raise FedlitError(f"data.time_unit is of numbers, and data.{other} of date and time: give one of them")
        if self.format is not None and "%" not in self.format:
            raise FedlitError(f"data.time_format is {self.format!r}: give it as in '%d.%m.%Y %H:%M:%S'")
        try:
            ZoneInfo(self.zone or "UTC")
        except (KeyError, ValueError, OSError) as error:
            raise FedlitError(f"data.time_zone {self.zone!r} is unknown: give one as Europe/Berlin") from error


@dataclass(frozen=True)
class ReadTimes:
    """A column of times.

    Attributes:
        seconds: From the first row, shape ``(rows,)``.
        unit: Of the numbers; ``"date and time"``, ``"time of day"``.
        by: What the unit was found by: ``"data.time_unit"``, ``"data.table_rate"``, ``"its name"``, ``"its size"``,
            ``"its steps"``; empty for date and time.
        local: Whether it is date and time without a zone, which summer time changes.
    """

    seconds: Times
    unit: str
    by: str = ""
    local: bool = False


def read_times(path: Path, name: str, values: pd.Series[Any], format: TimeFormat, rate: float | None) -> ReadTimes:
    """A column of a table as seconds from its first row.

    Args:
        path: The table, for errors.
        name: The column's.
        values: Its cells.
        format: How they are written.
        rate: Samples per second (Hz), where the user says so.

    Raises:
        BadRecord: A cell is no time, or the unit or form cannot be found. Only rows are named, as dates tell of people.
    """
    import pandas as pd

    empty = np.flatnonzero(values.isna() | (values == ""))
    if len(empty):
        raise _bad(
            path, name, f"has {len(empty)} cell(s) without a time, the first in row {empty[0] + 2}", "fill them in"
        )
    if isinstance(values.iloc[0], (int, float)) or _NUMBER.fullmatch(str(values.iloc[0]).strip()):
        as_numbers = pd.to_numeric(values, errors="coerce")
        values = values if as_numbers.isna().any() else as_numbers
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
        if format.zone or format.format:
            given = "time_zone" if format.zone else "time_format"
            raise _bad(path, name, f"holds numbers, on which data.{given} has no effect", f"leave data.{given} out")
        return _of_numbers(path, name, values, format, rate)
    if format.unit is not None:
        raise _bad(path, name, "holds date and time, and data.time_unit is of numbers", "leave data.time_unit out")
    if pd.api.types.is_timedelta64_dtype(values):
        return ReadTimes(_seconds(values.to_numpy("timedelta64[ns]").astype(np.int64)), "time of day")
    try:
        return _of_dates(path, name, values, format)
    except pd.errors.OutOfBoundsDatetime as error:
        raise _bad(path, name, "has dates outside of the years 1678 to 2261", "mend them") from error


def _of_numbers(path: Path, name: str, values: pd.Series[Any], format: TimeFormat, rate: float | None) -> ReadTimes:
    import pandas as pd

    # Whole ns since 1970 have more digits than float64.
    numbers = values.to_numpy(np.int64 if pd.api.types.is_integer_dtype(values) else np.float64)
    first = numbers[0]
    if not np.isfinite(numbers).all():
        raise _bad(path, name, "holds infinite numbers", "mend those cells")
    since = np.asarray(numbers - first, np.float64)
    unit, by = (format.unit, "data.time_unit") if format.unit else _unit(path, name, float(first), since, rate)
    return ReadTimes(since * SECONDS[unit], unit, by)


def _unit(path: Path, name: str, first: float, since: Times, rate: float | None) -> tuple[str, str]:
    """Unit of numbers, and what tells it."""
    steps = np.diff(since)
    steps = steps[steps > 0]
    step = float(np.median(steps)) if len(steps) else 0.0
    if rate and step:
        fitting = [unit for unit, size in SECONDS.items() if 0.8 < step * size * rate < 1.25]
        if len(fitting) == 1:
            return fitting[0], "data.table_rate"
    named = unit_in(name)
    sized = next((u for u in ("s", "ms", "us", "ns") if _EPOCH[0] < first * SECONDS[u] < _EPOCH[1]), None)
    if named and sized and named != sized:
        what = f"is named as if in {named}, and its numbers are {sized} since 1970"
        raise _bad(path, name, what, "set data.time_unit")
    if named or sized:
        return (named, "its name") if named else (str(sized), "its size")
    if step and (steps[:1000] % 1).any() and step < 1:
        return "s", "its steps"
    units = ", ".join(get_args(TimeUnit))
    raise _bad(path, name, "holds numbers whose unit is not stated", f"set data.time_unit, one of {units}")


def unit_in(name: str) -> str | None:
    """The unit that the name of a column holds."""
    words = "_".join(re.findall(r"[^\W_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name))).lower().split("_")
    return next(
        (unit for unit, words_of in _NAMED.items() if any(re.fullmatch(words_of, word) for word in words)), None
    )


def _of_dates(path: Path, name: str, values: pd.Series[Any], format: TimeFormat) -> ReadTimes:
    import pandas as pd

    if pd.api.types.is_datetime64_any_dtype(values):
        index, aware = pd.DatetimeIndex(values), values.dt.tz is not None
        index = index.tz_convert("UTC") if aware else index
    else:
        text = values.astype(str).str.strip()
        if format.format is None and _TIME.fullmatch(text.iloc[0]):
            if format.zone:
                raise _bad(path, name, "holds times of day, on which data.time_zone has no effect", "leave that out")
            return ReadTimes(_seconds(_times_of_day(path, name, text)), "time of day")
        index, aware = _parsed(path, name, text, format.format)
    wrong = np.flatnonzero(index.isna())
    if len(wrong):
        what = f"has {len(wrong)} cell(s) that are no date and time as the others, the first in row {wrong[0] + 2}"
        raise _bad(path, name, what, "mend them, or set data.time_format")
    if format.zone and aware:
        raise _bad(path, name, "states its zone, so that data.time_zone has no effect", "leave data.time_zone out")
    if format.zone:
        index = _in_zone(path, name, index, format.zone)
    return ReadTimes(_seconds(index.as_unit("ns").asi8), "date and time", local=not (aware or format.zone))


def _parsed(path: Path, name: str, text: pd.Series[Any], form: str | None) -> tuple[pd.DatetimeIndex, bool]:
    """Date and time, NaT where a cell is none, and whether they state their zone (they are then in UTC)."""
    import pandas as pd

    if form is not None:
        aware = "%z" in form or "%Z" in form
        try:
            return pd.DatetimeIndex(pd.to_datetime(text, format=form, errors="coerce", utc=aware)), aware
        except ValueError as error:
            raise FedlitError(f"data.time_format {form!r} cannot be used ({error}): mend it") from error
    first = text.iloc[0]
    if _ISO.fullmatch(first):
        return _of_iso(path, name, text)
    day = _DAY.match(first)
    if day is None:
        mend = "set data.time_format (as '%d.%m.%Y %H:%M:%S'), or data.decimal if these are numbers"
        raise _bad(path, name, "is neither numbers nor date and time in a form that is known", mend)
    # Cut where the first cell has its date end, as long as all others do so.
    dates, times = text.str.slice(0, day.end()), text.str.slice(day.end())
    if not all(_DAY.fullmatch(str(date)) for date in dates.unique()):
        split = text.str.split(r"[ T]+", n=1, expand=True, regex=True).reindex(columns=[0, 1])
        dates, times = split[0], split[1].fillna("")
    matches = {str(date): _DAY.fullmatch(str(date)) for date in dates.unique()}
    form = _day_form(path, name, [match for match in matches.values() if match])
    days = {}
    for date, match in matches.items():
        try:
            days[date] = datetime.strptime(date, form) if match else pd.NaT
        except ValueError:
            days[date] = pd.NaT
    index = pd.DatetimeIndex(dates.map(days)).as_unit("ns")
    if len(first) > day.end():
        index = index + pd.TimedeltaIndex(_times_of_day(path, name, times.str.strip(" T,")).astype("timedelta64[ns]"))
    return index, False


def _of_iso(path: Path, name: str, text: pd.Series[Any]) -> tuple[pd.DatetimeIndex, bool]:
    """As :func:`_parsed`, of date and time by ISO 8601, and with slashes in dates and commas in seconds."""
    import pandas as pd

    first = text.iloc[0]
    for mark, usual in ((",", "."), ("/", "-")):
        text = text.str.replace(mark, usual, regex=False) if mark in first else text
    aware = re.search(_ZONE, first) is not None
    try:
        # Raises where some state a zone and others do not, or where zones differ, as in summer and winter.
        return pd.DatetimeIndex(pd.to_datetime(text, format="ISO8601")), aware
    except ValueError:
        zoned = text.str.contains(_ZONE)
    if not zoned.all() and zoned.any():
        row = int(np.flatnonzero(zoned != zoned.iloc[0])[0]) + 2
        raise _bad(path, name, f"states a zone in some rows only, first otherwise in row {row}", "state it in all")
    return pd.DatetimeIndex(pd.to_datetime(text, format="ISO8601", errors="coerce", utc=aware)), aware


def _day_form(path: Path, name: str, dates: list[re.Match[str]]) -> str:
    """Form of dates such as 31.12.2024, 12/31/2024 or 31-Dec-2024."""
    mark = dates[0].group(2)
    if dates[0].group(3).isalpha():
        return f"%d{mark}%b{mark}%Y"
    first = max(int(date.group(1)) for date in dates)
    second = max((int(date.group(3)) for date in dates if date.group(3).isdigit()), default=0)
    if mark != "." and len(dates) > 1 and first <= 12 and second <= 12:
        raise _bad(path, name, "has dates whose day and month cannot be told apart", "set data.time_format")
    return f"%d{mark}%m{mark}%Y" if mark == "." or first > 12 else f"%m{mark}%d{mark}%Y"


def _times_of_day(path: Path, name: str, text: pd.Series[Any]) -> npt.NDArray[np.int64]:
    """Nanoseconds since midnight."""
    import pandas as pd

    try:  # much faster than durations
        since = pd.DatetimeIndex(pd.to_datetime("1970-01-01T" + text, format="ISO8601"))
        return np.asarray(since.as_unit("ns").asi8)
    except (ValueError, TypeError):
        upper = text.str.upper()
    half = upper.str.extract(r"([AP])\.?M\.?$", expand=False)
    clean = upper.str.replace(r"\s*[AP]\.?M\.?$", "", regex=True).str.replace(",", ".", regex=False)
    clean = clean.where(clean.str.count(":") > 1, clean + ":00")
    found = pd.to_timedelta(clean, errors="coerce")
    wrong = np.flatnonzero(found.isna())
    if len(wrong):
        what = f"has {len(wrong)} cell(s) that are no time of day, the first in row {wrong[0] + 2}"
        raise _bad(path, name, what, "mend them, or set data.time_format")
    nanoseconds = found.to_numpy("timedelta64[ns]").astype(np.int64)
    hour = 3_600_000_000_000
    twelve = nanoseconds // hour == 12
    return np.asarray(
        nanoseconds + hour * (12 * ((half == "P").to_numpy() & ~twelve) - 12 * ((half == "A").to_numpy() & twelve))
    )


def _in_zone(path: Path, name: str, local: pd.DatetimeIndex, zone: str) -> pd.DatetimeIndex:
    """Local times as UTC. The hour that comes twice in autumn is told apart by the order of the rows."""
    summer = local.tz_localize(zone, ambiguous=np.ones(len(local), bool), nonexistent="NaT")
    winter = local.tz_localize(zone, ambiguous=np.zeros(len(local), bool), nonexistent="NaT")
    skipped = np.flatnonzero(summer.isna())
    if len(skipped):
        what = f"has times that {zone} skips, the first in row {skipped[0] + 2}"
        raise _bad(path, name, what, "set another data.time_zone")
    second = np.zeros(len(local), bool)
    steps = np.diff(local.as_unit("ns").asi8)
    usual = np.median(steps) if len(steps) else 0
    twice = np.asarray(summer != winter)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], twice, [False]])))
    for first, stop in zip(edges[::2], edges[1::2], strict=True):
        back = np.flatnonzero(steps[first : stop - 1] < 0)
        if len(back):
            second[first + back[0] + 1 : stop] = True
        elif stop < len(local) and not (first > 0 and steps[first - 1] <= 1.5 * usual):
            if steps[stop - 1] > 1.5 * usual:
                what = (
                    f"has times that {zone} has twice, in row {first + 2} and after, and it is not clear which is meant"
                )
                raise _bad(path, name, what, "state the zone in each cell")
            second[first:stop] = True
    return summer.where(~second, winter).tz_convert("UTC")


def _seconds(nanoseconds: npt.NDArray[np.int64]) -> Times:
    return np.asarray((nanoseconds - nanoseconds[0]) / 1e9)


def _bad(path: Path, name: str, what: str, mend: str) -> BadRecord:
    return BadRecord(f"{path}: time column {name!r} {what}: {mend}")
