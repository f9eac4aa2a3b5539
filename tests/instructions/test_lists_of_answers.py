"""A JSON answer about relations says nothing of mentions where ``lists`` is ``asked``."""

from __future__ import annotations

import pytest

from fedlit.data.documents.documents import Document, Entity, Relation
from fedlit.errors import FedlitError
from fedlit.instructions import Schema, Template, parse
from fedlit.tasks.documents.questions import Questions

SCHEMA = Schema.load("bc5cdr")
MENTIONS = (Entity("T1", "Disease", 0, 6), Entity("T2", "Chemical", 16, 23))
TEXT = "Nausea followed lithium."
NOTE = Document("n1", TEXT, MENTIONS, (Relation("CID", "T2", "T1"),))
NONE = Document("n2", TEXT, MENTIONS, ())


def asked(task="relations", lists="asked", wording="full", schema=SCHEMA):
    return Template(schema, task, "json", wording=wording, lists=lists)


def test_an_answer_about_relations_holds_their_list_alone_and_is_read_back():
    assert asked().target(NOTE) == '{"relations": [\n{"type": "CID", "head": 2, "tail": 1}\n]}'
    assert asked().target(NONE) == '{"relations": []}'
    for note in (NOTE, NONE):
        read = parse(asked().target(note), TEXT, SCHEMA, "relations", "json", MENTIONS)
        assert [(r.type, r.head, r.tail) for r in read.relations] == [(r.type, r.head, r.tail) for r in note.relations]
        assert read.counts.to_dict() == {**dict.fromkeys(read.counts.to_dict(), 0), "documents": 1}


def test_a_question_says_what_its_answer_holds():
    prompt = asked().prompt(TEXT, MENTIONS)
    assert 'Answer with {"relations": the list of links}.' in prompt
    assert '"entities"' not in prompt
    assert asked(wording="brief").prompt(TEXT, MENTIONS) == asked(lists="both", wording="brief").prompt(TEXT, MENTIONS)


def test_unless_asked_for_answers_are_as_they_were():
    assert Template(SCHEMA, "relations", "json").target(NONE) == '{"entities": [],\n"relations": []}'
    assert Questions(SCHEMA, format="json").instances(NONE)[1].target == '{"entities": [],\n"relations": []}'
    assert Questions(SCHEMA, format="json", lists="asked").instances(NONE)[1].target == '{"relations": []}'


def test_answers_that_hold_mentions_keep_their_list():
    assert asked("both").target(NOTE) == asked("both", "both").target(NOTE)
    assert asked("entities").target(NOTE) == asked("entities", "both").target(NOTE)
    clinical = Schema.load("clinical")
    note = Document("n3", "No fever.", (Entity("T1", "problem", 3, 8), Entity("T2", "negation", 0, 2)), ())
    assert '"entities"' in asked(schema=clinical).target(note)
    assert asked(schema=clinical).target(note) == asked(lists="both", schema=clinical).target(note)


def test_another_word_is_refused():
    with pytest.raises(FedlitError, match="Template.lists is 'some'"):
        asked(lists="some")
