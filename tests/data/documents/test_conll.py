"""Tokens with BIO and BIOES tags."""

from __future__ import annotations

import pytest

from fedlit.data.base.records import BadRecord
from fedlit.data.documents.conll import conll_pieces, parse_conll, write_conll
from fedlit.data.documents.documents import Document, Entity

BIO = """-DOCSTART- (n1)\tO

No\tO
heart\tB-P
failure\tI-P
asthma\tB-P
.\tO

Aspirin\tB-D
given\tO
"""
BIOES = """###n1
No O
heart B-P
failure E-P
asthma S-P
. O

Aspirin U-D
given O
"""


def spans(own):
    return [(own.mention(entity), entity.type) for entity in own.entities]


@pytest.mark.parametrize("content", [BIO, BIOES, BIO.replace("\n", "\r\n"), BIO.replace("\t", " x NN ")])
def test_the_same_mentions_in_every_scheme(content):
    (own,) = parse_conll(content)
    assert own.id == "n1"
    assert own.text == "No heart failure asthma .\nAspirin given"
    assert spans(own) == [("heart failure", "P"), ("asthma", "P"), ("Aspirin", "D")]
    assert own.annotated == {"entities"}


def test_inside_without_a_beginning_begins_a_mention():
    (own,) = parse_conll("-DOCSTART- -X- O O\n\na x x I-P\nb x x I-P\nc x x I-Q\n\nd x x I-Q\n")
    assert spans(own) == [("a b", "P"), ("c", "Q"), ("d", "Q")]
    assert own.id == "document-1"
    (own,) = parse_conll("###1\na\tS-P\nb\tI-P\n")
    assert spans(own) == [("a", "P"), ("b", "P")]


def test_units():
    content = BIO.replace("-DOCSTART- (n1)\tO\n\n", "")
    sentences = parse_conll(content, stem="f", unit="sentence")
    assert [(own.id, own.text) for own in sentences] == [("f-1", "No heart failure asthma ."), ("f-2", "Aspirin given")]
    (whole,) = parse_conll(content, stem="f", unit="file")
    assert (whole.id, whole.text) == ("f", parse_conll(BIO)[0].text)
    with pytest.raises(BadRecord, match="f: line 1 comes before any -DOCSTART- or ### line: .* data.unit to sentence"):
        parse_conll(content, "f")
    assert len(parse_conll(BIO + "\n" + BIO.replace("n1", "n2"))) == 2


def test_columns_and_bare_tags():
    content = "###1\nB-P\tgood\tO\nI-P\tluck\tO\n"
    assert spans(parse_conll(content, tag_column=0)[0]) == [("B-P I-P", "P")]
    bare = "###1\ngood\tB\nluck\tI\n"
    assert spans(parse_conll(bare, default_type="Disease")[0]) == [("good luck", "Disease")]
    with pytest.raises(BadRecord, match="f: line 2 has a tag without a type: set data.default_type"):
        parse_conll(bare, "f")


def test_offsets_of_a_raw_text():
    raw = "No  heart-failure,\n\tasthma."
    content = "###1\nNo\tO\nheart\tB-P\n-\tI-P\nfailure\tI-P\n,\tO\nasthma\tS-P\n.\tO\n"
    (own,) = parse_conll(content, raw=raw)
    assert own.text == raw
    assert spans(own) == [("heart-failure", "P"), ("asthma", "P")]
    message = "f: line 4: the token of 1 character.s. is not what follows in the raw text from character 9 on: mend"
    with pytest.raises(BadRecord, match=message):
        parse_conll(content, "f", raw=raw.replace("-", " "))
    with pytest.raises(BadRecord, match="f: line 3: the token .* from character 2 on, it is at 8: mend either"):
        parse_conll(content, "f", raw="No weak heart-failure, asthma.")
    with pytest.raises(BadRecord, match="f: holds 2 documents and there is one raw text: give each document a file"):
        parse_conll("###1\na\tO\n###2\nb\tO\n", "f", raw="a b")


def test_written_and_read():
    documents = parse_conll(BIO + "\n" + BIOES.replace("n1", "n2").replace(" ", "\t"))
    assert parse_conll(write_conll(documents)) == documents


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (Document("1", "hearts", (Entity("T1", "P", 0, 5),)), "'T1' is not made of whole words of one line"),
        (Document("1", "a\nb", (Entity("T1", "P", 0, 3),)), "'T1' is not made of whole words of one line"),
        (Document("1", "a b", (Entity("T1", "P", 0, 3), Entity("T2", "P", 2, 3))), "'T2' overlaps another"),
        (Document("1 2", "a b"), "its id has blanks"),
    ],
)
def test_what_conll_cannot_hold(own, message):
    with pytest.raises(BadRecord, match=message):
        write_conll([own])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("###1\na\tO\nb\n", "f: line 3 has 1 column(s) or no token, not 2 as the first: mend the line"),
        ("###1\na\n", "f: line 2 has 1 column(s) or no token, not 2 or more (token, ..., tag)"),
        ("###1\n\tO\n", "f: line 2 has 2 column(s) or no token"),
        ("###1\na\tX-P\n", "f: line 2 has a tag of 3 character(s) that is none: give O, or B-, I-, E-, S-"),
        ("###1\n\n###2\na\tO\n", "f: line 1: document '1' has an empty text"),
    ],
)
def test_bad_lines(content, message):
    with pytest.raises(BadRecord) as caught:
        parse_conll(content, "f")
    assert message in str(caught.value)


def test_a_column_that_is_not_there():
    with pytest.raises(BadRecord, match="f: line 2 has 2 columns and no column 3: mend data.tag_column"):
        parse_conll("###1\na\tO\n", "f", tag_column=3)


def test_a_bad_document_does_not_spoil_the_others():
    first, second = conll_pieces("###1\na\tX\n###2\nb\tO\n", "f", "f")
    with pytest.raises(BadRecord):
        first.parse()
    assert second.parse().text == "b"
