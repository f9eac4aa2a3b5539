"""Tables with a clock: what is written with pandas comes back with its own rate and its gaps."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedlit.data import BadRecord, SignalTable
from fedlit.errors import FedlitError

SMALL = {"context_length": 40, "prediction_length": 10}
ECG = {"ecg": "ecg"}


def wave(samples: int = 600, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return np.round(np.sin(np.arange(samples) / 9) + generator.normal(0, 0.1, samples), 4).astype(np.float32)


def write(path, table: pd.DataFrame, delimiter=",", decimal=".", encoding="utf-8") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name.endswith(".parquet"):
        table.to_parquet(path)
    elif ".jsonl" in path.name:
        table.to_json(path, orient="records", lines=True, double_precision=15, date_unit="ns", date_format="iso")
    else:
        delimiter = "\t" if ".tsv" in path.name else delimiter
        table.to_csv(path, index=False, sep=delimiter, decimal=decimal, encoding=encoding)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rate=st.sampled_from([0.5, 1, 10, 73, 100, 250, 398]),
    gaps=st.lists(st.integers(1, 400), max_size=3),
    clock=st.sampled_from(["s", "ms", "us", "ns", "minutes", "iso", "berlin", "german", "zoned"]),
    layout=st.sampled_from(["csv", "csv.gz", "tsv", "jsonl", "parquet", "european"]),
    holes=st.lists(st.integers(1, 298), max_size=4),
    seed=st.integers(0, 9),
)
def test_values_rate_and_gaps_come_back(tmp_path, rate, gaps, clock, layout, holes, seed):
    generator = np.random.default_rng(seed)
    places = np.arange(300)
    for at, lacking in zip(sorted(generator.choice(np.arange(5, 295), len(gaps), replace=False)), gaps, strict=True):
        places[at:] += lacking
    values = wave(300, seed)
    values[holes] = np.nan
    # The autumn night in which the clock of Berlin goes back, for as long as it takes.
    begin = datetime(2024, 10, 27, 0, 58, tzinfo=UTC)
    microseconds = np.round(places * 1e6 / rate).astype(np.int64)
    if clock in ("s", "ms", "us", "ns", "minutes"):
        size = {"s": 1e6, "ms": 1e3, "us": 1, "ns": 1e-3, "minutes": 60e6}[clock]
        times = microseconds / size if clock in ("s", "ms", "minutes") else np.round(microseconds / size).astype(int)
        kwargs = {"time_unit": clock}
    else:
        utc = [begin + timedelta(microseconds=int(us)) for us in microseconds]
        forms = {"berlin": "%Y-%m-%d %H:%M:%S.%f", "german": "%d.%m.%Y %H:%M:%S,%f"}
        local = utc if clock == "iso" else [time.astimezone(ZoneInfo("Europe/Berlin")) for time in utc]
        times = [time.strftime(forms[clock]) if clock in forms else time.isoformat() for time in local]
        kwargs = {"time_zone": "Europe/Berlin"} if clock in forms else {}
        if clock in forms and local[-1].fold and not local[0].fold and (np.diff(microseconds) > 1.8e9).any():
            return  # a gap over the hour that comes twice: nobody could tell
    path = tmp_path / f"case-{abs(hash((rate, *gaps, clock, layout, *holes, seed)))}"
    european = {"delimiter": ";", "decimal": ",", "encoding": "latin-1"} if layout == "european" else {}
    write(
        path / f"größe.{'csv' if layout == 'european' else layout}",
        pd.DataFrame({"t": times, "ecg": values}),
        **european,
    )
    (record,) = SignalTable(path, ECG, time_column="t", **kwargs, **european, **SMALL).read()
    assert record.rate == pytest.approx(rate, rel=1e-3)
    wanted = np.full(places[-1] + 1, np.nan, np.float32)
    wanted[places] = values
    assert len(record.values) == len(wanted)
    assert np.allclose(record.values, wanted, atol=1e-6, equal_nan=True)
    assert record.seconds == pytest.approx(300 / record.rate)
    assert len(record.pauses) == (np.diff(places) > 1).sum()


def test_each_file_has_the_rate_of_its_own_clock(tmp_path):
    for name, rate in (("a", 50), ("b", 200)):
        write(tmp_path / f"{name}.csv", pd.DataFrame({"seconds": np.arange(600) / rate, "ecg": wave()}))
    data = SignalTable(tmp_path, ECG, time_column="seconds", rate=50.0, partition=None, **SMALL)
    assert {record.id: record.rate for record in data.read()} == {"a": 50, "b": 200}
    with pytest.raises(BadRecord, match="a.csv: time column 'seconds' says 50 Hz, and data.table_rate 200 Hz"):
        list(SignalTable(tmp_path, ECG, 200.0, time_column="seconds", **SMALL).read())


def test_windows_never_run_across_a_gap_and_the_split_goes_by_what_was_recorded(tmp_path):
    seconds = np.arange(600) / 10
    seconds[300:] += 3600
    write(tmp_path / "w.csv", pd.DataFrame({"time": seconds, "ecg": wave()}))
    data = SignalTable(tmp_path, ECG, time_column="time", stride=1, max_missing=0.0, **SMALL)
    facts = data.describe()
    own = facts["clients"]["subject-w"]
    assert facts["gaps"] == {"w": {"gaps": 1, "samples": 36000}}
    assert own["seconds"] == 60
    assert own["windows"] == {"train": (300 - 49) + (60 - 49), "val": 5, "test": 11}
    assert own["windows_missing"] > 36000
    assert facts["clock"] == {"column": "time", "unit": "s", "unit_by": "its steps", "copies_left_out": 0}
    for split in ("train", "val", "test"):
        windows = data.dataset("subject-w", split)
        batch = windows.__getitems__(range(len(windows)))
        assert not batch["context"].isnan().any()
        assert all(start + 50 <= 300 or start >= 36300 for start in batch["start"].tolist())
    resampled = SignalTable(tmp_path, ECG, time_column="time", rate=20.0, **SMALL).describe()
    assert resampled["clients"]["subject-w"]["seconds"] == 60


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.iloc[::-1], r"a.csv: time column 'time' runs back in row 3, at 599 place\(s\) in all"),
        (lambda t: pd.concat([t[:300], t[290:]]), r"runs back in row 302, at 1 place\(s\) in all: sort"),
        (lambda t: t.assign(time=(t.time * 10).round()), "repeats in row 3, where the values are others"),
        (
            lambda t: t.assign(time=t.time.astype(str).where(t.index != 7)),
            r"has 1 cell\(s\) without a time, the first in row 9",
        ),
        (lambda t: t.rename(columns={"time": "when"}), "no column 'time', there are when, ecg: mend data.time_column"),
    ],
)
def test_a_clock_that_is_wrong_is_a_bad_record_of_its_file_and_row(tmp_path, change, message):
    good = pd.DataFrame({"time": np.arange(600) / 100, "ecg": wave()})
    write(tmp_path / "b.csv", good)
    write(tmp_path / "a.csv", change(good))
    kwargs = {"time_column": "time", "time_unit": "s", **SMALL}
    with pytest.raises(BadRecord, match=message + ".*data.exclude"):
        list(SignalTable(tmp_path, ECG, **kwargs).read())
    assert [r.id for r in SignalTable(tmp_path, ECG, on_bad_record="skip", **kwargs).read()] == ["b"]


def test_rows_written_twice_are_left_out_and_said(tmp_path):
    table = pd.DataFrame({"time": np.arange(600) / 100, "ecg": wave(), "other": 1})
    table.loc[5, "ecg"] = np.nan
    write(tmp_path / "a.csv", table.loc[np.repeat(np.arange(600), np.where(np.arange(600) % 100 == 5, 2, 1))])
    data = SignalTable(tmp_path, ECG, 100.0, time_column="time", **SMALL)
    with pytest.warns(
        UserWarning, match=r"6 row\(s\) that are equal to the row before, time included, are left out of a.csv"
    ):
        facts = data.describe()
    assert facts["clock"]["copies_left_out"] == 6
    assert len(data.records[0].values) == 600


def test_a_year_of_nothing_makes_two_records_of_one_subject(tmp_path):
    seconds = np.arange(900) / 100
    seconds[400:] += 365 * 86400
    write(tmp_path / "w.csv", pd.DataFrame({"time": seconds, "ecg": wave(900), "icg": wave(900, 1)}))
    data = SignalTable(tmp_path, {"ecg": "ecg", "icg": "icg"}, time_column="time", **SMALL)
    facts = data.describe()
    assert [(r.id, r.subject, len(r.values), r.part_of) for r in data.records] == [
        ("w-1-ecg", "w", 400, "w-ecg"), ("w-1-icg", "w", 400, "w-icg"),
        ("w-2-ecg", "w", 500, "w-ecg"), ("w-2-icg", "w", 500, "w-icg"),
    ]  # fmt: skip
    assert facts["clients"]["subject-w"]["seconds"] == 9
    assert facts["clients"]["subject-w"]["channel_seconds"] == 18
    # Cut as a whole, in time: the first stretch trains.
    assert set(facts["clients"]["subject-w"]["records"]["test"]) == {"w-2-ecg", "w-2-icg"}


def test_a_summer_time_that_nobody_stated_is_told(tmp_path):
    clock = pd.date_range("2024-03-31 01:58", periods=600, freq="s")
    clock = clock.where(clock < "2024-03-31 02:00", clock + pd.Timedelta(hours=1)).strftime("%Y-%m-%d %H:%M:%S")
    write(tmp_path / "w.csv", pd.DataFrame({"time": clock, "ecg": wave()}))
    data = SignalTable(tmp_path, ECG, time_column="time", **SMALL)
    with pytest.warns(UserWarning, match="states no zone and jumps by an hour in w.csv: .* set data.time_zone"):
        list(data.read())
    (record,) = SignalTable(tmp_path, ECG, time_column="time", time_zone="Europe/Berlin", **SMALL).read()
    assert len(record.values) == 600


def test_clocks_in_several_units_are_refused(tmp_path):
    for name, unit in (("a", 1), ("b", 1000)):
        clock = (1_700_000_000 + np.arange(600)) * unit
        write(tmp_path / f"{name}.csv", pd.DataFrame({"time": clock, "ecg": wave()}))
    with pytest.raises(BadRecord, match="b.csv: time column 'time' is in ms .by its size., and in other tables in s"):
        list(SignalTable(tmp_path, ECG, time_column="time", **SMALL).read())


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({}, "data.table_rate is not given: give the tables' samples per second, or data.time_column"),
        ({"table_rate": 1.0, "time_unit": "s"}, "data.time_unit has no effect without data.time_column"),
        ({"table_rate": 1.0, "time_zone": "UTC"}, "data.time_zone has no effect without data.time_column"),
        ({"table_rate": 1.0, "time_format": "%H"}, "data.time_format has no effect without data.time_column"),
        ({"time_column": "ecg"}, "data.time_column 'ecg' is in data.columns too"),
        ({"time_column": "t", "time_zone": "X"}, "data.time_zone 'X' is unknown"),
        ({"table_rate": 1.0, "decimal": ",", "delimiter": ","}, "data.delimiter and data.decimal are both ','"),
    ],
)
def test_arguments_that_need_or_exclude_each_other(kwargs, message):
    with pytest.raises(FedlitError, match=message):
        SignalTable("data", ECG, **kwargs)


def test_stand_in_with_a_clock(tmp_path):
    data = SignalTable("absent", ECG, time_column="zeit", time_zone="Europe/Berlin", delimiter=";", decimal=",")
    data.use_stand_in(tmp_path)
    facts = data.describe()
    assert len(data.clients) == 24
    assert {record.rate for record in data.records} == {100.0}
    assert facts["warnings"] == []
