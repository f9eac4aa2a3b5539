"""A dictionary of mentions: it finds what was annotated, whole words, the longest first, and nothing else."""

from fedlit.data.documents.documents import Document, Entity
from fedlit.tasks.naive.mentions import Dictionary


def document(text, *mentions, **given):
    entities = []
    for number, (words, kind) in enumerate(mentions):
        start = text.index(words)
        entities.append(Entity(f"T{number}", kind, start, start + len(words)))
    return Document("d", text, tuple(entities), **given)


TRAINING = [
    document("Severe chest pain, and pain.", ("chest pain", "Disease"), ("pain", "Sign")),
    document("Beta-blocker for heart  failure.", ("Beta-blocker", "Drug"), ("heart  failure", "Disease")),
    document("Cold feet.", ("Cold", "Sign")),
    document("A cold. Cold!", ("cold", "Disease"), ("Cold", "Disease")),
]


def found(text, **given):
    answer = Dictionary.of(TRAINING).answer(Document("x", text, **given))
    return [(text[e.start : e.stop], e.type) for e in answer.entities]


def test_the_longest_match_wins_whatever_case_and_white_space():
    assert found("CHEST\nPAIN or pain: heart failure; beta - blocker") == [
        ("CHEST\nPAIN", "Disease"), ("pain", "Sign"), ("heart failure", "Disease"), ("beta - blocker", "Drug"),
    ]  # fmt: skip


def test_whole_words_only_and_nothing_else():
    assert found("painful, backpain, blocker, heart") == []
    assert found("") == []


def test_the_commonest_type_counts_and_the_first_by_name_of_equal_ones():
    assert found("a cold") == [("cold", "Disease")]
    equal = [document("flu", ("flu", "Sign")), document("flu", ("flu", "Disease"))]
    assert list(Dictionary.of(equal).types.values()) == ["Disease"]
    assert Dictionary.of(equal[::-1]).types == Dictionary.of(equal).types


def test_only_types_that_were_looked_for_are_answered():
    assert found("pain, cold", entity_types=frozenset({"Disease"})) == [("cold", "Disease")]
    nobody = Document("x", "pain", annotated=frozenset({"relations"}))
    assert Dictionary.of(TRAINING).answer(nobody) is None
    given = document("pain", ("pain", "Sign"), annotated=frozenset({"relations"}))
    assert Dictionary.of([given]).types == {}, "mentions that are input and no target"


def test_its_words_are_not_printed():
    assert "pain" not in repr(Dictionary.of(TRAINING))
