"""Which questions are asked, and what is made of the answers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fedlit.data.documents.documents import Document, Entity, Relation
from fedlit.data.documents.generated import CHEMICALS, stand_in_documents
from fedlit.errors import FedlitError
from fedlit.instructions import Counts, Parsed, Schema
from fedlit.tasks.documents.questions import Asked, Questions, answered, combined

SCHEMA = Schema.load("bc5cdr")
NOTES = stand_in_documents(2, 4, CHEMICALS, "CID")
LINKLESS = Schema(SCHEMA.name, SCHEMA.entities, ())
HEADS = [sum(one.type == "Chemical" for one in note.entities) for note in NOTES]


def only(*kinds):
    return [replace(one, annotated=frozenset(kinds)) for one in NOTES]


class Oracle:
    """Knows the answer to each question that it was told of, and how many it was asked at once."""

    def __init__(self, questions, documents, otherwise=None):
        asked = [one for document in documents for one in questions.instances(document)]
        self.known = {one.prompt: one.target for one in asked}
        self.otherwise, self.sizes, self.prompts = otherwise, [], []

    def __call__(self, prompts):
        self.sizes.append(len(prompts))
        self.prompts += prompts
        return [self.known[one] if self.otherwise is None else self.known.get(one, self.otherwise) for one in prompts]


def places(one):
    return [(e.type, e.start, e.stop) for e in one.entities]


def links(one):
    spans = {e.id: (e.type, e.start, e.stop) for e in one.entities}
    return {(link.type, spans[link.head], spans[link.tail]) for link in one.relations}


WAYS = [
    {"together": "joint"}, {}, {"given": "predicted"}, {"relations": "focus"},
    {"relations": "focus", "given": "predicted"}, {"wording": "brief", "crossing": "error"},
]  # fmt: skip


@pytest.mark.parametrize("format", ["html", "json"])
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_right_answers_give_the_annotations(way, format):
    questions = Questions(SCHEMA, format=format, **way)
    oracle = Oracle(questions, NOTES)
    entities, relations = answered(questions, NOTES, oracle)
    for note, one, two in zip(NOTES, entities, relations, strict=True):
        assert places(one) == places(note)
        assert links(two) == links(note)
        assert (one is two) == ("together" in way)
        assert not any(value for name, value in (one.counts + two.counts).to_dict().items() if name != "documents")
    assert max(oracle.sizes) <= len(NOTES)
    wanted = {"joint": 4}.get(way.get("together"), 4 + sum(HEADS) if "relations" in way else 8)
    assert sum(oracle.sizes) == wanted
    asked = sum(one.counts.documents for one in entities) + sum(one.counts.documents for one in relations)
    assert asked == (8 if "together" in way else wanted)


def test_what_is_asked_about_documents_that_were_annotated_in_part():
    for questions in (Questions(SCHEMA), Questions(SCHEMA, "joint")):
        assert [questions.tasks(one) for one in only("entities")] == [["entities"]] * 4
        assert [questions.tasks(one) for one in only("relations")] == [["relations"]] * 4
    assert Questions(SCHEMA, "joint").tasks(NOTES[0]) == ["both"]
    assert Questions(SCHEMA).tasks(NOTES[0]) == ["entities", "relations"]
    for together in ("joint", "separate"):  # a schema without relations asks for none
        assert Questions(LINKLESS, together).tasks(NOTES[0]) == ["entities"]
        assert Questions(LINKLESS, together).tasks(only("relations")[0]) == []


def test_answers_about_documents_that_were_annotated_in_part():
    given = [*only("entities")[:2], *only("relations")[2:]]
    questions = Questions(SCHEMA)
    entities, relations = answered(questions, given, Oracle(questions, given))
    assert [one is None for one in entities] == [False, False, True, True]
    assert [one is None for one in relations] == [True, True, False, False]
    assert [links(one) for one in relations[2:]] == [links(one) for one in NOTES[2:]]


def test_predicted_mentions_are_asked_for_where_only_relations_were_annotated():
    """The question for relations needs some; they are not those of the annotators."""
    questions = Questions(SCHEMA, given="predicted")
    given = only("relations")
    entities, relations = answered(questions, given, Oracle(questions, NOTES))
    assert [places(one) for one in entities] == [places(one) for one in NOTES]
    assert [links(one) for one in relations] == [links(one) for one in NOTES]


@pytest.mark.parametrize("relations", ["list", "focus"])
def test_predicted_mentions_are_those_that_were_found(relations):
    questions = Questions(SCHEMA, format="json", relations=relations, given="predicted")
    note = NOTES[0]
    first = next(one for one in note.entities if one.type == "Chemical")
    words = note.mention(first)
    found = f'[{{"type": "Chemical", "text": "{words}"}}]'
    oracle = Oracle(questions, [note], "[]")
    oracle.known = {questions.instances(note)[0].prompt: found}
    entities, linked = answered(questions, [note], oracle)
    assert places(entities[0]) == [("Chemical", note.text.index(words), note.text.index(words) + len(words))]
    assert len(oracle.prompts) == 2
    assert f">{words}</span>" in oracle.prompts[1]
    assert oracle.prompts[1].count("<span") == 1
    assert linked[0].relations == ()


def test_without_a_mention_that_may_head_a_relation_nothing_is_asked_and_none_is_there():
    note = replace(NOTES[0], entities=tuple(e for e in NOTES[0].entities if e.type == "Disease"), relations=())
    questions = Questions(SCHEMA, relations="focus")
    assert [one.focus for one in questions.instances(note)] == [None]  # the question for mentions alone
    entities, relations = answered(questions, [note], Oracle(questions, [note]))
    assert places(entities[0]) == places(note)
    assert relations[0].relations == ()
    assert relations[0].counts == Counts()
    nothing = Questions(SCHEMA, relations="focus", given="predicted")
    entities, relations = answered(nothing, [note], lambda prompts: ["broken"] * len(prompts))
    assert entities[0].counts.unparsable == 1
    assert relations[0].relations == ()


def test_answers_about_one_mention_after_the_other_are_put_together():
    drug, other = Entity("T1", "Chemical", 0, 4), Entity("T2", "Disease", 5, 9)

    def said(*entities, relations=(), **counts):
        return Parsed(entities, relations, Counts(1, **counts))

    new, again = Entity("P1", "Disease", 10, 12), Entity("P2", "Disease", 10, 12)
    one = said(drug, other, new, relations=(Relation("CID", "T1", "T2"), Relation("CID", "T1", "P1")))
    last = Entity("P1", "Disease", 14, 16)
    two = said(drug, last, again, relations=(Relation("CID", "T1", "P1"), Relation("CID", "T1", "P2")), not_found=2)
    both = combined([one, two], [drug, other])
    assert [(e.start, e.stop) for e in both.entities] == [(0, 4), (5, 9), (10, 12), (14, 16)]
    assert len({e.id for e in both.entities}) == 4
    assert links(both) == {("CID", ("Chemical", 0, 4), ("Disease", a, b)) for a, b in ((5, 9), (10, 12), (14, 16))}
    assert both.counts == Counts(2, not_found=2)
    assert combined([], [drug]) == Parsed((drug,), (), Counts())


def test_mentions_of_one_place_but_other_parts_stay_apart():
    whole, parts = Entity("P1", "Disease", 0, 9), Entity("P1", "Disease", 0, 9, ((0, 3), (6, 9)))
    both = combined([Parsed((whole,), (), Counts(1)), Parsed((parts,), (), Counts(1))], [])
    assert [e.fragments for e in both.entities] == [(), ((0, 3), (6, 9))]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"together": "apart"}, r"model\.together is 'apart'"),
        ({"given": "none"}, r"model\.given is 'none'"),
        ({"together": "joint", "relations": "focus"}, r"'focus' asks about one mention at a time"),
    ],
)
def test_bad_settings(changes, message):
    with pytest.raises(FedlitError, match=message):
        Questions(SCHEMA, **changes)


def test_mentions_that_cross():
    text = "renal heart failure"
    crossing = Document("x", text, (Entity("T1", "Disease", 0, 11), Entity("T2", "Disease", 6, 19)))
    split, dropped = (Questions(LINKLESS, crossing=how).instances(crossing)[0] for how in ("split", "drop"))
    for made, wanted in ((split, [(0, 11), (6, 19)]), (dropped, [(0, 11)])):
        questions = Questions(LINKLESS)
        read = questions.read(Asked("entities", made.prompt), made.target, crossing)
        assert [(e.start, e.stop) for e in read.entities] == wanted
    with pytest.raises(FedlitError, match="document 'x'.*cross"):
        Questions(LINKLESS, crossing="error").instances(crossing)
    assert len(Questions(LINKLESS, format="json", crossing="error").instances(crossing)) == 1
