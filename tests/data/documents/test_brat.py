"""brat stand-off files."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlit.data.base.records import BadRecord
from fedlit.data.documents.brat import parse_brat, write_brat
from fedlit.data.documents.documents import Document, Entity, Relation
from fedlit.data.documents.formats import document

TEXT = "Fever and left\nand right arm pain."
ANN = """T1\tSign 0 5\tFever
T2\tSign 10 14;29 33\tleft pain
T3\tSign 19 33\tright arm pain
T4\tSign 15 18\tand
E1\tSign:T1 Loc2:T2 Cause:E2
E2\tSign:T4
R1\tMODIFY Arg1:E1 Arg2:T3\t
*\tOVERLAP T3 T2 E1
A1\tNegated T1
M1\tHedged E1
#1\tAnnotatorNotes T1\tsure?
N1\tReference T1 UMLS:C0015967\tFever
N2\tReference T1 ICD:R50\tFever
"""


def test_all_kinds_of_lines():
    own, ignored = parse_brat(TEXT, ANN, "n")
    assert [own.mention(entity) for entity in own.entities] == ["Fever", "left pain", "and", "right arm pain"]
    assert own.by_id()["T2"].fragments == ((10, 14), (29, 33))
    assert own.by_id()["T1"].concept == "UMLS:C0015967|ICD:R50"
    assert set(own.relations) == {
        Relation("Loc", "T1", "T2"),
        Relation("Cause", "T1", "T4"),
        Relation("MODIFY", "T1", "T3"),
        Relation("OVERLAP", "T1", "T2"),
        Relation("OVERLAP", "T2", "T3"),
        Relation("OVERLAP", "T1", "T3"),
    }
    assert ignored == {"A": 1, "M": 1, "#": 1, "numbers of roles": 1}
    text, ann = write_brat(own)
    assert text == TEXT
    assert parse_brat(text, ann, "n") == (own, {})


def test_a_mention_is_not_linked_to_itself_by_an_equivalence():
    own, _ = parse_brat("a b", "T1\tX 0 1\ta\nT2\tX 2 3\tb\nE1\tX:T1\n*\tEquiv T2 E1 T1\n", "n")
    assert own.relations == (Relation("Equiv", "T1", "T2"),)


def test_line_breaks_of_windows_count_in_the_text_only():
    own, _ = parse_brat("a\r\nfever", "T1\tX 3 8\tfever\r\nT2\tX 0 8\ta  fever\r\n", "n")
    assert [own.mention(entity) for entity in own.entities] == ["a\r\nfever", "fever"]


def test_ids_of_others_are_numbered_anew():
    own = Document("1", "a b", (Entity("x", "A", 0, 1), Entity("y", "B", 2, 3)), (Relation("R", "y", "x"),))
    assert write_brat(own)[1] == "T1\tA 0 1\ta\nT2\tB 2 3\tb\nR1\tR Arg1:T2 Arg2:T1\n"
    with pytest.raises(BadRecord, match="'1' cannot be written as brat: the type 'A b' is empty, or has blanks"):
        write_brat(Document("1", "a", (Entity("x", "A b", 0, 1),)))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Sign 0 5", "Sign 0 99", "n.ann: line 1 has a mention of 5 characters at 0 to 99, outside of a text of 34"),
        ("Sign 0 5", "Sign 5 5", "line 1 has a mention of 5 characters at 5 to 5, outside"),
        (
            "Sign 0 5",
            "Sign 1 5",
            "5 characters at 1 to 5, which is not what the text has there: it would fit at 0 to 5",
        ),
        ("Sign 0 5\t", "Sign 0\t", "line 1, 3 field(s) between tabs, is not T1<TAB>Type start end<TAB>text: mend"),
        ("Sign 0 5\tFever", "Sign 0 5", "line 1 is without the mention's text"),
        ("Arg2:T3", "Arg2:T9", "line 7 names 'T9', which is no mention or event of the file: mend the line"),
        ("T4\tSign", "T3\tSign", "line 4 is named 'T3', as a line before it: give each its own id"),
        ("R1\tMODIFY Arg1", "Q1\tMODIFY Arg1", "line 7 does not begin as lines of brat do, with T, R, E"),
        ("R1\tMODIFY Arg1:E1", "R1\tMODIFY", "line 7, 3 field(s) between tabs, is not R1<TAB>Type Arg1:T1 Arg2:T2"),
        ("E2\tSign:T4", "E2\tSign:T8", "line 5 names 'E2', which is no mention"),
        ("Sign 10 14;29 33\tleft pain", "Sign 10 20;19 33\tleft\nand r right arm pain", "fragments"),
    ],
)
def test_bad_lines(old, new, message):
    ann = ANN.replace(old, new, 1)
    if message == "fragments":
        ann = "T1\tX 10 20;19 33\tleft and r right arm pain"
        message = "n.ann: document 'n' has the mention 'T1' with fragments out of order or overlapping"
    with pytest.raises(BadRecord) as caught:
        parse_brat(TEXT, ann, "n", "n.ann")
    assert message in str(caught.value)


def test_an_empty_note():
    with pytest.raises(BadRecord, match="n.ann: document 'n' has an empty text: fill it in"):
        parse_brat(" \n", "", "n", "n.ann")


@st.composite
def documents(draw):
    """Any document: mentions nested, crossing, equal, with gaps; any characters."""
    text = draw(st.text(min_size=1).filter(str.strip))
    entities = []
    ids = st.integers(1, 99).map("T{}".format)
    for id in draw(st.lists(ids, unique=True, max_size=5)):
        cuts = sorted(draw(st.lists(st.integers(0, len(text)), min_size=2, max_size=6, unique=True)))
        parts = tuple(zip(cuts[::2], cuts[1::2], strict=False))
        type = draw(st.sampled_from(["A", "b-2", "Ü"]))
        concept = draw(st.sampled_from([None, "M:1", "M:1|N:2"]))
        entities.append(Entity(id, type, parts[0][0], parts[-1][1], parts if len(parts) > 1 else (), concept))
    names = st.sampled_from([entity.id for entity in entities] or ["none"])
    relation = st.builds(Relation, st.sampled_from(["R", "s-1"]), names, names)
    relations = draw(st.lists(relation, max_size=4)) if entities else []
    return document("f", "n", text, entities, relations)


@settings(deadline=None, max_examples=150)
@given(documents())
def test_any_document_is_written_and_read(own):
    text, ann = write_brat(own)
    assert parse_brat(text, ann, "n") == (own, {})
