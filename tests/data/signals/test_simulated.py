import hashlib
from pathlib import Path

import numpy as np
import pytest
import wfdb

from fedlit.data import BySubject, FileList, Modality, Nested, SimulatedVitals
from fedlit.data.generated.heart import LEAD_MATRIX, LEADS, beats, simulate
from fedlit.data.generated.population import RATES, draw_site, draw_subject, stand_in_channels
from fedlit.errors import FedlitError
from fedlit.seeds import numpy_generator

FEW = {"subjects": 6, "sites": 3, "seconds": 10.0, "val_fraction": 0.0, "test_fraction": 0.5}


def digest(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(path.name.encode() + path.read_bytes() for path in files)).hexdigest()


def laws(lead: dict[str, np.ndarray]) -> float:
    """Largest departure from Einthoven's and Goldberger's laws."""
    return max(
        np.abs(lead["I"] + lead["III"] - lead["II"]).max(),
        np.abs(lead["aVR"] + (lead["I"] + lead["II"]) / 2).max(),
        np.abs(lead["aVL"] - (lead["I"] - lead["III"]) / 2).max(),
        np.abs(lead["aVF"] - (lead["II"] + lead["III"]) / 2).max(),
        np.abs(lead["aVR"] + lead["aVL"] + lead["aVF"]).max(),
    )


def test_limb_leads_obey_einthoven_and_goldberger():
    assert laws(dict(zip(LEADS, LEAD_MATRIX, strict=True))) < 1e-12
    for number in range(6):
        made = stand_in_channels(number, 250.0, 10.0, ("ecg",))
        assert laws(made) < 1e-6
        assert np.ptp(made["II"]) > 0.3


def test_written_records_obey_the_laws_within_quantisation(tmp_path):
    data = SimulatedVitals(tmp_path, **FEW)
    for header in data.folder().glob("*.hea"):
        record = wfdb.rdrecord(str(header.with_suffix("")))
        assert record.units[:12] == ["mV"] * 12
        assert record.adc_gain[0] == 1000
        assert laws(dict(zip(record.sig_name, record.p_signal.T, strict=True))) <= 2.1e-3


def test_same_arguments_same_bytes_and_only_once(tmp_path):
    first = SimulatedVitals(tmp_path / "a", kinds=["ecg", "icg"], **FEW).folder()
    second = SimulatedVitals(tmp_path / "b", kinds=["icg", "ecg"], seed=9, **FEW).folder()
    assert digest(first) == digest(second)
    assert first.name == second.name
    before = {path: path.stat().st_mtime_ns for path in first.iterdir()}
    data = SimulatedVitals(tmp_path / "a", kinds=["ecg", "icg"], **FEW)
    data.setup()
    assert {path: path.stat().st_mtime_ns for path in first.iterdir()} == before
    other = SimulatedVitals(tmp_path / "a", kinds=["ecg", "icg"], simulation_seed=1, **FEW).folder()
    assert digest(other) != digest(first)
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == sorted([first.name, other.name])


@pytest.mark.filterwarnings("ignore:.*different rates")
def test_sites_and_kinds(tmp_path):
    data = SimulatedVitals(tmp_path, kinds=["ecg", "icg"], rate=None, **FEW)
    data.setup()
    assert data.clients == ["site-1", "site-2", "site-3"]
    assert data.simulated
    assert data.describe()["simulated"] is True
    assert sorted({(r.site, r.rate) for r in data.records}) == [(f"site-{i + 1}", RATES[i]) for i in range(3)]
    assert {(r.kind, r.unit) for r in data.records} == {("ecg", "mV"), ("icg", "Ohm/s")}
    assert data.records[0].id == "subject-1-ecg"
    assert all(len(r.values) == 10 * r.rate for r in data.records)
    resampled = SimulatedVitals(tmp_path, **FEW)
    resampled.setup()
    assert {(r.rate, len(r.values)) for r in resampled.records} == {(100.0, 1000)}
    assert len(resampled.dataset("site-1", "train")) > 0


def test_lead_is_chosen_without_regard_to_case(tmp_path):
    one, two = (list(SimulatedVitals(tmp_path, lead=lead, **FEW).read()) for lead in ("avr", "II"))
    assert np.corrcoef(one[0].values, two[0].values)[0, 1] < 0


def test_heart_beats_are_physiological():
    for number in range(6):
        site, device = draw_site(0, number)
        heart = draw_subject(site, numpy_generator(0, "test", number))
        assert 45 < heart.rate < 115
        assert device.rate in RATES
        times, lengths, early = beats(heart, 120.0, numpy_generator(1, "test", number))
        assert 60 / lengths.mean() == pytest.approx(heart.rate, rel=0.15)
        assert 0.005 < lengths[~early].std() / lengths.mean() < 0.2
        assert times[0] < 0
        assert times[-1] > 120


def test_icg_peaks_follow_the_r_peaks():
    site, device = draw_site(0, 0)
    made = simulate(site, device, 30.0, ("ecg", "icg"), numpy_generator(3, "test"))
    lags = np.arange(0, int(0.4 * device.rate))
    r_wave = np.clip(made["II"] - np.quantile(made["II"], 0.98), 0, None)
    follow = [np.dot(r_wave[: -lags[-1] or None], made["ICG"][lag : lag + len(r_wave) - lags[-1]]) for lag in lags]
    assert 0.08 < lags[int(np.argmax(follow))] / device.rate < 0.2


def test_the_default_is_within_a_few_seconds(tmp_path):
    data = SimulatedVitals(tmp_path)
    data.setup()
    assert len(data.clients) == 6
    assert all(sum(client["windows"].values()) > 300 for client in data.describe()["clients"].values())
    assert data.describe()["warnings"] == []


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"sites": 7, "subjects": 6}, "1 <= sites <= subjects"),
        ({"lead": "V9"}, "give one of I, II"),
        ({"kinds": ["eeg"]}, "give ecg, icg or both"),
    ],
)
def test_arguments(kwargs, message):
    with pytest.raises(FedlitError, match=message):
        SimulatedVitals(**kwargs)


def test_a_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FedlitError, match="give a folder that can be written as data.root"):
        SimulatedVitals(tmp_path / "file", **FEW).setup()
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_cache_folder_of_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDLIT_CACHE", str(tmp_path / "cache"))
    assert SimulatedVitals(**FEW).folder().parent == tmp_path / "cache"


def test_stand_in_is_short_and_says_so(tmp_path):
    listed = Nested(FileList(str(tmp_path / "absent.csv")), BySubject())
    data = SimulatedVitals(tmp_path / "own", subjects=12, sites=2, seconds=600.0, partition=listed)
    with pytest.warns(UserWarning, match="stand-in: .* the default partition is used"):
        data.use_stand_in(tmp_path / "stand-in")
    data.setup()
    assert not (tmp_path / "own").exists()
    assert data.describe()["stand_in"] is True
    assert len(data.records[0].values) < 1000


def test_nineteen_ecg_clients_and_one_icg(tmp_path):
    data = SimulatedVitals(
        tmp_path, subjects=20, sites=4, seconds=20.0, kinds=["ecg", "icg"], split="time", context_length=64,
        partition=Modality(BySubject(20), kind="icg"),
    )  # fmt: skip
    kinds = [client["kinds"] for client in data.describe()["clients"].values()]
    assert kinds == [["ecg"]] * 19 + [["icg"]]


def test_two_processes_that_write_at_once_agree(tmp_path, monkeypatch):
    import fedlit.data.signals.simulated as simulated

    data, other = SimulatedVitals(tmp_path, **FEW), SimulatedVitals(tmp_path, **FEW)
    write = simulated.write_channels
    raced = []

    def slow(*args):
        if not raced:
            raced.append(True)
            other.folder()
        write(*args)

    monkeypatch.setattr(simulated, "write_channels", slow)
    folder = data.folder()
    assert list(tmp_path.iterdir()) == [folder]
    assert len(list(folder.glob("*.hea"))) == 6
