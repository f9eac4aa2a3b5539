"""A document is asked, taught and scored on the types that were looked for in it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tagged import NOTES

from fedlit.backbones.encoders.loading import encoder_stand_in
from fedlit.data.documents.documents import BOTH, Document, Entity, Relation
from fedlit.data.documents.looked_for import LookedFor, masked
from fedlit.instructions import Counts, Parsed, Schema
from fedlit.metrics.spans.counts import count_spans
from fedlit.tasks.documents.questions import Questions, answered
from fedlit.tasks.documents.tagging import Tagger, only_allowed, tag_losses

BC5CDR, CLINICAL = Schema.load("bc5cdr"), Schema.load("clinical")
OF_ILLS = LookedFor(entity_types=frozenset({"Disease"}))
ILLS = [masked(note, OF_ILLS) for note in NOTES]


def test_the_schema_of_a_document():
    note = NOTES[0]
    assert BC5CDR.of(note) is BC5CDR
    own = BC5CDR.of(ILLS[0])
    assert ([kind.name for kind in own.entities], own.relations) == (["Disease"], ())
    assert BC5CDR.of(replace(note, entity_types=frozenset({"Gene"}))) is None
    assert BC5CDR.of(replace(note, relation_types=frozenset())).relations == ()
    drugs = CLINICAL.of(Document("1", "a", entity_types=frozenset({"drug", "problem", "dosage", "severity"})))
    assert [kind.name for kind in drugs.entities] == ["problem", "drug", "severity", "dosage"]
    assert [kind.name for kind in drugs.relations] == ["severity", "dosage"]
    assert CLINICAL.of(Document("1", "a", entity_types=frozenset({"drug"}))).modifiers == ()
    wide = Schema.from_dict(
        {"name": "n", "entities": {"A": "a.", "B": "b."},
         "relations": {"r": {"heads": ["A", "B"], "tails": ["A"], "description": "d."}}}
    )  # fmt: skip
    assert wide.of(Document("1", "a", entity_types=frozenset({"A"}))).relation["r"].heads == ("A",)


@pytest.mark.parametrize("way", [{"together": "joint"}, {}, {"relations": "focus"}, {"given": "predicted"}], ids=str)
@pytest.mark.parametrize("format", ["html", "json"])
def test_questions_ask_for_these_types_alone(way, format):
    questions = Questions(BC5CDR, format=format, **way)
    asked = [one for note in ILLS for one in questions.instances(note)]
    assert len(asked) == len(NOTES)
    assert all("Disease" in one.prompt for one in asked)
    assert not any("Chemical" in one.prompt + one.target or "CID" in one.prompt for one in asked)
    known = {one.prompt: one.target for one in asked}
    entities, relations = answered(questions, ILLS, lambda prompts: [known[prompt] for prompt in prompts])
    assert relations == [None] * len(ILLS)
    for note, found in zip(ILLS, entities, strict=True):
        assert [(e.start, e.stop) for e in found.entities] == [(e.start, e.stop) for e in note.entities]
    # An answer of a type that was not asked for is none.
    answers = answered(
        questions, ILLS[:1], lambda prompts: ['[{"type": "Chemical", "text": "' + NOTES[0].text[:3] + '"}]']
    )
    if format == "json":
        assert (answers[0][0].entities, answers[0][0].counts.out_of_schema) == ((), 1)


def test_nothing_of_the_schema_was_looked_for():
    other = replace(NOTES[0], entities=(), relations=(), entity_types=frozenset({"Gene"}))
    assert Questions(BC5CDR).tasks(other) == []
    tokenizer = encoder_stand_in("stand-in:bert").family.tokenizer
    assert Tagger(BC5CDR, tokenizer, 64).questions([other]) == []
    counts = count_spans([other], [Parsed((), (), Counts())], BC5CDR, ["a"])
    assert not counts.scored.any()


def test_tags_of_other_types_are_neither_learnt_nor_given():
    tagger = Tagger(BC5CDR, encoder_stand_in("stand-in:bert").family.tokenizer, 64)
    questions = tagger.questions(ILLS)
    assert all(question.focus is None for question in questions)
    allowed = {tagger.names[i] for question in questions for i in question.allowed}
    assert allowed == {"O", "B-Disease", "I-Disease"}
    logits = torch.randn(sum(len(question.offsets) for question in questions), len(tagger.names), requires_grad=True)
    tag_losses(only_allowed(logits, questions), questions, len(ILLS)).sum().backward()
    own = [tagger.names.index(f"{sign}-Chemical") for sign in "BI"]
    assert (logits.grad[:, own] == 0).all()
    assert (logits.grad[:, 0] != 0).any()
    tags = only_allowed(logits, questions).argmax(dim=1)
    assert not set(tags.tolist()) & set(own)


def test_predictions_of_types_that_were_not_looked_for_are_not_counted_as_false():
    entities = (Entity("1", "Disease", 0, 1), Entity("2", "Chemical", 2, 3))
    predicted = Parsed(entities, (Relation("CID", "2", "1"),), Counts())
    gold = Document("d", "a b", entities[:1], entity_types=frozenset({"Disease"}), annotated=BOTH)
    scores = count_spans([gold], [predicted], BC5CDR).scores()
    assert scores["entity_strict_precision"] == scores["entity_strict_f1"] == 1
    assert all(scores[name] != scores[name] for name in ("entity_strict_precision/Chemical", "relation_strict_f1"))
    everything = count_spans([replace(gold, entity_types=None)], [predicted], BC5CDR).scores()
    assert (everything["entity_strict_precision"], everything["relation_strict_precision"]) == (0.5, 0)


def test_relations_of_mentions_that_were_not_looked_for_are_not_counted_as_false():
    schema = Schema.from_dict(
        {"name": "n", "entities": {"A": "a.", "B": "b."},
         "relations": {"r": {"heads": ["A", "B"], "tails": ["A"], "description": "d."}}}
    )  # fmt: skip
    entities = (Entity("1", "A", 0, 1), Entity("2", "A", 2, 3), Entity("3", "B", 4, 5))
    links = (Relation("r", "1", "2"), Relation("r", "3", "2"))
    gold = Document("d", "a b c", entities[:2], links[:1], entity_types=frozenset({"A"}))
    scores = count_spans([gold], [Parsed(entities, links, Counts())], schema).scores()
    assert scores["relation_strict_precision"] == 1
