"""Names that differ by spelling are told, and one argument renames labels, sites, subjects and types."""

import json
from collections import Counter

import pytest

from fedlit.data import IID, BySite, JSONLDocuments, TextTable, WFDBFolder
from fedlit.data.base.renaming import check_rename, doubts, renamed
from fedlit.data.base.spelling import alike, says_nothing
from fedlit.data.files.wfdb import write_channels
from fedlit.errors import FedlitError
from fedlit.runs.fingerprint import data_fingerprint

NBSP, WIDE = "Heart\u00a0failure", "\uff21\uff33\uff34\uff28\uff2d\uff21"


def test_names_are_alike_but_for_case_white_space_and_form():
    names = ["Asthma", "asthma", WIDE, "Heart  failure", NBSP, "e\u0301", "\u00e9", "flu", "flue"]
    assert alike(names) == sorted([sorted(["Asthma", "asthma", WIDE]), ["Heart  failure", NBSP], ["e\u0301", "\u00e9"]])


@pytest.mark.parametrize("label", ["NA", "n/a", " ? ", "Unknown", "NaN", "", "-", "None", "Not  available"])
def test_labels_that_say_nothing(label):
    assert says_nothing(label)


@pytest.mark.parametrize("label", ["Na+ low", "normal", "unknown primary", "0", "no"])
def test_labels_that_say_something(label):
    assert not says_nothing(label)


def test_the_mend_that_is_told_helps():
    (said,) = doubts("sites", Counter(["Ward A", "Ward A", "ward a", "B", "c", "C", "C"]))
    assert "'Ward A' and 'ward a'" in said
    assert "data.rename {sites: {'c': 'C', 'ward a': 'Ward A'}}" in said
    assert renamed(["ward a", "B", "Ward A"], {"ward a": "Ward A"}) == ("Ward A", "B")
    assert doubts("sites", Counter(["A", "?", "B"])) == []
    assert len(doubts("labels", Counter(["A", "?", "B"]))) == 1
    assert doubts("labels", Counter(["A", "?", "B"]), chosen=True) == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"label": {"a": "b"}}, "renames 'label': give one of labels, sites, subjects, types"),
        ({"sites": {"a": None}}, "gives 'a' of sites no name"),
        ({"labels": {"a": ""}}, "gives 'a' of labels no name"),
        ({"labels": {"a": "b", "b": "c"}}, "renames 'a' to 'b', which it renames too"),
    ],
)
def test_renaming_that_cannot_be(given, said):
    with pytest.raises(FedlitError, match=said):
        check_rename(given)


def texts(folder, **given):
    labels = ["Asthma", "asthma", "Flu", "?"]
    rows = [f"text number {i},{labels[i % 4]},p{i},{'Ward A' if i % 3 else 'ward a'}" for i in range(40)]
    (folder / "t.csv").write_text("\n".join(["text,label,who,where", *rows]))
    return TextTable(folder / "t.csv", group_column="who", site_column="where", **given)


def test_examples_under_other_names(tmp_path):
    plain = texts(tmp_path)
    with pytest.warns(UserWarning, match="differ by case") as heard:
        plain.setup()
    said = [str(w.message) for w in heard]
    assert plain.classes == ["?", "Asthma", "Flu", "asthma"]
    assert sum("of labels differ by case" in text for text in said) == 1
    assert sum("of sites differ by case" in text for text in said) == 1
    assert sum("'?' count as labels" in text for text in said) == 1

    mended = texts(tmp_path, rename={"labels": {"asthma": "Asthma", "?": None}, "sites": {"ward a": "Ward A"}})
    mended.setup()
    assert mended.classes == ["Asthma", "Flu"]
    assert mended.clients == ["site-Ward-A"]
    about = mended.describe()
    assert not [text for text in about["warnings"] if "differ by" in text or "count as labels" in text]
    assert len([own for own in about["excluded"] if "data.rename" in own["reason"]]) == 10


def test_a_name_that_nothing_has_is_told(tmp_path):
    module = texts(tmp_path, rename={"labels": {"Astma": "Asthma"}})
    with pytest.warns(UserWarning, match=r"data.rename: nothing is named 'Astma' of labels"):
        module.setup()


def test_signals_under_other_names(tmp_path):
    for i in range(6):
        name = f"{'hosp' if i % 2 else 'HOSP'}{i}"
        write_channels(tmp_path, name, 100.0, {"II": [float(j % 7) for j in range(400)]}, {"II": "mV"}, ["Dx: 1"])
    short = {"context_length": 12, "prediction_length": 4, "subject_pattern": r"(\d)"}
    with pytest.warns(UserWarning, match="'HOSP' and 'hosp'"):
        WFDBFolder(tmp_path, partition=BySite(), **short).setup()
    module = WFDBFolder(tmp_path, rename={"sites": {"HOSP": "hosp"}, "labels": {"1": "one"}}, **short)
    module.setup()
    assert module.clients == ["site-hosp"]
    assert {record.label for record in module.records} == {"one"}


def test_documents_under_other_names(tmp_path):
    rows = [{"id": f"d{i}", "text": f"aspirin helped {i}"} for i in range(12)]
    for row in rows:
        row["entities"] = [
            {"id": "T1", "type": "Drug", "start": 0, "end": 7},
            {"id": "T2", "type": "drug", "start": 8, "end": 14},
        ]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    plain = JSONLDocuments(tmp_path, partition=IID(2))
    with pytest.warns(UserWarning, match="1 group.s. of types differ by case.*'Drug' and 'drug'"):
        plain.setup()
    module = JSONLDocuments(tmp_path, partition=IID(2), rename={"types": {"drug": "Drug"}})
    module.setup()
    assert module.schema["entities"] == ["Drug"]
    assert sum(len(own.entities) for own in module.documents) == 24
    gone = JSONLDocuments(tmp_path, partition=IID(2), rename={"types": {"drug": None}})
    gone.setup()
    assert sum(len(own.entities) for own in gone.documents) == 12


def test_a_run_made_before_an_argument_came_has_the_same_fingerprint(tmp_path):
    plain, mended = texts(tmp_path), texts(tmp_path, rename={"labels": {"?": None}})
    assert "rename" not in data_fingerprint(plain, {})
    assert data_fingerprint(mended, {})["rename"] == {"labels": {"?": None}}
