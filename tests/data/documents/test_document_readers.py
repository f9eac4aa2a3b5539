"""Folders of annotated documents in every layout."""

from __future__ import annotations

import json

import pytest
from jsonargparse import ArgumentParser

import fedlit.data
from fedlit.data import IID, BySite, DocumentDataModule, FederatedDataModule, SimulatedNotes
from fedlit.data.base.records import BadRecord
from fedlit.data.documents.documents import Document, Entity
from fedlit.data.documents.generated import put
from fedlit.data.documents.jsonl import write_jsonl
from fedlit.data.documents.partitions import RareTagBalanced
from fedlit.data.documents.readers import BratFolder, ConllFolder, I2B2Folder, JSONLDocuments, PubTatorFolder
from fedlit.errors import FedlitError

SPLITS = ("train", "val", "test")
READERS = {
    "pubtator": (PubTatorFolder, {}),
    "pubtator folders": (PubTatorFolder, {"site_by": "folder", "partition": BySite(), "pairs": "every"}),
    "conll": (ConllFolder, {}),
    "conll sentences": (ConllFolder, {"unit": "sentence", "tag_column": 1}),
    "conll files": (ConllFolder, {"unit": "file"}),
    "conll raw": (ConllFolder, {"raw_suffix": ".txt", "site_by": "folder"}),
    "jsonl": (JSONLDocuments, {}),
    "brat": (BratFolder, {"site_pattern": "x(y)", "subject_pattern": "(z)"}),
    "i2b2": (I2B2Folder, {}),
    "i2b2 assertions": (I2B2Folder, {"assertions": True}),
}
ARGUMENTS = [
    {},
    {"split": "fold"},
    {"partition": RareTagBalanced(4), "server_examples": 5, "exclude": ["x*"], "types": ["none of them"]},
    {"partition": IID(2), "annotated": {"client-2": ["entities"]}, "val_fraction": 0.0},
]
TWO = "1|t|A b\n1|a|c\n1\t0\t1\tA\tX\tC\n\n2|t|D\n2|a|e\n2\t0\t1\tD\tX\tC\n"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("arguments", ARGUMENTS)
@pytest.mark.parametrize("name", READERS)
def test_stand_ins_are_read_back(name, arguments, tmp_path):
    reader, own = READERS[name]
    data = reader("absent", **(own | arguments))
    data.use_stand_in(tmp_path)
    description = data.describe()
    assert description["simulated"]
    assert description["stand_in"]
    assert len(data.clients) == {"IID": 2, "RareTagBalanced": 4}.get(type(arguments.get("partition")).__name__, 3)
    assert len(data.schema["entities"]) == 2
    assert len(data.schema["relations"]) == (reader is not ConllFolder)
    for client in data.clients:
        for split in SPLITS:
            wanted = split != "val" or data.val_fraction > 0
            assert (len(data.dataset(client, split)) > 0) == wanted
    if data.partition in (None, BySite()) and reader is not PubTatorFolder:
        assert data.clients == ["site-1", "site-2", "site-3"]
    json.dumps(data.config())


def test_bc5cdr_at_three_clients_of_which_one_looked_for_mentions_only(shared):
    data = PubTatorFolder(shared / "nerre_bc5cdr", annotated={"client-3": ["entities"]}, server_examples=5)
    clients = data.describe()["clients"]
    assert data.schema == {"entities": ["Chemical", "Disease"], "relations": {"CID": [["Chemical", "Disease"]]}}
    assert len(data.documents) + len(data.server_dataset()) == 1500
    count = {c: {s: sum(o["type_counts"][s]["relations"].values()) for s in SPLITS} for c, o in clients.items()}
    assert set(count["client-3"].values()) == {0}
    assert abs(sum(count["client-1"].values()) - sum(count["client-2"].values())) <= 30
    official = PubTatorFolder(shared / "nerre_bc5cdr", split="fold", partition=IID(3))
    official.setup()
    assert [len(official.dataset(official.clients, split)) for split in SPLITS] == [500, 500, 500]
    one = PubTatorFolder(shared / "nerre_bc5cdr" / "CDR_TestSet.PubTator.txt", partition=IID(2))
    one.setup()
    assert {own.fold for own in one.documents} == {"test"}
    assert len(one.documents) == 500


def test_pubtator_files(tmp_path):
    put(tmp_path / "a" / "x.PubTator", TWO)
    put(tmp_path / "README.txt", "no PubTator")
    read = PubTatorFolder(tmp_path).read()
    assert [(own.id, own.site, own.subject, own.fold) for own in read] == [("1", "x", "1", None), ("2", "x", "2", None)]
    assert {own.site for own in PubTatorFolder(tmp_path, site_by="folder").read()} == {"a"}
    assert {own.site for own in PubTatorFolder(tmp_path, site_pattern="(.)/").read()} == {"a"}
    assert [own.subject for own in PubTatorFolder(tmp_path, subject_pattern="([0-9])").read()] == ["1", "2"]
    assert {own.subject for own in PubTatorFolder(tmp_path, subject_pattern="(a)/x").read()} == {"a"}
    with pytest.raises(BadRecord, match=r"record '1', or its path 'a/x', does not match data.subject_pattern '\(q\)'"):
        PubTatorFolder(tmp_path, subject_pattern="(q)").read()
    put(tmp_path / "b" / "x.PubTator", TWO.replace("|a|c", "|a|d"))
    message = r"b/x.PubTator: line 1: document '1' is also in .*a/x.PubTator: line 1, with other contents, ids must"
    with pytest.raises(FedlitError, match=message):
        PubTatorFolder(tmp_path).read()
    assert len(PubTatorFolder(tmp_path, exclude=["b/*"]).read()) == 2
    with pytest.raises(
        FedlitError, match=r"no files named like \*.abc, there are README.txt, a/x.PubTator, b/x.PubTator"
    ):
        PubTatorFolder(tmp_path, files=["*.abc"]).read()


def test_a_bad_document_is_skipped_and_the_others_are_read(tmp_path):
    put(tmp_path / "x.PubTator", "\ufeff" + TWO.replace("0\t1\tD", "0\t9\tD"))
    with pytest.raises(BadRecord, match=r"x.PubTator: line 7 has a mention of 1 .* at 0 to 9.*data.exclude \['2'\]"):
        PubTatorFolder(tmp_path).read()
    data = PubTatorFolder(tmp_path, on_bad_record="skip")
    assert [own.id for own in data.read()] == ["1"]
    assert [own.id for own in PubTatorFolder(tmp_path, exclude=["2"]).read()] == ["1"]
    put(tmp_path / "y.PubTator", "nothing")
    (tmp_path / "z.PubTator").write_bytes(b"1|t|\xff")
    put(tmp_path / "w.PubTator", "\n")
    with pytest.raises(BadRecord, match="w.PubTator: holds no document"):
        PubTatorFolder(tmp_path, exclude=["2"]).read()
    with pytest.raises(BadRecord, match="y.PubTator: line 1 comes before any title"):
        PubTatorFolder(tmp_path, exclude=["2", "w*"]).read()
    with pytest.raises(BadRecord, match=r"z.PubTator: is not UTF-8 \(byte 4\): convert it"):
        PubTatorFolder(tmp_path, exclude=["2", "w*", "y*"]).read()
    assert len(data.read()) == 1


def test_conll_files(tmp_path):
    put(tmp_path / "a_train.tsv", "###1\nfever\tB\n")
    put(tmp_path / "b_test.bio", "###2\nfever\tB\n")
    read = ConllFolder(tmp_path, default_type="Sign").read()
    assert [(own.id, own.site, own.fold) for own in read] == [("1", "a", "train"), ("2", "b", "test")]
    read = ConllFolder(tmp_path, default_type="Sign", unit="sentence").read()
    assert [own.id for own in read] == ["a_train-1", "b_test-1"]
    with pytest.raises(BadRecord, match="a_train.tsv: no a_train.txt beside it: put the raw text there"):
        ConllFolder(tmp_path, raw_suffix=".txt").read()
    put(tmp_path / "a_train.txt", " fever\n")
    (own,) = ConllFolder(tmp_path, files=["a*.tsv"], raw_suffix=".txt", default_type="Sign").read()
    assert (own.text, own.mention(own.entities[0])) == (" fever\n", "fever")
    with pytest.raises(FedlitError, match="data.unit is 'page': give one of marked, sentence, file"):
        ConllFolder(tmp_path, unit="page")


def test_jsonl_files(tmp_path):
    entities = (Entity("x", "drug", 0, 1),)
    documents = [Document("1", "ab", entities, site="ward", fold="val"), Document("2", "cd", entities)]
    put(tmp_path / "north_train.jsonl", write_jsonl(documents))
    read = JSONLDocuments(tmp_path).read()
    assert [(own.id, own.site, own.fold, own.subject) for own in read] == [
        ("1", "ward", "val", "1"),
        ("2", "north", "train", "2"),
    ]


def test_brat_folders(tmp_path):
    for name in ("north/train/1", "south/train/1", "south/test/2"):
        put(tmp_path / f"{name}.txt", "a\r\nfever")
        put(tmp_path / f"{name}.ann", "T1\tSign 3 8\tfever\nA1\tNegated T1\n")
    data = BratFolder(tmp_path)
    read = data.read()
    assert [(own.id, own.site, own.fold) for own in read] == [
        ("north/train/1", "north", "train"),
        ("south/test/2", "south", "test"),
        ("south/train/1", "south", "train"),
    ]
    assert read[0].text == "a\r\nfever"
    assert data.ignored == {"A": 3}
    (tmp_path / "south/test/2.ann").unlink()
    with pytest.raises(
        BadRecord, match=r"2.txt: no 2.ann belongs to it: put it beside; .*data.exclude \['south/test/2'\]"
    ):
        BratFolder(tmp_path).read()
    assert len(BratFolder(tmp_path, exclude=["south/test/*"]).read()) == 2
    assert len(BratFolder(tmp_path, on_bad_record="skip").read()) == 2
    (tmp_path / "north/train/1.txt").unlink()
    with pytest.raises(BadRecord, match="1.ann: no 1.txt belongs to it"):
        BratFolder(tmp_path).read()
    put(tmp_path / "empty" / "x.csv", "")
    with pytest.raises(FedlitError, match=r"no texts \(.txt\) and annotations \(.ann\), it holds 1 .csv: set"):
        BratFolder(tmp_path / "empty").read()


@pytest.mark.parametrize(
    "folders", [{"txt": "txt", "con": "concept", "rel": "rel"}, dict.fromkeys(("txt", "con", "rel"), "")]
)
def test_i2b2_folders(tmp_path, folders):
    def path(site, ending):
        return tmp_path / "train" / site / folders[ending] / f"record-1.{ending}"

    for site in ("beth", "partners"):
        put(path(site, "txt"), "He has fever .\n")
        put(path(site, "con"), 'c="fever" 1:2 1:2||t="problem"\n')
    put(path("beth", "rel"), "")
    read = I2B2Folder(tmp_path).read()
    assert [(own.id, own.site, own.fold) for own in read] == [
        ("train/beth/record-1", "beth", "train"),
        ("train/partners/record-1", "partners", "train"),
    ]
    assert [sorted(own.annotated) for own in read] == [["entities", "relations"], ["entities"]]
    with pytest.raises(BadRecord, match="record-1.txt: no record-1.ast belongs to it|no record-1.ast belongs to it"):
        I2B2Folder(tmp_path, assertions=True).read()
    path("beth", "con").unlink()
    with pytest.raises(BadRecord, match="no record-1.con belongs to it: put it beside"):
        I2B2Folder(tmp_path).read()


def test_two_files_of_one_kind(tmp_path):
    put(tmp_path / "a.txt", "x")
    put(tmp_path / "txt" / "a.txt", "y")
    with pytest.raises(FedlitError, match=r"txt/a.txt: .*a.txt is the txt file of the same document: leave one"):
        I2B2Folder(tmp_path).read()


def test_roots_that_are_not_there(tmp_path):
    with pytest.raises(FedlitError, match="absent: No such file or directory: set data.root to the folder with"):
        BratFolder(tmp_path / "absent").setup()
    with pytest.raises(FedlitError, match="folder is empty: set data.root to the folder with files named like .*jsonl"):
        JSONLDocuments(tmp_path).setup()
    with pytest.raises(FedlitError, match="data.site_pattern 'x' has no group"):
        BratFolder(tmp_path, site_pattern="x")
    with pytest.raises(FedlitError, match="data.site_by is 'page': give one of file, folder"):
        BratFolder(tmp_path, site_by="page")
    with pytest.raises(FedlitError, match="data.pairs is 'last': give one of first, every"):
        PubTatorFolder(tmp_path, pairs="last")


CONFIGS = {
    PubTatorFolder: {"pairs": "every", "files": ["*.txt"]},
    ConllFolder: {"unit": "sentence", "default_type": "Disease"},
    BratFolder: {"site_pattern": "(.)", "types": ["a"]},
    I2B2Folder: {"assertions": True},
    JSONLDocuments: {"site_by": "folder", "schema": {"entities": ["a"], "relations": {}}},
    SimulatedNotes: {"notes": 99, "sites": 3, "sentences": 2, "simulation_seed": 5, "eval_batch_size": 7},
}


@pytest.mark.parametrize("reader", CONFIGS)
def test_a_reader_from_a_config(reader):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(FederatedDataModule, "data")
    common = {"annotated": {"client-1": ["entities"]}, "split": "record", "batch_size": 2}
    arguments = CONFIGS[reader] | common | ({} if reader is SimulatedNotes else {"root": "data"})
    given = arguments | {"partition": {"class_path": "RareTagBalanced", "init_args": {"clients": 4}}}
    made = parser.parse_object({"data": {"class_path": reader.__name__, "init_args": given}})
    data = parser.instantiate(made).data
    assert type(data) is reader
    config = data.config()
    assert config["partition"] == {"class": "RareTagBalanced", "clients": 4, "unit": "subject"}
    assert all(config[name] == value for name, value in arguments.items())


def test_every_reader_of_documents_that_is_exported_is_here():
    made = {cls for cls in vars(fedlit.data).values() if isinstance(cls, type) and issubclass(cls, DocumentDataModule)}
    assert made - {DocumentDataModule} == CONFIGS.keys()


def test_folders_of_patients_are_proposed_as_subjects(tmp_path):
    for patient in range(1, 9):
        for note in "ab":
            put(tmp_path / f"patient{patient:03d}" / f"{note}.txt", f"fever {patient} {note}")
            put(tmp_path / f"patient{patient:03d}" / f"{note}.ann", "T1\tSign 0 5\tfever\n")
    data = BratFolder(tmp_path, partition=IID(2))
    with pytest.warns(
        UserWarning, match=r"patient001, patient002, .* look like subjects: set data.subject_pattern '\^\("
    ):
        data.setup()
    mended = BratFolder(tmp_path, partition=IID(2), subject_pattern="^([^/]+)/").describe()
    assert not [said for said in mended["warnings"] if "look like" in said]
    assert mended["clients"]["client-1"]["subjects"] == 4


def test_an_id_with_brackets_is_left_out_by_its_name(tmp_path):
    put(tmp_path / "a.jsonl", '{"id": "n[x]", "text": " "}\n{"id": "n1", "text": "b", "entities": []}\n')
    with pytest.raises(BadRecord, match=r"data.exclude \['n\[x\]'\]"):
        JSONLDocuments(tmp_path).read()
    assert [own.id for own in JSONLDocuments(tmp_path, exclude=["n[x]"]).read()] == ["n1"]
