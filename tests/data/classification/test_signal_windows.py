"""Scaling, windows and linear resampling of signals to classify."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import interp1d
from signal_files import waves

from fedlit.data.base.partitions import IID
from fedlit.data.classification.examples import Example
from fedlit.data.classification.signals import SignalClasses
from fedlit.data.classification.windows import Window, standardised
from fedlit.data.signals.resampling import resample, resample_linear


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


class Recordings(SignalClasses):
    """Twelve of 2 channels and 10.5 windows, in which each sample tells where it was."""

    def read(self):
        return [
            Example(f"r{i}", f"r{i}", "s", "ecg", ("ab"[i % 2],), self.values_of(f"r{i}", i), self.rate)
            for i in range(12)
        ]

    def read_signals(self, path):
        first = 1000 * path + np.arange(105, dtype=np.float32)
        return {"one": first, "two": -first}, self.rate

    def write_stand_in(self, folder):
        raise AssertionError("not used")


@pytest.mark.parametrize("parity", [False, True])
@pytest.mark.parametrize(("most", "numbers"), [(None, range(10)), (3, [1, 5, 8]), (20, range(10))])
def test_windows_follow_each_other_from_the_first_sample(parity, most, numbers):
    options = {"partition": IID(1), "scale": "none", "parity": parity, "max_windows": most}
    data = Recordings(rate=10.0, window_seconds=1.0, **options)
    found = {}
    for split in ("train", "val", "test"):
        dataset = data.dataset("client-1", split)
        batch = dataset.__getitems__(range(len(dataset)))
        found |= dict(zip(batch["id"], zip(batch["x"].numpy(), batch["label"].tolist(), strict=True), strict=True))
    assert sorted(found) == sorted(f"r{i}/{k}" for i in range(12) for k in numbers)
    for name, (x, label) in found.items():
        i, k = map(int, name[1:].split("/"))
        expected = 1000 * i + np.arange(10 * k, 10 * k + 10)
        assert np.array_equal(x, np.stack([expected, -expected])), name
        assert data.classes[label] == "ab"[i % 2], name


@pytest.mark.parametrize(("parity", "change"), [(False, resample), (True, resample_linear)])
def test_parity_resamples_by_straight_lines(parity, change):
    class Noise(Recordings):
        def read_signals(self, path):
            return {"one": waves(12, 4000, 40)[path]}, 40.0

    data = Noise(rate=10.0, window_seconds=10.0, partition=IID(1), scale="none", parity=parity)
    dataset = data.dataset("client-1", "train")
    for example in dataset.examples:
        i, k = map(int, example.id[1:].split("/"))
        expected = change(waves(12, 4000, 40)[i], 40.0, 10.0)[100 * k : 100 * k + 100]
        assert np.array_equal(example.value[0], expected)
    assert data.describe()["signals"]["resampled"] == ("linear" if parity else "polyphase")
