"""Labels of WFDB records from comments, tables and rhythms, as the Challenges and PhysioNet's databases have them."""

from collections import Counter

import numpy as np
import pytest
import wfdb
from signal_files import waves, write_wfdb

from fedlit.data import IID, WFDBLabels
from fedlit.data.base.records import BadRecord
from fedlit.data.classification.stretches import Stretch, unambiguous
from fedlit.data.files.wfdb import write_channels
from fedlit.data.files.wfdb_rhythms import read_rhythms
from fedlit.errors import FedlitError

SMALL = {"channels": ["II"], "window_seconds": 2.0, "subject_pattern": "(.+)", "partition": IID(2)}


def labels(data):
    return {example.id: example.label for example in data.read()}


COMMENTS = {
    "CPSC2021": (["paroxysmal atrial fibrillation"], "^(persistent|paroxysmal|non) ?atrial fibrillation", "paroxysmal"),
    "CinC2015": (["Asystole", "False alarm"], "(True|False) alarm", "False"),
    "PTB": (["age: 81", "Reason for admission: Myocardial infarction "], "Reason for admission: (.+)",
            "Myocardial infarction"),
}  # fmt: skip


@pytest.mark.parametrize("layout", COMMENTS)
def test_labels_from_comments(layout, tmp_path):
    comments, pattern, label = COMMENTS[layout]
    for number in range(3):
        write_wfdb(tmp_path, f"A{number}", comments if number else ["age: 30"])
    data = WFDBLabels(tmp_path, comment_pattern=pattern, **SMALL)
    with pytest.warns(UserWarning, match=r"1 record\(s\) without a comment like data.comment_pattern are left out: A0"):
        assert labels(data) == {"A1": label, "A2": label}
    assert not data.multi_label


TABLES = {
    "REFERENCE.csv": ("A0,N\nA1,A\nA2,~\n", {}),
    "RECORDS with endings": ("record,label\n./A0.hea,N\nA1.mat,A\nA2,~\n", {}),
    "other columns": ("Recording,First_label\nA0,N\nA1,A\nA2,~\n",
                      {"record_column": "Recording", "label_column": "First_label"}),
}  # fmt: skip


@pytest.mark.parametrize("layout", TABLES)
def test_labels_from_a_table(layout, tmp_path):
    content, more = TABLES[layout]
    for number in range(3):
        write_wfdb(tmp_path / "signals", f"A{number}", ["Dx: 1"])
    (tmp_path / "t.csv").write_text(content)
    data = WFDBLabels(tmp_path / "signals", table=tmp_path / "t.csv", **SMALL, **more)
    assert labels(data) == {"A0": "N", "A1": "A", "A2": "~"}
    assert not data.multi_label


def test_no_label_anywhere_says_where_labels_may_be(tmp_path):
    write_wfdb(tmp_path, "A0", ["rhythm class: steady"])
    with pytest.raises(FedlitError, match=r"no record has a diagnosis in the header .*data.comment_pattern"):
        WFDBLabels(tmp_path, **SMALL).setup()


def test_several_labels_in_a_cell(tmp_path):
    for number in range(4):
        write_wfdb(tmp_path / "signals", f"A{number}")
    (tmp_path / "t.csv").write_text("record,label,subject,site\nA0,b; a,p0,x\nA1,a,p0,x\nA2,,p1,y\n")
    data = WFDBLabels(tmp_path / "signals", table=tmp_path / "t.csv", label_separator=";", **SMALL)
    with pytest.warns(UserWarning, match="2 record.s. without a label in .*t.csv are left out: A2, A3"):
        read = {example.id: example for example in data.read()}
    assert (read["A0"].labels, read["A1"].labels) == (("b", "a"), ("a",))
    assert (read["A0"].subject, read["A0"].site, read["A1"].subject) == ("p0", "x", "p0")
    assert data.multi_label


def test_a_table_of_subjects_leaves_the_labels_to_the_header(tmp_path):
    write_wfdb(tmp_path / "signals", "A0", ["Dx: 5"])
    (tmp_path / "t.csv").write_text("record,subject\nA0,p0\n")
    data = WFDBLabels(tmp_path / "signals", table=tmp_path / "t.csv", **SMALL)
    assert [(example.labels, example.subject) for example in data.read()] == [(("5",), "p0")]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"label_pattern": "(A)", "comment_pattern": "(B)"}, "data.label_pattern and data.comment_pattern both say"),
        ({"rhythms": "atr", "comment_pattern": "(B)"}, "data.comment_pattern and data.rhythms both say"),
        ({"label_column": "x"}, "data.label_column is of a table: give data.table"),
        ({"label_separator": ";"}, "data.label_separator is of a table"),
        ({"rhythms": "atr", "window_seconds": None}, "data.rhythms labels parts of recordings"),
        ({"rest_label": "x"}, "data.rest_label is of rhythms"),
        ({"comment_pattern": "B"}, "data.comment_pattern 'B' has no group"),
        ({"channels": [["II", "V1"], "v1"]}, "data.channels is II, V1, v1"),
        ({"channels": [[]]}, "data.channels is empty"),
    ],
)
def test_arguments_that_do_not_go_together(given, said):
    with pytest.raises(FedlitError, match=said):
        WFDBLabels("x", **given)


def test_two_places_of_labels(tmp_path):
    write_wfdb(tmp_path / "signals", "A0", ["Dx: 5"])
    (tmp_path / "t.csv").write_text("record,label\nA0,p0\n")
    with pytest.raises(FedlitError, match="t.csv has labels, and data.label_pattern is given: leave one out"):
        WFDBLabels(tmp_path / "signals", table=tmp_path / "t.csv", label_pattern="(A)").read()


def rhythms(folder, name, changes, seconds=20.0, rate=200.0, annotator="atr"):
    write_wfdb(folder, name, leads=("II",), rate=rate, seconds=seconds)
    samples = np.array([max(1, round(start * rate)) for start, _ in changes] + [round(seconds * rate) - 1])
    symbols = ["+"] * len(changes) + ["N"]
    notes = [f"({label}" for _, label in changes] + [""]
    order = np.argsort(samples)
    wfdb.wrann(name, annotator, samples[order], symbol=[symbols[i] for i in order],
               aux_note=[notes[i] for i in order], write_dir=str(folder))  # fmt: skip


def test_windows_by_rhythm_never_span_a_change(tmp_path):
    """As the MIT-BIH and atrial fibrillation databases mark it: what follows a change, up to the next."""
    for number in range(6):
        rhythms(tmp_path, f"2{number}", [(1.0, "N"), (7.5, "AFIB"), (8.6, "N"), (13.0, "AFIB")])
    data = WFDBLabels(tmp_path, rhythms="atr", site_pattern="^(2)", scale="none", **SMALL)
    with pytest.warns(UserWarning, match="6 stretch.es. shorter than data.window_seconds 2"):
        data.setup()
    assert data.classes == ["AFIB", "N"]
    counts: Counter[str] = Counter()
    for client in data.clients:
        for split in ("train", "val", "test"):
            for example in data.dataset(client, split).examples:
                counts[example.label] += 1
                whole = wfdb.rdrecord(str(tmp_path / example.id.split("/")[0])).p_signal[:, 0]
                start = {"0": 1.0, "1": 8.6, "2": 13.0}[example.id.split("/")[1]] + 2 * int(example.id.split("/")[2])
                from scipy.signal import resample_poly

                part = resample_poly(whole, 1, 2)[round(start * 100) :][:200]
                np.testing.assert_allclose(example.value[0], part, atol=2e-2)
    assert counts == {"N": 6 * (3 + 2), "AFIB": 6 * 3}
    assert data.describe()["stretches_left_out"] == {"short": 6, "doubled_s": 0, "unused_s": 24.0, "given_s": 120.0}
    rest = WFDBLabels(tmp_path, rhythms="atr", rest_label="start", site_pattern="^(2)", **SMALL | {"window_seconds": 1})
    assert Counter(example.label for example in rest.read()) == {"start": 6, "N": 12, "AFIB": 12}


def test_annotations_that_are_absent_or_damaged(tmp_path):
    rhythms(tmp_path, "20", [(0.0, "N")])
    (tmp_path / "20.atr").write_bytes(b"\x01")
    with pytest.raises(BadRecord, match="20.atr: annotations cannot be read"):
        read_rhythms(tmp_path / "20.hea", "atr")
    (tmp_path / "20.atr").write_bytes(b"\0\0")  # none
    data = WFDBLabels(tmp_path, rhythms="atr", site_pattern="^(2)", **SMALL)
    with pytest.raises(FedlitError, match="no record has a stretch of one rhythm"):
        data.read()
    (tmp_path / "20.atr").unlink()
    with pytest.raises(BadRecord, match="20.atr: no such annotations: copy them beside the header"):
        WFDBLabels(tmp_path, rhythms="atr", site_pattern="^(2)", **SMALL).read()


def test_stretches_of_one_label_at_a_time():
    marks = [Stretch(1, 3, "a"), Stretch(3, 5, "a"), Stretch(4, 8, "b"), Stretch(9, 40, "b"), Stretch(2, 2, "z")]
    found, doubled = unambiguous(marks, 10)
    assert found == [Stretch(1, 4, "a"), Stretch(5, 8, "b"), Stretch(9, 10, "b")]
    assert doubled == 1
    found, _ = unambiguous(marks, 10, "none")
    assert [one for one in found if one.label == "none"] == [Stretch(0, 1, "none"), Stretch(8, 9, "none")]
    assert unambiguous([], 5) == ([], 0.0)
    assert unambiguous([], 5, "r") == ([Stretch(0, 5, "r")], 0.0)


def test_alternatives_are_told(tmp_path):
    for number, lead in enumerate(("II", "MLII", "II", "V1")):
        write_wfdb(tmp_path, f"A{number}", ["Dx: 1"], leads=(lead, "V5"))
    data = WFDBLabels(tmp_path, channels=[["MLII", "II"], "v5"], subject_pattern="(.+)", window_seconds=2.0,
                      label_pattern="([0-9])", on_bad_record="skip", partition=IID(1), split="record",
                      val_fraction=0.0, test_fraction=0.3)  # fmt: skip
    with pytest.warns(UserWarning, match=r"1 bad record\(s\) skipped"):
        data.setup()
    about = data.describe()
    assert about["channels_used"] == {"MLII": {"II": ["A0", "A2"], "MLII": ["A1"]}}
    assert "no channel 'MLII' or 'II', there are V1, V5" in next(
        own["reason"] for own in about["excluded"] if own["record"] == "A3"
    )


def test_channels_of_several_rates_are_brought_to_one(tmp_path):
    made = waves(1, 800, 200.0)[0]
    for number in range(4):
        steps = np.round(1000 * made).astype("int64")
        wfdb.wrsamp(f"A{number}", 50, ["mV", "NU"], ["II", "RESP"], e_d_signal=[steps, steps[::4]],
                    samps_per_frame=[4, 1], fmt=["16", "16"], adc_gain=[1000.0, 1000.0], baseline=[0, 0],
                    comments=["Dx: 1" if number % 2 else "Dx: 2"], write_dir=str(tmp_path))  # fmt: skip
    data = WFDBLabels(tmp_path, channels=["II", "RESP"], subject_pattern="(.+)", window_seconds=None, scale="none")
    value = data.read()[0].value
    assert value.shape == (2, 400)
    np.testing.assert_allclose(value[0, 40:360], made[::2][40:360], atol=0.25)


def test_segments_of_a_recording_are_no_examples(tmp_path):
    for name in ("p1a", "p1b"):
        write_wfdb(tmp_path, name, ["Dx: 1"], leads=("II",))
    (tmp_path / "p1.hea").write_text("p1/2 1 200 1600\np1a 800\np1b 800\n# Dx: 7\n")
    data = WFDBLabels(tmp_path, **SMALL)
    with pytest.warns(UserWarning, match=r"2 header\(s\) are segments or layouts of 1 recording\(s\)"):
        read = data.read()
    assert [(example.id, example.labels, example.value.shape) for example in read] == [("p1", ("7",), (1, 800))]


def test_renamed_labels_are_classes(tmp_path):
    for number in range(8):
        write_wfdb(tmp_path, f"A{number}", [f"Dx: {number % 2 + 1}"])
    change = {"labels": {"1": "one"}}
    data = WFDBLabels(tmp_path, rename=change, **SMALL)
    data.setup()
    assert data.classes == ["2", "one"]


@pytest.mark.parametrize(
    "given",
    [
        {"comment_pattern": "Reason: (.+)"},
        {"rhythms": "atr", "classes": ["AFIB", "N"]},
        {"table": "absent.csv"},
        {"table": "absent.csv", "label_separator": "|", "record_column": "r", "label_column": "l"},
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_stand_ins(given, tmp_path):
    data = WFDBLabels("absent", window_seconds=1.0, channels=[["MLII", "II"], "V1"], **given)
    data.use_stand_in(tmp_path)
    assert all(len(data.dataset(client, "train")) for client in data.clients or data.setup() or data.clients)
    assert len(data.clients) == 6


def test_ids_from_folders(tmp_path):
    for person in ("patient001", "patient002"):
        for turn in range(2):
            write_channels(
                (tmp_path / person).mkdir(exist_ok=True) or tmp_path / person, f"rec{turn}", 100.0,
                {"II": waves(1, 500, 100.0)[0]}, {"II": "mV"}, ["Dx: 1"],
            )  # fmt: skip
    data = WFDBLabels(tmp_path, **SMALL | {"subject_pattern": "^(patient[0-9]+)/"})
    assert {(e.id, e.subject) for e in data.read()} == {
        (f"{person}/rec{turn}", person) for person in ("patient001", "patient002") for turn in range(2)
    }
    with pytest.warns(UserWarning, match="look like subjects: set data.subject_pattern"):
        WFDBLabels(tmp_path, **SMALL | {"subject_pattern": None}).read()
