"""SPRSound 2022 in its official layout."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile
from jsonargparse import ArgumentParser

from fedlit.data import IID, BySite, Dirichlet, FederatedDataModule, PairwiseDirichlet
from fedlit.data.base.records import BadRecord
from fedlit.data.classification.sprsound import EVENTS, RECORDS, SPRSound
from fedlit.errors import FedlitError

SPLITS = ("train", "val", "test")
STEM = "65101170_0.4_1_p2_3246"
WRITTEN = {
    "record_annotation": "CAS & DAS",
    "event_annotation": [
        {"start": "250", "end": "1000", "type": "Wheeze+Crackle"},
        {"start": "1500", "end": "2040", "type": "Normal"},
    ],
}
AS_DESCRIBED = {
    "recording_annotation": "CAS & DAS",
    "event_annotation": [
        {"start": 250, "end": 1000, "type": "Wheeze+Crackle"},
        {"start": 1500, "end": 2040, "type": "Normal"},
    ],
}


def recording(root, stem=STEM, written=WRITTEN, part="train2022", inner="", seconds=2.0):
    rate = 8000
    for kind in ("wav", "json"):
        (root / f"{part}_{kind}" / (inner if kind == "json" else "")).mkdir(parents=True, exist_ok=True)
    ramp = np.arange(round(rate * seconds), dtype=np.float32) / (rate * seconds)
    soundfile.write(str(root / f"{part}_wav" / f"{stem}.wav"), ramp, rate, subtype="FLOAT")
    path = root / f"{part}_json" / inner / f"{stem}.json"
    path.write_text(written if isinstance(written, str) else json.dumps(written))
    return path


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("level", ["event", "record"])
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"parity": True, "fraction": 0.3},
        {"split": "fold", "partition": IID(5)},
        {"split": "stratified", "server_examples": 20, "exclude": ["x*"], "partition": BySite()},
        {"partition": Dirichlet(5, 0.5, min_records=10), "val_fraction": 0.0},
    ],
)
def test_a_stand_in_is_read_back(level, arguments, tmp_path):
    data = SPRSound("absent", seconds=0.25, level=level, **arguments)
    data.use_stand_in(tmp_path)
    description = data.describe()
    assert description["simulated"]
    assert data.classes == list({"event": EVENTS, "record": RECORDS}[level])
    asked = arguments.get("partition", PairwiseDirichlet(20, 0.1) if data.parity else Dirichlet(20, 0.1))
    assert len(data.clients) == getattr(asked, "clients", None) or 4
    for client in data.clients:
        for split in SPLITS:
            wanted = split != "val" or data.val_fraction > 0 or data.parity
            assert (len(data.dataset(client, split)) > 0) == wanted
    batch = data.dataset(data.clients, "test").__getitems__([0, 1])
    assert tuple(batch["x"].shape) == (2, 4000)
    if isinstance(asked, BySite):
        assert data.clients == ["site-p1", "site-p2", "site-p3", "site-p4"]


@pytest.mark.parametrize("written", [WRITTEN, AS_DESCRIBED])
@pytest.mark.parametrize("around", ["", "BioCAS2022"])
def test_events_and_records(written, around, tmp_path):
    """Numbers of the first event by hand: samples 2000 to 8000 of a ramp of 16000."""
    recording(tmp_path / around, written=written)
    if around:
        recording(tmp_path / "BioCAS2023", "1_1_1_p1_1", part="test2023")
    data = SPRSound(tmp_path, rate=8000, seconds=0.5, padding="crop")
    first, second = data.read()
    assert (first.id, first.subject, first.site, first.kind) == (f"{STEM}-01", "65101170", "p2", "audio")
    assert (first.label, second.label, first.fold, first.rate) == ("Wheeze+Crackle", "Normal", "train", 8000)
    np.testing.assert_allclose(first.value, np.arange(2000, 6000) / 16000, atol=1e-7)
    (whole,) = SPRSound(tmp_path, level="record", rate=8000, seconds=2.0, padding="crop").read()
    assert (whole.id, whole.label, whole.value.shape) == (STEM, "CAS & DAS", (16000,))


def test_parts_of_the_test_set_and_their_folds(tmp_path):
    recording(tmp_path)
    recording(tmp_path, "7_1.0_0_p3_1", part="test2022", inner="inter_test_json")
    recording(tmp_path, "65101170_0.4_1_p1_9", part="test2022", inner="intra_test_json")
    recording(tmp_path, "8_1.0_0_back_2", written={**WRITTEN, "event_annotation": []})
    folds = {example.subject + example.site: example.fold for example in SPRSound(tmp_path).read()}
    assert folds == {"65101170p2": "train", "65101170p1": "test", "7p3": "test"}
    for part, subject in (("inter", "7"), ("intra", "65101170")):
        read = SPRSound(tmp_path, test_part=part).read()
        assert {example.subject for example in read if example.fold == "test"} == {subject}
        assert {example.subject for example in read if example.fold == "train"} == {"65101170"}
    assert {e.site for e in SPRSound(tmp_path, level="record").read()} == {"p1", "p2", "p3", "site-unknown"}


def test_recordings_and_annotations_in_one_folder(tmp_path):
    path = recording(tmp_path / "x")
    (tmp_path / "flat").mkdir()
    path.rename(tmp_path / "flat" / path.name)
    (tmp_path / "x" / "train2022_wav" / f"{STEM}.wav").rename(tmp_path / "flat" / f"{STEM}.wav")
    read = SPRSound(tmp_path / "flat").read()
    assert [(example.label, example.fold) for example in read] == [("Wheeze+Crackle", None), ("Normal", None)]


def events(*own):
    return {"record_annotation": "Normal", "event_annotation": list(own)}


GOOD = {"start": "0", "end": "500", "type": "Normal"}


@pytest.mark.parametrize(
    ("written", "arguments", "message"),
    [
        (
            events(GOOD, {"start": "900", "end": "800", "type": "Normal"}),
            {},
            "event 2 ends at 0.8 s, and starts at 0.9",
        ),
        (
            events({"start": "0", "end": "2100", "type": "Normal"}),
            {},
            "event 1 ends at 2.1 s, and the sound at 2.000 s",
        ),
        (events({"start": "0", "end": "500", "type": "Cough"}), {}, "event 1 has the type 'Cough': give one of Normal"),
        (
            events({"start": "0", "type": "Normal"}),
            {},
            "event 1 lacks a start, end or type, .*give both",
        ),
        (
            events({"start": "x", "end": "500", "type": "Normal"}),
            {},
            "event 1 .* no number as a time: give both",
        ),
        (events("Normal"), {}, "event 1 lacks a start"),
        ({"record_annotation": "Normal"}, {}, "has no list event_annotation"),
        ([], {}, "has no list event_annotation"),
        ('{"record_annotation": ', {}, "cannot be read as JSON .*: copy it again"),
        ({"event_annotation": [GOOD]}, {"level": "record"}, "has None as record_annotation: give one of Normal, CAS"),
        (events(GOOD) | {"record_annotation": "Bad"}, {"level": "record"}, "has 'Bad' as record_annotation"),
    ],
)
def test_annotations_that_are_wrong(written, arguments, message, tmp_path):
    recording(tmp_path, written=written)
    with pytest.raises(BadRecord, match=f"{STEM}.json: {message}") as caught:
        SPRSound(tmp_path, **arguments).read()
    assert str(caught.value).count("to leave it out") == 1
    assert "\n" not in str(caught.value)
    skipping = SPRSound(tmp_path, on_bad_record="skip", **arguments)
    assert len(skipping.read()) == (1 if "event 2" in message else 0)


def test_files_that_are_wrong(tmp_path):
    (tmp_path / "other").mkdir()
    with pytest.raises(FedlitError, match="holds no .wav file: set data.root to the folder with train2022_wav"):
        SPRSound(tmp_path).read()
    path = recording(tmp_path)
    path.rename(tmp_path / "away")
    with pytest.raises(FedlitError, match="holds no .json file"):
        SPRSound(tmp_path).read()
    other = recording(tmp_path, "7_1.0_0_p3_1")
    with pytest.raises(BadRecord, match=f"{STEM}.wav: has no annotation {STEM}.json: copy it to its _json folder"):
        SPRSound(tmp_path).read()
    (tmp_path / "away").rename(path)
    sound = tmp_path / "train2022_wav" / "7_1.0_0_p3_1.wav"
    sound.write_bytes(sound.read_bytes()[:999])
    with pytest.raises(BadRecord, match="7_1.0_0_p3_1.wav: ends .* bytes before the end of its sound"):
        SPRSound(tmp_path).read()
    sound.unlink()
    with pytest.raises(BadRecord, match="train2022_wav/7_1.0_0_p3_1.wav: No such file"):
        SPRSound(tmp_path).read()
    other.rename(other.with_name("seven.json"))
    with pytest.raises(BadRecord, match="seven.json: is not named like 65101170_0.4_1_p2_3246.json"):
        SPRSound(tmp_path).read()
    with pytest.raises(FedlitError, match="data.level is 'cycle': give one of event, record"):
        SPRSound(tmp_path, level="cycle")
    with pytest.raises(FedlitError, match="data.test_part is 'all'"):
        SPRSound(tmp_path, test_part="all")


def test_a_reader_from_a_config():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(FederatedDataModule, "data")
    arguments = {"root": "data", "level": "record", "test_part": "inter", "seconds": 4.0, "split": "fold"}
    data = parser.instantiate(
        parser.parse_object(
            {"data": {"class_path": "fedlit.data.classification.sprsound.SPRSound", "init_args": arguments}}
        )
    ).data
    assert type(data) is SPRSound
    assert data.config() | arguments == data.config()
