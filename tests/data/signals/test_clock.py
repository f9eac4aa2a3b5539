"""The rate, gaps and order that a clock says, against plain loops over its rows."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlit.data import BadRecord
from fedlit.data.signals import clock
from fedlit.data.signals.clock import nominal, ticks

HERE = Path("a.csv")


def read(seconds, rate=None, same=False):
    seconds = np.asarray(seconds, np.float64)
    return ticks(HERE, "t", seconds, np.arange(len(seconds)), lambda rows: np.full(len(rows), same), rate)


@settings(max_examples=100, deadline=None)
@given(
    rate=st.sampled_from([0.1, 1.0, 7.0, 25.0, 73.0, 100.0, 398.0, 2000.0]),
    gaps=st.lists(st.integers(1, 5000), max_size=4),
    jitter=st.sampled_from([0.0, 0.05, 0.2]),
    seed=st.integers(0, 99),
)
def test_missing_rows_are_gaps_of_as_many_samples_at_the_true_rate(rate, gaps, jitter, seed):
    generator = np.random.default_rng(seed)
    places = np.arange(200)
    for at, lacking in zip(sorted(generator.choice(np.arange(5, 195), len(gaps), replace=False)), gaps, strict=True):
        places[at:] += lacking
    seconds = (places + generator.uniform(-jitter, jitter, 200)) / rate
    found = read(seconds)
    assert found.rate == pytest.approx(rate, rel=0.01)
    (stretch,) = found.stretches
    assert stretch.rows.tolist() == list(range(200))
    # A gap of less than three quarters of a step too little or too much is jitter's.
    assert len(stretch.pauses) == len(np.unique(np.flatnonzero(np.diff(places) > 1)))
    assert np.abs(stretch.places - places).max() <= len(gaps) * (1 + 5000 * 0.01 * (jitter > 0))
    if not jitter:
        assert stretch.places.tolist() == places.tolist()
    for first, stop in stretch.pauses:
        assert first - 1 in stretch.places
        assert stop in stretch.places
        assert not set(range(first, stop)) & set(stretch.places.tolist())


@pytest.mark.parametrize("rate", [73, 100, 252, 398])
def test_whole_milliseconds_keep_the_rate_and_make_no_gap(rate):
    found = read(np.round(np.arange(5000) / rate * 1000) / 1000)
    assert found.rate == rate
    assert found.stretches[0].places.tolist() == list(range(5000))


def test_a_row_that_comes_late_is_no_gap():
    seconds = np.arange(400) / 100
    seconds[50] += 0.0065
    assert not len(read(seconds).stretches[0].pauses)
    lost = np.delete(seconds, 100)
    assert read(lost).stretches[0].pauses.tolist() == [[100, 101]]


@pytest.mark.parametrize(
    ("seconds", "message"),
    [
        (np.append(np.arange(30), np.arange(20)), r"runs back in row 32, at 1 place\(s\) in all: sort the rows"),
        (np.repeat(np.arange(20.0), 5), "repeats in row 3, where the values are others: 80 of 100 rows have the time"),
        ([0.0], "has a single time"),
        (
            np.cumsum(np.tile([1.0, 1.0, 3.0], 30)),
            "is not even: of 89 steps, 1 s in the median, 0 are shorter than half",
        ),
        (np.cumsum(np.tile([1.0, 0.5, 1.5], 30)), "is not even: .* the others deviate by 41%: resample the table"),
        (np.cumsum(np.tile([1.0, 1.0, 0.1], 30)), "is not even: of 89 steps, .* 30 are shorter than half"),
    ],
)
def test_a_clock_that_is_none_is_refused_with_the_figures(seconds, message):
    with pytest.raises(BadRecord, match="a.csv: time column 't' (" + message + ")"):
        read(seconds)


def test_rows_that_are_copies_are_left_out_and_counted():
    found = read([0, 1, 1, 2, 3, 3, 4, 5, 6], same=True)
    assert found.copies == 2
    assert found.stretches[0].rows.tolist() == [0, 1, 3, 4, 6, 7, 8]
    assert found.stretches[0].places.tolist() == [0, 1, 2, 3, 4, 5, 6]


def test_the_rate_that_is_said_is_kept_where_the_clock_agrees_and_refused_elsewhere():
    assert read(np.arange(500) / 99.6, rate=100.0).rate == 100
    with pytest.raises(BadRecord, match="says 98 Hz, and data.table_rate 100 Hz: leave data.table_rate out"):
        read(np.arange(500) / 98, rate=100.0)


def test_a_pause_of_a_year_begins_another_record():
    seconds = np.arange(300) / 100
    seconds[100:] += 365 * 86400
    seconds[200:] += 60
    found = read(seconds)
    assert [len(stretch.rows) for stretch in found.stretches] == [100, 200]
    assert found.stretches[1].places[[0, 99, 100]].tolist() == [0, 99, 6100]
    assert found.stretches[1].pauses.tolist() == [[100, 6100]]


def test_many_pauses_together_are_bounded_too(monkeypatch):
    monkeypatch.setattr(clock, "MOST_MISSING", 1000)
    seconds = np.arange(1000.0)
    for at in range(100, 1000, 100):
        seconds[at:] += 400
    found = read(seconds)
    assert [len(stretch.rows) for stretch in found.stretches] == [300, 300, 300, 100]
    assert all(stretch.places[0] == 0 and stretch.places[-1] < 2000 for stretch in found.stretches)


@pytest.mark.parametrize(
    ("measured", "meant"),
    [(99.98, 100), (0.016667, 1 / 60), (1.0004, 1), (73.2, 73.2), (397.523456, 397.52), (2.5, 2.5)],
)
def test_nominal_rates(measured, meant):
    assert nominal(measured) == pytest.approx(meant, rel=1e-12)
