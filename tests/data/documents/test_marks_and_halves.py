"""Byte order marks, other line breaks, other encodings and half characters, in every format of documents."""

from __future__ import annotations

import json

import pytest

from fedlit.data import IID, BratFolder, ConllFolder, I2B2Folder, JSONLDocuments, PubTatorFolder
from fedlit.data.base.records import BadRecord
from fedlit.errors import FedlitError

TEXT = "pain and\nfever"
JSON = json.dumps({"id": "1", "text": TEXT, "entities": [{"id": "T1", "type": "Sign", "start": 0, "end": 4}]})
FILES = {
    BratFolder: {"n.txt": TEXT, "n.ann": "T1\tSign 0 4\tpain\nT2\tSign 9 14\tfever\n"},
    I2B2Folder: {"n.txt": TEXT, "n.con": 'c="pain" 1:0 1:0||t="Sign"\n', "n.ast": "", "n.rel": ""},
    PubTatorFolder: {"n.PubTator": "1|t|pain and\n1|a|fever\n1\t0\t4\tpain\tSign\t-1\n"},
    ConllFolder: {"n.conll": "###1\npain\tB-Sign\nand\tO\n\nfever\tB-Sign\n"},
    JSONLDocuments: {"n.jsonl": JSON + "\n"},
}


def put(folder, files, encoding="utf-8"):
    for name, content in files.items():
        (folder / name).write_bytes(content.encode(encoding))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("reader", FILES)
def test_a_mark_before_every_file(reader, encoding, tmp_path):
    put(tmp_path, FILES[reader], encoding)
    (own,) = reader(tmp_path).read()
    assert own.text == TEXT
    assert own.mention(own.entities[0]) == "pain"


@pytest.mark.parametrize("reader", [PubTatorFolder, ConllFolder, JSONLDocuments])
def test_marks_where_files_were_joined(reader, tmp_path):
    (name, content) = next(iter(FILES[reader].items()))
    again = content.replace("1|", "2|").replace("1\t0", "2\t0").replace("###1", "###2").replace('"1"', '"2"')
    put(tmp_path, {name: "\ufeff" + content + "\ufeff" + again})
    assert [own.id for own in reader(tmp_path).read()] == ["1", "2"]


@pytest.mark.parametrize("reader", FILES)
def test_another_encoding(reader, tmp_path):
    files = {name: content.replace("fever", "ubel\u00fc") for name, content in FILES[reader].items()}
    files = {name: content.replace("\\u00fc", "\u00fc") for name, content in files.items()}
    put(tmp_path, files, "latin-1")
    if reader is JSONLDocuments:
        (tmp_path / "n.jsonl").write_bytes(JSON.replace("fever", "ubel\u00fc").encode("latin-1"))
    with pytest.raises(BadRecord, match=r"n\..* is not UTF-8 \(byte .*: convert it, or set data.encoding"):
        reader(tmp_path).read()
    (own,) = reader(tmp_path, encoding="latin-1").read()
    assert own.text == TEXT.replace("fever", "ubel\u00fc")
    with pytest.raises(FedlitError, match="data.encoding 'klingon' is unknown"):
        reader(tmp_path, encoding="klingon")


@pytest.mark.parametrize(
    ("text", "ann", "how"),
    [
        ("\ufeffpain and fever", "T1\tSign 1 5\tpain\n", "the byte order mark"),
        ("\ufeffpain and fever", "T1\tSign 1 3;4 5\tpa n\nT2\tX 10 15\tfever\n", "the byte order mark"),
        ("a\r\nb pain", "T1\tSign 4 8\tpain\n", "line breaks as one character"),
        ("a\nb pain", "T1\tSign 5 9\tpain\n", "line breaks as two characters"),
        ("\ufeffa\r\nb pain", "T1\tSign 6 10\tpain\n", "the byte order mark"),
        ("\ufeffa\r\nb\r\n pain", "T1\tSign 6 10\tpain\n", "the byte order mark and line breaks as one character"),
    ],
)
def test_offsets_that_were_counted_in_another_text(text, ann, how, tmp_path):
    for n in range(12):
        put(tmp_path, {f"n{n}.txt": f"{text} {n}", f"n{n}.ann": ann})
    data = BratFolder(tmp_path, partition=IID(2))
    with pytest.warns(UserWarning, match="not one relation"):
        data.setup()
    said = f"12 document(s) are annotated in a text that counts {how}: offsets are read so"
    assert said in data.describe()["warnings"]
    assert all("".join(own.mention(own.entities[0]).split()) in ("pain", "pan") for own in data.documents)
    assert not any("\ufeff" in own.text for own in data.documents)


def test_offsets_that_fit_with_no_mark(tmp_path):
    put(tmp_path, {"n.txt": "\ufeffpain", "n.ann": "T1\tSign 2 4\tpain\n"})
    with pytest.raises(
        BadRecord, match=r"line 1 has a mention of 4 characters at 2 to 4.*\(the text's byte order mark is not"
    ):
        BratFolder(tmp_path).read()


HALF = {"id": "1", "text": "fever \ud83d", "entities": [{"id": "T1", "type": "Sign", "start": 0, "end": 5}]}


@pytest.mark.parametrize(
    "change",
    [
        {}, {"text": "fever", "id": "1\ud83d"}, {"text": "fever", "subject": "\udc00"},
        {"text": "fever", "site": "\udc00"},
        {"text": "fever", "entities": [{"id": "T1", "type": "S\ud83d", "start": 0, "end": 5}]},
        {"text": "fever", "entities": [{"id": "\ud83d", "type": "Sign", "start": 0, "end": 5}]},
        {"text": "fever", "entities": [{"id": "T1", "type": "Sign", "start": 0, "end": 5, "concept": "\ud83d"}]},
        {"text": "fever", "relations": [{"type": "\ud83d", "head": "T1", "tail": "T1"}]},
        {"text": "fever", "relations": [{"type": "r", "head": "T1", "tail": "T1", "concepts": [["\ud83d", "x"]]}]},
    ],
)  # fmt: skip
def test_half_a_character_is_a_bad_record(change, tmp_path):
    good = [json.dumps({**HALF, "id": f"g{n}", "text": f"fever {n}"}) for n in range(12)]
    (tmp_path / "n.jsonl").write_text("\n".join([*good, json.dumps(HALF | change)]))  # json writes halves as escapes
    with pytest.raises(BadRecord, match=r"n.jsonl: line 13: document '.*' holds half a character \(a lone surrogate\)"):
        JSONLDocuments(tmp_path).read()
    data = JSONLDocuments(tmp_path, partition=IID(2), on_bad_record="skip")
    with pytest.warns(UserWarning, match=r"1 bad record\(s\) skipped, 12 kept"):
        data.setup()
    json.dumps(data.describe(), ensure_ascii=False).encode()


def test_a_file_name_that_is_no_text(tmp_path):
    name = b"n\xff.jsonl"
    try:
        with open(bytes(tmp_path) + b"/" + name, "wb") as file:
            file.write(JSON.encode())
    except OSError:
        pytest.skip("the file system refuses such names")
    with pytest.raises(FedlitError, match=r"n\\udcff.jsonl: the file's name is not UTF-8: rename it"):
        JSONLDocuments(tmp_path).read()
