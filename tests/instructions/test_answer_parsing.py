"""What a model wrote: read as far as it can be, counted, never an error."""

from __future__ import annotations

import re
import time
from dataclasses import replace

import pytest
from drawn_documents import SCHEMA, documents, texts
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fedlit.data.documents.documents import Document, Entity, Relation, document_fault
from fedlit.instructions import Counts, Parsed, Template, parse
from fedlit.instructions.markup import parts

NOTE = "Gold caused severe fever.\nNo fever today, no gold."
D, C = '<span class="Disease">', '<span class="Chemical">'


def found(parsed: Parsed) -> list[tuple[str, int, int]]:
    return [(one.type, one.start, one.stop) for one in parsed.entities]


def html(answer: str, task: str = "entities", text: str = NOTE) -> Parsed:
    return parse(answer, text, SCHEMA, task)


def listed(answer: str, task: str = "entities", text: str = NOTE) -> Parsed:
    return parse(answer, text, SCHEMA, task, "json")


def counted(parsed: Parsed) -> dict[str, int]:
    return {name: value for name, value in parsed.counts.to_dict().items() if value and name != "documents"}


def test_a_changed_copy_is_aligned_with_the_note():
    parsed = html(f"gold  caused a {D}severe feber</span>.\nNo {D}fever</span> today, no Gold.")
    assert found(parsed) == [("Disease", 12, 24), ("Disease", 29, 34)]
    assert counted(parsed) == {"altered": 1, "realigned": 1}


def test_a_copy_that_differs_in_white_space_at_its_ends_is_the_note():
    parsed = html("\n " + NOTE.replace("severe fever", f"{D}severe fever</span>") + "\n\n")
    assert (found(parsed), counted(parsed)) == ([("Disease", 12, 24)], {})


@pytest.mark.parametrize(
    ("answer", "mentions", "counts"),
    [
        (f"{C}Gold</span> caused {D}severe fe", 1, {"truncated": 1}),
        (f'{C}Gold</span> caused <span class="Dis', 1, {"truncated": 1}),
        (f"{C}Gold</span> caused </sp", 1, {"truncated": 1}),
        (f"{C}Gold</span> caused severe", 1, {"truncated": 1}),
        (f"{C}Gold</span></span> {NOTE[5:]}", 1, {"malformed": 1}),
        (f"{C}Gold</span>{C}</span> {NOTE[5:]}", 1, {"malformed": 1}),
        (f'{C}Gold</span> <span class="drug">caused</span> {NOTE[12:]}', 1, {"out_of_schema": 1}),
        (f"{C}Gold</span> <span>caused</span> {NOTE[12:]}", 1, {"out_of_schema": 1}),
        (f"<SPAN CLASS='chemical'>Gold</ span> {NOTE[5:]}", 1, {}),
        (f"<think>{D}?</think>\n\n{C}Gold</span> {NOTE[5:]}", 1, {}),
        (f"```html\n{C}Gold</span> {NOTE[5:]}\n```\n", 1, {}),
        (f"Here it is:\n{C}Gold</span> {NOTE[5:]}", 1, {"altered": 1}),
        (f"{C}Gold</span> {NOTE[5:]} {D}Bleeding from ulcers</span>", 1, {"altered": 1, "not_found": 1}),
        (f"{C}Gold</span> {NOTE[5:]}{D} \n</span>", 1, {"not_found": 1}),
        ("I cannot help with clinical notes.", 0, {"altered": 1, "unparsable": 1}),
        ("", 0, {"unparsable": 1, "truncated": 1}),
    ],
)
def test_html_that_is_not_as_asked(answer, mentions, counts):
    parsed = html(answer)
    assert found(parsed) == [("Chemical", 0, 4)] * mentions
    assert counted(parsed) == counts


@pytest.mark.parametrize(
    ("answer", "mentions", "counts"),
    [
        ('[{"type": "Chemical", "text": "Gold"}, {"type": "Dise', 1, {"truncated": 1}),
        ('[{"type": "Chemical", "text": "Gold"}', 1, {"truncated": 1}),
        ('Sure [1]:\n```json\n[{"type": "chemical", "text": "Gold"}]\n```', 1, {}),
        ('{"type": "Chemical", "text": "Gold"}\n{"type": "x", "text": "Gold"}', 1, {"out_of_schema": 1}),
        ('{"entities": [{"type": "Chemical", "text": "Gold"}, "fever"], "relations": []}', 1, {"malformed": 1}),
        ('[{"type": "Chemical", "text": "Gold"}, {"type": "Disease"}]', 1, {"malformed": 1}),
        ('[{"type": "Chemical", "text": "Gold"}, {"type": "Disease", "text": "cough"}]', 1, {"not_found": 1}),
        ('[{"type": "Chemical", "text": "GOLD"}]', 1, {"altered": 1, "realigned": 1}),
        ('[{"type": "Chemical", "text": "Gold", "occurrence": 2}]', 0, {"not_found": 1}),
        ('[{"type": "Chemical", "text": "Gold", "occurrence": "1"}]', 1, {}),
        ("no mentions", 0, {"unparsable": 1}),
        ("", 0, {"unparsable": 1}),
        ("[]", 0, {}),
        ('[{"type": "Chemical", "text": ' + "9" * 6000 + "}]", 0, {"unparsable": 1}),
        ("[" * 50_000, 0, {"unparsable": 1}),
    ],
)
def test_json_that_is_not_as_asked(answer, mentions, counts):
    parsed = listed(answer)
    assert found(parsed) == [("Chemical", 0, 4)] * mentions
    assert counted(parsed) == counts


def test_a_mention_listed_more_often_than_it_is_there_is_not_found():
    item = '{"type": "Disease", "text": "fever"}'
    parsed = listed(f"[{item}, {item}, {item}]")
    assert found(parsed) == [("Disease", 19, 24), ("Disease", 29, 34)]
    assert counted(parsed) == {"not_found": 1}


def test_relations_by_number():
    marked = (
        'Gold caused severe <span class="Disease" id="2">fever</span>.\nNo fever today, no <span class="Chemical" '
        'id="1">gold</span>.\nRelations:\n'
    )
    lines = "CID: 1 -> 2\ncid: 1 -> 2\n- near: 2, 1\nCID: 2 -> 1\ncauses: 1 -> 2\nCID: 1 -> 7\nand so on"
    parsed = html(marked + lines, "both")
    assert parsed.relations == (Relation("CID", "P2", "P1"), Relation("near", "P1", "P2"))
    assert counted(parsed) == {"out_of_schema": 2, "malformed": 2}
    assert html(marked + "none", "both").relations == ()
    assert counted(html(marked.partition("Relations")[0], "both")) == {"truncated": 1}


def test_relations_in_json():
    answer = (
        '{"relations": [{"type": "CID", "head": 1, "tail": "2"}, {"type": "CID", "head": null, "tail": 2}], '
        '"entities": [{"id": 1, "type": "Chemical", "text": "Gold"}, {"id": "2", "type": "Disease", "text": "fever"}]}'
    )
    parsed = listed(answer, "both")
    assert parsed.relations == (Relation("CID", "P1", "P2"),)
    assert counted(parsed) == {"malformed": 1}


def test_a_number_given_twice_is_the_first_mention():
    marked = NOTE.replace("Gold", '<span class="Chemical" id="1">Gold</span>')
    marked = marked.replace("fever", '<span class="Disease" id="1">fever</span>', 1)
    parsed = html(f"{marked}\nRelations:\nCID: 1 -> 1", "both")
    assert found(parsed) == [("Chemical", 0, 4), ("Disease", 19, 24)]
    assert counted(parsed) == {"out_of_schema": 1}


def test_predictions_take_the_place_of_annotations():
    gold = Document("n", NOTE, (Entity("x", "Disease", 0, 4),), (), site="b")
    parsed = html(f"{C}Gold</span> {NOTE[5:]}")
    assert parsed.document(gold) == replace(gold, entities=parsed.entities)


def test_counts_add_up():
    one, two = Counts(documents=1, altered=1), Counts(documents=2, not_found=5)
    assert one + two == Counts(documents=3, altered=1, not_found=5)
    assert one + two - two == one


answers = st.one_of(
    texts,
    st.text(max_size=60),
    st.lists(
        st.sampled_from([
            *'[]{},:"', '{"type": "Disease"', ', "text": "fever"', '"entities": [', '"head": 1', '"tail": []', "null",
            '"occurrence": -1', '"occurrence": [2, 0]', '"text": [""]', "1e999", D, C, "</span>", NOTE[:12],
            '<span continues="1">', '<span class="severity" id="²">', "fever", "\nRelations:\n", "CID: 1 -> 2",
            "near: 1 -> 1", "```", "<think>",
        ]),
        max_size=20,
    ).map("".join),
)  # fmt: skip


@settings(deadline=None, max_examples=400)
@example('{"type": "Disease", "text": "fever", "id": "²"}', NOTE, "both", "json", False)
@given(
    answers,
    st.one_of(texts, st.just(NOTE)),
    st.sampled_from(("entities", "relations", "both")),
    st.sampled_from(("html", "json")),
    st.booleans(),
)
def test_whatever_was_written_gives_valid_annotations(answer, text, task, format, about_one):
    given_mentions = [Entity("g", "Disease", 0, len(text))] if task == "relations" and text.strip() else []
    focus = given_mentions[0] if given_mentions and about_one else None
    parsed = parse(answer, text, SCHEMA, task, format, given_mentions, focus)
    assert parsed == parse(answer, text, SCHEMA, task, format, given_mentions, focus)
    document = Document("n", text or "empty", parsed.entities, parsed.relations)
    assert document_fault(document) is None or not text.strip()
    assert SCHEMA.fault(document) is None
    assert min(parsed.counts.to_dict().values()) >= 0


@settings(deadline=None, max_examples=150)
@given(documents(), st.data(), st.sampled_from(("html", "json")))
def test_a_cut_answer_gives_mentions_of_the_whole_one(document, data, format):
    whole = Template(SCHEMA, "entities", format).target(document)
    cut = whole[: data.draw(st.integers(0, len(whole)))]
    parsed = parse(cut, document.text, SCHEMA, "entities", format)
    whole_ones = {(one.type, parts(one)) for one in document.entities if not one.fragments}
    gaps = any(one.fragments for one in document.entities) or 'continues="' in whole
    assert gaps or {(one.type, parts(one)) for one in parsed.entities} <= whole_ones


def test_ten_thousand_characters_take_no_time():
    words = "The patient was given {} mg of drug{} and had fever on day {}; platelets were {} and stable."
    text = " ".join(words.format(n, n % 7, n % 31, 17 * n) for n in range(110))
    mentions = [Entity(f"T{one.start()}", "Disease", *one.span()) for one in re.finditer("fever|platelets", text)]
    document = Document("long", text, tuple(mentions))
    assert len(text) > 10_000
    answer = Template(SCHEMA, "entities").target(document)
    changed = re.sub("and stable|was given", "stable", answer).replace("fever", "fevers")
    for one in (answer, changed):
        took = []
        for _ in range(3):
            begun = time.process_time()
            parsed = parse(one, text, SCHEMA, "entities")
            took.append(time.process_time() - begun)
        assert found(parsed) == [("Disease", one.start, one.stop) for one in mentions]
        assert min(took) < 0.05


def test_new_mentions_take_no_id_of_a_given_one():
    """Readers keep the ids of their files, which may be those that answers give."""
    note = (Entity("P1", "Chemical", 0, 4), Entity("P2", "Disease", 19, 24))
    answer = NOTE.replace("fever today", '<span class="CID">fever</span> today')
    parsed = parse(answer, NOTE, SCHEMA, "relations", "html", note, note[0])
    by_id = {one.id: one for one in parsed.entities}
    assert len(by_id) == len(parsed.entities) == 3
    assert [(by_id[one.head].start, by_id[one.tail].start) for one in parsed.relations] == [(0, 29)]
