"""Annotated documents as JSON lines."""

from __future__ import annotations

import json
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlit.data.base.records import BadRecord
from fedlit.data.documents.documents import BOTH, Entity, Relation
from fedlit.data.documents.formats import document
from fedlit.data.documents.jsonl import jsonl_pieces, parse_jsonl, write_jsonl

GIVEN = {
    "id": "n1",
    "text": "No fever on aspirin.",
    "entities": [
        {"id": "x", "type": "problem", "start": 3, "end": 8},
        {"id": "y", "type": "drug", "start": 12, "end": 19, "concept": "RX:1", "fragments": [[12, 14], [15, 19]]},
    ],
    "relations": [{"type": "treats", "head": "y", "tail": "x", "concepts": [["RX:1", "C"]]}],
    "subject": "patient-7",
    "site": "ward-2",
    "fold": "dev",
    "meta": {"any": ["thing"]},
}


def one(**changes):
    kept = {name: value for name, value in (GIVEN | changes).items() if value is not ...}
    return json.dumps(kept)


def test_a_line():
    (own,) = parse_jsonl("\n" + one() + "\n")
    assert own.entities == (Entity("x", "problem", 3, 8), Entity("y", "drug", 12, 19, ((12, 14), (15, 19)), "RX:1"))
    assert own.relations == (Relation("treats", "y", "x"),)
    assert own.relations[0].concepts == (("RX:1", "C"),)
    assert (own.subject, own.site, own.fold, own.annotated) == ("patient-7", "ward-2", "val", BOTH)


def test_what_is_left_out_was_not_looked_for():
    assert parse_jsonl(one(relations=...))[0].annotated == {"entities"}
    assert parse_jsonl(one(relations=[]))[0].annotated == BOTH
    assert parse_jsonl(one(relations=..., entities=...))[0].annotated == frozenset()
    assert parse_jsonl(one(annotated=["relations"]))[0].annotated == {"relations"}
    own = parse_jsonl('{"id": "a", "text": "b"}')[0]
    assert (own.subject, own.site, own.fold) == ("a", "site-unknown", None)
    (piece,) = jsonl_pieces('{"id": "a", "text": "b"}', "f", "file-1")
    assert piece.parse().site == "file-1"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "f: line 2 is not JSON"),
        ("[]", "f: line 2 is list, not an object: write one object a line"),
        (one(id=...), "f: line 2 has nothing as id: give text"),
        (one(id=3), "f: line 2 has a number as id: give text"),
        (one(text=...), "f: line 2 has nothing as text: give text"),
        (one(text="  "), "f: line 2: document 'n1' has an empty text: fill it in"),
        (one(entites=[]), "f: line 2: document has the field 'entites', there are id, text, entities"),
        (one(fever=[]), "f: line 2: document has the field 9 (of 5 characters), not known, there are id, text"),
        (one(entities={}), "f: line 2 has entities that are no list of objects"),
        (
            one(entities=[{"id": "x", "type": "p", "start": "3", "end": 8}]),
            "entities 1 has text of 1 character(s) as",
        ),
        (
            one(entities=[{"id": "x", "type": "p", "start": True, "end": 8}]),
            "entities 1 has true or false as start",
        ),
        (
            one(entities=[{"id": "x", "type": "", "start": 3, "end": 8}]),
            "has text of 0 character(s) as type: give",
        ),
        (
            one(entities=[{"id": "x", "type": "p", "start": 3, "stop": 8}]),
            "has the field 4 (of 4 characters), not",
        ),
        (one(entities=GIVEN["entities"][:1] * 2), "f: line 2: document 'n1' has two mentions of the id 'x'"),
        (one(entities=[GIVEN["entities"][0] | {"end": 80}], relations=[]), "the mention 'x' at 3 to 80, and 20"),
        (
            one(entities=[GIVEN["entities"][0]]),
            "relation 'treats', number 1 of those that differ, whose head is no mention",
        ),
        (one(annotated=["entities"]), "f: line 2 has relations, and annotated does not say so"),
        (
            one(annotated=["all"]),
            "line 2 has a list of 1 as annotated that is none: give a list of entities",
        ),
        (one(fold="holdout"), "f: line 2 has text of 7 character(s) as fold that is none: give one of train, val"),
        (one(site=4), "f: line 2 has a number as site: give text"),
        (one(entities=[GIVEN["entities"][0] | {"fragments": [3, 8]}]), "f: line 2 has a list of 2 as fragments: give"),
    ],
)
def test_bad_lines(line, message):
    with pytest.raises(BadRecord) as caught:
        parse_jsonl("\n" + line, "f")
    assert message in str(caught.value)


NAMES = st.text(string.ascii_letters + "-é \n\u2028", min_size=1, max_size=6)


@st.composite
def documents(draw):
    text = draw(st.text(min_size=1).filter(str.strip))
    entities = []
    for id in draw(st.lists(NAMES, unique=True, max_size=5)):
        cuts = sorted(draw(st.lists(st.integers(0, len(text)), min_size=2, max_size=6, unique=True)))
        parts = tuple(zip(cuts[::2], cuts[1::2], strict=False))
        concept = draw(st.none() | NAMES)
        entities.append(Entity(id, draw(NAMES), parts[0][0], parts[-1][1], parts if len(parts) > 1 else (), concept))
    ends = st.sampled_from([entity.id for entity in entities] or ["none"])
    pairs = st.lists(st.tuples(NAMES, NAMES), max_size=2).map(tuple)
    relations = draw(st.lists(st.builds(Relation, NAMES, ends, ends, pairs), max_size=4)) if entities else []
    looked_for = BOTH if relations else draw(st.sampled_from([BOTH, frozenset({"entities"}), frozenset()]))
    fold = draw(st.sampled_from([None, "train", "val", "test"]))
    more = {"subject": draw(NAMES), "site": draw(NAMES), "fold": fold, "annotated": looked_for}
    return document("f", draw(NAMES), text, entities, relations, **more)


@settings(deadline=None, max_examples=150)
@given(st.lists(documents(), max_size=3))
def test_any_documents_are_written_and_read(given):
    back = parse_jsonl(write_jsonl(given))
    assert back == given
    assert [r.concepts for own in back for r in own.relations] == [r.concepts for own in given for r in own.relations]
