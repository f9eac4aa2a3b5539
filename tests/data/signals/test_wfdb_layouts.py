"""Folders of WFDB records as archives lay them out: segments, several rates, folders of patients, other leads."""

import warnings

import numpy as np
import pytest
import wfdb
from signal_files import waves, write_wfdb

from fedlit.data import BySubject, WFDBFolder
from fedlit.data.base.records import BadRecord
from fedlit.errors import FedlitError

SMALL = {"context_length": 40, "prediction_length": 10, "val_fraction": 0.0, "test_fraction": 0.4}


def bedside(folder, number, layout=True):
    """A record of the MIMIC-III matched waveforms: master, layout, numerics, segments of other channels, a gap."""
    folder = folder / "p00" / f"p{number:06d}"
    base = f"3{number:06d}"
    write_wfdb(folder, f"{base}_0001", leads=("II", "PLETH"), rate=125.0)
    write_wfdb(folder, f"{base}_0002", leads=("V",), rate=125.0)
    write_wfdb(folder, f"{base}_0003", leads=("II",), rate=125.0, size=2.0)
    master = f"p{number:06d}-2110-01-02-03-04"
    parts = [f"{base}_0001 500", "~ 125", f"{base}_0002 500", f"{base}_0003 500"]
    if layout:
        lines = [f"~ 0 1000(0)/mV 16 0 0 0 0 {lead}" for lead in ("II", "PLETH", "V")]
        (folder / f"{base}_layout.hea").write_text("\n".join([f"{base}_layout 3 125 0 10:00:00.123", *lines]) + "\n")
        parts = [f"{base}_layout 0", *parts]
    first = f"{master}/{len(parts)} 3 125 1625 03:04:05.678 02/01/2110"
    (folder / f"{master}.hea").write_text("\n".join([first, *parts]) + "\n")
    return master


def test_bedside_monitors(tmp_path):
    masters = [bedside(tmp_path, number) for number in range(4)]
    data = WFDBFolder(tmp_path, site_pattern="^(p)", subject_pattern="^(p[0-9]{6})-", **SMALL)
    with pytest.warns(UserWarning, match=r"16 header\(s\) are segments or layouts of 4 recording\(s\)"):
        data.setup()
    assert [r.id for r in data.records] == masters
    assert {len(r.values) for r in data.records} == {1625}
    values = data.records[0].values
    np.testing.assert_array_equal(np.isnan(values), np.repeat([False, True, False], [500, 625, 500]))
    assert np.nanmax(values[-500:]) > 1.5 * np.nanmax(values[:500])
    assert data.describe()["gaps"][masters[0]] == {"gaps": 1, "samples": 625}


def test_a_damaged_segment_costs_its_recording_alone(tmp_path):
    masters = [bedside(tmp_path, number) for number in range(4)]
    next(tmp_path.rglob("3000002_0003.dat")).write_bytes(b"")
    given = {"site_pattern": "^(p)", "subject_pattern": "^(p[0-9]{6})-", **SMALL}
    with pytest.raises(BadRecord, match=r"3000002_0003.hea: signals cannot be read.*data.exclude \['p000002"):
        WFDBFolder(tmp_path, **given).setup()
    data = WFDBFolder(tmp_path, on_bad_record="skip", **given)
    data.setup()
    assert [r.id for r in data.records] == [masters[0], masters[1], masters[3]]


def test_excluding_a_master_does_not_free_its_segments(tmp_path):
    masters = [bedside(tmp_path, number, layout=False) for number in range(3)]
    data = WFDBFolder(tmp_path, site_pattern="^(p)", subject_pattern="(.+)", exclude=[masters[0]], **SMALL)
    data.setup()
    assert [r.id for r in data.records] == masters[1:]


def test_channels_of_several_rates(tmp_path):
    made = waves(1, 1600, 250.0)[0]
    for number in range(4):
        steps = np.round(1000 * made).astype("int64")
        wfdb.wrsamp(f"drive{number}", 62.5, ["mV", "l"], ["II", "RESP"], e_d_signal=[steps, steps[::4]],
                    samps_per_frame=[4, 1], fmt=["16", "16"], adc_gain=[1000.0, 1000.0], baseline=[0, 0],
                    write_dir=str(tmp_path))  # fmt: skip
    data = WFDBFolder(tmp_path, {"II": "ecg", "RESP": "resp"}, subject_pattern="(.+)", **SMALL)
    data.setup()
    assert {(r.kind, r.rate, len(r.values)) for r in data.records} == {("ecg", 250.0, 1600), ("resp", 62.5, 400)}
    assert max(float(np.abs(r.values - made).max()) for r in data.records if r.kind == "ecg") < 6e-4


def test_one_lead_or_another(tmp_path):
    for number, lead in enumerate(("MLII", "II", "MCL1", "V9")):
        write_wfdb(tmp_path, f"e{number}", leads=(lead, "ABP"))
    given = {"subject_pattern": "(.+)", "on_bad_record": "skip", **SMALL}
    data = WFDBFolder(tmp_path, {"ecg": ["MLII", "II", "MCL1"], "ABP": "bp"}, **given)
    with pytest.warns(UserWarning, match=r"1 bad record\(s\) skipped, 7 kept: e3-ecg"):
        data.setup()
    assert [r.id for r in data.records if r.kind == "ecg"] == ["e0-ecg", "e1-ecg", "e2-ecg"]
    assert [r.id for r in data.records if r.kind == "bp"] == [f"e{n}-ABP" for n in range(4)]
    used = {"II": ["e1-ecg"], "MCL1": ["e2-ecg"], "MLII": ["e0-ecg"]}
    assert data.describe()["channels_used"] == {"ecg": used}
    assert "no channel 'MLII' or 'II' or 'MCL1', there are V9, ABP" in data.describe()["excluded"][0]["reason"]
    plain = WFDBFolder(tmp_path, {"MLII": "ecg", "II": "ecg", "MCL1": "ecg", "V9": "ecg"}, **given)
    plain.setup()
    assert [r.id for r in plain.records] == ["e0-MLII", "e1-II", "e2-MCL1", "e3-V9"]
    assert "channels_used" not in plain.describe()


def test_two_leads_of_one_name_are_both_read_where_they_are_asked_for(tmp_path):
    for number in range(3):
        write_wfdb(tmp_path, f"h{number}", leads=("II", "V1"))
        header = tmp_path / f"h{number}.hea"
        header.write_text(header.read_text().replace(" II\n", " ECG\n").replace(" V1\n", " ECG\n"))
    with pytest.raises(BadRecord, match=r"2 channels are named 'ECG': .*ask for ECG#1 or ECG#2.*data.exclude \['h0'\]"):
        WFDBFolder(tmp_path, {"ECG": "ecg"}, **SMALL).setup()
    data = WFDBFolder(tmp_path, {"ECG#1": "ecg", "ecg#2": "ecg"}, subject_pattern="(.+)", **SMALL)
    data.setup()
    assert [r.id for r in data.records][:2] == ["h0-ECG#1", "h0-ecg#2"]
    assert not np.array_equal(data.records[0].values, data.records[1].values)


def test_what_is_unusual_in_headers_is_said_once(tmp_path):
    for number in range(3):
        write_wfdb(tmp_path, f"A{number}", leads=("II",))
        header = tmp_path / f"A{number}.hea"
        text = header.read_text().replace("A0 1 200 800", "A0 1 200 800 2014-05-08 05:05:15")
        header.write_text(
            text.replace("1000(0)/mV", "0(0)/mV" if number == 1 else "1(0)/arb" if number == 2 else "5/mV")
        )
    data = WFDBFolder(tmp_path, subject_pattern="(.+)", **SMALL)
    with pytest.warns(UserWarning) as heard:  # noqa: PT030
        data.setup()
    said = [str(one.message) for one in heard]
    assert "1 file(s) have a date or time in another form, which is not needed: A0" in said
    assert "1 file(s) have no gain: 200 steps per mV, as the format says, uncalibrated: A1" in said
    assert any("ecg records have several units, and values of each: mV (A0, A1); arb (A2)" in text for text in said)
    assert set(said) <= set(data.describe()["warnings"])


def test_patients_by_folders(tmp_path):
    for person in range(3):
        for turn in range(2):
            write_wfdb(tmp_path / f"patient{person:03d}", f"s{turn}_re", leads=("i", "ii"))
    given = {"channels": {"II": "ecg"}, "site_pattern": "(re)", **SMALL}
    data = WFDBFolder(tmp_path, subject_pattern="(patient[0-9]+)/", partition=BySubject(), split="time", **given)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data.setup()
    assert [(r.id, r.subject) for r in data.records][:3] == [
        ("patient000/s0_re", "patient000"), ("patient000/s1_re", "patient000"), ("patient001/s0_re", "patient001"),
    ]  # fmt: skip
    with pytest.warns(UserWarning, match=r"look like subjects: set data.subject_pattern '\^\(\[\^/\]\+\)/'"):
        WFDBFolder(tmp_path, **given).setup()
    with pytest.raises(BadRecord, match="does not match data.subject_pattern '.Person.'.*look like subjects"):
        WFDBFolder(tmp_path, subject_pattern="(Person)", **given).setup()


def test_a_reference_table_without_a_header(tmp_path):
    for number in range(4):
        write_wfdb(tmp_path, f"A{number:05d}", leads=("II",))
    (tmp_path / "REFERENCE.csv").write_text("".join(f"A{n:05d},{'NA'[n % 2]}\n" for n in range(4)))
    data = WFDBFolder(tmp_path, subject_pattern="(.+)", table=tmp_path / "REFERENCE.csv", **SMALL)
    assert [(r.id, r.label) for r in data.read()] == [(f"A{n:05d}", "NA"[n % 2]) for n in range(4)]
    (tmp_path / "REFERENCE.csv").write_text("A00000,N\nA00000,A\n")
    with pytest.raises(FedlitError, match="record 'A00000' is listed more than once"):
        list(WFDBFolder(tmp_path, table=tmp_path / "REFERENCE.csv", **SMALL).read())


@pytest.mark.parametrize("given", [{"ecg": []}, {}, {"ecg": ["II", "V1"], "v1": "ecg"}])
def test_channels_that_cannot_be(given):
    with pytest.raises(FedlitError, match="data.channels (is empty|names a channel twice)"):
        WFDBFolder("x", given or {"a": []})


def test_a_stand_in_of_alternatives(tmp_path):
    data = WFDBFolder("absent", {"ecg": ["MLII", "II"], "icg": ["Z"]}, **SMALL)
    data.use_stand_in(tmp_path)
    data.setup()
    assert {r.kind for r in data.records} == {"ecg", "icg"}
