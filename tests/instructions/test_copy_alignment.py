"""Where the words of a changed copy are in the source."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlit.instructions.alignment import Alignment

SOURCE = "The patient has type 2 diabetes and T2DM nephropathy, treated with metformin 500mg twice daily."


def place(copy: str, words: str, source: str = SOURCE) -> str | None:
    """What the source says where the copy says these words."""
    start = copy.index(words)
    found = Alignment(copy, source).find(start, start + len(words))
    return None if found is None else source[slice(*found)]


@pytest.mark.parametrize(
    ("change", "words", "expected"),
    [
        (("diabetes", "diabetis"), "type 2 diabetis", "type 2 diabetes"),
        (("type 2", "type II"), "type II diabetes", "type 2 diabetes"),
        (("type 2 diabetes", "Type 2 Diabetes"), "Type 2 Diabetes", "type 2 diabetes"),
        (("type 2", "kind two"), "kind two diabetes", "type 2 diabetes"),
        (("type 2", "kind two"), "two diabetes", "2 diabetes"),
        (("diabetes", "diabetic illness"), "2 diabetic illness", "2 diabetes"),
        (("diabetes", "diabetic illness"), "2 diabetic", "2 diabetes"),
        (("metformin", "metformine"), "metformine", "metformin"),
        (("500mg", "500 mg"), "metformin 500 mg", "metformin 500mg"),
        (("The patient has", "Has"), "type 2 diabetes", "type 2 diabetes"),
        (("metformin", "the drug metformin"), "metformin", "metformin"),
        (("T2DM", "type two mellitus"), "type two mellitus", None),
        (("treated", "xxxxx"), "xxxxx", None),
        ((", treated with", " and"), "nephropathy", "nephropathy"),
        (("twice daily", "daily twice"), "twice", "twice"),
    ],
)
def test_changes_of_a_copy(change, words, expected):
    assert place(SOURCE.replace(*change), words) == expected


def test_words_between_words_that_are_there_once_are_paired_one_by_one():
    assert Alignment("z u the v the the w", "y u the v the the w x").pair == [-1, 1, 2, 3, 4, 5, 6]


def test_part_of_a_word_is_the_same_part():
    assert place("A " + SOURCE, "neph") == "neph"
    assert place("A " + SOURCE, "pathy") == "pathy"


def test_words_of_another_length_when_case_is_aside():
    assert place("x Strasse", "Strasse", "Straße") == "Straße"
    assert place("x Straße", "Straße", "y Strasse") == "Strasse"


def test_nothing_is_found_for_white_space_or_in_nothing():
    assert Alignment("a  b", "a b").find(1, 3) is None
    assert Alignment("a b", "").find(0, 3) is None
    assert Alignment("", "a").share == 1.0
    assert Alignment("a b c d", "a x b").share == 0.5


def test_words_between_the_same_neighbours_are_found_without_pairs():
    # too long a stretch, without a word that is there once, to be compared: the words themselves are looked up
    copy, source = "start " + "a b " * 60 + "end", "start " + "b b a a " * 60 + "c d end"
    assert place(copy.replace("a b a b a b", "c d c d c d", 1), "c d", source) == "c d"


texts = st.lists(st.sampled_from(["a", "b", "c", "dd", "ee", "f", ".", ",", " ", "ß", "é"]), max_size=40).map(" ".join)


@settings(deadline=None, max_examples=200)
@given(texts, texts, st.data())
def test_partners_are_equal_and_in_order_and_places_inside(copy, source, data):
    aligned = Alignment(copy, source)
    paired = [(i, j) for i, j in enumerate(aligned.pair) if j >= 0]
    assert [j for _, j in paired] == sorted({j for _, j in paired})
    ours, theirs = copy.split(), source.split()
    assert all(ours[i] == theirs[j] for i, j in paired)
    start = data.draw(st.integers(0, len(copy)))
    stop = data.draw(st.integers(start, len(copy)))
    found = aligned.find(start, stop)
    assert found is None or 0 <= found[0] < found[1] <= len(source)


@settings(deadline=None, max_examples=100)
@given(texts, st.data())
def test_a_copy_without_changes_gives_every_span_back(source, data):
    aligned = Alignment(source, source)
    start = data.draw(st.integers(0, len(source)))
    stop = data.draw(st.integers(start, len(source)))
    words = source[start:stop]
    inner = (start + len(words) - len(words.lstrip()), stop - len(words) + len(words.rstrip()))
    assert aligned.find(start, stop) == (inner if words.strip() else None)


def test_much_work_is_cut_short_not_endless():
    # one word in common at the far end of each stretch: as bad as it gets
    copy = " ".join(f"x{n} y{n}" for n in range(3000))
    source = " ".join(f"y{n} z{n}" for n in reversed(range(3000)))
    assert sum(one >= 0 for one in Alignment(copy, source).pair) >= 1
