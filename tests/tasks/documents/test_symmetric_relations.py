"""Relations without a direction: found in files, asked, taught from either end, and right either way round."""

from __future__ import annotations

from itertools import combinations

import pytest

from fedlit.backbones.encoders.loading import encoder_stand_in
from fedlit.data import IID, BratFolder
from fedlit.data.documents.brat import parse_brat
from fedlit.data.documents.documents import Document, Entity, Relation
from fedlit.data.documents.jsonl import parse_jsonl, write_jsonl
from fedlit.errors import FedlitError
from fedlit.instructions import Counts, Parsed, Schema, Template
from fedlit.metrics.spans.counts import count_spans
from fedlit.tasks.documents.questions import Questions, answered
from fedlit.tasks.documents.tagging import Tagger

GIVEN = {
    "name": "s", "entities": {"A": "a.", "B": "b."},
    "relations": {"Same": {"heads": ["A"], "tails": ["B"], "description": "The same thing.", "symmetric": True},
                  "To": {"heads": ["A"], "tails": ["A"], "description": "To it."}},
}  # fmt: skip
SCHEMA = Schema.from_dict(GIVEN)
MENTIONS = (Entity("1", "A", 0, 1), Entity("2", "B", 2, 3), Entity("3", "A", 4, 5))
NOTE = Document(
    "n", "a b c", MENTIONS, (Relation("Same", "2", "1"), Relation("To", "1", "3"), Relation("Same", "2", "3"))
)


def scores(*links, ends="mention", gold=NOTE):
    return count_spans([gold], [Parsed(gold.entities, links, Counts())], SCHEMA, relation_ends=ends).scores()


def test_a_schema_says_so():
    assert (SCHEMA.relation["Same"].heads, SCHEMA.relation["Same"].tails) == (("A", "B"), ("A", "B"))
    assert not SCHEMA.relation["To"].symmetric
    assert Schema.from_dict(SCHEMA.to_dict()) == SCHEMA
    assert "symmetric" not in SCHEMA.to_dict()["relations"]["To"]
    bad = GIVEN | {"relations": {"Same": GIVEN["relations"]["Same"] | {"symmetric": "yes"}}}
    with pytest.raises(FedlitError, match="symmetric is 'yes', expected true or false"):
        Schema.from_dict(bad)


@pytest.mark.parametrize("ends", ["mention", "concept"])
def test_either_way_round_is_right_and_counts_once(ends):
    right = [Relation("Same", "1", "2"), Relation("Same", "3", "2"), Relation("To", "1", "3")]
    assert scores(*right, ends=ends)["relation_strict_f1"] == scores(*right, ends=ends)["relation_lenient_f1"] == 1
    both = scores(*right, Relation("Same", "2", "1"), ends=ends)
    assert both["relation_strict_precision"] == 1
    turned = scores(*right[:2], Relation("To", "3", "1"), ends=ends)
    assert turned["relation_strict_f1/To"] == turned["relation_lenient_f1/To"] == 0
    assert turned["relation_strict_f1/Same"] == 1


def test_either_way_round_is_right_where_the_ends_are_nearly_right():
    wide = Document("n", "aa bb", (Entity("1", "A", 0, 2), Entity("2", "B", 3, 5)), (Relation("Same", "1", "2"),))
    near = (Entity("x", "A", 0, 1), Entity("y", "B", 3, 4))
    counted = count_spans([wide], [Parsed(near, (Relation("Same", "y", "x"),), Counts())], SCHEMA).scores()
    assert (counted["relation_lenient_f1"], counted["relation_strict_f1"]) == (1, 0)


def test_answers_name_the_lower_number_first():
    target = Template(SCHEMA, "relations").target(NOTE)
    assert target == "Relations:\nSame: 1 -> 2\nTo: 1 -> 3\nSame: 2 -> 3"
    assert "- Same (between A or B, either way): The same thing." in Template(SCHEMA, "relations").prompt("a", ())


@pytest.mark.parametrize("format", ["html", "json"])
@pytest.mark.parametrize("way", [{}, {"relations": "focus"}, {"together": "joint"}], ids=str)
def test_right_answers_are_right(way, format):
    questions = Questions(SCHEMA, format=format, **way)
    known = {one.prompt: one.target for one in questions.instances(NOTE)}
    _, (found,) = answered(questions, [NOTE], lambda prompts: [known[prompt] for prompt in prompts])
    counted = count_spans([NOTE], [found], SCHEMA, task="relations").scores()
    assert counted["relation_strict_f1"] == 1


def test_tags_find_it_from_either_end():
    tagger = Tagger(SCHEMA, encoder_stand_in("stand-in:bert").family.tokenizer, 64)
    questions = tagger.questions([NOTE])
    assert [question.focus.id for question in questions if question.focus] == ["1", "2", "3"]
    _, (found,) = tagger.answers([NOTE], questions, [question.tags for question in questions])
    assert scores(*found.relations)["relation_strict_f1"] == 1


def test_an_equivalence_of_brat_links_each_two(tmp_path):
    text = "a b c d"
    lines = [f"T{n}\tX {2 * n} {2 * n + 1}\t{word}" for n, word in enumerate("abcd")]
    ann = "\n".join([*lines, "*\tSame T2 T0 T3 T1", "R1\tTo Arg2:T1 Arg1:T0", "R2\tTo Arg1:T0 Arg2:T2"])
    own, _ = parse_brat(text, ann, "n")
    same = [relation for relation in own.relations if relation.type == "Same"]
    assert [(r.head, r.tail) for r in same] == list(combinations(["T0", "T1", "T2", "T3"], 2))
    assert all(relation.symmetric for relation in same)
    assert [(r.head, r.tail, r.symmetric) for r in own.relations[:0:-1] if r.type == "To"] == [
        ("T0", "T2", False), ("T0", "T1", False)]  # fmt: skip
    assert [r.symmetric for r in parse_jsonl(write_jsonl([own]))[0].relations] == [r.symmetric for r in own.relations]
    for n in range(12):
        (tmp_path / f"{n}.txt").write_text(f"{text} {n}")
        (tmp_path / f"{n}.ann").write_text(ann)
    data = BratFolder(tmp_path, partition=IID(2))
    data.setup()
    assert data.schema["symmetric"] == ["Same"]
    counts = data.describe()["clients"]["client-1"]["type_counts"]["train"]["relations"]
    assert counts["Same"] == 3 * counts["To"]
    given = {"entities": ["X"], "relations": {"Same": [["X", "X"]], "To": [["X", "X"]]}}
    assert BratFolder(tmp_path, partition=IID(2), schema=given).facts()["schema"]["symmetric"] == ["Same"]
    with pytest.raises(FedlitError, match="data.schema: symmetric names 'Alike', which is not among its relations"):
        BratFolder(tmp_path, schema=given | {"symmetric": ["Alike"]})


def test_events_of_brat_that_are_not_kept_whole_are_counted():
    lines = "T1\tBind 0 1\ta\nT2\tX 2 3\tb\nT3\tX 4 5\tc\nE1\tBind:T1 Theme:T2 Theme2:T3\nE2\tBind:T1 Theme:T3\n"
    own, counted = parse_brat("a b c", lines, "n")
    assert counted == {"events of one trigger": 1, "numbers of roles": 1}
    assert [(r.type, r.tail) for r in own.relations] == [("Theme", "T2"), ("Theme", "T3")]
