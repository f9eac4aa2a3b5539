"""Documents to tagged word pieces and back."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from drawn_documents import SCHEMA as DRAWN
from hypothesis import given, settings
from hypothesis import strategies as st
from tagged import NOTES

from fedlit.backbones.encoders.loading import encoder_stand_in
from fedlit.data.documents.documents import Document, Entity, Relation
from fedlit.instructions import Counts, Schema, Template, parse
from fedlit.tasks.documents.questions import combined
from fedlit.tasks.documents.tagging import CLOSING, OPENING, Seen, Tagger, cut, marked, tokenizer_fault, unmarked

BC5CDR, CLINICAL = Schema.load("bc5cdr"), Schema.load("clinical")
BERT, ROBERTA = (encoder_stand_in(name).family.tokenizer for name in ("stand-in:bert", "stand-in:roberta"))
PIECES = (
    "fever",
    "Fever",
    "a",
    " ",
    "  ",
    "\n",
    "\t",
    ".",
    "5",
    "mg",
    "@",
    "*",
    "é",
    "e\u0301",
    "İ",
    "ß",
    "🫀",
    "\x00",
    "\u200d",
)


def places(text: str, tokenizer) -> list[tuple[int, int]]:
    """Bounds that every way of splitting the text keeps: of the word pieces, those that share a character joined."""
    own = tokenizer([text], add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"][0]
    out: list[tuple[int, int]] = []
    for start, stop in own:
        if out and start < out[-1][1]:
            out[-1] = (out[-1][0], max(stop, out[-1][1]))
        elif start < stop:
            out.append((start, stop))
    return out


@st.composite
def flat_documents(draw, tokenizer) -> Document:
    """Mentions of whole word pieces, none in another, and a relation at most between two."""
    text = draw(st.lists(st.sampled_from(PIECES), max_size=30).map("".join))
    at = places(text, tokenizer)
    edges = sorted(draw(st.sets(st.integers(0, len(at)), max_size=8)))
    entities = []
    for number, (a, b) in enumerate(pairwise(edges)):
        if draw(st.booleans()):
            type = draw(st.sampled_from([*DRAWN.entity]))
            entities.append(Entity(f"P{number}", type, at[a][0], at[b - 1][1]))
    links = []
    for head in entities:
        for tail in entities:
            fitting = [one for one in DRAWN.relation if head != tail and DRAWN.fits(one, head.type, tail.type)]
            if fitting and draw(st.booleans()):
                links.append(Relation(draw(st.sampled_from(fitting)), head.id, tail.id))
    return Document("drawn", text, tuple(entities), tuple(links))


def held(document: Document, parsed) -> tuple[set, set]:
    """Type and place of mentions, and relations by the place of their ends."""
    by_id = {one.id: (one.type, one.start, one.stop) for one in parsed.entities}
    return set(by_id.values()), {(one.type, by_id[one.head], by_id[one.tail]) for one in parsed.relations}


@pytest.mark.parametrize("tokenizer", [BERT, ROBERTA], ids=["bert", "roberta"])
@pytest.mark.parametrize("window", [16, 128])
def test_flat_mentions_and_their_relations_come_back_from_their_tags(tokenizer, window):
    tagger = Tagger(DRAWN, tokenizer, window)

    @settings(max_examples=120, deadline=None)
    @given(flat_documents(tokenizer))
    def check(document):
        questions = tagger.questions([document])
        (entities,), (relations,) = tagger.answers([document], questions, [one.tags for one in questions])
        found, wanted = held(document, relations), held(document, document)
        main = {one for one in wanted[0] if one[0] != "severity"}
        assert held(document, entities) == (main, set())
        assert found[1] == wanted[1]
        assert main <= found[0] <= wanted[0]
        assert {one for one in wanted[0] - found[0]} <= {one for one in wanted[0] if one[0] == "severity"}
        assert not any(sum(one.mentions[1:]) for one in questions)

    check()


def test_tags_say_what_an_exact_answer_of_a_language_model_says():
    tagger = Tagger(BC5CDR, BERT, 128)
    questions = tagger.questions(NOTES)
    _, relations = tagger.answers(NOTES, questions, [one.tags for one in questions])
    template = Template(BC5CDR, "relations", "html", "focus")
    for document, ours in zip(NOTES, relations, strict=True):
        own = template.given(document)
        theirs = [
            parse(template.target(document, one), document.text, BC5CDR, "relations", "html", own, one)
            for one in own
            if one.type == "Chemical"
        ]
        whole = combined(theirs, own)
        assert (ours.entities, set(ours.relations)) == (whole.entities, set(whole.relations))
        assert ours.counts == Counts(documents=1)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 400), st.integers(8, 60))
def test_each_word_piece_is_tagged_once_where_it_sees_most(count, size):
    windows = cut(count, size)
    assert [own for *_, first, last in windows for own in range(first, last)] == list(range(count))
    if count <= size:
        assert windows == [(0, count, 0, count)][: count and 1]
        return
    assert (windows[0][0], windows[-1][1]) == (0, count)
    for start, stop, first, last in windows:
        assert stop - start == size
        for place in range(first, last):
            best = max(min(place - a + 0.5, b - place - 0.5) for a, b, _, _ in windows if a <= place < b)
            assert min(place - start + 0.5, stop - place - 0.5) >= best - 1
    assert all(one[1] - two[0] >= size // 4 for one, two in pairwise(windows))


def test_windows_hold_the_text_and_the_marked_head():
    document = max(NOTES, key=lambda one: len(one.text))
    tagger = Tagger(BC5CDR, BERT, 48)
    texts = [marked(document.text, one.focus) for one in tagger.questions([document])]
    for question, text in zip(tagger.questions([document]), texts, strict=True):
        ids = BERT([text], add_special_tokens=False)["input_ids"][0]
        tagged = [t for one in question.windows for t in one.tokens[one.first : one.first + one.count]]
        assert tagged == ids
        assert len(question.windows) > 3
        for one in question.windows:
            assert len(one.tokens) <= 48
            assert (one.tokens[0], one.tokens[-1]) == (BERT.cls_token_id, BERT.sep_token_id)
            shown = BERT.decode(one.tokens).replace(" ", "")
            if question.focus:
                word = document.mention(question.focus).replace(" ", "")
                assert f"chemical[UNK]{word}[UNK]" in shown  # the stand-in has no sign for a marker
                assert shown.count("[UNK]chemical[UNK]") == 1
    assert {len(one.tokens) for one in tagger.questions([document])[0].windows} == {48}


def test_a_very_long_head_leaves_room_for_the_text():
    text = "ab " * 30 + "end " * 20
    document = Document("long", text, (Entity("T1", "Chemical", 0, 89), Entity("T2", "Disease", 94, 97)),
                        (Relation("CID", "T1", "T2"),))  # fmt: skip
    tagger = Tagger(BC5CDR, BERT, 16)
    questions = tagger.questions([document])
    assert max(len(one.tokens) for question in questions for one in question.windows) == 16
    _, (relations,) = tagger.answers([document], questions, [one.tags for one in questions])
    assert relations.relations == document.relations


@settings(max_examples=100, deadline=None)
@given(st.text("ab @*", min_size=1, max_size=12), st.data())
def test_characters_of_a_marked_text_are_found_in_the_text(text, data):
    start = data.draw(st.integers(0, len(text) - 1))
    focus = Entity("T1", "Chemical", start, data.draw(st.integers(start + 1, len(text))))
    whole = marked(text, focus)
    assert len(whole) == len(text) + len(OPENING.format("Chemical")) + len(CLOSING)
    back = unmarked([(i, i + 1) for i in range(len(whole))], len(text), focus)
    assert [a for a, b in back if a < b] == list(range(len(text)))
    assert all(whole[i] == text[a] for i, (a, b) in enumerate(back) if a < b)
    assert unmarked([(0, len(whole))], len(text), focus) == [(0, len(text))]
    assert unmarked([(3, 3)], len(text), focus) == unmarked([(3, 3)], len(text), None) == [(0, 0)]


def test_what_tags_cannot_hold_is_counted():
    text = "severe left knee pain and 50mg aspirin"
    entities = (
        Entity("T1", "problem", 0, 21), Entity("T2", "problem", 12, 21),  # nested
        Entity("T3", "drug", 28, 38), Entity("T4", "test", 22, 34, ((22, 25), (31, 34))),  # crossing, with a gap
    )  # fmt: skip
    document = Document("odd", text, entities, ())
    letters = Tagger(CLINICAL, BERT, 128)
    words = Tagger(CLINICAL, BERT_OF_WORDS, 128)
    assert letters.questions([document])[0].mentions == (4, 2, 1)
    apart = replace(document, entities=(entities[0], entities[2]))
    assert letters.questions([apart])[0].mentions == (2, 0, 0)
    question = words.questions([apart])[0]
    assert question.mentions == (2, 0, 1)  # 50mg is one word piece
    (found,), _ = words.answers([apart], [question], [question.tags])
    assert [(one.type, text[one.start : one.stop]) for one in found.entities] == [
        ("problem", "severe left knee pain"),
        ("drug", "50mg aspirin"),
    ]
    seen = Seen()
    assert [seen.note(apart, question), seen.note(apart, question)] == [True, False]
    assert seen.counts()["entities"] == {
        "inputs": 1, "windows": 1, "mentions": 2, "left_out": 0, "with_other_bounds": 1,
    }  # fmt: skip


def test_modifiers_are_tails_and_no_mentions():
    text = "severe pain , denies fever"
    entities = (Entity("T1", "severity", 0, 6), Entity("T2", "problem", 7, 11), Entity("T3", "negation", 14, 20),
                Entity("T4", "problem", 21, 26))  # fmt: skip
    links = (Relation("severity", "T2", "T1"), Relation("negation", "T4", "T3"))
    document = Document("note", text, entities, links)
    tagger = Tagger(CLINICAL, BERT, 128)
    questions = tagger.questions([document])
    assert [one.focus and one.focus.id for one in questions] == [None, "T2", "T4"]
    of_problems = [one.name for one in CLINICAL.relations if "problem" in one.heads]
    allowed = [tagger.names[i] for i in questions[1].allowed]
    assert allowed == ["O", *(f"{sign}-{name}" for name in of_problems for sign in "BI")]
    (found,), (linked,) = tagger.answers([document], questions, [one.tags for one in questions])
    assert {one.type for one in found.entities} == {"problem"}
    assert held(document, linked) == held(document, document)


def test_what_nobody_looked_for_is_not_asked():
    tagger = Tagger(BC5CDR, BERT, 128)
    document = NOTES[0]
    heads = sum(one.type == "Chemical" for one in document.entities)
    for annotated, focused in (({"entities"}, [True]), ({"relations"}, [False] * heads), (set(), [])):
        own = replace(document, annotated=frozenset(annotated))
        questions = tagger.questions([own])
        assert [one.focus is None for one in questions] == focused
        entities, relations = tagger.answers([own], questions, [one.tags for one in questions])
        assert ([one is not None for one in entities], [one is not None for one in relations]) == (
            ["entities" in annotated],
            ["relations" in annotated],
        )
    without = replace(BC5CDR, relations=())
    assert len(Tagger(without, BERT, 128).questions([document])) == 1


def test_a_relation_may_be_called_as_an_entity():
    schema = Schema.from_dict({"name": "s", "entities": {"a": "x", "b": "y"}, "relations": {
        "a": {"heads": ["a"], "tails": ["b"], "description": "z"}}})  # fmt: skip
    tagger = Tagger(schema, BERT, 128)
    assert tagger.names == ("O", "B-a", "I-a", "B-b", "I-b", "B-a", "I-a")
    assert tagger.known == ({"O": 0, "B-a": 1, "I-a": 2, "B-b": 3, "I-b": 4}, {"O": 0, "B-a": 5, "I-a": 6})


def test_new_tails_take_no_name_of_a_mention():
    document = replace(NOTES[0], entities=tuple(replace(one, id=f"P{i}") for i, one in enumerate(NOTES[0].entities)),
                       relations=())  # fmt: skip
    tagger = Tagger(BC5CDR, BERT, 128)
    questions = tagger.questions([document])
    tags = [[one.allowed[1], *[0] * (len(one.tags) - 1)] for one in questions]
    _, (relations,) = tagger.answers([document], questions, tags)
    assert len({one.id for one in relations.entities}) == len(relations.entities) == len(document.entities) + 1
    first = {one.id: one for one in relations.entities}
    assert {(first[one.tail].start, first[one.tail].type) for one in relations.relations} == {(0, "Disease")}


def test_tokenizers_that_do_not_serve():
    class Slow:
        is_fast = False

    class Endless:
        is_fast, cls_token_id, pad_token_id, sep_token_id = True, 1, 0, None

    assert "where in the text" in str(tokenizer_fault(Slow()))
    assert tokenizer_fault(Endless()) == "has no sep_token"
    assert tokenizer_fault(BERT) is tokenizer_fault(ROBERTA) is None


def _words():
    from transformers import BertTokenizer

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "severe", "left", "knee", "pain", "and", "50mg", "aspirin"]
    return BertTokenizer(vocab={word: i for i, word in enumerate(words)})


BERT_OF_WORDS = _words()
