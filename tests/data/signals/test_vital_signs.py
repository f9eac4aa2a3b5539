import h5py
import numpy as np
import pytest
from scipy.io import savemat

from fedlit.data import BadRecord, BySubject, Modality, VitalSigns
from fedlit.data.signals.vital_signs import BEST_LEADS
from fedlit.errors import FedlitError

SMALL = {"context_length": 64, "prediction_length": 16}


def variables(seconds: float = 5.0, size: float = 1.0) -> dict:
    def wave(rate):
        return size * np.sin(np.arange(int(seconds * rate)) / rate * 6)[:, None]

    return {
        "radar_I": wave(2000), "radar_Q": wave(2000), "fs_radar": 2000, "TFM_ECG1": 3 * wave(2000),
        "tfm_ecg2": wave(2000), "fs_ecg": 2000, "tfm_icg": wave(1000), "fs_icg": 1000, "tfm_bp": 80 + wave(200),
        "fs_bp": 200, "tfm_z0": wave(100), "fs_z0": 100, "tfm_param": np.zeros((0, 0)),
        "measurement_info": np.array(["2018", "Resting", "GDN0001"], object),
    }  # fmt: skip


def write(root, subject, k, scenario, seconds=5.0, **changes):
    folder = root / f"GDN{subject:04d}"
    folder.mkdir(exist_ok=True)
    savemat(folder / f"GDN{subject:04d}_{k}_{scenario}.mat", variables(seconds) | changes)
    return folder / f"GDN{subject:04d}_{k}_{scenario}.mat"


def test_each_channel_at_its_own_rate_and_any_case(tmp_path):
    write(tmp_path, 1, 1, "Resting")
    data = VitalSigns(tmp_path, ["tfm_ecg1", "TFM_icg", "tfm_bp", "tfm_z0", "radar_i"])
    read = {r.kind: r for r in data.read()}
    assert {kind: r.rate for kind, r in read.items()} == {"ecg": 2000, "icg": 1000, "bp": 200, "z0": 100, "radar": 2000}
    assert {kind: len(r.values) for kind, r in read.items()} == {
        "ecg": 10000, "icg": 5000, "bp": 1000, "z0": 500, "radar": 10000,
    }  # fmt: skip
    assert read["ecg"].id == "GDN0001-Resting-tfm_ecg1"
    assert read["ecg"].values.max() == pytest.approx(3, abs=0.01)
    assert {r.values.dtype for r in read.values()} == {np.dtype(np.float32)}


def test_the_scenario_is_the_last_word_not_the_number(tmp_path):
    write(tmp_path, 1, 3, "TiltUp")
    write(tmp_path, 4, 3, "Apnea")
    write(tmp_path, 4, 1, "Resting")
    assert [r.id for r in VitalSigns(tmp_path).read()] == ["GDN0004-Resting"]
    with pytest.warns(UserWarning, match=r"scenario tiltup: no file of 1 subject\(s\): GDN0004"):
        both = list(VitalSigns(tmp_path, scenarios=["tiltup", "Apnea"]).read())
    assert [r.id for r in both] == ["GDN0001-TiltUp", "GDN0004-Apnea"]
    with pytest.raises(FedlitError, match="no scenario 'Valsalva', there are Apnea, Resting, TiltUp"):
        list(VitalSigns(tmp_path, scenarios=["Valsalva"]).read())


def test_the_authors_lead(tmp_path):
    assert [i + 1 for i, lead in enumerate(BEST_LEADS) if lead == 1] == [6, 15, 21, 22]
    for subject in (5, 6):
        write(tmp_path, subject, 1, "Resting")
    five, six = VitalSigns(tmp_path, ["ecg_best"]).read()
    assert six.values.max() == pytest.approx(3 * five.values.max())


def test_a_gap_as_in_gdn0003(tmp_path):
    signal = variables(10.0)["tfm_ecg2"]
    signal[4000:4041] = np.nan
    write(tmp_path, 3, 1, "Resting", seconds=10.0, tfm_ecg2=signal)
    data = VitalSigns(tmp_path, **SMALL)
    described = data.describe()
    assert described["gaps"] == {"GDN0003-Resting": {"gaps": 1, "samples": 41}}
    assert data.clients == ["subject-GDN0003"]
    assert described["clients"]["subject-GDN0003"]["windows_missing"] >= 1
    assert VitalSigns(tmp_path, rate=100, **SMALL).describe()["gaps"]["GDN0003-Resting"]["samples"] == 3


def test_version_7_3(tmp_path):
    (tmp_path / "GDN0001").mkdir()
    with h5py.File(tmp_path / "GDN0001" / "GDN0001_1_Resting.mat", "w", userblock_size=512) as file:
        file["tfm_ecg2"] = variables()["tfm_ecg2"].T
        file["fs_ecg"] = np.array([[2000.0]])
    with (tmp_path / "GDN0001" / "GDN0001_1_Resting.mat").open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
    (record,) = VitalSigns(tmp_path).read()
    assert (len(record.values), record.rate) == (10000, 2000)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fs_ecg": 0}, r"fs_ecg is \[0.0\]"),
        ({"fs_ecg": [1, 2]}, r"fs_ecg is \[1.0, 2.0\]"),
        ({"tfm_ecg2": np.array(["a", "b"], object)}, "cannot be read as a MATLAB file"),
    ],
)
def test_malformed_files_are_named(tmp_path, changes, message):
    path = write(tmp_path, 1, 1, "Resting", **changes)
    with pytest.raises(BadRecord, match=f"{path.name}.*{message}"):
        list(VitalSigns(tmp_path).read())


def test_files_that_cannot_be_read(tmp_path):
    path = write(tmp_path, 1, 1, "Resting")
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(BadRecord, match="GDN0001_1_Resting.mat"):
        list(VitalSigns(tmp_path).read())
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "other").write_text("")
    with pytest.raises(FedlitError, match="no scenario 'Resting', there are no file"):
        list(VitalSigns(tmp_path / "sub").read())
    with pytest.raises(FedlitError, match="data.channels: no 'ecg', there are tfm_ecg1"):
        VitalSigns(tmp_path, ["ecg"])
    absent = {name: value for name, value in variables().items() if name != "tfm_icg"}
    savemat(path, absent)
    with pytest.raises(BadRecord, match="no variable 'tfm_icg', there are .*tfm_ecg2"):
        list(VitalSigns(tmp_path, ["tfm_icg"]).read())


def test_the_three_strategies_of_the_paper_on_stand_ins(tmp_path):
    paper = {"context_length": 512, "prediction_length": 64, "parity": True, "eval_windows": 50}
    first = VitalSigns("absent", partition=BySubject(20), **paper)
    first.use_stand_in(tmp_path / "first")
    described = first.describe()
    assert [len(client["subjects"]) for client in described["clients"].values()] == [2] * 10 + [1] * 10
    assert {client["split"] for client in described["clients"].values()} == {"time 60/40"}
    assert described["simulated"]
    third = VitalSigns("absent", ["tfm_ecg2", "tfm_icg"], partition=Modality(BySubject(20), "icg"), **paper)
    third.use_stand_in(tmp_path / "third")
    kinds = [client["kinds"] for client in third.describe()["clients"].values()]
    assert kinds == [["ecg"]] * 19 + [["icg"]]
    batch = third.dataset("client-20", "train").__getitems__(range(3))
    assert batch["kind"] == ["icg"] * 3
