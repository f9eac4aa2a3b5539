"""WFDB files as archives write them: read back equal, whatever the format, rate, unit and number of segments."""

import numpy as np
import pytest
import wfdb
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedlit.data.base.records import BadRecord
from fedlit.data.files.channels import place_of
from fedlit.data.files.wfdb import WFDBRecord, read_channels
from fedlit.data.files.wfdb_header import joined, read_header

STEPS = (1000 * np.sin(np.arange(400) / 9)).astype("<i2")


def put(folder, name, *lines, signals=(STEPS,), first=None, encoding="utf-8"):
    """A record in format 16 whose signal lines, all but the file's name, are ``lines``."""
    frames = np.stack(signals, axis=1)
    (folder / f"{name}.dat").write_bytes(frames.astype("<i2").tobytes())
    text = "\n".join([first or f"{name} {len(lines)} 100 {len(frames)}", *(f"{name}.dat {line}" for line in lines)])
    (folder / f"{name}.hea").write_bytes((text + "\n").encode(encoding))
    return folder / f"{name}.hea"


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_what_wfdb_writes_is_read_back(data, tmp_path):
    form = data.draw(st.sampled_from(["16", "212", "80", "24", "32"]))
    low, high = {"212": (-2047, 2047), "80": (-127, 127)}.get(form, (-9999, 9999))
    each = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    frames = data.draw(st.integers(1, 50))
    rate = data.draw(st.sampled_from([50, 62.5, 250]))
    units = data.draw(st.lists(st.sampled_from(["mV", "uV", "mmHg"]), min_size=len(each), max_size=len(each)))
    gains = data.draw(st.lists(st.sampled_from([1.0, 12.5, 200.0]), min_size=len(each), max_size=len(each)))
    bases = data.draw(st.lists(st.integers(-50, 50), min_size=len(each), max_size=len(each)))
    seed = data.draw(st.integers(0, 2**31))
    steps = [np.random.default_rng(seed + i).integers(low, high, frames * n) for i, n in enumerate(each)]
    gaps = data.draw(st.integers(0, frames - 1))
    wfdb.wrsamp(
        "r", rate, units, [f"c{i}" for i in range(len(each))], e_d_signal=[s.astype("int64") for s in steps],
        samps_per_frame=each, fmt=[form] * len(each), adc_gain=gains, baseline=bases, write_dir=str(tmp_path),
    )  # fmt: skip
    raw = tmp_path / "r.dat"
    if form == "16" and each[0] == 1:  # the format's mark of a missing sample, which wfdb writes for NaN only
        content = np.fromfile(raw, "<i2").reshape(frames, -1)
        content[gaps, 0] = -32768
        content.tofile(raw)
    read = read_channels(tmp_path / "r.hea", [f"C{i}" for i in range(len(each))])
    assert read.notes == []
    for i, n in enumerate(each):
        factor = {"mV": 1.0, "uV": 1e-3, "mmHg": 1.0}[units[i]]
        expected = ((steps[i] - bases[i]) / gains[i] * factor).astype(np.float32)
        if form == "16" and each[0] == 1 and i == 0:
            expected[gaps] = np.nan
        np.testing.assert_array_equal(read.values[f"C{i}"], expected)
        assert read.rates[f"C{i}"] == rate * n
        assert read.units[f"C{i}"] == ("mmHg" if units[i] == "mmHg" else "mV")
        assert read.gains[f"C{i}"] == gains[i]


@pytest.mark.parametrize("form", ["508", "516", "524"])
def test_packed_formats(form, tmp_path):
    bound = {"508": 127, "516": 32767, "524": 2**23 - 1}[form]
    steps = np.random.default_rng(0).integers(-bound, bound, (500, 2))
    wfdb.wrsamp("r", 100, ["mV", "mV"], ["a", "b"], d_signal=steps, fmt=[form] * 2, adc_gain=[10.0, 20.0],
                baseline=[0, 3], write_dir=str(tmp_path))  # fmt: skip
    read = read_channels(tmp_path / "r", ["b"])
    np.testing.assert_array_equal(read.values["b"], ((steps[:, 1] - 3) / 20).astype(np.float32))


@pytest.mark.parametrize("form", ["310", "311", "212"])
def test_samples_of_few_bits_agree_with_wfdb(form, tmp_path):
    content = np.random.default_rng(1).integers(0, 256, 3 * 4 * 50, dtype=np.uint8)
    (tmp_path / "r.dat").write_bytes(content.tobytes())
    lines = [f"r.dat {form}{each} 7(3)/mV 12 0 0 0 0 {name}" for each, name in (("", "a"), ("x2", "b"))]
    (tmp_path / "r.hea").write_text("\n".join(["r 2 100 120", *lines]) + "\n")
    theirs = wfdb.rdrecord(str(tmp_path / "r"), smooth_frames=False)
    read = read_channels(tmp_path / "r", ["a", "b"])
    for name, values in zip("ab", theirs.e_p_signal, strict=True):
        np.testing.assert_array_equal(read.values[name], values.astype(np.float32))


def test_differences_of_format_8(tmp_path):
    steps = np.random.default_rng(2).integers(-100, 100, (60, 2)).astype("i1")
    (tmp_path / "r.dat").write_bytes(steps.tobytes())
    lines = ["r 2 100 60", *(f"r.dat 8 1(0)/mV 8 0 {first} 0 0 {name}" for first, name in ((5, "a"), (-9, "b")))]
    (tmp_path / "r.hea").write_text("\n".join(lines) + "\n")
    read = read_channels(tmp_path / "r", ["a", "b"])
    np.testing.assert_array_equal(read.values["b"], -9 + np.cumsum(steps[:, 1], dtype=int))
    np.testing.assert_array_equal(read.values["a"], 5 + np.cumsum(steps[:, 0], dtype=int))


@pytest.mark.parametrize("form", ["16", "212", "24", "32", "80"])
def test_missing_samples_of_each_format(form, tmp_path):
    values = np.sin(np.arange(90) / 5)
    values[[3, 40, 41]] = np.nan
    wfdb.wrsamp("r", 100, ["mV", "mV"], ["a", "b"], p_signal=np.stack([values, -values], 1), fmt=[form] * 2,
                write_dir=str(tmp_path))  # fmt: skip
    read = read_channels(tmp_path / "r", ["b"])
    assert np.flatnonzero(np.isnan(read.values["b"])).tolist() == [3, 40, 41]


def test_one_file_after_another_and_one_channel_of_each(tmp_path):
    """Signals in two files, of which the second begins after some bytes of its own."""
    (tmp_path / "a.dat").write_bytes(np.arange(20, dtype="<i2").tobytes())
    (tmp_path / "b.mat").write_bytes(b"x" * 24 + np.arange(40, dtype="<i2").tobytes())
    lines = ["r 3 100 10", "b.mat 16x2+24 1(0)/mV 16 0 0 0 0 II", "a.dat 16 1(0)/mV 16 0 0 0 0 V1"]
    (tmp_path / "r.hea").write_text("\n".join([*lines, "a.dat 16 1(0)/mV 16 0 1 0 0 V2"]) + "\n")
    read = read_channels(tmp_path / "r", ["V2", "II"])
    assert read.values["V2"].tolist() == list(range(1, 20, 2))
    assert read.values["II"].tolist() == list(range(20))
    assert read.rates == {"V2": 100.0, "II": 200.0}


def test_skew_at_several_samples_a_frame(tmp_path):
    frames = np.arange(30).reshape(10, 3)
    (tmp_path / "r.dat").write_bytes(frames.astype("<i2").tobytes())
    lines = ["r 2 100 10", "r.dat 16x2:3 1(0)/mV 16 0 0 0 0 a", "r.dat 16 1(0)/mV 16 0 2 0 0 b"]
    (tmp_path / "r.hea").write_text("\n".join(lines) + "\n")
    read = read_channels(tmp_path / "r", ["a", "b"])
    np.testing.assert_array_equal(read.values["a"][:14], frames[3:, :2].ravel())
    assert np.isnan(read.values["a"][14:]).all()
    assert len(read.values["a"]) == 20
    assert read.values["b"].tolist() == frames[:, 2].tolist()


@pytest.mark.parametrize(
    ("unit", "encoding"),
    [("uV", "ascii"), ("\u00b5V", "utf-8"), ("\u03bcV", "utf-8"), ("\u00b5V", "latin-1"), ("\u00b5V", "utf-8-sig")],
)
def test_microvolts_however_they_are_written(unit, encoding, tmp_path):
    path = put(tmp_path, "r", f"16 1(0)/{unit} 16 0 0 0 0 II", encoding=encoding)
    read = read_channels(path, ["II"])
    assert read.units == {"II": "mV"}
    np.testing.assert_array_equal(read.values["II"], (STEPS / 1000).astype(np.float32))


@pytest.mark.parametrize(("unit", "encoding"), [("\u00b5S", "latin-1"), ("\u2126", "utf-8"), ("NU", "ascii")])
def test_a_unit_that_is_no_voltage_stays_as_written(unit, encoding, tmp_path):
    read = read_channels(put(tmp_path, "r", f"16 10(0)/{unit} 16 0 0 0 0 EDA", encoding=encoding), ["EDA"])
    assert read.units == {"EDA": unit}
    np.testing.assert_array_equal(read.values["EDA"], (STEPS / 10).astype(np.float32))


FORMS = ["2014-05-08 05:05:15", "2006", "12:00 1/2/199", "12:00:00 31/13/2020", "15-May-2020 15:35:30"]


@pytest.mark.parametrize("when", FORMS)
def test_a_date_in_any_form_is_not_needed(when, tmp_path):
    path = put(tmp_path, "r", "16 1000/mV 16 0 0 0 0 II", first=f"r 1 300 400 {when}")
    read = read_channels(path, ["II"])
    assert len(read.values["II"]) == 400
    assert read.notes == ["a date or time in another form, which is not needed"]


@pytest.mark.parametrize("rest", ["400", "0", "", "400 10:00:00", "400 10:00 11/12/2001", "400 12.5"])
def test_length_and_time_as_the_format_writes_them(rest, tmp_path):
    path = put(tmp_path, "r", "16 1000/mV 16 0 0 0 0 II", first=f"r 1 300 {rest}")
    read = read_channels(path, ["II"])
    assert len(read.values["II"]) == 400
    assert read.notes == []


@pytest.mark.parametrize("gain", ["", "0", "0(0)/mV"])
def test_a_gain_that_is_absent_is_said(gain, tmp_path):
    path = put(tmp_path, "r", f"16 {gain} 12 0 0 0 0 II" if gain else "16")
    read = read_channels(path, ["II" if gain else "#1"])
    assert read.notes == ["no gain: 200 steps per mV, as the format says, uncalibrated"]
    np.testing.assert_array_equal(next(iter(read.values.values())), (STEPS / 200).astype(np.float32))


@pytest.mark.parametrize("gain", ["1,000(0)/mV", "nan/mV", "x/mV", "1000(a)/mV", "1000mV"])
def test_a_gain_that_cannot_be_read_is_refused_for_its_channel_alone(gain, tmp_path):
    path = put(tmp_path, "r", f"16 {gain} 16 0 0 0 0 II", "16 1000(0)/mV 16 0 0 0 0 V1", signals=(STEPS, STEPS))
    with pytest.raises(BadRecord, match=r"r.hea: channel 'II': .* is no gain: write steps per unit"):
        read_channels(path, ["II"])
    assert len(read_channels(path, ["V1"]).values["V1"]) == 400


def test_a_rate_that_is_absent_is_said(tmp_path):
    read = read_channels(put(tmp_path, "r", "16 1000/mV 16 0 0 0 0 II", first="r 1"), ["II"])
    assert read.rates == {"II": 250.0}
    assert read.notes == ["no sampling rate: 250 Hz, as the format says"]


@pytest.mark.parametrize(
    ("first", "said"),
    [
        ("r 1 zero 400", "'zero' is no sampling rate"),
        ("r 1 0 400", "'0' is no sampling rate"),
        ("r 1 1e400 400", "'1e400' is no sampling rate"),
        ("r 1 100 many", "'many' is no number of samples"),
        ("r 2 100 400", "2 signals, but 1 lines of signals"),
        ("r/3 1 100 400", "3 segments, each with its samples, are not listed"),
    ],
)
def test_fields_that_are_needed(first, said, tmp_path):
    with pytest.raises(BadRecord, match=f"r.hea.*{said}"):
        read_channels(put(tmp_path, "r", "16 1000/mV 16 0 0 0 0 II", first=first), ["II"])


def test_a_line_without_a_name_does_not_shift_the_names_after_it(tmp_path):
    path = put(tmp_path, "r", "16 1000/mV", "16 1000/mV 16 0 0 0 0 II", signals=(STEPS, -STEPS))
    assert WFDBRecord(path).names == ["#1", "II"]
    np.testing.assert_array_equal(read_channels(path, ["II"]).values["II"], (-STEPS / 1000).astype(np.float32))


def test_two_channels_of_one_name(tmp_path):
    lines = ["16 1000(0)/mV 16 0 0 0 0 ECG", "16 1000(0)/mV 16 0 0 0 0 ecg "]
    path = put(tmp_path, "r", *lines, signals=(STEPS, -STEPS))
    said = r"r.hea: 2 channels are named 'ECG': 'ECG' \(channel 1\) and 'ecg' \(channel 2\): ask for ECG#1 or ECG#2"
    with pytest.raises(BadRecord, match=said):
        read_channels(path, ["ECG"])
    read = read_channels(path, ["ecg#2", "ECG#1"])
    np.testing.assert_array_equal(read.values["ecg#2"], -read.values["ECG#1"])
    with pytest.raises(BadRecord, match="no channel 'ECG#3'"):
        read_channels(path, ["ECG#3"])
    with pytest.raises(BadRecord, match="ECG#1 and ecg#1 are one channel"):
        read_channels(path, ["ECG#1", "ecg#1"])


def test_a_channel_that_is_really_named_so(tmp_path):
    assert place_of(tmp_path, "ECG#1", ["V1", "ECG#1"]) == 1
    assert place_of(tmp_path, "V1#1", ["V1", "ECG#1"]) == 0
    assert place_of(tmp_path, "V1#0", ["V1"]) is None
    assert place_of(tmp_path, "#", ["V1"]) is None


def variable(folder, second="16 250(0)/mV 16 0 0 0 0 II", hole=30):
    """As bedside monitors write it: layout, a segment with II, a gap, one with ABP alone, one with both."""
    put(folder, "s_0001", "16 500(0)/mV 16 0 0 0 0 II", signals=(STEPS[:100],))
    put(folder, "s_0002", "16 1(0)/mmHg 16 0 0 0 0 ABP", signals=(STEPS[100:150],))
    put(folder, "s_0003", "16 1(0)/mmHg 16 0 0 0 0 ABP", second, signals=(STEPS[:200], STEPS[200:]))
    layout = ["s_layout 2 100 0", "~ 0 500(0)/mV 16 0 0 0 0 II", "~ 0 1(0)/mmHg 16 0 0 0 0 ABP"]
    (folder / "s_layout.hea").write_text("\n".join(layout) + "\n")
    segments = ["s_layout 0", "s_0001 100", f"~ {hole}", "s_0002 50", "s_0003 200"]
    (folder / "m.hea").write_text("\n".join([f"m/5 2 100 {350 + hole}", *segments, "# a comment"]) + "\n")
    return folder / "m.hea"


def test_segments_with_other_channels_and_gaps_are_one_recording(tmp_path):
    read = read_channels(variable(tmp_path), ["II", "abp"])
    gap = [np.nan]
    second = np.concatenate([STEPS[:100] / 500, gap * 30, gap * 50, STEPS[200:] / 250])
    pressure = np.concatenate([gap * 130, STEPS[100:150], STEPS[:200]])
    np.testing.assert_array_equal(read.values["II"], second.astype(np.float32))
    np.testing.assert_array_equal(read.values["abp"], pressure.astype(np.float32))
    assert read.units == {"II": "mV", "abp": "mmHg"}
    assert read.comments == ["a comment"]
    assert joined(sorted(tmp_path.glob("*.hea"))).keys() == {
        tmp_path / f"s_{part}.hea" for part in ("layout", "0001", "0002", "0003")
    }
    with pytest.raises(BadRecord, match="m.hea: no channel 'V', there are II, ABP"):
        read_channels(tmp_path / "m", ["V"])


def test_the_whole_agrees_with_wfdb_where_wfdb_can_read_it(tmp_path):
    path = variable(tmp_path, second="16 500(0)/mV 16 0 0 0 0 II")
    whole = wfdb.rdrecord(str(path.with_suffix("")), channel_names=["II", "ABP"])
    read = read_channels(path, ["II", "ABP"])
    np.testing.assert_allclose(np.stack(list(read.values.values()), 1), whole.p_signal, atol=1e-6)


def test_units_of_one_quantity_may_differ_between_segments(tmp_path):
    read = read_channels(variable(tmp_path, second="16 0.25(0)/uV 16 0 0 0 0 II"), ["II"])
    np.testing.assert_allclose(read.values["II"][-200:], STEPS[200:] / 250, rtol=1e-6)


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ("16 250(0)/mmHg 16 0 0 0 0 II", "channel 'II' has other units in other segments"),
        ("16 x/mV 16 0 0 0 0 II", "s_0003.hea: channel 'II': 'x/mV' is no gain"),
    ],
)
def test_segments_that_contradict_each_other(second, said, tmp_path):
    with pytest.raises(BadRecord, match=said):
        read_channels(variable(tmp_path, second), ["II"])


def test_damaged_recordings_of_several_segments(tmp_path):
    path = variable(tmp_path)
    header = (tmp_path / "s_0002.hea").read_text()
    (tmp_path / "s_0002.hea").write_text(header.replace("100 50", "100 49"))
    with pytest.raises(BadRecord, match="s_0002.hea: 49 samples, of which m.hea says 50"):
        read_channels(path, ["II"])
    (tmp_path / "s_0002.hea").write_text(header.replace("100 50", "125 50"))
    with pytest.raises(BadRecord, match="s_0002.hea: 125 Hz, the whole m.hea 100 Hz"):
        read_channels(path, ["II"])
    (tmp_path / "s_0002.hea").unlink()
    with pytest.raises(BadRecord, match="m.hea: its segment s_0002.hea is absent: copy it beside"):
        read_channels(path, ["II"])
    with pytest.raises(BadRecord, match="s_layout.hea: lists channels, but no samples"):
        read_channels(tmp_path / "s_layout", ["II"])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_segments_read_back(data, tmp_path):
    """Random recordings of several segments: the samples of each channel, in order, with what is absent missing."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**31)))
    each = {"a": 1, "b": int(rng.integers(1, 4))}
    expected = {"a": [], "b": []}
    lines = []
    for number in range(int(rng.integers(2, 6))):
        frames = int(rng.integers(1, 40))
        names = [name for name in ("a", "b") if rng.random() < 0.7] if number else ["a", "b"]
        steps = {name: rng.integers(-999, 999, frames * each[name]) for name in names}
        gain = float(rng.integers(1, 9))
        for name in expected:
            expected[name].append(steps[name] / gain if name in steps else np.full(frames * each[name], np.nan))
        lines.append(f"{'~' if not names else f'p{number}'} {frames}")
        if names:
            wfdb.wrsamp(f"p{number}", 10, ["NU"] * len(names), names, e_d_signal=[steps[name] for name in names],
                        samps_per_frame=[each[name] for name in names], fmt=["16"] * len(names),
                        adc_gain=[gain] * len(names), baseline=[0] * len(names), write_dir=str(tmp_path))  # fmt: skip
    total = sum(int(line.split()[1]) for line in lines)
    (tmp_path / "whole.hea").write_text("\n".join([f"whole/{len(lines)} 2 10 {total}", *lines]) + "\n")
    read = read_channels(tmp_path / "whole", ["a", "b"])
    for name, parts in expected.items():
        np.testing.assert_array_equal(read.values[name], np.concatenate(parts).astype(np.float32))
        assert read.rates[name] == 10 * each[name]


def test_a_header_of_old_computers(tmp_path):
    path = put(tmp_path, "r", "16 1000/mV 16 0 0 0 0 II")
    path.write_bytes(b"# before\r\n\r\n" + path.read_bytes().replace(b"\n", b"\r\n") + b"#after\r\n")
    assert read_header(path).comments == ("before", "after")
    assert len(read_channels(path, ["II"]).values["II"]) == 400
