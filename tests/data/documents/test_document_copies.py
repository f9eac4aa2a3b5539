"""The same document twice, and two documents of one id; lines that are no documents."""

from __future__ import annotations

import json
import warnings

import pytest

from fedlit.data import IID, JSONLDocuments, PubTatorFolder
from fedlit.data.base.records import BadRecord

MENTIONS = "{0}\t0\t5\tFever\tDisease\tD1\n{0}\t6\t7\t{0}\tDisease\tD2\n{0}\tR\tD1\tD2\n\n"
ABSTRACT = "{0}|t|Fever {0}\n{0}|a|Nausea in {1}.\n" + MENTIONS


def corpus(path, *more):
    path.write_text("".join([*(ABSTRACT.format(n, n) for n in "123456789"), *more]))


def test_a_copy_counts_once(tmp_path):
    corpus(tmp_path / "a.PubTator", ABSTRACT.format("5", "5"))
    corpus(tmp_path / "b.PubTator")
    data = PubTatorFolder(tmp_path, partition=IID(2))
    message = r"10 document\(s\) are there again, to the letter, and count once, where they are read first: 5, 1, 2"
    with pytest.warns(UserWarning, match=message):
        data.setup()
    assert sorted(own.id for own in data.documents) == list("123456789")
    assert {own.site for own in data.documents} == {"a"}
    excluded = {row["record"]: row["reason"] for row in data.describe()["excluded"]}
    assert set(excluded) == {"5#2", "5#3", *(f"{n}#2" for n in "12346789")}
    assert excluded["5#2"].endswith("a.PubTator: line 25")
    assert len(PubTatorFolder(tmp_path, exclude=["b*"]).read()) == 9
    assert [len(data.read()), len(data.read())] == [9, 9]


def test_two_documents_of_one_id_and_the_mends_of_the_error(tmp_path):
    corpus(tmp_path / "a.PubTator", ABSTRACT.format("5", "6"))
    with pytest.raises(BadRecord) as caught:
        PubTatorFolder(tmp_path).read()
    assert "a.PubTator: line 55: document '5' is also in" in str(caught.value)
    assert "a.PubTator: line 25, with other contents, ids must be unique: rename one; to leave it out: " in str(
        caught.value
    )
    assert "data.exclude ['5#2'], or data.on_bad_record skip" in str(caught.value)
    left = PubTatorFolder(tmp_path, exclude=["5#2"]).read()
    assert [own.id for own in left] == list("123456789")
    assert "Nausea in 5" in left[4].text
    assert PubTatorFolder(tmp_path, on_bad_record="skip").read() == left
    assert len(PubTatorFolder(tmp_path, exclude=["5"]).read()) == 8  # all of the id


def test_concepts_of_relations_are_contents(tmp_path):
    line = {
        "id": "1",
        "text": "a b",
        "entities": [{"id": i, "type": "X", "start": 2 * n, "end": 2 * n + 1} for n, i in enumerate("AB")],
    }
    relation = {"type": "R", "head": "A", "tail": "B", "concepts": [["C1", "C2"]]}
    other = relation | {"concepts": [["C1", "C3"]]}
    lines = [json.dumps(line | {"relations": [one]}) for one in (relation, relation, other)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    with pytest.raises(BadRecord, match=r"a.jsonl: line 3: document '1' is also in .*line 1, with other.*\['1#3'\]"):
        JSONLDocuments(tmp_path).read()
    assert len(JSONLDocuments(tmp_path, exclude=["1#3"]).read()) == 1


def test_a_line_that_is_no_document_is_skipped_alone(tmp_path):
    lines = [
        '{"id": "1", "text": "a", "entities": []}',
        "{",
        "[]",
        '{"text": "b"}',
        '{"id": "2", "text": "c", "entities": []}',
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    with pytest.raises(BadRecord, match=r"a.jsonl: line 2 is not JSON .*data.exclude \['a.jsonl:2'\]"):
        JSONLDocuments(tmp_path).read()
    with pytest.raises(BadRecord, match=r"line 3 is list, not an object.*\['a.jsonl:3'\]"):
        JSONLDocuments(tmp_path, exclude=["a.jsonl:2"]).read()
    with pytest.raises(BadRecord, match=r"line 4 has nothing as id: give text.*\['a.jsonl:4'\]"):
        JSONLDocuments(tmp_path, exclude=["a.jsonl:[23]"]).read()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [own.id for own in JSONLDocuments(tmp_path, on_bad_record="skip").read()] == ["1", "2"]
