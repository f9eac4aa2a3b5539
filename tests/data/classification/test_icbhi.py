"""ICBHI 2017 in its official layout."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
from jsonargparse import ArgumentParser

from fedlit.data import IID, BySite, Dirichlet, FederatedDataModule, PairwiseDirichlet
from fedlit.data.base.records import BadRecord
from fedlit.data.classification.icbhi import CYCLES, ICBHI
from fedlit.errors import FedlitError

SPLITS = ("train", "val", "test")
STEM = "101_1b1_Al_sc_Meditron"
LINES = "0.036\t0.579\t0\t0\n0.579\t1.000\t1\t0\n1\t1.5\t0\t1\n1.5\t2.02\t1\t1\n"


def recording(folder, stem=STEM, lines=LINES, rate=4000, seconds=2.0):
    folder.mkdir(parents=True, exist_ok=True)
    ramp = np.arange(round(rate * seconds), dtype=np.float32) / (rate * seconds)
    soundfile.write(str(folder / f"{stem}.wav"), ramp, rate, subtype="FLOAT")
    if lines is not None:
        (folder / f"{stem}.txt").write_text(lines)
    return folder / f"{stem}.wav"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"parity": True, "fraction": 0.3},
        {"split": "stratified", "server_examples": 20, "exclude": ["x*"]},
        {"split": "fold"},
        {"partition": PairwiseDirichlet(6, 0.1)},
        {"partition": Dirichlet(5, 0.5, min_records=10), "val_fraction": 0.0},
    ],
)
def test_a_stand_in_is_read_back(arguments, tmp_path):
    data = ICBHI("absent", seconds=0.25, **arguments)
    data.use_stand_in(tmp_path)
    description = data.describe()
    assert description["simulated"]
    assert data.classes == list(CYCLES)
    asked = arguments.get("partition", PairwiseDirichlet(20, 0.1) if data.parity else None)
    assert len(data.clients) == (asked.clients if asked else 4)
    for client in data.clients:
        for split in SPLITS:
            wanted = split != "val" or data.val_fraction > 0 or data.parity
            assert (len(data.dataset(client, split)) > 0) == wanted
    batch = data.dataset(data.clients, "test").__getitems__([0, 1])
    assert tuple(batch["x"].shape) == (2, 4000)
    if not arguments:
        assert isinstance(data.usual_partition(), BySite)
        assert data.clients == ["site-AKGC417L", "site-Litt3200", "site-LittC2SE", "site-Meditron"]
        assert description["leaks"] == {"subjects": 0, "duplicates": 0}


def test_cycles(tmp_path):
    """Numbers of the second cycle by hand: samples 2316 to 4000 of a ramp of 8000."""
    recording(tmp_path / "ICBHI_final_database")
    (tmp_path / "ICBHI_challenge_train_test.txt").write_text(f"{STEM}\ttest\n199_x_Al_sc_Meditron\ttrain\n")
    data = ICBHI(tmp_path, rate=4000, seconds=0.4, padding="crop")
    read = data.read()
    assert [example.id for example in read] == [f"{STEM}-0{k}" for k in (1, 2, 3, 4)]
    assert [example.label for example in read] == list(CYCLES)
    assert {(e.subject, e.site, e.kind, e.rate, e.fold) for e in read} == {("101", "Meditron", "audio", 4000, "test")}
    np.testing.assert_allclose(read[1].value, np.arange(2316, 3916) / 8000, atol=1e-7)


def test_a_recording_is_decoded_once_for_all_its_cycles(tmp_path, monkeypatch):
    from fedlit.data.classification import sounds as sound_files

    for patient in range(101, 113):
        recording(tmp_path, f"{patient}_1b1_Al_sc_Meditron", seconds=2.0 + patient / 1000)
    true, opened = sound_files.read_sound, []
    monkeypatch.setattr(sound_files, "read_sound", lambda path: opened.append(path.stem) or true(path))
    data = ICBHI(tmp_path, seconds=0.5)
    data.setup()
    assert len(data.examples) == 48
    assert sorted(opened) == [f"{patient}_1b1_Al_sc_Meditron" for patient in range(101, 113)]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("0.0\t1.0\t0\t0\n1.5\t1.2\t0\t0\n", "line 2 ends at 1.2 s, and starts at 1.5 s: mend the times"),
        ("0.0\t2.2\t0\t0\n", "line 1 ends at 2.2 s, and the sound at 2.000 s"),
        ("2.5\t3.0\t0\t0\n", "line 1 ends at 3 s, and the sound at 2.000 s"),
        ("-1\t1.0\t0\t0\n", "line 1 starts at -1 s, before the sound"),
        ("0.0\t1.0\t0\t2\n", "line 1 has no 0 or 1 .*give start, end .s., crackle, wheeze"),
        ("0.0,1.0,0,1\n", "line 1 has 1 field.s.: give start, end"),
        ("start\tend\t0\t1\n", "line 1 has a start or end that is no number: give both in seconds"),
        ("\n", "lists no cycle"),
        (None, r"txt: No such file or directory: copy the recording's annotation there"),
    ],
)
def test_annotations_that_are_wrong(lines, message, tmp_path):
    recording(tmp_path, lines=lines)
    with pytest.raises(BadRecord, match=f"{STEM}.txt.*{message}|{STEM}.{message}") as caught:
        ICBHI(tmp_path).read()
    assert str(caught.value).count("to leave it out") == 1
    assert "\n" not in str(caught.value)


def test_bad_cycles_are_skipped_or_excluded_alone(tmp_path):
    recording(tmp_path, lines="0\t1\t0\t0\n1\t0.5\t0\t0\n1\t2\t1\t0\n")
    data = ICBHI(tmp_path, on_bad_record="skip")
    assert [example.id for example in data.read()] == [f"{STEM}-01", f"{STEM}-03"]
    assert len(ICBHI(tmp_path, exclude=[f"{STEM}-02"]).read()) == 2
    recording(tmp_path, "102_1b1_Ar_sc_Meditron")
    assert {e.subject for e in ICBHI(tmp_path, exclude=[STEM]).read()} == {"102"}


def test_files_that_are_wrong(tmp_path):
    with pytest.raises(FedlitError, match="folder is empty: set data.root to the folder with the recordings"):
        ICBHI(tmp_path).setup()
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(FedlitError, match="holds no .wav file"):
        ICBHI(tmp_path).setup()
    path = recording(tmp_path, "patient-7")
    with pytest.raises(BadRecord, match="patient-7.wav: is not named like 101_1b1_Al_sc_Meditron.wav: rename it"):
        ICBHI(tmp_path).read()
    path.unlink()
    path = recording(tmp_path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(BadRecord, match=rf"{STEM}.wav: ends 31\d\d\d bytes before the end of its sound"):
        ICBHI(tmp_path).read()
    path.rename(tmp_path / "away")
    recording(tmp_path, "102_1b1_Al_mc_AKGC417L")
    with pytest.raises(BadRecord, match=f"{STEM}.txt: has no .wav file beside it"):
        ICBHI(tmp_path).read()
    (tmp_path / f"{STEM}.txt").unlink()
    (tmp_path / "ICBHI_challenge_train_test.txt").write_text("102_1b1_Al_mc_AKGC417L\tdev\n")
    with pytest.raises(FedlitError, match="train_test.txt: line 1 has .* give a recording's name, a tab, train or"):
        ICBHI(tmp_path).read()


@pytest.mark.filterwarnings("ignore")
def test_a_class_that_a_client_cannot_learn_is_named(tmp_path):
    for patient in range(101, 121):
        odd = patient == 120
        lines = "0\t1\t0\t0\n1\t2\t0\t1\n" if odd else "0\t1\t0\t0\n1\t2\t1\t0\n"
        recording(tmp_path, f"{patient}_1b1_Al_sc_Meditron", lines, seconds=2.0 + patient / 1000)
    for seed in range(20):
        data = ICBHI(tmp_path, seconds=0.25, partition=IID(1), split="record", seed=seed)
        description = data.describe()
        held = description["clients"]["client-1"]["class_counts"]
        if "wheeze" in held["test"]:
            assert description["absent_classes"] == {"client-1": ["wheeze"]}
            assert any("test classes that they have no training example of" in w for w in description["warnings"])
            return
    raise AssertionError("no seed put the rare class in the test part")


def test_a_reader_from_a_config():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(FederatedDataModule, "data")
    arguments = {"root": "data", "parity": True, "fraction": 0.3, "seconds": 4.0, "padding": "zeros", "rate": 8000}
    data = parser.instantiate(
        parser.parse_object({"data": {"class_path": "fedlit.data.classification.icbhi.ICBHI", "init_args": arguments}})
    ).data
    assert type(data) is ICBHI
    assert data.config() | arguments == data.config()
