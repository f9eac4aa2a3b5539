"""EDF recordings to classify: Sleep-EDF's hypnograms, seizures among background, tables, names."""

import json
import zlib
from collections import Counter

import numpy as np
import pytest
from edf_files import SECRET, set_onsets, write
from signal_files import waves

from fedlit.data import IID, BySite, EDFClasses
from fedlit.data.base.records import BadRecord
from fedlit.errors import FedlitError

STAGES = "WW123R?M4"


def eeg(name, seconds):
    return waves(1, 100 * seconds, 100.0, seed=zlib.crc32(name.encode()))[0]


def night(folder, name, seconds=270, shift=0, stages=STAGES):
    made = {"EEG Fpz-Cz": (eeg(name, seconds) * 50, 100, "uV"), "Temp rectal": (eeg(name, seconds)[::100], 1, "DegC")}
    write(folder / f"{name}E0-PSG.edf", made, blocks=30.0)
    texts = {"M": "Movement time"}
    marks = [(30 * i + shift, 30, texts.get(s, f"Sleep stage {s}")) for i, s in enumerate(stages)]
    write(folder / f"{name}EC-Hypnogram.edf", {}, marks)


SLEEP = {
    "channels": ["EEG Fpz-Cz"], "annotation_pattern": "Sleep stage ([W1234R])", "pair_pattern": "^(SC4[0-9]{3})",
    "subject_pattern": "^SC4([0-9]{2})", "partition": IID(1),
}  # fmt: skip


def counts(data):
    data.setup()
    held = Counter()
    for client in data.clients:
        for split in ("train", "val", "test"):
            held.update(example.label for example in data.dataset(client, split).examples)
    return held


def test_stages_of_sleep_edf(tmp_path):
    for person in range(6):
        night(tmp_path, f"SC4{person:02d}1")
    data = EDFClasses(tmp_path, **SLEEP, names={"3": "deep", "4": "deep"})
    assert counts(data) == {"W": 12, "1": 6, "2": 6, "deep": 12, "R": 6}
    assert {example.subject for example in data.examples} == {f"{person:02d}" for person in range(6)}
    first = next(example for example in data.examples if example.label == "R")
    np.testing.assert_allclose(first.value.mean(), 0, atol=0.1)
    assert first.value.shape == (1, 3000)
    told = json.dumps(data.describe())
    assert data.describe()["stretches_left_out"] == {"short": 0, "doubled_s": 0, "unused_s": 360, "given_s": 1620}
    assert SECRET not in told
    assert "mrn" not in told


def test_windows_are_where_the_annotation_is(tmp_path):
    for person in range(3):
        night(tmp_path, f"SC4{person:02d}1", shift=15, stages="12")
    data = EDFClasses(tmp_path, **SLEEP, scale="none")
    read = {example.id: example for example in data.read()}
    whole = eeg("SC4001", 270) * 0.05
    np.testing.assert_allclose(read["SC4001E0-PSG/1"].value[0], whole[4500:7500], atol=1e-4)


def test_files_of_annotations_without_a_pair_are_told(tmp_path):
    night(tmp_path, "SC4001")
    data = EDFClasses(tmp_path, **SLEEP | {"pair_pattern": None})
    with (
        pytest.warns(UserWarning, match=r"1 file\(s\) hold annotations and no signals.*set data.pair_pattern"),
        pytest.raises(FedlitError, match="no record has an annotation.*or set data.pair_pattern"),
    ):
        data.read()
    (tmp_path / "SC4001EC-Hypnogram.edf").unlink()
    with pytest.raises(BadRecord, match="SC4001E0-PSG.edf: 0 files of annotations go with it by data.pair_pattern"):
        EDFClasses(tmp_path, **SLEEP).read()


def test_a_hypnogram_that_starts_later(tmp_path):
    import datetime

    night(tmp_path, "SC4001", stages="12")
    path = tmp_path / "SC4001EC-Hypnogram.edf"
    write(path, {}, [(0, 30, "Sleep stage 1"), (30, 30, "Sleep stage 2")], day=datetime.time(0, 1, 0))
    content = bytearray(path.read_bytes())
    content[168:176] = (tmp_path / "SC4001E0-PSG.edf").read_bytes()[168:176]
    path.write_bytes(content)
    data = EDFClasses(tmp_path, **SLEEP, scale="none")
    read = {example.id: example for example in data.read()}
    whole = eeg("SC4001", 270) * 0.05
    np.testing.assert_allclose(read["SC4001E0-PSG/0"].value[0], whole[6000:9000], atol=1e-4)
    content[168:176] = b"X       "
    path.write_bytes(content)
    with pytest.raises(BadRecord, match="when it starts, and when SC4001E0-PSG.edf does, cannot be compared"):
        EDFClasses(tmp_path, **SLEEP).read()


def seizures(folder, name, marks, seconds=60):
    return write(folder / f"{name}.edf", {"FP1-F7": (eeg(name, seconds), 100, "uV")}, marks)


def test_seizures_among_background(tmp_path):
    for number in range(6):
        seizures(tmp_path, f"chb{number:02d}_01", [(20, 15, "seizure"), (50, None, "lights on")])
    data = EDFClasses(tmp_path, ["FP1-F7"], rest_label="background", annotation_pattern="^(seizure)$",
                      window_seconds=5.0, subject_pattern="^(chb[0-9]+)", partition=IID(1))  # fmt: skip
    assert counts(data) == {"background": 6 * (4 + 5), "seizure": 6 * 3}


def test_what_is_marked_twice_or_in_a_gap_is_left_out(tmp_path):
    path = seizures(tmp_path, "a", [(0, 20, "x"), (15, 20, "y"), (40, 10, "y")])
    set_onsets(path, [*range(45), *range(50, 65)])
    data = EDFClasses(tmp_path, ["FP1-F7"], window_seconds=5.0, subject_pattern="(.+)", partition=IID(1))
    with pytest.warns(UserWarning, match="5 s with several labels at once, are left out"):
        read = data.read()
    assert [(example.label, example.id) for example in read] == [("x", "a/0"), ("y", "a/1"), ("y", "a/2")]


def test_labels_from_a_table_and_from_names(tmp_path):
    for number in range(4):
        seizures(tmp_path / "signals", f"{'ab'[number % 2]}{number}", ())
    (tmp_path / "t.csv").write_text("record,label,subject\n" + "".join(f"{'ab'[n % 2]}{n}.edf,{n % 2},p{n}\n"
                                                                       for n in range(4)))  # fmt: skip
    data = EDFClasses(tmp_path / "signals", ["FP1-F7"], table=tmp_path / "t.csv", window_seconds=None)
    assert {(e.id, e.label, e.subject) for e in data.read()} == {
        ("a0", "0", "p0"), ("b1", "1", "p1"), ("a2", "0", "p2"), ("b3", "1", "p3"),
    }  # fmt: skip
    data = EDFClasses(tmp_path / "signals", ["FP1-F7"], label_pattern="^(.)", subject_pattern="(.+)")
    assert {(e.id, e.label) for e in data.read()} == {("a0", "a"), ("b1", "b"), ("a2", "a"), ("b3", "b")}
    with pytest.raises(FedlitError, match="t.csv has labels, and data.rest_label is given"):
        EDFClasses(tmp_path / "signals", ["FP1-F7"], table=tmp_path / "t.csv", rest_label="x").read()
    with pytest.raises(FedlitError, match="annotations label parts of recordings: set it"):
        EDFClasses(tmp_path / "signals", ["FP1-F7"], window_seconds=None).read()


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"names": {"1": "light", "2": "light", "3": "deep"}, "pair_pattern": "(x.)", "annotation_pattern": "S (.)"},
        {"label_pattern": "^(x)"},
        {"table": "absent.csv", "classes": ["p", "q"], "partition": BySite()},
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_stand_ins(given, tmp_path):
    data = EDFClasses("absent", [["Cz", "Fz"], "O1"], window_seconds=2.0, **given)
    data.use_stand_in(tmp_path)
    data.setup()
    assert len(data.clients) == 6
    assert all(len(data.dataset(client, split)) for client in data.clients for split in ("train", "val", "test"))
