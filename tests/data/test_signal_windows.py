"""Scaling, windows and linear resampling of signals to classify."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import interp1d
from signal_files import waves

from fedlit.data.resampling import resample_linear
from fedlit.data.signal_windows import Window, standardised


def test_standardised_by_hand():
    out = standardised(np.array([[1, 3, 1, 3], [5, 5, 5, 5], [0, 0, 0, 0], [0, 0, 0, 4]], np.float32))
    assert out.dtype == np.float32
    assert out[0].tolist() == [-1, 1, -1, 1]
    assert not out[1:3].any()
    assert out[3] == pytest.approx(np.array([-1, -1, -1, 3]) / np.sqrt(3))


@pytest.mark.parametrize("offset", [0.0, 3.7, -1e5])
def test_a_constant_is_flat_whatever_its_size_and_a_small_signal_is_not(offset):
    flat = np.full((1, 1000), offset, np.float32)
    assert not standardised(flat).any()
    assert not standardised(flat + np.float32(1e-9)).any()
    small = offset + 1e-4 * max(abs(offset), 1) * waves(1, 1000, 500)
    assert standardised(small.astype(np.float32)).std() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("scaled", [False, True])
def test_a_window_keeps_nothing_of_its_recording(scaled):
    whole = waves(2, 1000, 500) * 5
    calls = []
    window = Window(lambda: calls.append(1) or whole, 100, 300, scaled)()
    assert window.base is None or window.base.nbytes == window.nbytes
    expected = standardised(whole[:, 100:300]) if scaled else whole[:, 100:300]
    assert np.array_equal(window, expected)
    assert np.array_equal(window, Window(whole, 100, 300, scaled)())
    assert calls == [1]


@pytest.mark.parametrize(
    ("samples", "rate", "new"), [(5000, 500, 250), (5000, 500, 256), (777, 500, 256), (300, 100, 250)]
)
def test_linear_resampling_is_that_of_the_published_code(samples, rate, new):
    values = waves(1, samples, rate)[0]
    places = np.linspace(1, samples, samples)
    expected = interp1d(places, values)(np.linspace(1, samples, int(samples / rate * new)))
    made = resample_linear(values, rate, new)
    assert made.dtype == np.float32
    assert made == pytest.approx(expected, abs=1e-5)
    assert resample_linear(values, rate, rate) is values
