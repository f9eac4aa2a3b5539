"""Questions: what they show and name, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
from drawn_documents import SCHEMA

from fedlit.data.documents.documents import Document, Entity, Relation
from fedlit.errors import FedlitError
from fedlit.instructions import EntityType, Schema, Template, prompt, target
from fedlit.instructions.templates import task_of

MENTIONS = (Entity("c", "Chemical", 0, 4), Entity("s", "severity", 12, 18), Entity("d", "Disease", 19, 24))
RELATIONS = (Relation("CID", "c", "d"), Relation("severity", "d", "s"))
NOTE = Document("n", "Gold caused severe fever.", MENTIONS, RELATIONS)
CLINICAL = Schema.load("clinical")


def test_a_question_ends_where_the_answer_begins():
    for task in ("entities", "relations", "both"):
        for format in ("html", "json"):
            text = prompt("Some note.", SCHEMA, task, format)
            assert text.endswith("\n\nText:\nSome note.\n\nAnswer:\n")
            assert ("CID (Chemical -> Disease): Causes it." in text) == (task != "entities")
            assert ("- Chemical: A substance." in text) == (task != "relations")


def test_names_without_descriptions():
    text = Template(CLINICAL, wording="names").prompt("x")
    assert "- drug\n" in text
    assert "- temporal (problem or treatment or drug or test -> temporal)\n" in text
    assert "Medicines" not in text
    assert len(text) < len(Template(CLINICAL).prompt("x")) / 1.5


def test_brief_questions_differ_by_what_they_ask():
    brief = [
        Template(CLINICAL, task, format, wording="brief").prompt("A note.")
        for task in ("entities", "relations", "both")
        for format in ("html", "json")
    ]
    assert len(set(brief)) == 6
    assert brief[0] == "problem, treatment, test, drug as span tags.\n\nText:\nA note.\n\nAnswer:\n"
    assert all(len(one) < len(Template(CLINICAL, wording="names").prompt("A note.")) / 2 for one in brief)


def test_modifiers_are_no_entities_of_their_own():
    assert "severity" not in prompt("x", CLINICAL, "entities")
    assert "severity" in prompt("x", CLINICAL, "both")
    assert target(NOTE, SCHEMA, "entities").count("<span") == 2


def test_given_mentions_are_numbered_in_reading_order():
    text = prompt(NOTE.text, SCHEMA, "relations", given=(MENTIONS[2], MENTIONS[0]))
    assert (
        '\n<span class="Chemical" id="1">Gold</span> caused severe <span class="Disease" id="2">fever</span>.\n' in text
    )


def test_a_rule_for_escapes_only_where_the_note_needs_it():
    assert "&lt;" not in prompt("p < 0.05 & more", SCHEMA, "entities")
    assert "&lt;" in prompt("a <span> here", SCHEMA, "entities")
    assert "&lt;" not in prompt("a <span> here", SCHEMA, "entities", "json")


def test_focus_asks_once_for_each_possible_head():
    asked = Template(SCHEMA, "relations", relations="focus").instances(NOTE)
    assert [one.focus for one in asked] == ["c", "d"]
    assert '<span class="Chemical">Gold</span> caused severe fever.' in asked[0].prompt
    assert [one.target for one in asked] == [
        'Gold caused severe <span class="CID">fever</span>.',
        'Gold caused <span class="severity">severe</span> fever.',
    ]
    assert "CID" not in asked[1].prompt
    assert target(NOTE, SCHEMA, "relations", "json", focus=MENTIONS[0]) == '[\n{"type": "CID", "text": "fever"}\n]'


def test_empty_documents():
    empty = Document("n", "")
    assert target(empty, SCHEMA, "entities") == ""
    assert target(empty, SCHEMA, "both") == "\nRelations:\nnone"
    assert target(empty, SCHEMA, "entities", "json") == "[]"


def test_what_nobody_looked_for_is_no_answer():
    part = replace(NOTE, relations=(), annotated=frozenset({"entities"}))
    assert (task_of(part), task_of(NOTE)) == ("entities", "both")
    assert task_of(replace(part, annotated=frozenset())) is None
    assert target(part, SCHEMA, "entities")
    with pytest.raises(FedlitError, match="'n' was not annotated for relations, .* task 'both': ask for 'entities'"):
        target(part, SCHEMA, "both")


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (replace(NOTE, text="Gold"), "document 'n' has the mention 's' at 12 to 18, and 4 characters"),
        (replace(NOTE, text=""), "document 'n' has an empty text"),
        (
            replace(NOTE, entities=(*MENTIONS, Entity("g", "Gene", 0, 1))),
            "document 'n' has a mention of the type 'Gene'",
        ),
        (
            replace(NOTE, relations=(Relation("CID", "d", "c"),)),
            "'n' has a relation 'CID' from 'Disease' to 'Chemical'",
        ),
    ],
)
def test_documents_that_cannot_be_asked_about(document, message):
    with pytest.raises(FedlitError, match=message):
        target(document, SCHEMA)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"task": "ner"}, "Template.task is 'ner', expected one of"),
        ({"format": "xml"}, "Template.format is 'xml'"),
        ({"crossing": "ignore"}, "Template.crossing is 'ignore'"),
        ({"relations": "pairs"}, "Template.relations is 'pairs'"),
        ({"relations": "focus"}, "Template.relations is 'focus' with task 'both'"),
        ({"schema": Schema("s", (EntityType("a", "A."),))}, "task is 'both', but schema 's' has no relations"),
    ],
)
def test_templates_that_make_no_sense(fields, message):
    with pytest.raises(FedlitError, match=message):
        Template(**{"schema": SCHEMA, **fields})
