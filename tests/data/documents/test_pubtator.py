"""PubTator: mentions, concepts, relations between them, and the published counts of BC5CDR."""

from __future__ import annotations

from collections import Counter

import pytest

from fedlit.data.base.records import BadRecord
from fedlit.data.documents.documents import Document, Entity, Relation
from fedlit.data.documents.pubtator import first_mentions, parse_pubtator, write_pubtator

ONE = """7|t|Lithium and aspirin.
7|a|Liver and kidney injury after lithium; injury of the liver.
7\t0\t7\tLithium\tChemical\tD1
7\t12\t19\taspirin\tChemical\t-1
7\t21\t44\tLiver and kidney injury\tDisease\tD3|D4\tLiver injury|kidney injury
7\t51\t58\tlithium\tChemical\tD1
7\t60\t79\tinjury of the liver\tDisease\tD3
7\tCID\tD1\tD3
7\tCID\tD1\tD4

"""
# Li et al. 2016, doi:10.1093/database/baw068: mentions and relations of the three parts.
PUBLISHED = {
    "Training": {"Chemical": 5203, "Disease": 4182, "CID": 1038},
    "Development": {"Chemical": 5347, "Disease": 4244, "CID": 1012},
    "Test": {"Chemical": 5385, "Disease": 4424, "CID": 1066},
}


def test_an_abstract():
    (own,) = parse_pubtator(ONE)
    assert (own.id, own.subject, own.annotated) == ("7", "7", {"entities", "relations"})
    assert own.text == "Lithium and aspirin.\nLiver and kidney injury after lithium; injury of the liver."
    said = ["Lithium", "aspirin", "Liver and kidney injury", "lithium", "injury of the liver"]
    assert [own.mention(entity) for entity in own.entities] == said
    assert [entity.concept for entity in own.entities] == ["D1", None, "D3|D4", "D1", "D3"]
    # D3 has a mention of its own, later in the text than the composite one; D4 has none.
    assert own.relations == (Relation("CID", "T1", "T5"), Relation("CID", "T1", "T3"))
    assert [relation.concepts for relation in own.relations] == [(("D1", "D3"),), (("D1", "D4"),)]
    assert first_mentions(own) == {"T1": "T1", "T2": "T2", "T3": "T3", "T4": "T1", "T5": "T5"}


def test_every_pair_of_mentions():
    (own,) = parse_pubtator(ONE, pairs="every")
    assert {(r.head, r.tail) for r in own.relations} == {("T1", "T5"), ("T4", "T5"), ("T1", "T3"), ("T4", "T3")}
    concepts = {(r.head, r.tail): r.concepts for r in own.relations}
    assert concepts["T1", "T3"] == (("D1", "D3"), ("D1", "D4"))
    assert parse_pubtator(write_pubtator([own]), pairs="every") == [own]


def test_two_concepts_with_the_same_mentions_are_one_relation():
    content = "1|t|A b\n1|a|c\n1\t0\t1\tA\tX\tC\n1\t2\t3\tb\tY\tD|E\n1\tR\tC\tD\n1\tR\tC\tE\n"
    (own,) = parse_pubtator(content)
    assert [relation.concepts for relation in own.relations] == [(("C", "D"), ("C", "E"))]
    assert write_pubtator([own]).endswith("1\tR\tC\tD\n1\tR\tC\tE\n\n")


def test_a_relation_listed_twice_is_one():
    (own,) = parse_pubtator(ONE.rstrip("\n") + "\n7\tCID\tD1\tD3\n")
    assert [relation.concepts for relation in own.relations] == [(("D1", "D3"),), (("D1", "D4"),)]


def test_line_ends_and_files_without_empty_lines():
    windows = ONE.replace("\n", "\r\n")
    assert parse_pubtator(windows) == parse_pubtator(ONE)
    both = parse_pubtator(ONE.rstrip("\n") + "\n" + ONE.replace("7|", "8|").replace("7\t", "8\t"))
    assert [own.id for own in both] == ["7", "8"]


def test_written_and_read():
    entities = (Entity("T1", "A", 0, 3), Entity("T2", "B", 4, 9, concept="C2"))
    own = Document("1", "one\ntwo\tthree\nfour", entities, subject="1")
    (back,) = parse_pubtator(write_pubtator([own]))
    assert back.text == "one\ntwo three four"
    assert back.entities == entities
    assert parse_pubtator(write_pubtator([back])) == [back]


def test_what_pubtator_cannot_hold():
    mentions = (Entity("a", "A", 0, 1), Entity("b", "B", 2, 3))
    with pytest.raises(BadRecord, match="'1' cannot be written as PubTator: a relation links a mention without"):
        write_pubtator([Document("1", "a\nb", mentions, (Relation("R", "a", "b"),))])
    with pytest.raises(BadRecord, match="its text is one line"):
        write_pubtator([Document("1", "a b", mentions)])
    split = Entity("a", "A", 0, 5, ((0, 1), (4, 5)))
    with pytest.raises(BadRecord, match="'a' has fragments"):
        write_pubtator([Document("1", "a\nb c d", (split,))])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("7|t|", "x", "f.txt: line 1 comes before any title"),
        ("7|a|", "8|a|", "f.txt: line 1: the title of '7' is not followed by its abstract"),
        ("60\t79", "60\t790", "f.txt: line 7 has a mention of 19 characters at 60 to 790, outside of a text"),
        (
            "51\t58",
            "52\t59",
            "at 52 to 59, which is not what the text has there: it would fit at 51 to 58: mend",
        ),
        ("\t51\t", "\tx\t", "line 6 has no whole number as start, character 1 of 1 is no digit: write"),
        ("\t51\t58\tlithium\tChemical\tD1", "\t51\t58", "line 6 has 3 columns; a mention has 6"),
        (
            "CID\tD1\tD4",
            "CID\tD1\tD9",
            "line 9 has a relation with the concept in column 4, which no mention has",
        ),
        ("CID\tD1\tD4", "CID\t-1\tD4", "line 9 has a relation with the concept in column 3"),
        ("7\t51", "9\t51", "line 6 is in the document '7', and does not begin with that id: move it"),
    ],
)
def test_bad_lines(old, new, message):
    with pytest.raises(BadRecord) as caught:
        parse_pubtator(ONE.replace(old, new, 1), "f.txt")
    assert message in str(caught.value)


def test_an_empty_abstract():
    assert parse_pubtator("1|t|Title\n1|a|\n")[0].text == "Title\n"
    with pytest.raises(BadRecord, match="f: line 1: document '1' has an empty text: fill it in"):
        parse_pubtator("1|t|\n1|a| \n", "f")


@pytest.mark.parametrize("part", PUBLISHED)
def test_bc5cdr_has_the_published_counts(shared, part):
    path = shared / "nerre_bc5cdr" / f"CDR_{part}Set.PubTator.txt"
    documents = parse_pubtator(path.read_text(encoding="utf-8"), str(path))
    assert len(documents) == 500
    count = Counter(entity.type for own in documents for entity in own.entities)
    count += Counter(relation.type for own in documents for relation in own.relations for _ in relation.concepts)
    assert count == PUBLISHED[part]
    for own in documents:
        types = {entity.id: entity.type for entity in own.entities}
        assert {(types[r.head], types[r.tail]) for r in own.relations} <= {("Chemical", "Disease")}
    # As many relations as pairs, but for those whose concepts have no mention apart.
    assert 0 <= PUBLISHED[part]["CID"] - sum(len(own.relations) for own in documents) <= 17
    back = parse_pubtator(write_pubtator(documents))
    assert back == documents
    assert [r.concepts for d in back for r in d.relations] == [r.concepts for d in documents for r in d.relations]
