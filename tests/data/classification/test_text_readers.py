"""Texts in their official layouts."""

from __future__ import annotations

import csv
import zipfile
from collections import Counter, defaultdict

import pandas as pd
import pytest
from jsonargparse import ArgumentParser

from fedlit.data import IID, BySite, Dirichlet, FederatedDataModule, PairwiseDirichlet
from fedlit.data.base.records import BadRecord
from fedlit.data.classification.tables import TextTable
from fedlit.data.classification.texts import CONDITIONS, ROLES, MedicalAbstracts, PubMedRCT
from fedlit.errors import FedlitError

SPLITS = ("train", "val", "test")
READERS = {
    "abstracts": (MedicalAbstracts, {}),
    "sentences": (PubMedRCT, {}),
    "table": (TextTable, {}),
    "columns": (
        TextTable,
        {"text_column": "note", "label_column": "code", "classes": ["x", "y"], "group_column": "patient"}
        | {"site_column": "hospital", "fold_column": "part", "id_column": "number"},
    ),
    "labels": (TextTable, {"label_separator": ";"}),
}
ABSTRACTS = """###111

BACKGROUND\tOne Thing was not known .
METHODS\tWe looked .

###222
RESULTS\tIt was found .
CONCLUSIONS\tNow 50 @ of it is known : at last .

"""


def write_rct(folder, parts=("train", "dev", "test")):
    folder.mkdir(parents=True, exist_ok=True)
    for i, part in enumerate(parts):
        (folder / f"{part}.txt").write_text(ABSTRACTS.replace("###", f"###{i}"), encoding="utf-8")
    return folder


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"parity": True, "fraction": 0.005},
        {"split": "stratified", "server_examples": 20, "exclude": ["x*"]},
        {"partition": PairwiseDirichlet(6, 0.1)},
        {"partition": Dirichlet(5, 0.5, min_records=10), "val_fraction": 0.0},
    ],
)
def test_stand_ins_are_read_back(name, arguments, tmp_path):
    reader, columns = READERS[name]
    data = reader("absent", **columns, **arguments)
    data.use_stand_in(tmp_path)
    description = data.describe()
    assert description["simulated"]
    assert description["stand_in"]
    assert len(data.classes) >= 2
    assert len(data.clients) == getattr(arguments.get("partition"), "clients", 20)
    for client in data.clients:
        for split in SPLITS:
            wanted = split != "val" or data.val_fraction > 0 or data.parity
            assert (len(data.dataset(client, split)) > 0) == wanted
    batch = data.dataset(data.clients, "test").__getitems__([0, 1])
    assert all(text.strip() for text in batch["x"])
    if name == "columns" and not arguments:
        assert data.clients[0] == "site-1"


@pytest.mark.parametrize("name", ["abstracts", "sentences", "columns"])
def test_stand_ins_hold_the_sources_folds(name, tmp_path):
    reader, columns = READERS[name]
    data = reader("absent", **columns, split="fold", partition=IID(5))
    data.use_stand_in(tmp_path)
    data.setup()
    assert len(data.clients) == 5


def test_medical_abstracts_rows(tmp_path):
    rows = [(3, "Obstructive, sleep\napnea."), (1, ' "Quoted" tumour. '), (5, "Other.")]
    for fold, own in (("train", rows), ("test", rows[:2])):
        table = pd.DataFrame(own, columns=["condition_label", "medical_abstract"])
        table.to_csv(tmp_path / f"medical_tc_{fold}.csv", index=False)
    read = MedicalAbstracts(tmp_path).read()
    assert [example.id for example in read] == ["train-1", "train-2", "train-3", "test-1", "test-2"]
    assert [example.label for example in read[:3]] == [CONDITIONS[2], CONDITIONS[0], CONDITIONS[4]]
    assert read[0].value == "Obstructive, sleep\napnea."
    assert read[1].value == '"Quoted" tumour.'
    assert [example.fold for example in read] == ["train"] * 3 + ["test"] * 2


def test_medical_abstracts_that_are_not_there_or_wrong(tmp_path):
    with pytest.raises(FedlitError, match="folder is empty"):
        MedicalAbstracts(tmp_path).setup()
    (tmp_path / "other.csv").write_text("a\n")
    with pytest.raises(FedlitError, match="neither medical_tc_train.csv nor medical_tc_test.csv"):
        MedicalAbstracts(tmp_path).setup()
    path = tmp_path / "medical_tc_test.csv"
    path.write_text("label,medical_abstract\n1,x\n")
    with pytest.warns(UserWarning, match="train.csv is absent"), pytest.raises(FedlitError) as caught:
        MedicalAbstracts(tmp_path).read()
    assert "no column 'condition_label', there are label, medical_abstract" in str(caught.value)
    path.write_text("condition_label,medical_abstract\n1,x\n2,\n")
    with (
        pytest.warns(UserWarning, match="absent"),
        pytest.raises(BadRecord, match="medical_tc_test.csv: row 2 has an empty text"),
    ):
        MedicalAbstracts(tmp_path).read()
    path.write_text("condition_label,medical_abstract\n1,x\n9,y\n")
    with (
        pytest.warns(UserWarning, match="absent"),
        pytest.raises(BadRecord, match="'test-2' has the label '9', .* are neoplasms, dig"),
    ):
        MedicalAbstracts(tmp_path).setup()


@pytest.mark.filterwarnings("ignore")
def test_the_real_abstracts(shared):
    """2,888 rows, 2,770 texts; counted here without the reader."""
    folder = shared / "txt_medical_abstracts"
    path = folder / "medical_tc_test.csv"
    if not path.is_file():
        pytest.skip(f"no {path}")
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    of_text = defaultdict(list)
    for number, row in enumerate(rows, 1):
        of_text[row["medical_abstract"].strip()].append(f"test-{number}")
    assert (len(rows), len(of_text)) == (2888, 2770)
    data = MedicalAbstracts(folder)
    description = data.describe()
    assert description["duplicates"] == {"values": 113, "repeats": 118, "with_different_labels": 113, "merged": True}
    assert description["leaks"] == {"subjects": 0, "duplicates": 0}
    assert len(data.clients) == 20
    counts = Counter()
    split_of = {}
    for own in description["clients"].values():
        for split in SPLITS:
            counts.update(own["class_counts"][split])
            split_of |= dict.fromkeys(own["records"][split], split)
    assert [counts[name] for name in CONDITIONS] == [633, 299, 385, 610, 961]
    assert all(len({split_of[name] for name in names}) == 1 for names in of_text.values())
    parity = MedicalAbstracts(folder, parity=True).describe()
    split_of = {n: s for own in parity["clients"].values() for s in SPLITS for n in own["records"][s]}
    apart = sum(len({split_of[name] for name in names}) > 1 for names in of_text.values())
    assert parity["leaks"]["duplicates"] == apart > 50


def test_pubmed_rct_sentences(tmp_path):
    read = PubMedRCT(write_rct(tmp_path)).read()
    assert [example.id for example in read[:4]] == ["0111-01", "0111-02", "0222-01", "0222-02"]
    assert [example.subject for example in read[:4]] == ["0111", "0111", "0222", "0222"]
    assert [example.label for example in read[:4]] == ["BACKGROUND", "METHODS", "RESULTS", "CONCLUSIONS"]
    assert read[0].value == "One Thing was not known ."
    assert read[3].value == "Now 50 @ of it is known : at last ."
    assert Counter(example.fold for example in read) == {"train": 4, "val": 4, "test": 4}
    assert PubMedRCT.class_names == ROLES
    pooled = PubMedRCT(tmp_path, parity=True).read()
    assert {example.fold for example in pooled} == {"train", "test"}
    assert pooled[0].value == "one thing was not known ."


def test_pubmed_rct_files_of_all_variants(tmp_path):
    expected = PubMedRCT(write_rct(tmp_path / "PubMed_20k_RCT")).read()
    assert PubMedRCT(tmp_path).read() == expected
    packed = tmp_path / "packed"
    packed.mkdir()
    for part in ("train", "dev", "test"):
        with zipfile.ZipFile(packed / f"{part}.zip", "w") as archive:
            archive.write(tmp_path / "PubMed_20k_RCT" / f"{part}.txt", f"{part}.txt")
    assert PubMedRCT(packed).read() == expected
    with pytest.raises(FedlitError, match=r"several variants \(PubMed_20k_RCT, packed\)"):
        PubMedRCT(tmp_path).read()
    (packed / "train.zip").rename(packed / "train.7z")
    with pytest.raises(FedlitError, match=r"no train.txt or train.zip: unpack train.7z"):
        PubMedRCT(packed).read()
    (packed / "train.7z").rename(packed / "train.zip")
    (packed / "dev.zip").write_bytes(b"PK no")
    with pytest.raises(FedlitError, match=r"dev.zip: .*zip"):
        PubMedRCT(packed).read()


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("METHODS\tx\n", "line 1 comes before any ### line"),
        ("###\nMETHODS\tx\n", "line 1 has ### and no abstract's id"),
        ("###1\nMETHODS x\n", "line 2 has no tab between role and sentence"),
        ("###1\nMETHODS\t \n", "line 2 has an empty text"),
        ("###1\nMETHODS\t\xff\n", "utf-8"),
        ("###1\nMETHODS\tx\nAIMS\ty\n", "'1-02' has the label 'AIMS', which is no class: there are BACKGROUND"),
    ],
)
def test_pubmed_rct_lines_that_are_wrong(written, message, tmp_path):
    write_rct(tmp_path)
    (tmp_path / "train.txt").write_bytes(written.encode("latin-1"))
    with pytest.raises(FedlitError, match=message):
        PubMedRCT(tmp_path).setup()


def table(tmp_path, suffix="csv", **columns):
    rows = {"note": [f"note {i}" for i in range(60)], "code": list("xyz") * 20, "patient": [i // 3 for i in range(60)]}
    rows |= {"hospital": ["A"] * 30 + ["B"] * 30, "part": ["train", "dev", "TEST"] * 20} | columns
    path = tmp_path / f"table.{suffix}"
    if suffix == "csv":
        pd.DataFrame(rows).to_csv(path, index=False)
    else:
        pd.DataFrame(rows).to_parquet(path)
    return path


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_table(suffix, tmp_path):
    named = {"text_column": "note", "label_column": "code", "group_column": "patient", "site_column": "hospital"}
    data = TextTable(table(tmp_path, suffix), **named, fold_column="part")
    data.setup()
    assert isinstance(data.usual_partition(), BySite)
    assert data.clients == ["site-A", "site-B"]
    assert data.classes == ["x", "y", "z"]
    example = data.examples[4]
    assert (example.id, example.subject, example.site, example.label) == ("row-5", "1", "A", "y")
    assert (example.value, example.fold) == ("note 4", "val")
    assert data.examples[5].fold == "test"
    assert data.config()["classes"] is None
    assert data.config()["text_column"] == "note"


def test_a_table_without_groups_says_what_it_takes_for_subjects(tmp_path, recwarn):
    named = {"text_column": "note", "label_column": "code", "site_column": "hospital"}
    with pytest.warns(UserWarning, match=r"60 record\(s\) count as a subject each.*data.group_column \(note if"):
        TextTable(table(tmp_path), **named).setup()
    recwarn.clear()
    TextTable(table(tmp_path), **named, group_column="note").setup()
    TextTable(table(tmp_path), **named, split="record").setup()
    assert not [warned for warned in recwarn if "subject" in str(warned.message)]


def test_a_table_of_several_labels(tmp_path):
    path = table(tmp_path, code=["x; y", "", "z"] * 20)
    data = TextTable(path, "note", "code", classes=["z", "y", "x"], label_separator=";", partition=IID(2))
    batch = data.dataset("client-1", "train").__getitems__(range(9))
    expected = {0: [0, 1, 1], 1: [0, 0, 0], 2: [1, 0, 0]}
    assert data.multi_label
    for name, row in zip(batch["id"], batch["label"].tolist(), strict=True):
        assert row == expected[(int(name.removeprefix("row-")) - 1) % 3]


@pytest.mark.parametrize(
    ("arguments", "columns", "message"),
    [
        ({"text_column": "text"}, {}, "no column 'text', there are note, code, patient, hospital, part: name the"),
        ({"site_column": "ward"}, {}, "no column 'ward'"),
        ({}, {"note": ["a"] * 10 + [" "] + ["b"] * 49}, "row 11 has an empty note: fill it in"),
        ({"group_column": "patient"}, {"patient": [""] + ["b"] * 59}, "row 1 has an empty 'patient'"),
        (
            {"fold_column": "part"},
            {"part": ["new"] * 60},
            "row 1 has text of 3 .* as part that names no fold",
        ),
        ({"classes": ["x", "y"]}, {}, "'row-3' has the label 'z', which is no class: there are x, y"),
        ({"id_column": "patient"}, {}, "two records are named '0'"),
    ],
)
def test_tables_that_are_wrong(arguments, columns, message, tmp_path):
    path = table(tmp_path, **columns)
    with pytest.raises(FedlitError, match=message):
        TextTable(path, **({"text_column": "note", "label_column": "code"} | arguments)).setup()


def test_tables_that_cannot_be_read(tmp_path):
    with pytest.raises(FedlitError, match=r"none.csv: cannot be read as a table \(No such file"):
        TextTable(tmp_path / "none.csv").read()
    path = tmp_path / "long.csv"
    path.write_text("text,label\na,b,c\n")
    with pytest.raises(FedlitError, match="rows are longer than the header"):
        TextTable(path).read()
    path.write_text("text;label\na;b\n")
    with pytest.raises(FedlitError, match="semicolons separate its columns.: set data.delimiter to ';'"):
        TextTable(path).read()


@pytest.mark.parametrize("name", READERS)
def test_a_reader_and_its_partition_from_a_config(name):
    reader, columns = READERS[name]
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(FederatedDataModule, "data")
    partition = {"class_path": "fedlit.data.PairwiseDirichlet", "init_args": {"clients": 4, "alpha": 0.1}}
    arguments = {"root": "data", "partition": partition, "parity": True, "fraction": 0.5, **columns}
    path = f"{reader.__module__}.{reader.__name__}"
    data = parser.instantiate(parser.parse_object({"data": {"class_path": path, "init_args": arguments}})).data
    assert type(data) is reader
    assert data.partition == PairwiseDirichlet(4, 0.1)
    assert data.config() | {"root": "data", "fraction": 0.5, **columns} == data.config()
