"""Scores of mentions and relations as a metric: those of the counts, batch after batch."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch

from fedlit.data.documents.documents import Document, Entity, Relation
from fedlit.data.documents.generated import CHEMICALS, stand_in_documents
from fedlit.errors import FedlitError
from fedlit.instructions import Counts, Parsed, Schema
from fedlit.metrics.spans.counts import beside, count_spans
from fedlit.metrics.spans.scores import NOTHING, SpanScores

SCHEMA = Schema.load("bc5cdr")
CLINICAL = Schema.load("clinical")
NOTES = stand_in_documents(2, 12, CHEMICALS, "CID")
CLIENTS = [one.site for one in NOTES]
HEADLINE = ("entity_strict_f1", "entity_lenient_f1", "relation_strict_f1", "relation_lenient_f1")


def guess(note: Document, number: int) -> Parsed:
    """One answer to all of it, wrong in more and more places."""
    kept = [e if i % 4 else replace(e, stop=e.stop + 1) for i, e in enumerate(note.entities)][: 6 - number % 3]
    names = {e.id for e in kept}
    links = tuple(one for one in note.relations if {one.head, one.tail} <= names)
    return Parsed(tuple(kept), links, Counts(1, unparsable=number % 2, malformed=number))


ANSWERS = [guess(note, i) for i, note in enumerate(NOTES)]


def filled(entities=ANSWERS, relations=ANSWERS, documents=NOTES, schema=SCHEMA, losses=None, size=5, **settings):
    """A metric, batch after batch."""
    metrics, ends = SpanScores(**settings), range(0, len(documents), size)
    for a in ends:
        part = slice(a, a + size)
        metrics.update(
            documents[part], CLIENTS[: len(documents)][part], entities[part], relations[part], schema,
            None if losses is None else losses[part],
        )  # fmt: skip
    return metrics


def plain(metrics):
    return {name: float(value) for name, value in metrics.compute().items()}


def kept(scores):
    return {n: v for n, v in scores.items() if not math.isnan(v) and not n.startswith("answers_")}


def test_scores_are_those_of_the_counts():
    found = plain(filled())
    wanted = count_spans(NOTES, ANSWERS, SCHEMA, CLIENTS)
    assert {n: v for n, v in found.items() if not n.startswith("answers_")} == kept(wanted.scores())
    assert 0.3 < found["entity_strict_f1"] < found["entity_lenient_f1"]
    assert found["relation_strict_f1"] < found["relation_lenient_f1"] < 1
    assert found["answers_unparsable"] == 0.5
    assert found["answers_malformed"] == sum(range(12)) / 12
    assert "answers_documents" not in found
    assert found == plain(filled(size=1)) == plain(filled(size=12))


def test_two_answers_about_a_note():
    """Mentions from the one, relations from the other, which repeats mentions that do not count."""
    apart = [replace(note, entities=note.entities[:1], relations=()) for note in NOTES]
    second = [Parsed(one.entities, one.relations, Counts(1, not_found=1)) for one in apart]
    found = plain(filled(ANSWERS, second))
    assert found["relation_strict_recall"] == 0.0
    assert found["relation_strict_precision"] == 0.0
    assert found["entity_strict_f1"] == plain(filled())["entity_strict_f1"]
    assert found["answers_not_found"] == 0.5  # of 24 answers
    assert found["answers_unparsable"] == 0.25
    assert filled(ANSWERS, second).counts().answers[1] == ANSWERS[1].counts + second[1].counts
    assert filled().counts().answers[1] == ANSWERS[1].counts  # one answer to both counts once


def test_modifiers_come_from_the_answer_to_relations():
    text = "no fever today"
    note = Document(
        "n", text, (Entity("T1", "negation", 0, 2), Entity("T2", "problem", 3, 8)), (Relation("negation", "T2", "T1"),)
    )
    mentions = Parsed((Entity("P1", "problem", 3, 8), Entity("P2", "negation", 3, 8)), (), Counts(1))
    links = Parsed((Entity("T2", "problem", 0, 1), note.entities[0]), note.relations, Counts(1))
    metrics = SpanScores()
    metrics.update([note], ["a"], [mentions], [links], CLINICAL)
    found = plain(metrics)
    assert found["entity_strict_f1/problem"] == 1.0  # not that of the second answer
    assert found["entity_strict_f1/negation"] == 1.0  # not that of the first
    assert found["entity_strict_f1"] == 1.0


def test_what_nobody_asked_for_is_not_scored():
    none = [None] * len(NOTES)
    found = plain(filled(ANSWERS, none))
    assert not [name for name in found if name.startswith("relation_strict")]
    assert found["entity_strict_f1"] == plain(filled())["entity_strict_f1"]
    found = plain(filled(none, ANSWERS))
    assert not [name for name in found if name.startswith("entity_strict")]
    assert found["relation_strict_f1"] == plain(filled())["relation_strict_f1"]
    some = [answer if i < 4 else None for i, answer in enumerate(ANSWERS)]
    assert plain(filled(some, some)) == plain(filled(ANSWERS[:4], ANSWERS[:4], NOTES[:4]))


def test_what_was_not_annotated_is_not_scored():
    own = [replace(one, annotated=frozenset({"entities"}), relations=()) for one in NOTES]
    found = plain(filled(documents=own))
    assert not [name for name in found if name.startswith("relation_strict")]
    assert found["entity_strict_f1"] == plain(filled())["entity_strict_f1"]


def test_a_schema_without_relations():
    linkless = Schema(SCHEMA.name, SCHEMA.entities, ())
    found = plain(filled(ANSWERS, [None] * 12, schema=linkless))
    assert not [name for name in found if name.startswith("relation")]
    assert found["entity_strict_f1"] == plain(filled())["entity_strict_f1"]


def test_undefined_scores_are_left_out():
    bare = [Document(f"d{i}", "Nothing here.") for i in range(3)]
    silent = [Parsed((), (), Counts(1))] * 3
    found = plain(filled(silent, silent, bare))
    assert not [name for name in found if "strict" in name or "lenient" in name]
    assert found["entity_types_left_out"] == 2
    assert not [name for name, value in found.items() if math.isnan(value)]
    loud = [Parsed((Entity("P1", "Disease", 0, 3),), (), Counts(1))] * 3
    found = plain(filled(loud, loud, bare))
    assert (found["entity_strict_precision"], found["entity_strict_recall"], found["entity_strict_f1"]) == (0, 0, 0)
    assert "entity_strict_macro_f1" not in found
    assert "entity_strict_f1/Chemical" not in found


def test_a_model_that_writes_nothing():
    empty = [Parsed((), (), Counts(1, unparsable=1))] * 12
    found = plain(filled(empty, empty))
    assert [found[name] for name in HEADLINE] == [0.0] * 4
    assert found["answers_unparsable"] == 1.0


def test_losses_with_and_without_answers():
    losses = [float(i) for i in range(12)]
    none = [None] * 12
    assert plain(filled(none, none, losses=losses)) == {"loss": 5.5}
    found = plain(filled(losses=losses))
    assert found == plain(filled()) | {"loss": 5.5}
    assert "loss" not in plain(filled())


def test_intervals_are_around_the_scores_and_follow_the_seed():
    found = plain(filled(intervals=True, n_resamples=300))
    bounds = count_spans(NOTES, ANSWERS, SCHEMA, CLIENTS).intervals(0, 300)
    for name in HEADLINE:
        assert found[f"{name}/low"] <= found[name] <= found[f"{name}/high"]
        assert found[f"{name}/low"] < found[f"{name}/high"]
        assert (found[f"{name}/low"], found[f"{name}/high"]) == pytest.approx(bounds[name])
    assert plain(filled(intervals=True, n_resamples=300)) == found
    assert plain(filled(intervals=True, n_resamples=300, seed=1)) != found
    assert {name for name in found if name.endswith(("/low", "/high"))} == {
        f"{name}/{end}" for name in HEADLINE for end in ("low", "high")}  # fmt: skip


def test_nothing_yet_and_again():
    metrics = SpanScores(intervals=True)
    with pytest.warns(UserWarning, match="compute"):
        assert metrics.compute() == {}
    with pytest.raises(FedlitError, match="no answer yet"):
        metrics.counts()
    metrics.update(NOTES, CLIENTS, ANSWERS, ANSWERS, SCHEMA)
    first = plain(metrics)
    metrics.reset()
    metrics.update(NOTES[:3], CLIENTS[:3], ANSWERS[:3], ANSWERS[:3], CLINICAL)  # of another schema, after a reset
    assert plain(metrics) != first
    metrics.reset()
    metrics.update(NOTES, CLIENTS, ANSWERS, ANSWERS, SCHEMA)
    assert plain(metrics) == first
    assert plain(copy.deepcopy(metrics)) == first
    assert plain(metrics.to(torch.float64)) == first


def test_what_does_not_belong_together():
    metrics = SpanScores()
    metrics.update(NOTES, CLIENTS, ANSWERS, ANSWERS, SCHEMA)
    for arguments in (
        (NOTES, CLIENTS, ANSWERS, ANSWERS, CLINICAL),
        (NOTES, CLIENTS[1:], ANSWERS, ANSWERS, SCHEMA),
        (NOTES, CLIENTS, ANSWERS, ANSWERS[1:], SCHEMA),
        (NOTES, CLIENTS, ANSWERS, ANSWERS, SCHEMA, [1.0]),
        (NOTES, CLIENTS, ANSWERS, ANSWERS, SCHEMA, None, "concept"),
    ):
        with pytest.raises(FedlitError, match="of one schema belong together"):
            metrics.update(*arguments)


def test_scores_point_the_way_they_are_said_to():
    found = filled(losses=[1.0] * 12).compute()
    down = {name for name in found if name in SpanScores.directions}
    assert down == {"loss", "entity_types_left_out", "relation_types_left_out"} | {
        name for name in found if name.startswith("answers_")}  # fmt: skip
    assert SpanScores.higher_is_better


def test_counts_beside_each_other():
    own = count_spans(NOTES, ANSWERS, SCHEMA, CLIENTS, "entities")
    other = count_spans(NOTES, [NOTHING] * 12, SCHEMA, CLIENTS, "relations")
    both = beside(own, other)
    assert both.rows == (("entity", "Chemical"), ("entity", "Disease"), ("relation", "CID"))
    assert both.answers == own.answers  # nothing more
    wanted = {n: v for n, v in (own.scores() | other.scores()).items() if not n.startswith("answers_")}
    found = {n: v for n, v in both.scores().items() if not n.startswith("answers_")}
    assert found == pytest.approx(wanted, nan_ok=True)
    for documents, clients in ((NOTES[::-1], CLIENTS), (NOTES, ["x"] * 12)):
        with pytest.raises(FedlitError, match="other documents cannot stand beside"):
            beside(own, count_spans(documents, ANSWERS, SCHEMA, clients, "relations"))
