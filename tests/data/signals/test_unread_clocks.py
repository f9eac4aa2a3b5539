"""Tables read without their clock: neighbours in a file are told apart, and a clock that nobody named is said."""

import re
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlit.data import BadRecord, SignalTable
from fedlit.data.signals.neighbours import subjects_rows

SMALL = {"context_length": 40, "prediction_length": 10}
ECG = {"ecg": "ecg"}


def wave(samples: int = 600, seed: int = 0) -> np.ndarray:
    return np.sin(np.arange(samples) / 9) + np.random.default_rng(seed).normal(0, 0.1, samples)


def said(tmp_path, table, **kwargs):
    table.to_csv(tmp_path / "a.csv", index=False)
    data = SignalTable(tmp_path, ECG, kwargs.pop("table_rate", 100.0), **kwargs, **SMALL)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        list(data.read())
    return [str(warning.message) for warning in caught if "clock" in str(warning.message)]


@pytest.mark.parametrize(
    ("name", "clock", "what"),
    [
        ("time", np.arange(600) / 100, "says 100 Hz"),
        ("seconds_elapsed", np.arange(600) / 50, "says 50 Hz, where data.table_rate is 100"),
        ("timestamp", pd.date_range("2024-01-01", periods=600, freq="10ms"), "says 100 Hz"),
        ("Zeit", np.where(np.arange(600) < 300, 0, 3600) + np.arange(600) / 100, r"says 100 Hz, 1 gap\(s\)"),
        ("t", np.append(np.arange(300), np.arange(300)) / 100, r"says 100 Hz, 1 step\(s\) back"),
        ("TIME", np.repeat(np.arange(300), 2) / 100, r"says 100 Hz, 300 time\(s\) twice"),
        ("x", np.arange(600) / 25, "says 25 Hz, where data.table_rate is 100"),
        (
            "time",
            np.random.default_rng(1).permutation(600) / 100,
            r"is out of order, with \d+ step\(s\) back",
        ),
        (
            "time",
            np.where(np.arange(600) == 9, np.nan, np.arange(600) / 50),
            r"says 50 Hz, where data.table_rate is 100.*",
        ),
        ("sample", np.delete(np.arange(601), 77), r"counts rows, with 1 gap\(s\)"),
    ],
)
def test_what_is_evidently_a_clock_is_told_with_what_it_says(tmp_path, name, clock, what):
    (message,) = said(tmp_path, pd.DataFrame({name: clock, "ecg": wave()}))
    assert re.search(f"a.csv \\(column '{name}' {what}\\): set data.time_column to '{name}'", message)


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("sample", np.arange(600)),
        ("Unnamed: 0", np.arange(600)),
        ("ppg", wave(seed=3)),
        ("t", wave(seed=3)),
        ("pre_ejection_time", np.round(80 + 10 * wave(seed=4))),
        ("class", np.zeros(600)),
        ("steps", np.cumsum(np.random.default_rng(0).integers(0, 3, 600))),
        ("date", ["2024-01-01"] * 600),
        ("remark", ["at noon"] * 600),
    ],
)
def test_what_is_no_clock_is_not_told(tmp_path, name, column):
    assert said(tmp_path, pd.DataFrame({name: column, "ecg": wave()})) == []


def test_clocks_of_several_subjects_in_one_table_are_looked_at_one_by_one(tmp_path):
    beds = pd.concat([pd.DataFrame({"time": np.arange(300) / 50, "ecg": wave(300), "bed": bed}) for bed in "ab"])
    (message,) = said(tmp_path, beds, subject_column="bed")
    assert "says 50 Hz, where data.table_rate is 100)" in message
    side_by_side = beds.sort_values(["time", "bed"])
    (message,) = said(tmp_path, side_by_side, subject_column="bed")
    assert "says 50 Hz, where data.table_rate is 100)" in message


def ward(order: str, rows: int = 300) -> pd.DataFrame:
    parts = [pd.DataFrame({"ecg": wave(rows, seed) + 50 * seed, "bed": bed}) for seed, bed in enumerate(order)]
    return pd.concat(parts)


def test_a_subject_in_two_places_of_a_table_has_two_records(tmp_path):
    ward("abacb").to_csv(tmp_path / "ward.csv", index=False)
    data = SignalTable(tmp_path, ECG, 1.0, subject_column="bed", val_fraction=0.2, **SMALL)
    facts = data.describe()
    assert [(r.id, r.subject, len(r.values)) for r in data.records] == [
        ("ward-a-1", "a", 300), ("ward-a-2", "a", 300), ("ward-b-1", "b", 300), ("ward-b-2", "b", 300),
        ("ward-c", "c", 300),
    ]  # fmt: skip
    assert np.ptp(data.records[0].values) < 4
    assert facts["clients"]["subject-a"]["seconds"] == 600


def test_rows_written_side_by_side_are_one_record(tmp_path):
    ward("ab").reset_index().sort_values(["index", "bed"]).drop(columns="index").to_csv(tmp_path / "w.csv", index=False)
    data = SignalTable(tmp_path, ECG, 1.0, subject_column="bed", **SMALL)
    assert [(r.id, len(r.values)) for r in data.read()] == [("w-a", 300), ("w-b", 300)]
    assert np.allclose(next(iter(data.read())).values, wave(300, 0))


def test_a_clock_decides_whether_stretches_follow_on_each_other(tmp_path):
    table = ward("aba").assign(t=np.concatenate([np.arange(300), np.arange(300), np.arange(300) + 360]))
    table.to_csv(tmp_path / "w.csv", index=False)
    data = SignalTable(tmp_path, ECG, subject_column="bed", time_column="t", time_unit="s", **SMALL)
    assert [(r.id, len(r.values), r.pauses.tolist()) for r in data.read()] == [
        ("w-a", 660, [[300, 360]]),
        ("w-b", 300, []),
    ]


def test_stretches_shorter_than_a_window_are_left_out_or_refused(tmp_path):
    pd.concat([ward("ab"), ward("a", 20)]).to_csv(tmp_path / "w.csv", index=False)
    data = SignalTable(tmp_path, ECG, 1.0, subject_column="bed", val_fraction=0.2, **SMALL)
    with pytest.warns(UserWarning, match=r"1 stretch\(es\) of rows are shorter than a window, and left out: w-a-2"):
        facts = data.describe()
    assert [entry["record"] for entry in facts["excluded"]] == ["w-a-2"]
    ward("ababab", 20).to_csv(tmp_path / "w.csv", index=False)
    with pytest.raises(BadRecord, match="rows of subject 'a' lie in 3 places, and none is as long as a window"):
        list(SignalTable(tmp_path, ECG, 1.0, subject_column="bed", **SMALL).read())


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 5)), min_size=1, max_size=12))
def test_rows_of_subjects_agree_with_a_plain_loop(blocks):
    names = [name for name, count in blocks for _ in range(count)]
    runs = []
    for row, name in enumerate(names):
        if row and names[row - 1] == name:
            runs[-1][1].append(row)
        else:
            runs.append((name, [row]))
    wanted = {}
    for name, rows in runs:
        wanted.setdefault(name, []).append(rows)
    if np.median([len(rows) for _, rows in runs]) < 2:
        wanted = {name: [sum(own, [])] for name, own in wanted.items()}
    found = {name: [rows.tolist() for rows in own] for name, own in subjects_rows(pd.Series(names)).items()}
    assert found == wanted
    assert list(found) == list(wanted)
