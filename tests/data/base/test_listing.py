"""Which files are data, what their records are called, what their folders tell, and what is said where none fits."""

from pathlib import Path

import pytest

from fedlit.data import IID, BratFolder, JSONLDocuments, SignalTable, TextTable, WFDBFolder
from fedlit.data.base.listing import data_files, folder_proposal, nothing_to_read, record_names
from fedlit.data.base.names import NameRule
from fedlit.data.base.records import BadRecord
from fedlit.errors import FedlitError

JUNK = (
    "._a.csv", ".DS_Store", "Thumbs.db", "thumbs.DB", "desktop.ini", "a.csv~", "#a.csv#", "~$a.csv", "__MACOSX/._a.csv",
    "__MACOSX/a.csv", ".ipynb_checkpoints/a.csv", "deep/__MACOSX/b.csv",
)  # fmt: skip


def put(root: Path, *names: str) -> list[Path]:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")
    return [root / name for name in names]


def test_what_systems_archives_and_editors_leave_is_passed_over(tmp_path):
    kept = put(tmp_path, "a.csv", "b~c.csv", "deep/a#1.csv", "deep/MACOSX/a.csv")
    found, passed = data_files(tmp_path)
    assert (found, passed) == (sorted(kept), [])
    put(tmp_path, *JUNK)
    found, passed = data_files(tmp_path)
    assert found == sorted(kept)
    assert passed == sorted(tmp_path / name for name in JUNK)


def test_a_root_that_is_itself_in_a_folder_with_a_dot_is_read(tmp_path):
    kept = put(tmp_path, ".cache/data/a.csv")
    assert data_files(tmp_path / ".cache" / "data") == (kept, [])


def test_a_folder_that_cannot_be_listed_is_never_passed_over(tmp_path, monkeypatch):
    put(tmp_path, "a/b.csv")

    def walk(root, onerror):
        onerror(PermissionError(13, "Permission denied", str(root / "a")))
        return iter(())

    monkeypatch.setattr("fedlit.data.base.listing.os.walk", walk)
    with pytest.raises(FedlitError, match="a: Permission denied: make the folder readable"):
        data_files(tmp_path)


SHORT = {"context_length": 12, "prediction_length": 4}
READERS = {
    "wfdb": lambda root: WFDBFolder(root, partition=IID(2), subject_pattern="(.+)", **SHORT),
    "csv": lambda root: SignalTable(root, {"ECG": "ecg"}, 100, **SHORT),
    "brat": lambda root: BratFolder(root, partition=IID(2)),
    "jsonl": lambda root: JSONLDocuments(root, partition=IID(2)),
}


@pytest.mark.parametrize("kind", READERS)
def test_every_reader_passes_over_side_cars_and_counts_them(kind, tmp_path):
    plain = READERS[kind](tmp_path)
    plain.use_stand_in(tmp_path / "data")
    wanted = plain.describe()
    side_cars = [path.with_name(f"._{path.name}") for path in sorted((tmp_path / "data").rglob("*")) if path.is_file()]
    for path in side_cars:
        path.write_bytes(b"\x00\x05\x16\x07")
    again = READERS[kind](tmp_path)
    again.write_stand_in = lambda folder: None
    again.use_stand_in(tmp_path / "data")
    seen = again.describe()
    assert wanted["passed_over"] == []
    assert seen["passed_over"] == sorted(map(str, side_cars))
    assert {**seen, "passed_over": []} == wanted


def test_a_record_is_named_by_its_file_or_where_names_repeat_by_its_path(tmp_path):
    different = [tmp_path / "x" / "a.csv", tmp_path / "y" / "b.csv.gz"]
    assert list(record_names(different, tmp_path).values()) == ["a", "b"]
    same = [tmp_path / "x" / "a.csv", tmp_path / "y" / "a.csv.gz", tmp_path / "c.v1.csv"]
    assert list(record_names(same, tmp_path).values()) == ["x/a", "y/a", "c.v1"]
    assert list(record_names([tmp_path / "a.csv"], tmp_path / "a.csv").values()) == ["a"]


def test_a_pattern_is_looked_for_in_the_name_then_in_the_path():
    assert NameRule("data.site_pattern", "^([a-z]+)").of("rec1", "hospital/rec1") == "rec"
    assert NameRule("data.site_pattern", "^([^/]+)/").of("rec1", "hospital/rec1") == "hospital"
    with pytest.raises(BadRecord, match="record 'rec1', or its path 'h/rec1', does not match data.site_pattern"):
        NameRule("data.site_pattern", "(x)").of("rec1", "h/rec1")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["patient001/s0010_re.hea", "patient002/s0014lre.hea"], ["data.subject_pattern '^([^/]+)/'", "patient001"]),
        (["Subject_1/Rec_1/acc.csv", "Subject_2/Rec_1/acc.csv"], ["data.subject_pattern '^([^/]+)/'"]),
        (
            ["hospA/p1/r1.csv", "hospB/p2/r1.csv"],
            ["data.subject_pattern '^[^/]+/([^/]+)/'", "data.site_pattern '^([^/]+)/'"],
        ),
        (["anna/walk.csv", "bert/walk.csv"], ["data.subject_pattern '^([^/]+)/'"]),
        (["00000/00001_lr.hea", "01000/01001_lr.hea"], []),
        (["a.csv", "b.csv"], []),
        (["patient1/a.csv", "patient1/b.csv"], []),
        ([], []),
    ],
)
def test_folders_that_are_evidently_subjects_or_sites_are_proposed(names, said, tmp_path):
    text = folder_proposal([tmp_path / name for name in names], tmp_path)
    assert bool(text) == bool(said)
    assert all(part in text for part in said)


def test_where_nothing_fits_the_folder_is_described_and_a_reader_named(tmp_path):
    put(tmp_path, "a.edf", "b.edf", "c.txt", "._d.edf")
    text = str(nothing_to_read(tmp_path, "WFDB record (.hea)"))
    assert "no WFDB record (.hea), it holds 2 .edf, 1 .txt: set data.root" in text
    assert "EDFFolder" in text
    (tmp_path / "empty").mkdir()
    assert "it holds no file: set data.root" in str(nothing_to_read(tmp_path / "empty", "table"))


def test_a_table_in_another_folder_names_repeated_rows(tmp_path):
    (tmp_path / "t.csv").write_text("text,label,id\nthe one,a,1\nthe two,b,1\n")
    with pytest.raises(FedlitError, match="two records are named '1'"):
        TextTable(tmp_path / "t.csv", id_column="id").setup()
