"""Files of i2b2 2010."""

from __future__ import annotations

import pytest

from fedlit.data.base.records import BadRecord
from fedlit.data.documents.documents import Document, Entity, Relation
from fedlit.data.documents.i2b2 import parse_i2b2, write_i2b2

TEXT = 'Admission Date :\nNo  Heart failure .\nHe took "Aspirin" , 81 mg .'
CON = """c="heart failure" 2:1 2:2||t="problem"
c=""aspirin"" 3:2 3:2||t="treatment"
"""
AST = 'c="heart failure" 2:1 2:2||t="problem"||a="absent"\n'
REL = 'c=""aspirin"" 3:2 3:2||r="TrAP"||c="heart failure" 2:1 2:2\n'


def test_a_note():
    own = parse_i2b2(TEXT, CON, REL, id="n")
    said = [("Heart failure", "problem"), ('"Aspirin"', "treatment")]
    assert [(own.mention(e), e.type) for e in own.entities] == said
    assert own.relations == (Relation("TrAP", "T2", "T1"),)
    assert own.annotated == {"entities", "relations"}
    assert write_i2b2(own) == {".txt": TEXT, ".con": CON, ".rel": REL}


def test_a_note_without_relations_or_with_assertions():
    assert parse_i2b2(TEXT, CON).annotated == {"entities"}
    assert parse_i2b2(TEXT, CON, "").annotated == {"entities", "relations"}
    assert ".rel" not in write_i2b2(parse_i2b2(TEXT, CON))
    own = parse_i2b2(TEXT, CON, REL, AST)
    assert [entity.type for entity in own.entities] == ["problem-absent", "treatment"]
    assert own.relations == (Relation("TrAP", "T2", "T1"),)


def test_a_concept_over_two_lines_and_listed_twice():
    own = parse_i2b2("a b\nc d", 'c="b c" 1:1 2:0||t="problem"\n' * 2)
    assert [own.mention(entity) for entity in own.entities] == ["b\nc"]


@pytest.mark.parametrize(
    ("con", "rel", "ast", "message"),
    [
        (CON.replace("2:2", "2:9"), REL, None, "beth/n.con: line 1 names line 2, token 9, which the note lacks"),
        (CON.replace("2:1 ", "0:1 "), REL, None, "beth/n.con: line 1 names line 0, token 1, which the note lacks"),
        (
            CON.replace("2:1 ", "2:0 "),
            REL,
            None,
            "at 2:0 to 2:2, which is not what the text has there: it would fit at 2:1 to",
        ),
        (CON.replace("||t=", "|t="), REL, None, "beth/n.con: line 1, 1 field(s) between ||, is not c="),
        (
            CON,
            REL.replace("2:1 2:2", "1:0 1:0").replace("heart failure", "admission"),
            None,
            "relates a mention at 1:0 to",
        ),
        (CON, REL.replace("||r=", "||x="), None, "beth/n.rel: line 1, 3 field(s) between ||, is not c="),
        (
            CON,
            REL,
            AST.replace('t="problem"', 't="test"'),
            "n.ast: line 1 asserts a mention at 2:1 to 2:2, which",
        ),
    ],
)
def test_bad_lines(con, rel, ast, message):
    with pytest.raises(BadRecord) as caught:
        parse_i2b2(TEXT, con, rel, ast, "n", "beth/n")
    assert message in str(caught.value)
    with pytest.raises(BadRecord, match="n.txt: document 'n' has an empty text"):
        parse_i2b2("", "", id="n", name="n")


def test_mentions_within_words_cannot_be_written():
    own = Document("1", "hearts", (Entity("T1", "P", 0, 5),))
    with pytest.raises(BadRecord, match="'1' cannot be written as i2b2: the mention 'T1' is not made of whole words"):
        write_i2b2(own)
