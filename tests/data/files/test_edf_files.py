"""EDF files of edfio and by hand: values, rates, units, gaps and annotations are read back."""

import builtins

import numpy as np
import pytest
from edf_files import SECRET, set_onsets, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedlit.data.base.records import BadRecord
from fedlit.data.files.edf import EDFRecord, has_signals, write_edf
from fedlit.errors import FedlitError


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_what_edfio_writes_is_read_back(data, tmp_path):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**31)))
    seconds = data.draw(st.integers(1, 9))
    rates = data.draw(st.lists(st.sampled_from([1, 50, 62, 128, 256]), min_size=1, max_size=4))
    units = data.draw(
        st.lists(st.sampled_from(["uV", "mV", "V", "mmHg", ""]), min_size=len(rates), max_size=len(rates))
    )
    made = {f"c{i}": (np.append(rng.normal(0, 9, rate * seconds - 1), 30), rate, unit)
            for i, (rate, unit) in enumerate(zip(rates, units, strict=True))}  # fmt: skip
    marks = [(float(start), float(length), text) for start, length, text in
             data.draw(st.lists(st.tuples(st.integers(0, seconds - 1), st.integers(1, 3),
                                          st.sampled_from(["W", "Größe", "x y"])), max_size=3))]  # fmt: skip
    path = write(tmp_path / "a.edf", made, marks)
    record = EDFRecord(path)
    read = record.read([record.find(name.upper()) for name in made])
    for name, (values, rate, unit) in made.items():
        factor = {"uV": 1e-3, "V": 1e3}.get(unit, 1.0)
        step = factor * (values.max() - values.min()) / 65535
        np.testing.assert_allclose(read.values[name.upper()], values * factor, atol=step * 1.5)
        assert read.rates[name.upper()] == rate
        assert read.units[name.upper()] == ("mV" if unit.endswith("V") else unit)
    assert sorted(record.annotations()) == sorted(marks)
    assert record.seconds == seconds


def test_digital_steps_are_as_edfio_has_them(tmp_path):
    import edfio

    path = write(tmp_path / "a.edf", {"x": (np.random.default_rng(0).normal(0, 1, 500), 100, "au")})
    np.testing.assert_allclose(EDFRecord(path).read(["x"]).values["x"], edfio.read_edf(path).signals[0].data, rtol=1e-6)


def test_bdf_files_of_24_bits(tmp_path):
    import edfio

    values = np.random.default_rng(0).normal(0, 100, 1000)
    edfio.Bdf([edfio.BdfSignal(values, 250, label="Fz", physical_dimension="uV")]).write(tmp_path / "a.bdf")
    read = EDFRecord(tmp_path / "a.bdf").read(["Fz"])
    np.testing.assert_allclose(read.values["Fz"], values / 1000, atol=1e-7)
    assert read.units == {"Fz": "mV"}


@pytest.mark.parametrize("sign", [b"\xb5V", b"\xc2\xb5V", b"\xce\xbcV"])
def test_micro_signs(sign, tmp_path):
    path = write(tmp_path / "a.edf", {"II": (np.linspace(-1000, 1000, 100), 100, "uV")})
    content = bytearray(path.read_bytes())
    place = content.index(b"uV      ")
    content[place : place + 8] = sign.ljust(8)
    path.write_bytes(content)
    read = EDFRecord(path).read(["II"])
    assert read.units == {"II": "mV"}
    assert read.values["II"].max() == pytest.approx(1.0, abs=1e-3)


def test_gaps_of_discontinuous_files_are_missing(tmp_path):
    made = {"a": (np.arange(500.0), 100, "mV"), "b": (np.arange(50.0), 10, "mV")}
    path = write(tmp_path / "a.edf", made, [(0.5, 1.0, "x")])
    set_onsets(path, [0, 1, 4, 5.5, 9])
    read = EDFRecord(path).read(["a", "b"])
    for name, rate in (("a", 100), ("b", 10)):
        expected = np.full(rate * 10, np.nan)
        for block, start in enumerate([0, 1, 4, 5.5, 9]):
            expected[int(start * rate) :][:rate] = made[name][0][block * rate :][:rate]
        np.testing.assert_allclose(read.values[name], expected, atol=0.01)
        np.testing.assert_array_equal(np.isnan(read.values[name]), np.isnan(expected))
    assert EDFRecord(path).seconds == 10


def test_a_file_that_says_it_is_continuous_and_is_not(tmp_path):
    path = write(tmp_path / "a.edf", {"a": (np.arange(300.0), 100, "mV")}, [(0.5, 1.0, "x")])
    set_onsets(path, [0, 1, 7], b"EDF+C")
    assert np.isnan(EDFRecord(path).read(["a"]).values["a"]).sum() == 500


@pytest.mark.parametrize("onsets", [[0, 0.5, 2], [0, 2, 1]])
def test_blocks_that_overlap(onsets, tmp_path):
    path = write(tmp_path / "a.edf", {"a": (np.arange(300.0), 100, "mV")}, [(0.5, 1.0, "x")])
    set_onsets(path, onsets)
    with pytest.raises(BadRecord, match="a.edf: blocks overlap in time, or run back"):
        EDFRecord(path).read(["a"])


def test_two_channels_of_one_label(tmp_path):
    import edfio

    signals = [edfio.EdfSignal(np.arange(100.0) * k, 100, label=name, physical_dimension="mV")
               for k, name in ((1, "ECG"), (2, "ecg"))]  # fmt: skip
    edfio.Edf(signals).write(tmp_path / "a.edf")
    record = EDFRecord(tmp_path / "a.edf")
    with pytest.raises(
        BadRecord, match=r"2 channels are named 'ECG': .*\(channel 1\) and .*\(channel 2\): ask for ECG#1"
    ):
        record.find("ECG")
    assert record.read(["ECG#2"]).values["ECG#2"].max() == pytest.approx(198)
    with pytest.raises(BadRecord, match="no channel 'V1' or 'V2', there are ECG, ecg"):
        record.find(["V1", "V2"])


def damaged(path, change):
    content = bytearray(path.read_bytes())
    change(content)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.__delitem__(slice(len(c) - 300, None)), "is cut short, it has 3 of 5 blocks"),
        (lambda c: c.__delitem__(slice(100, None)), "is no EDF file that can be read"),
        (lambda c: c.__setitem__(slice(252, 256), b"many"), "is no EDF file that can be read"),
        (lambda c: c.__delitem__(slice(2, 10)), "is no EDF file that can be read"),
    ],
)
def test_damaged_files_show_nothing_of_the_patient(change, said, tmp_path):
    path = write(tmp_path / "a.edf", {"a": (np.arange(500.0), 100, "mV")})
    damaged(path, change)
    with pytest.raises(BadRecord, match=f"a.edf: {said}") as error:
        EDFRecord(path).read(["a"])
    assert "Doe" not in str(error.value)
    assert "mrn" not in str(error.value)


def test_a_channel_that_is_not_calibrated(tmp_path):
    path = write(tmp_path / "a.edf", {"a": (np.arange(100.0), 100, "mV"), "b": (np.arange(100.0), 100, "mV")})
    content = bytearray(path.read_bytes())
    place = 256 + 2 * (16 + 80 + 8)
    content[place : place + 8] = content[place + 16 : place + 24]  # the first physical minimum, by the maximum
    path.write_bytes(content)
    record = EDFRecord(path)
    with pytest.raises(BadRecord, match="a.edf: channel 'a' is not calibrated"):
        record.find("a")
    assert record.find("b") == "b"


def test_a_file_of_annotations_alone(tmp_path):
    path = write(tmp_path / "h.edf", {}, [(0, 30, "Sleep stage W")])
    assert not has_signals(path)
    assert EDFRecord(path).annotations() == [(0, 30, "Sleep stage W")]
    assert SECRET.replace(" ", "_").encode() in path.read_bytes()


def test_without_edfio(tmp_path, monkeypatch):
    path = tmp_path / "a.edf"
    write_edf(path, 100, {"a": np.arange(100.0)}, {"a": "mV"})
    real = builtins.__import__

    def absent(name, *rest, **more):
        if name == "edfio":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(FedlitError, match=r"pip install fedlit\[edf\]"):
        EDFRecord(path)
