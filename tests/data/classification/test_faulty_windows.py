"""Missing samples and sensors that are off, in recordings to classify: windows are left out, not recordings."""

from __future__ import annotations

import numpy as np
import pytest
from signal_files import waves, write_set, write_wfdb

from fedlit.data import ADFTD, IID, WFDBLabels
from fedlit.data.base.records import BadRecord
from fedlit.data.classification.adftd import CHANNELS
from fedlit.data.classification.examples import Example
from fedlit.data.classification.signals import SignalClasses
from fedlit.data.classification.windows import bridged, faults, filled, runs, standardised

SPLITS = ("train", "val", "test")
RATE = 10.0
NAN = np.nan


class Given(SignalClasses):
    """Recordings of 2 channels, 4 windows of a second each, as a test makes them."""

    def __init__(self, changed=None, rates=RATE, count=12, **kwargs):
        self.changed, self.rates, self.count = changed or {}, rates, count
        super().__init__(**({"rate": RATE, "window_seconds": 1.0, "scale": "none", "partition": IID(1)} | kwargs))

    def read(self):
        return [
            Example(f"r{i:02d}", f"r{i:02d}", "s", "ecg", ("ab"[i % 2],), self.values_of(f"r{i:02d}", i), self.rate)
            for i in range(self.count)
        ]

    def read_signals(self, path):
        values = waves(2, 40, RATE, seed=path).astype(np.float32)
        for channel, start, stop, value in self.changed.get(path, ()):
            values[channel, start:stop] = value
        return dict(zip(("one", "two"), values, strict=True)), self.rates

    def write_stand_in(self, folder):
        raise AssertionError("not used")


def windows(data):
    found = {}
    for client in data.clients:
        for split in SPLITS:
            for example in data.dataset(client, split).examples:
                found[example.id] = example.value
    return found


def test_runs_and_bridges_by_hand():
    values = np.array([NAN, 1, NAN, NAN, 4, 5, NAN, 7, NAN, NAN, NAN, 11, NAN])
    assert runs(values).tolist() == [[0, 1], [2, 4], [6, 7], [8, 11], [12, 13]]
    two = bridged(values, 2)
    assert two[1:8].tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert np.isnan(two[[0, 8, 9, 10, 12]]).all()
    assert bridged(values, 3)[1:12].tolist() == list(range(1, 12))
    assert bridged(values, 0) is values
    out, counts = filled({"a": values, "b": np.ones(13)}, {"a": 2.0, "b": 2.0}, 1.0)
    assert counts == {"gaps": 5, "samples": 8, "filled_gaps": 2, "filled_samples": 3}
    assert np.array_equal(out["a"], two, equal_nan=True)
    assert filled({"b": np.ones(13)}, {"b": 2.0}, 1.0)[1] is None


def test_faults_by_hand():
    values = np.tile(np.arange(4, dtype=np.float32), (2, 4))
    values[0, 1] = NAN
    values[1, 4:8] = 5
    values[:, 8:12] = -3
    found = faults(values, 4)
    assert found.missing.tolist() == [True, False, False, False]
    assert found.flat.tolist() == [False, False, True, False]
    assert found.usable == [1, 3]
    assert faults(values, 5).usable == [1, 2]


def test_scaling_does_not_look_at_missing_samples():
    values = np.array([[1, 3, NAN, 1, 3], [7, 7, 7, NAN, 7]], np.float32)
    out = standardised(values)
    assert out[0, [0, 1, 3, 4]].tolist() == [-1, 1, -1, 1]
    assert out[1, [0, 1, 2, 4]].tolist() == [0, 0, 0, 0]
    assert np.isnan(out[[0, 1], [2, 3]]).all()


@pytest.mark.parametrize("parity", [False, True])
@pytest.mark.parametrize("scale", ["none", "record", "window"])
def test_windows_with_a_missing_sample_are_left_out(parity, scale):
    """One sample in window 2 of recording 3, and one in windows 0 and 1 of recording 5: 45 of 48 are whole."""
    changed = {3: [(0, 25, 26, NAN)], 5: [(0, 4, 5, NAN), (1, 12, 13, NAN)]}
    data = Given(changed, parity=parity, scale=scale)
    with pytest.warns(UserWarning, match=r"3 window\(s\) with missing samples and 0 in .* of 2 record\(s\): r03, r05"):
        about = data.describe()
    found = windows(data)
    assert {f"r{i:02d}/{k}" for i in range(12) for k in range(4)} - found.keys() == {"r03/2", "r05/0", "r05/1"}
    assert all(np.isfinite(value).all() for value in found.values())
    assert about["signals"]["windows_left_out"]["r05"] == {"missing": 2, "flat": 0}
    assert about["signals"]["gaps"]["r03"] == {"gaps": 1, "samples": 1, "filled_gaps": 0, "filled_samples": 0}
    assert about["excluded"] == []
    if not parity:
        assert about["clients"]["client-1"]["windows_left_out"] == {"missing": 3, "flat": 0}
        assert about["clients"]["client-1"]["cut"] == {"unit": "s", "given": 45, "used": 45, "records": 0}
    if scale == "none":
        assert np.array_equal(found["r03/1"], waves(2, 40, RATE, seed=3)[:, 10:20])


def test_windows_are_evenly_spaced_among_those_that_are_whole():
    data = Given({3: [(0, 5, 6, NAN)]}, max_windows=2)
    with pytest.warns(UserWarning, match="cut off: raise data.max_windows"):
        data.setup()
    found = sorted(windows(data))
    assert [name for name in found if name.startswith("r03")] == ["r03/1", "r03/3"]
    assert [name for name in found if name.startswith("r04")] == ["r04/1", "r04/3"]


def test_short_gaps_are_filled_and_counted():
    changed = {3: [(0, 14, 16, NAN)], 5: [(1, 20, 26, NAN)]}
    data = Given(changed, fill_gaps_seconds=0.3)
    with pytest.warns(UserWarning, match=r"2 missing sample\(s\) in 1 gap\(s\) are filled by straight lines"):
        about = data.describe()
    found = windows(data)
    assert {"r05/2"} == {f"r{i:02d}/{k}" for i in range(12) for k in range(4)} - found.keys()
    true = waves(2, 40, RATE, seed=3)[0]
    line = np.interp([14, 15], [13, 16], true[[13, 16]])
    assert found["r03/1"][0, 4:6] == pytest.approx(line, abs=1e-6)
    assert about["signals"]["gaps"]["r05"]["filled_samples"] == 0


def test_a_recording_goes_where_no_window_is_left():
    changed = {3: [(0, k, k + 1, NAN) for k in (5, 15, 25, 35)]}
    with pytest.raises(BadRecord, match=r"none of its 4 windows can be used, 4 have missing .*fill_gaps_seconds"):
        Given(changed).setup()
    data = Given(changed, on_bad_record="skip")
    with pytest.warns(UserWarning, match=r"1 bad record\(s\) skipped, 11 kept: r03"):
        data.setup()
    for parity in (False, True):
        mended = Given(changed, fill_gaps_seconds=0.1, parity=parity)
        with pytest.warns(UserWarning, match="filled"):
            mended.setup()
        assert len(windows(mended)) == 48


def test_whole_recordings_with_missing_samples_are_refused_with_a_mend_that_works():
    changed = {3: [(0, 14, 16, NAN)]}
    message = r"channel one has 2 missing sample\(s\) in 1 gap\(s\) of up to 0.2 s: set data.fill_gaps_seconds to 0.2"
    with pytest.raises(BadRecord, match=message):
        Given(changed, window_seconds=None).setup()
    with pytest.warns(UserWarning, match="are filled"):
        Given(changed, window_seconds=None, fill_gaps_seconds=0.2).setup()
    at_end = {3: [(0, 36, 40, NAN)]}
    with pytest.raises(BadRecord, match=r"of up to 0.4 s \(at its start or end\): set data.window_seconds, so that"):
        Given(at_end, window_seconds=None, fill_gaps_seconds=9.0).setup()
    with pytest.warns(UserWarning, match="1 window.s. with missing samples"):
        Given(at_end).setup()
    with pytest.raises(BadRecord, match=r"channel two has 1 infinite sample\(s\): mend them"):
        Given({3: [(1, 3, 4, np.inf)]}).setup()


@pytest.mark.parametrize("scale", ["none", "record", "window"])
def test_windows_in_which_no_channel_moves_are_left_out(scale):
    """A sensor that is off for the second second; one channel alone is no fault of a window."""
    changed = {3: [(0, 10, 20, 1.5), (1, 10, 20, -2.0)], 5: [(0, 10, 20, 0.0)]}
    data = Given(changed, scale=scale)
    with pytest.warns(UserWarning, match=r"and 1 in which no channel moves are left out of 1 record.s.: r03"):
        about = data.describe()
    assert {f"r{i:02d}/{k}" for i in range(12) for k in range(4)} - windows(data).keys() == {"r03/1"}
    assert about["clients"]["client-1"]["windows_left_out"] == {"missing": 0, "flat": 1}
    published = Given(changed, scale=scale, parity=True)
    with pytest.warns(UserWarning, match=r"1 in which no channel moves \(which parity keeps\)"):
        published.setup()
    assert len(windows(published)) == 48
    assert not np.isnan(windows(published)["r03/1"]).any()


def test_resampled_gaps_stay_gaps():
    """From 10 to 5 Hz: what is missing stays missing, what is around it does not become so."""
    data = Given({3: [(0, 21, 29, NAN)]}, rate=5.0)
    with pytest.warns(UserWarning, match="1 window.s. with missing samples"):
        data.setup()
    assert {"r03/0", "r03/1", "r03/3"} <= windows(data).keys()
    assert "r03/2" not in windows(data)


@pytest.mark.filterwarnings("ignore")
def test_records_of_wfdb_and_eeglab_with_a_missing_sample(tmp_path):
    for number in range(12):
        write_wfdb(tmp_path / "w", f"A{number:02d}", ["Dx: 1" if number % 2 else "Dx: 2"])
    steps = np.fromfile(tmp_path / "w" / "A03.dat", "<i2")
    steps[3] = -32768
    steps.tofile(tmp_path / "w" / "A03.dat")
    data = WFDBLabels(tmp_path / "w", channels=["I", "V1"], window_seconds=1.0, partition=IID(1))
    assert data.describe()["signals"]["windows_left_out"] == {"A03": {"missing": 1, "flat": 0}}
    lines = ["participant_id\tGender\tAge\tGroup\tMMSE"]
    for number in range(1, 13):
        name = f"sub-{number:03d}"
        values = waves(19, 2000, 500, seed=number)
        if number == 3:
            values[4, 700] = NAN
        write_set(tmp_path / "e" / "derivatives" / name / "eeg" / f"{name}_task.set", values, names=CHANNELS)
        lines.append(f"{name}\tF\t70\t{'ACF'[number % 3]}\t20")
    (tmp_path / "e" / "participants.tsv").write_text("\n".join(lines) + "\n")
    data = ADFTD(tmp_path / "e", partition=IID(1))
    assert data.describe()["signals"]["windows_left_out"] == {"sub-003": {"missing": 1, "flat": 0}}
