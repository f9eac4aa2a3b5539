"""Columns of times, in the forms that programs write, against ``datetime``."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest

from fedlit.data import BadRecord
from fedlit.data.signals.times import SECONDS, TimeFormat, read_times, unit_in
from fedlit.errors import FedlitError

HERE = Path("a.csv")
BEGIN = datetime(2024, 3, 14, 23, 59, 58, tzinfo=UTC)


def read(cells, name="t", rate=None, **kwargs):
    return read_times(HERE, name, pd.Series(cells), TimeFormat(**kwargs), rate)


@pytest.mark.parametrize("unit", list(SECONDS))
def test_numbers_of_each_unit(unit):
    assert np.allclose(read(np.arange(10) * 5, unit=unit).seconds, np.arange(10) * 5 * SECONDS[unit], rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "cells", "rate", "unit", "by"),
    [
        ("t", np.arange(10) * 10, 100.0, "ms", "data.table_rate"),
        ("t", np.arange(10) * 0.01, 100.0, "s", "data.table_rate"),
        ("time_ms", np.arange(10) * 10, None, "ms", "its name"),
        ("Time [s]", np.arange(10), None, "s", "its name"),
        ("timeMs", np.arange(10), None, "ms", "its name"),
        ("seconds_elapsed", np.arange(10) * 0.01, None, "s", "its name"),
        ("timestamp", 1_700_000_000 + np.arange(10), None, "s", "its size"),
        ("timestamp", 1_700_000_000_000 + np.arange(10) * 10, None, "ms", "its size"),
        ("timestamp", 1_700_000_000_000_000_123 + np.arange(10) * 10_000_000, None, "ns", "its size"),
        ("zeit", np.arange(10) * 0.02, None, "s", "its steps"),
    ],
)
def test_the_unit_is_found_and_said(name, cells, rate, unit, by):
    found = read(cells, name, rate)
    assert (found.unit, found.by) == (unit, by)
    assert np.allclose(found.seconds, (cells - cells[0]) * SECONDS[unit], rtol=1e-9)


def test_whole_nanoseconds_lose_nothing():
    first = 1_700_000_000_000_000_123
    assert read(np.array([first, first + 1, first + 1001]), unit="ns").seconds.tolist() == [0, 1e-9, 1001 * 1e-9]


def test_a_unit_that_nothing_tells_is_asked_for():
    with pytest.raises(
        BadRecord, match="time column 't' holds numbers whose unit is not stated: set data.time_unit, one of"
    ):
        read(np.arange(10) * 10)
    with pytest.raises(BadRecord, match="is named as if in s, and its numbers are ms since 1970: set data.time_unit"):
        read(1_700_000_000_000 + np.arange(10), "time_s")


@pytest.mark.parametrize(
    "form",
    [
        "%Y-%m-%d %H:%M:%S.%f", "%Y-%m-%dT%H:%M:%S.%fZ", "%Y-%m-%dT%H:%M:%S.%f+00:00", "%Y/%m/%d %H:%M:%S.%f",
        "%d.%m.%Y %H:%M:%S,%f", "%d/%m/%Y %H:%M:%S.%f", "%m/%d/%Y %H:%M:%S.%f", "%m/%d/%Y %I:%M:%S.%f %p",
        "%d-%b-%Y %H:%M:%S.%f", "%Y-%m-%d %H:%M:%S,%f",
    ],
)  # fmt: skip
def test_forms_of_date_and_time(form):
    times = [BEGIN + timedelta(milliseconds=125 * i) for i in range(60)]
    found = read([time.strftime(form) for time in times])
    assert np.allclose(found.seconds, np.arange(60) / 8, atol=1e-9)
    assert found.unit == "date and time"
    assert found.local == ("Z" not in form and "+00" not in form)


def test_a_form_that_is_stated_and_times_of_day():
    found = read(["20240314 235958", "20240315 000000"], format="%Y%m%d %H%M%S")
    assert found.seconds.tolist() == [0, 2]
    assert read(["10:15", "10:16"]).seconds.tolist() == [0, 60]
    assert read(["9:59:59,5", "10:00:00"]).seconds.tolist() == [0, 0.5]
    assert read(["11:59 am", "12:01 PM"]).seconds.tolist() == [0, 120]
    assert read(pd.to_timedelta([0, 10], unit="ms")).seconds.tolist() == [0, 0.01]
    assert read(pd.date_range("2024-01-01", periods=3, freq="10ms")).seconds.tolist() == [0, 0.01, 0.02]


def test_zones_in_the_cells_are_followed_through_summer_time():
    zone = ZoneInfo("Europe/Berlin")
    times = [datetime(2024, 10, 27, 0, 30, tzinfo=UTC) + timedelta(seconds=30 * i) for i in range(200)]
    local = [time.astimezone(zone) for time in times]
    assert read([time.isoformat() for time in local]).seconds.tolist() == [30 * i for i in range(200)]


@pytest.mark.parametrize("begin", [datetime(2024, 10, 26, 23, tzinfo=UTC), datetime(2024, 3, 30, 23, tzinfo=UTC),
                                   datetime(2024, 10, 27, 1, 30, tzinfo=UTC)])  # fmt: skip
def test_a_zone_that_is_stated_takes_summer_time_out(begin):
    zone = ZoneInfo("Europe/Berlin")
    times = [(begin + timedelta(seconds=30 * i)).astimezone(zone) for i in range(600)]
    cells = [time.strftime("%Y-%m-%d %H:%M:%S") for time in times]
    assert read(cells, zone="Europe/Berlin").seconds.tolist() == [30 * i for i in range(600)]
    plain = read(cells).seconds
    if begin.minute == 0:
        assert (np.diff(plain) != 30).sum() == 1


def test_a_time_that_came_twice_and_cannot_be_told_apart_is_refused():
    cells = ["2024-10-27 01:30:00", "2024-10-27 02:30:00", "2024-10-27 02:30:01", "2024-10-27 04:00:00"]
    cells += [f"2024-10-27 04:00:0{i}" for i in range(1, 9)]
    with pytest.raises(BadRecord, match="has times that Europe/Berlin has twice, in row 3 and after"):
        read(cells, zone="Europe/Berlin")
    with pytest.raises(BadRecord, match="has times that Europe/Berlin skips, the first in row 3"):
        read(["2024-03-31 01:59:59", "2024-03-31 02:00:00"], zone="Europe/Berlin")


def test_dates_alone_state_no_zone():
    assert read(["2024-03-30", "2024-03-31", "2024-04-01"]).local
    assert np.diff(read(["2024-03-31", "2024-04-01"], zone="Europe/Berlin").seconds).tolist() == [23 * 3600]


@pytest.mark.parametrize(
    ("cells", "kwargs", "message"),
    [
        ([0.0, np.nan, 1.0], {}, r"has 1 cell\(s\) without a time, the first in row 3"),
        ([0.0, np.inf, 1.0], {}, "holds infinite numbers"),
        ([0.0, 1.0], {"zone": "UTC"}, "holds numbers, on which data.time_zone has no effect"),
        ([0.0, 1.0], {"format": "%H"}, "holds numbers, on which data.time_format has no effect"),
        (["2024-01-01 10:00:00"], {"unit": "s"}, "holds date and time, and data.time_unit is of numbers"),
        (["2024-01-01 10:00:00Z"], {"zone": "UTC"}, "states its zone, so that data.time_zone has no effect"),
        (
            ["2024-01-01 10:00:00", "2024-01-01 10:00:01Z"],
            {},
            "states a zone in some rows only, first otherwise in row 3",
        ),
        (["2024-01-01 10:00:00", "secret"], {}, "that are no date and time as the others, the first in row 3"),
        (["01/02/2024 10:00", "02/02/2024 10:00"], {}, "day and month cannot be told apart: set data.time_format"),
        (["0,01", "0,02"], {}, "neither numbers nor date and time .* set data.time_format .*data.decimal"),
        (["31.12.2024 10:00", "31.13.2024 10:00"], {}, "the first in row 3"),
        (["0001-01-01 00:00:00", "0001-01-01 00:00:01"], {}, "has dates outside of the years 1678 to 2261"),
        (["01.01.0001 10:00", "01.01.0001 10:01"], {"zone": "UTC"}, "has dates outside of the years 1678 to 2261"),
        (["2024-01-01", "noon"], {}, "that are no date and time as the others, the first in row 3"),
        (["31.12.2024 10:00", "31.12.2024 secret"], {}, "no time of day, the first in row 3"),
        (["10:00:00", "11:00:00"], {"zone": "UTC"}, "times of day, on which data.time_zone has no effect"),
    ],
)
def test_cells_that_are_no_times_are_named_by_their_rows_alone(cells, kwargs, message):
    with pytest.raises(BadRecord, match="a.csv: time column 't' .*" + message) as error:
        read(cells, **kwargs)
    assert "secret" not in str(error.value)
    assert "2024-" not in str(error.value)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"unit": "hours"}, "data.time_unit is 'hours': give one of s, ms, us, ns, minutes"),
        ({"zone": "Mars/Base"}, "data.time_zone 'Mars/Base' is unknown"),
        ({"format": "dd.mm.yyyy"}, "data.time_format is 'dd.mm.yyyy': give it as in"),
        ({"unit": "s", "zone": "UTC"}, "data.time_unit is of numbers, and data.time_zone of date and time"),
    ],
)
def test_arguments_that_cannot_be(kwargs, message):
    with pytest.raises(FedlitError, match=message):
        TimeFormat(**kwargs)


@pytest.mark.parametrize(
    ("name", "unit"),
    [("t", None), ("timestamp", None), ("time(µs)", "us"), ("elapsed_min", "minutes"), ("zeit_ns", "ns")],
)
def test_units_in_names(name, unit):
    assert unit_in(name) == unit
