"""Text to answer to mentions and relations: nothing is lost, whatever the text holds."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from drawn_documents import SCHEMA, WITHOUT_MODIFIERS, documents, texts
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlit.data.documents.documents import Document, Entity, Relation
from fedlit.instructions import Counts, Parsed, Schema, Template, parse
from fedlit.instructions.markup import escape, parts, read, unescape

CLEAN = Counts(documents=1)
TASKS = ("entities", "relations", "both")


def spans(entities: tuple[Entity, ...] | list[Entity]) -> Counter:
    """Type and place of mentions, with how often each is there."""
    return Counter((one.type, parts(one)) for one in entities)


def links(annotated: Document | Parsed) -> Counter:
    """Relations by type and place of both ends."""
    mentions = {one.id: (one.type, parts(one)) for one in annotated.entities}
    return Counter((one.type, mentions[one.head], mentions[one.tail]) for one in annotated.relations)


@settings(deadline=None, max_examples=250)
@given(texts)
def test_every_text_comes_back_from_its_escaped_form(text):
    assert unescape(escape(text)) == text
    assert read(escape(text)).text == text
    assert read(escape(text)).marks == ()


def test_only_what_could_be_mistaken_is_escaped():
    assert escape("p < 0.05 & <b>bold</b> &gt; a<s") == "p < 0.05 & <b>bold</b> &gt; a<s"
    assert escape("<span>x</span> < /SPAN") == "&lt;span>x&lt;/span> &lt; /SPAN"
    assert escape("&lt; &amp;lt; &&amp;") == "&amp;lt; &amp;amp;lt; &&amp;amp;"


@settings(deadline=None, max_examples=150)
@given(documents(), st.sampled_from(TASKS), st.sampled_from(("html", "json")))
def test_every_document_comes_back_whole(document, task, format):
    template = Template(SCHEMA, task, format)
    (one,) = template.instances(document)
    shown = template.given(document)
    parsed = parse(one.target, document.text, SCHEMA, task, format, shown)
    wanted = [e for e in document.entities if task != "entities" or e.type != "severity"]
    assert spans(parsed.entities) == spans(wanted)
    assert parsed.counts == CLEAN
    if task == "entities":
        assert parsed.relations == ()
    else:
        assert set(links(parsed)) == set(links(document))
    assert (one.dropped_entities, one.dropped_relations) == (0, 0)


@settings(deadline=None, max_examples=60)
@given(documents(WITHOUT_MODIFIERS), st.sampled_from(("html", "json")))
def test_relations_alone_come_back_with_the_ids_given(document, format):
    template = Template(WITHOUT_MODIFIERS, "relations", format)
    parsed = parse(
        template.target(document), document.text, WITHOUT_MODIFIERS, "relations", format, template.given(document)
    )
    assert set(parsed.relations) == set(document.relations)
    assert {one.id for one in parsed.entities} == {one.id for one in document.entities}
    assert parsed.counts == CLEAN


@settings(deadline=None, max_examples=80)
@given(documents(), st.sampled_from(("html", "json")))
def test_focus_questions_together_give_all_relations_of_known_tails(document, format):
    template = Template(SCHEMA, "relations", format, "focus")
    mentions = document.by_id()
    found: Counter = Counter()
    for one in template.instances(document):
        focus = mentions[one.focus]
        parsed = parse(one.target, document.text, SCHEMA, "relations", format, document.entities, focus)
        assert parsed.counts == CLEAN
        assert all(relation.head == focus.id for relation in parsed.relations)
        found += links(parsed)
    assert {(a, b, c[1]) for a, b, c in found} == {(a, b, c[1]) for a, b, c in links(document)}


@settings(deadline=None, max_examples=100)
@given(documents(gaps=False))
def test_dropping_keeps_what_nests_and_counts_the_rest(document):
    template = Template(SCHEMA, "both", "html", crossing="drop")
    (one,) = template.instances(document)
    parsed = parse(one.target, document.text, SCHEMA)
    assert parsed.counts == CLEAN
    assert len(parsed.entities) == len(document.entities) - one.dropped_entities
    assert spans(parsed.entities) <= spans(document.entities)
    assert ' continues="' not in one.target.replace(document.text, "")
    assert len(document.relations) - one.dropped_relations == one.target.rpartition("Relations:\n")[2].count(" -> ")


def test_answers_as_written_out():
    text = "Severe renal failure after gold; renal failure again."
    mentions = (
        Entity("a", "Disease", 7, 20), Entity("b", "Disease", 13, 20), Entity("c", "Chemical", 27, 31),
        Entity("d", "Disease", 33, 46), Entity("s", "severity", 0, 6),
    )  # fmt: skip
    document = Document("n", text, mentions, (Relation("CID", "c", "a"), Relation("severity", "a", "s")))
    assert Template(SCHEMA, "entities").target(document) == (
        'Severe <span class="Disease">renal <span class="Disease">failure</span></span> after '
        '<span class="Chemical">gold</span>; <span class="Disease">renal failure</span> again.'
    )
    assert Template(SCHEMA, "both").target(document) == (
        '<span class="severity" id="1">Severe</span> <span class="Disease" id="2">renal <span class="Disease" id="3">'
        'failure</span></span> after <span class="Chemical" id="4">gold</span>; <span class="Disease" id="5">'
        "renal failure</span> again.\nRelations:\nseverity: 2 -> 1\nCID: 4 -> 2"
    )
    assert Template(SCHEMA, "relations").target(document) == (
        '<span class="severity" id="5">Severe</span> renal failure after gold; renal failure again.\n'
        "Relations:\nseverity: 1 -> 5\nCID: 3 -> 1"
    )
    assert Template(SCHEMA, "entities", "json").target(document) == (
        '[\n{"type": "Disease", "text": "renal failure"},\n{"type": "Disease", "text": "failure"},\n'
        '{"type": "Chemical", "text": "gold"},\n{"type": "Disease", "text": "renal failure"}\n]'
    )


def test_an_occurrence_is_written_only_where_reading_on_would_miss():
    text = "no fever, some fever, a feverish cold"
    second = Document("n", text, (Entity("a", "Disease", 15, 20),))
    inside = Document("n", text, (Entity("a", "Disease", 24, 29),))
    both = Document("n", text, (Entity("a", "Disease", 3, 8), Entity("b", "Disease", 15, 20)))
    listed = [Template(SCHEMA, "entities", "json").target(one) for one in (second, inside, both)]
    assert [one.count("occurrence") for one in listed] == [1, 1, 0]
    assert '"occurrence": 2' in listed[0]
    assert '"occurrence": 3' in listed[1]  # whole words are counted first


def test_reading_goes_on_from_the_start_of_a_mention_with_gaps():
    document = Document("n", "a b c b", (Entity("g", "Disease", 0, 5, ((0, 1), (4, 5))), Entity("b", "Disease", 2, 3)))
    assert Template(SCHEMA, "entities", "json").target(document) == (
        '[\n{"type": "Disease", "text": ["a", "c"], "occurrence": [1, 1]},\n{"type": "Disease", "text": "b"}\n]'
    )


def test_crossing_mentions_are_split_into_parts_or_refused():
    document = Document("note 7", "abcdef", (Entity("x", "Disease", 0, 4), Entity("y", "Chemical", 2, 6)))
    assert Template(SCHEMA, "entities").target(document) == (
        '<span class="Disease">ab<span class="Chemical" id="1">cd</span></span>'
        '<span class="Chemical" continues="1">ef</span>'
    )
    with pytest.raises(ValueError, match=r"'note 7' has the mentions 'Disease' at 0 to 4 and 'Chemical' at 2 to 6"):
        Template(SCHEMA, "entities", crossing="error").target(document)
    assert Template(SCHEMA, "entities", "json", crossing="error").target(document)
    assert Template(SCHEMA, "entities", crossing="drop").target(document) == '<span class="Disease">abcd</span>ef'


def test_real_abstracts_come_back_whole(shared: Path):
    schema = Schema.load("bc5cdr")
    read_in = bc5cdr(shared / "nerre_bc5cdr" / "CDR_TestSet.PubTator.txt")[:120]
    assert sum(len(one.entities) for one in read_in) > 2000
    for document in read_in:
        for task in TASKS:
            for format in ("html", "json"):
                template = Template(schema, task, format)
                parsed = parse(template.target(document), document.text, schema, task, format, template.given(document))
                assert spans(parsed.entities) == spans(document.entities)
                assert parsed.counts == CLEAN
                assert task == "entities" or links(parsed) == links(document)


def bc5cdr(path: Path) -> list[Document]:
    """Documents with the relations between the first mentions of two concepts."""
    out = []
    for block in path.read_text(encoding="utf-8").strip().split("\n\n"):
        title, abstract, *rows = block.split("\n")
        text = title.split("|", 2)[2] + " " + abstract.split("|", 2)[2]
        cells = [row.split("\t") for row in rows]
        entities = [
            Entity(f"T{i}", c[4], int(c[1]), int(c[2]), concept=c[5]) for i, c in enumerate(cells) if len(c) > 4
        ]
        first: dict[str, str] = {}
        for one in entities:
            first.setdefault(one.concept or "", one.id)
        found = [Relation(c[1], first[c[2]], first[c[3]]) for c in cells if len(c) == 4 and {c[2], c[3]} <= set(first)]
        entities.sort(key=lambda one: (one.start, one.stop, one.type))
        out.append(Document(title.split("|")[0], text, tuple(entities), tuple(found)))
    return out
