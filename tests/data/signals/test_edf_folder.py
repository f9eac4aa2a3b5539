"""EDF recordings to forecast: as sleep and epilepsy archives have them."""

import json

import numpy as np
import pytest
from edf_files import SECRET, set_onsets, write
from signal_files import waves

from fedlit.data import EDFFolder
from fedlit.data.base.records import BadRecord
from fedlit.errors import FedlitError

SMALL = {"context_length": 40, "prediction_length": 10, "val_fraction": 0.0, "test_fraction": 0.4}


def record(path, seconds=20, labels=("EEG Fpz-Cz", "Resp oro-nasal"), **more):
    made = {labels[0]: (1000 * waves(1, 100 * seconds, 100.0)[0], 100, "uV")}
    made |= {name: (waves(1, 10 * seconds, 10.0)[0], 10, "l") for name in labels[1:]}
    return write(path, made, **more)


def test_each_channel_at_its_own_rate(tmp_path):
    for person in ("SC400", "SC401"):
        for night in (1, 2):
            record(tmp_path / f"{person}{night}E0-PSG.edf")
            write(tmp_path / f"{person}{night}EC-Hypnogram.edf", {}, [(0, 20, "Sleep stage W")])
    channels = {"eeg fpz-cz": "eeg", "Resp oro-nasal": "resp"}
    data = EDFFolder(tmp_path, channels, subject_pattern="^SC4([0-9]{2})", **SMALL)
    data.setup()
    assert len(data.records) == 8
    assert {(r.kind, r.rate, r.unit, len(r.values)) for r in data.records} == {
        ("eeg", 100.0, "mV", 2000),
        ("resp", 10.0, "l", 200),
    }
    eeg = next(r for r in data.records if r.kind == "eeg")
    np.testing.assert_allclose(eeg.values, waves(1, 2000, 100.0)[0], atol=1e-4)
    assert sorted({r.subject for r in data.records}) == ["00", "01"]
    assert len(data.clients) == 2
    told = json.dumps(data.describe())
    assert SECRET not in told
    assert "mrn" not in told


def test_gaps_of_discontinuous_files_stay_gaps(tmp_path):
    for number in range(2):
        path = record(tmp_path / f"a{number}.edf", seconds=10, annotations=[(0.0, 1.0, "x")])
        set_onsets(path, [0, 1, 2, 3, 4, 9, 10, 11, 12, 13])
    data = EDFFolder(tmp_path, {"EEG Fpz-Cz": "eeg"}, **SMALL)
    data.setup()
    assert [len(r.values) for r in data.records] == [1400, 1400]
    assert data.describe()["gaps"] == {f"a{n}": {"gaps": 1, "samples": 400} for n in range(2)}


def test_alternatives_and_sites_from_folders(tmp_path):
    for number, label in enumerate(("EKG", "ECG", "ECG II", "V")):
        record(tmp_path / f"hospital{number % 2}" / f"p{number}.edf", labels=(label, "Resp"))
    given = {"subject_pattern": "(p[0-9])", "site_pattern": "^(hospital[0-9])/", "on_bad_record": "skip"}
    data = EDFFolder(tmp_path, {"ecg": ["ECG", "EKG", "ECG II"], "Resp": "resp"}, **given, **SMALL)
    with pytest.warns(UserWarning, match=r"1 bad record\(s\) skipped, 7 kept: p3-ecg"):
        data.setup()
    assert {r.site for r in data.records} == {"hospital0", "hospital1"}
    assert data.describe()["channels_used"] == {"ecg": {"ECG": ["p1-ecg"], "ECG II": ["p2-ecg"], "EKG": ["p0-ecg"]}}


def test_files_that_are_none(tmp_path):
    (tmp_path / "a.hea").write_text("x")
    with pytest.raises(FedlitError, match=r"no EDF recording \(.edf, .bdf\), it holds 1 .hea.*WFDBFolder"):
        EDFFolder(tmp_path, {"ECG": "ecg"}, **SMALL).setup()
    (tmp_path / "b.edf").write_text("no such thing")
    with pytest.raises(BadRecord, match="b.edf: is no EDF file that can be read"):
        EDFFolder(tmp_path, {"ECG": "ecg"}, **SMALL).setup()
    with pytest.raises(FedlitError, match="data.channels is empty"):
        EDFFolder(tmp_path, {}, **SMALL)


def test_a_stand_in(tmp_path):
    data = EDFFolder("absent", {"ecg": ["ECG", "EKG"], "Z": "icg"}, subject_pattern="(x)", table="t.csv", **SMALL)
    data.use_stand_in(tmp_path)
    data.setup()
    assert len(data.clients) == 24
