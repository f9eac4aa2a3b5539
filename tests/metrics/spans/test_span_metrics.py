"""Scores of mentions and relations: by hand, against nervaluate, and what holds for any annotations."""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlit.data.documents.documents import Document, Entity, Relation
from fedlit.errors import FedlitError
from fedlit.instructions import Counts, Parsed, Schema
from fedlit.metrics.spans.counts import SpanCounts, count_spans
from fedlit.metrics.spans.matching import match_entities, pairs

SCHEMA = Schema.load("bc5cdr")
CLINICAL = Schema.load("clinical")
TEXT = "x" * 400


def mention(type: str, start: int, stop: int, concept: str | None = None) -> Entity:
    return Entity(f"{type}{start}-{stop}", type, start, stop, concept=concept)


def note(name: str, *entities: Entity, relations: tuple[Relation, ...] = (), **fields) -> Document:
    return Document(name, TEXT, entities, relations, **fields)


def answer(*entities: Entity, relations: tuple[Relation, ...] = (), **counts: int) -> Parsed:
    return Parsed(entities, relations, Counts(documents=1, **counts))


def by_hand() -> SpanCounts:
    """Two sites, three notes. Disease: 4 there, 4 said, 2 exact, 3 overlap. Chemical: 1, 2, 1, 1. CID: 2, 2, 1, 2."""
    one = note(
        "1", mention("Chemical", 0, 4), mention("Disease", 10, 20), mention("Disease", 30, 35),
        relations=(Relation("CID", "Chemical0-4", "Disease10-20"), Relation("CID", "Chemical0-4", "Disease30-35")),
        site="a",
    )  # fmt: skip
    said = answer(
        mention("Chemical", 0, 4), mention("Disease", 10, 20), mention("Disease", 33, 40), mention("Chemical", 50, 52),
        relations=(Relation("CID", "Chemical0-4", "Disease10-20"), Relation("CID", "Chemical0-4", "Disease33-40")),
    )  # fmt: skip
    two = note("2", mention("Disease", 0, 9), mention("Disease", 20, 30), site="b")
    other = answer(mention("Disease", 0, 9), mention("Disease", 9, 20), altered=1, not_found=2)
    return count_spans([one, two, note("3", site="b")], [said, other, answer(unparsable=1)], SCHEMA)


def test_scores_by_hand():
    scores = by_hand().scores()
    wanted = {
        "entity_strict_precision": 3 / 6, "entity_strict_recall": 3 / 5, "entity_strict_f1": 6 / 11,
        "entity_lenient_precision": 4 / 6, "entity_lenient_recall": 4 / 5, "entity_lenient_f1": 8 / 11,
        "entity_strict_f1/Disease": 4 / 8, "entity_strict_f1/Chemical": 2 / 3,
        "entity_lenient_f1/Disease": 6 / 8, "entity_strict_macro_f1": (1 / 2 + 2 / 3) / 2,
        "relation_strict_f1": 2 / 4, "relation_lenient_f1": 1.0, "relation_strict_precision/CID": 1 / 2,
        "relation_strict_macro_f1": 1 / 2, "entity_types_left_out": 0, "relation_types_left_out": 0,
        "answers_documents": 3, "answers_unparsable": 1, "answers_altered": 1, "answers_not_found": 2,
    }  # fmt: skip
    assert {name: scores[name] for name in wanted} == pytest.approx(wanted)
    assert set(SpanCounts.headline) <= set(scores)


def test_scores_of_sites():
    counts = by_hand()
    each = counts.by_client()
    assert (each["a"]["entity_strict_f1"], each["b"]["entity_strict_f1"]) == pytest.approx((4 / 7, 2 / 4))
    assert each["b"]["answers_documents"] == 2
    assert math.isnan(each["b"]["relation_strict_f1"])
    assert math.isnan(each["b"]["entity_strict_f1/Chemical"])
    assert each["b"]["entity_types_left_out"] == 1
    mean = counts.client_mean()
    assert mean["entity_strict_f1"] == pytest.approx((4 / 7 + 2 / 4) / 2)
    assert mean["relation_strict_f1"] == pytest.approx(1 / 2)
    assert "answers_documents" not in mean
    with pytest.raises(FedlitError, match=r"no document is of client 'c'; there are \['a', 'b'\]"):
        counts.of("c")


def test_nothing_said_is_nought_and_nothing_there_is_not_a_number():
    silent = count_spans([note("1", mention("Disease", 0, 3))], [answer()], SCHEMA).scores()
    assert [silent[f"entity_strict_{one}"] for one in ("precision", "recall", "f1", "macro_f1")] == [0, 0, 0, 0]
    loud = count_spans([note("1")], [answer(mention("Disease", 0, 3))], SCHEMA).scores()
    assert [loud[f"entity_lenient_{one}"] for one in ("precision", "recall", "f1")] == [0, 0, 0]
    assert math.isnan(loud["entity_lenient_macro_f1"])
    assert math.isnan(count_spans([note("1")], [answer()], SCHEMA).scores()["entity_strict_f1"])
    assert count_spans([], [], SCHEMA).client_mean() == {}


def test_what_nobody_looked_for_is_not_scored():
    gold = note("1", mention("Disease", 0, 3), annotated=frozenset({"entities"}))
    said = answer(
        mention("Disease", 0, 3), mention("Chemical", 5, 6), relations=(Relation("CID", "Chemical5-6", "Disease0-3"),)
    )
    counts = count_spans([gold], [said], SCHEMA)
    assert math.isnan(counts.scores()["relation_strict_f1"])
    assert counts.scores()["entity_strict_precision"] == 1 / 2
    bare = note("2", mention("problem", 0, 3), annotated=frozenset({"entities"}))
    said = answer(mention("problem", 0, 3), mention("severity", 5, 6))
    assert count_spans([bare], [said], CLINICAL).scores()["entity_strict_f1"] == 1.0


def test_rows_of_a_task():
    def rows(task):
        return count_spans([note("1")], [answer()], CLINICAL, task=task).rows

    assert rows("entities") == tuple(("entity", one.name) for one in CLINICAL.main)
    assert rows("both") == tuple(("entity", one.name) for one in CLINICAL.entities) + rows("relations")[-16:]
    assert [kind for kind, _ in rows("relations")] == ["entity"] * 16 + ["relation"] * 16


def test_lenient_pairs_are_as_many_as_can_be():
    # the long one could take either; the short one only the first
    gold = note("1", mention("Disease", 0, 5), mention("Disease", 6, 10))
    said = note("1", mention("Disease", 0, 10), mention("Disease", 2, 3))
    assert match_entities(gold, said, "Disease")[-1] == 2
    assert match_entities(gold, note("1", mention("Disease", 0, 10)), "Disease")[-1] == 1
    assert match_entities(gold, note("1", mention("Chemical", 0, 10)), "Disease")[-1] == 0
    assert match_entities(gold, note("1", mention("Disease", 5, 6)), "Disease")[-1] == 0


def test_twice_is_once_and_gaps_are_seen():
    gapped = Entity("g", "Disease", 0, 9, ((0, 3), (6, 9)))
    gold = note("1", gapped, replace(gapped, id="h"))
    assert match_entities(gold, note("1", replace(gapped, id="i")), "Disease") == (1, 1, 1, 1, 1)
    assert match_entities(gold, note("1", mention("Disease", 0, 9)), "Disease") == (1, 1, 0, 1, 1)
    assert match_entities(gold, note("1", mention("Disease", 3, 6)), "Disease") == (1, 1, 0, 1, 0)


def test_relations_between_concepts():
    mentions = (
        mention("Chemical", 0, 4, "C1"), mention("Chemical", 50, 54, "C1"), mention("Disease", 10, 20, "D1"),
        mention("Disease", 30, 40, "D2"), mention("Disease", 60, 70),
    )  # fmt: skip
    gold = note("1", *mentions, relations=(Relation("CID", "Chemical0-4", "Disease10-20"),))
    elsewhere = (mention("Chemical", 50, 54), mention("Disease", 8, 14), mention("Disease", 30, 40))
    links = (Relation("CID", "Chemical50-54", "Disease8-14"), Relation("CID", "Chemical50-54", "Disease30-40"))
    said = answer(*elsewhere, mention("Disease", 10, 20), relations=links)
    strict, lenient = "relation_strict_f1", "relation_lenient_f1"
    scores = count_spans([gold], [said], SCHEMA, relation_ends="concept").scores()
    assert (scores[strict], scores[lenient]) == pytest.approx((0, 2 / 3))
    scores = count_spans([gold], [said], SCHEMA).scores()
    assert (scores[strict], scores[lenient]) == (0, 0)
    again = (Relation("CID", "Chemical50-54", "Disease10-20"), Relation("CID", "Chemical0-4", "Disease10-20"))
    said = answer(mention("Chemical", 0, 4), *elsewhere, mention("Disease", 10, 20), relations=again)
    assert count_spans([gold], [said], SCHEMA, relation_ends="concept").scores()[strict] == 1.0
    assert count_spans([gold], [said], SCHEMA).scores()[strict] == pytest.approx(2 / 3)


def test_lengths_and_words_are_checked():
    with pytest.raises(FedlitError, match="1 documents, 0 predictions and 1 clients"):
        count_spans([note("1")], [], SCHEMA)
    with pytest.raises(FedlitError, match="relation_ends is 'both'"):
        count_spans([note("1")], [answer()], SCHEMA, relation_ends="both")  # type: ignore[arg-type]


def many(seed: int, notes: int = 60, right: float = 0.7, **fields) -> SpanCounts:
    draw = random.Random(seed)
    golds, said = [], []
    for number in range(notes):
        own = [mention(draw.choice(["Chemical", "Disease"]), 20 * i, 20 * i + 5) for i in range(draw.randrange(12))]
        guesses = [one if draw.random() < right else replace(one, stop=one.stop + 2) for one in own]
        guesses = [one for one in guesses if draw.random() < 0.9]
        golds.append(note(str(number), *own, relations=caused(own), **fields))
        said.append(answer(*guesses, relations=caused(guesses)))
    return count_spans(golds, said, SCHEMA)


def caused(entities: list[Entity]) -> tuple[Relation, ...]:
    """Every chemical causes every disease."""
    pairs = itertools.product(entities, repeat=2)
    return tuple(Relation("CID", a.id, b.id) for a, b in pairs if (a.type, b.type) == ("Chemical", "Disease"))


def test_intervals_are_those_of_resampled_documents():
    counts = many(0)
    samples = counts.samples(7, 200)["entity_strict_f1"]
    draw = np.random.default_rng(3)
    plain = []
    for _ in range(200):
        chosen = draw.integers(0, 60, 60)
        gold, guessed, right = (counts.values[chosen, :2, column].sum() for column in (0, 1, 2))
        plain.append(2 * right / (gold + guessed))
    assert samples.mean() == pytest.approx(np.mean(plain), abs=0.01)
    assert samples.std() == pytest.approx(np.std(plain), rel=0.25)
    low, high = counts.intervals(7)["entity_strict_f1"]
    assert low < counts.scores()["entity_strict_f1"] < high
    wide = counts.intervals(7, level=0.99)["entity_strict_f1"]
    assert wide[0] <= low < high <= wide[1]
    assert str(counts.intervals(7)) == str(counts.intervals(7))  # as text, in which NaN equals NaN
    assert counts.intervals(7)["entity_strict_f1"] != counts.intervals(8)["entity_strict_f1"]
    silent = count_spans([note("1", annotated=frozenset())], [answer()], SCHEMA)
    assert all(math.isnan(one) for one in silent.intervals(7)["relation_strict_f1"])
    with pytest.raises(FedlitError, match="level 95"):
        counts.intervals(0, level=95)


def test_one_document_has_no_spread_and_two_methods_share_draws():
    alone = many(1, notes=1)
    low, high = alone.intervals(0)["entity_lenient_f1"]
    assert low == high == alone.scores()["entity_lenient_f1"]
    better, worse = many(2, right=0.8).samples(5)["entity_strict_f1"], many(2, right=0.8).samples(5)
    assert (better - worse["entity_strict_f1"] == 0).all()


def test_documents_are_drawn_from_those_annotated_for_the_kind():
    counts = many(3)
    for looked_for in ((), ("entities",), ("relations",)):
        more = many(4, notes=40, annotated=frozenset(looked_for))
        both = SpanCounts(
            counts.documents + more.documents, counts.clients + more.clients, counts.rows,
            np.concatenate([counts.values, more.values]), np.concatenate([counts.scored, more.scored]),
            counts.answers + more.answers,
        )  # fmt: skip
        for kind, annotation in (("entity", "entities"), ("relation", "relations")):
            same = both.intervals(1)[f"{kind}_strict_f1"] == counts.intervals(1)[f"{kind}_strict_f1"]
            assert same == (annotation not in looked_for)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.lists(st.integers(0, 5), unique=True, max_size=6), max_size=6))
def test_pairs_against_trying_all(edges):
    def most(rows, taken=frozenset()):
        if not rows:
            return 0
        return max([most(rows[1:], taken), *(1 + most(rows[1:], taken | {j}) for j in rows[0] if j not in taken)])

    assert pairs(edges, 6) == most(edges)


spans = st.lists(
    st.tuples(st.sampled_from(["Chemical", "Disease"]), st.integers(0, 30), st.integers(1, 8)), max_size=6, unique=True
)


@settings(deadline=None, max_examples=100)
@given(spans, spans)
def test_bounds_and_symmetry(one, two):
    gold, said = (note("1", *(mention(t, a, a + n) for t, a, n in given)) for given in (one, two))
    for type in ("Chemical", "Disease"):
        counts, back = match_entities(gold, said, type), match_entities(said, gold, type)
        assert counts.strict <= counts.lenient <= min(counts.gold, counts.guessed)
        assert (back.strict, back.lenient) == (counts.strict, counts.lenient)
        assert match_entities(gold, gold, type).lenient == counts.gold == match_entities(gold, gold, type).strict
