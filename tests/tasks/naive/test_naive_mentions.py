"""A dictionary of mentions: it finds what was annotated, whole words, the longest first, and nothing else."""

import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedlit.data.documents.documents import Document, Entity, Relation
from fedlit.instructions.schema import EntityType, RelationType, Schema
from fedlit.metrics.spans.scores import SpanScores
from fedlit.tasks import InstructionTask, TokenClassificationTask
from fedlit.tasks.naive.mentions import Dictionary

SCHEMA = Schema(
    "notes",
    (*(EntityType(name, "A type.") for name in ("Disease", "Drug", "Sign")), EntityType("grade", "How bad.", True)),
    (RelationType("grade", ("Sign",), ("grade",), "How bad."),),
)


def document(text, *mentions, **given):
    entities = []
    for number, (words, kind) in enumerate(mentions):
        start = text.index(words)
        entities.append(Entity(f"T{number}", kind, start, start + len(words)))
    return Document("d", text, tuple(entities), **given)


TRAINING = [
    document("Severe chest pain, and pain.", ("chest pain", "Disease"), ("pain", "Sign"), ("Severe", "grade")),
    document("Beta-blocker for heart  failure.", ("Beta-blocker", "Drug"), ("heart  failure", "Disease")),
    document("Cold feet.", ("Cold", "Sign")),
    document("A cold. Cold!", ("cold", "Disease"), ("Cold", "Disease")),
]


def found(text, training=TRAINING, **given):
    answer = Dictionary.of(training, SCHEMA).answer(Document("x", text, **given))
    return [(text[e.start : e.stop], e.type) for e in answer.entities]


def test_the_longest_match_wins_whatever_case_and_white_space():
    assert found("CHEST\nPAIN or pain: heart failure; beta - blocker") == [
        ("CHEST\nPAIN", "Disease"), ("pain", "Sign"), ("heart failure", "Disease"), ("beta - blocker", "Drug"),
    ]  # fmt: skip
    assert found("chest pain of the chest") == [("chest pain", "Disease")]


def test_whole_words_only_and_nothing_else():
    assert found("painful, backpain, blocker, heart") == []
    assert found("heart") == found("a heart ") == found("") == found("chest") == []


def test_a_longer_mention_that_the_text_ends_within_hides_no_shorter_one():
    training = [document("heart failure, heart", ("heart failure", "Disease")), document("heart", ("heart", "Sign"))]
    assert found("a heart", training) == [("heart", "Sign")]
    assert found("heart heart failure", training) == [("heart", "Sign"), ("heart failure", "Disease")]


def test_letters_whose_case_changes_their_number_keep_their_places():
    assert found("İ STRASSE Straße.", [document("Straße", ("Straße", "Sign"))]) == [
        ("STRASSE", "Sign"), ("Straße", "Sign")
    ]  # fmt: skip


def test_the_commonest_type_counts_and_the_first_by_name_of_equal_ones():
    assert found("a cold") == [("cold", "Disease")]
    equal = [document("flu", ("flu", "Sign")), document("flu", ("flu", "Disease"))]
    assert list(Dictionary.of(equal, SCHEMA).types.values()) == ["Disease"]


def test_only_types_that_were_looked_for_are_answered():
    assert found("pain, cold", entity_types=frozenset({"Disease"})) == [("cold", "Disease")]
    dictionary = Dictionary.of(TRAINING, SCHEMA)
    assert dictionary.answer(Document("x", "pain", annotated=frozenset({"relations"}))) is None
    assert dictionary.answer(Document("x", "pain", entity_types=frozenset({"Other"}))) is None
    given = document("pain", ("pain", "Sign"), annotated=frozenset({"relations"}))
    assert Dictionary.of([given], SCHEMA).types == {}, "mentions that are input and no target"


def test_modifiers_and_types_that_the_schema_lacks_take_no_words():
    assert found("severe") == []
    several = [document("flu", ("flu", "Other")), document("flu", ("flu", "grade")), document("flu", ("flu", "Sign"))]
    assert found("flu", several + several[:2]) == [("flu", "Sign")]


def test_mentions_with_gaps_are_left_out():
    own = Document("d", "pain of chest", (Entity("T1", "Sign", 0, 13, fragments=((0, 4), (8, 13))),))
    assert Dictionary.of([own], SCHEMA).types == {}


WORDS = ("pain", "Pain", "chest", "of", "heart", "-", "X2")


@given(st.integers(0, 10_000))
def test_it_is_what_a_slow_search_finds_and_the_order_of_documents_does_not_matter(seed):
    draw = np.random.default_rng(seed)
    training = []
    for _ in range(4):
        words = " ".join(draw.choice(WORDS, size=6))
        start, stop = sorted(draw.choice(len(words.split()) + 1, 2, replace=False))
        training.append(document(words, (" ".join(words.split()[start:stop]), str(draw.choice(["Sign", "Drug"])))))
    made = Dictionary.of(training, SCHEMA)
    assert Dictionary.of(training[::-1], SCHEMA).types == made.types
    text = " ".join(draw.choice(WORDS, size=15))
    tokens, at, slow = text.casefold().split(), 0, []
    while at < len(tokens):
        sizes = [len(own) for own in made.types if tuple(tokens[at : at + len(own)]) == own]
        if sizes:
            slow.append(" ".join(text.split()[at : at + max(sizes)]))
        at += max(sizes, default=1)
    assert [words for words, _ in found(text, training)] == slow


@pytest.mark.parametrize("kind", [InstructionTask, TokenClassificationTask])
def test_the_tasks_score_it_by_their_own_metrics_and_load_no_network(kind, caplog, capfd):
    task = kind("nowhere", schema="bc5cdr")
    client = {"client": ["a"] * 2}
    training = [document("No fever by aspirin.", ("fever", "Disease"), ("aspirin", "Chemical")),
                document("An ache", ("ache", "Disease"))]  # fmt: skip
    scored = [document("Aspirin against fever", ("Aspirin", "Chemical"), ("fever", "Disease")),
              document("ache, then aches", ("aches", "Disease"))]  # fmt: skip
    linked = Document("r", scored[0].text, scored[0].entities, (Relation("CID", "T0", "T1"),))
    with caplog.at_level(logging.DEBUG):
        found = task.naive([{"document": training, **client}])
        metrics = SpanScores()
        found["dictionary"]({"document": [linked, scored[1]], **client}, metrics)
        scores = {name: float(value) for name, value in metrics.compute().items()}
    assert list(found) == ["dictionary"]
    assert scores["entity_strict_precision"] == scores["entity_strict_recall"] == pytest.approx(2 / 3)
    assert "loss" not in scores
    assert not [name for name in scores if name.startswith("relation_strict")], "it is not asked for relations"
    assert task.network is None
    assert not {"fever", "ache", "aspirin"} & set((caplog.text + "".join(capfd.readouterr())).lower().split())


def test_without_training_documents_it_finds_nothing_and_is_scored_so():
    task = TokenClassificationTask("nowhere", schema="bc5cdr")
    metrics = SpanScores()
    own = document("fever", ("fever", "Disease"))
    task.naive([])["dictionary"]({"document": [own], "client": ["a"]}, metrics)
    assert float(metrics.compute()["entity_strict_recall"]) == 0


def test_its_words_are_not_printed():
    assert "pain" not in repr(Dictionary.of(TRAINING, SCHEMA))
