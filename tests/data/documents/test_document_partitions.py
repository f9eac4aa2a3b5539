"""Documents dealt out so that rare tags are everywhere."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlit.data.classification.examples import Example
from fedlit.data.documents.documents import Document, Entity, Relation
from fedlit.data.documents.partitions import RareTagBalanced
from fedlit.errors import FedlitError

ROWS = st.lists(st.tuples(st.integers(0, 6), st.lists(st.sampled_from("abc"), max_size=4)), min_size=4)


def doc(id, tags, subject=None, relations=()):
    entities = tuple(Entity(f"T{i}", tag, 0, 1) for i, tag in enumerate(tags))
    return Document(id, "x", entities, tuple(Relation(type, "T0", "T0") for type in relations), subject or id)


def held(documents, assignment):
    """Mentions and relations of each client by type."""
    return {
        client: Counter(one.type for i in indices for one in (*documents[i].entities, *documents[i].relations))
        for client, indices in assignment.items()
    }


def test_worked_by_hand():
    # "rare" occurs 2 + 1 + 1 times: a share of 2 a client. a, with most of it, goes to client-1, then b and c to
    # client-2, which lacks 2, then 1, and then is full: d, which has "often", and e go to client-1.
    tags = {"a": ["rare", "rare"], "b": ["rare"], "c": ["rare"], "d": ["often"] * 9, "e": []}
    documents = [doc(id, own) for id, own in tags.items()]
    found = RareTagBalanced(2).assign(documents, 0)
    assert found == {"client-1": [0, 3, 4], "client-2": [1, 2]}


def test_the_rarest_tag_is_everywhere_and_sizes_are_equal():
    generator = np.random.default_rng(0)
    documents = []
    for i in range(203):
        tags = ["common"] * int(generator.integers(0, 9)) + ["some"] * int(generator.integers(0, 3) == 0)
        tags += ["rare"] * (i % 29 == 0)
        documents.append(doc(f"d{i}", tags, relations=["LINK"] if tags and i % 10 == 0 else []))
    assignment = RareTagBalanced(7).assign(documents, 0)
    assert sorted(i for own in assignment.values() for i in own) == list(range(203))
    assert {len(own) for own in assignment.values()} == {29}
    counts = held(documents, assignment)
    assert [own["rare"] for own in counts.values()] == [1] * 7
    for tag, room in (("LINK", 1), ("some", 1), ("common", 9)):
        spread = [own[tag] for own in counts.values()]
        assert max(spread) - min(spread) <= room, tag


def test_it_is_deterministic_and_does_not_depend_on_the_seed():
    documents = [doc(f"d{i}", ["a"] * (i % 3)) for i in range(20)]
    assert RareTagBalanced(3).assign(documents, 0) == RareTagBalanced(3).assign(documents, 1)
    assert RareTagBalanced(3).config() == {"class": "RareTagBalanced", "clients": 3, "unit": "subject"}


@settings(deadline=None, max_examples=60)
@given(ROWS, st.integers(1, 4))
def test_subjects_stay_together_and_no_client_is_empty(rows, clients):
    documents = [doc(f"d{i}", tags, f"s{subject}") for i, (subject, tags) in enumerate(rows)]
    subjects = {own.subject for own in documents}
    if len(subjects) < clients:
        with pytest.raises(FedlitError, match="ask for fewer clients"):
            RareTagBalanced(clients).assign(documents, 0)
        return
    assignment = RareTagBalanced(clients).assign(documents, 0)
    assert len(assignment) == clients
    assert sorted(i for own in assignment.values() for i in own) == list(range(len(documents)))
    owners = {documents[i].subject: client for client, own in assignment.items() for i in own}
    assert all(owners[documents[i].subject] == client for client, own in assignment.items() for i in own)
    assert all(assignment.values())
    single = RareTagBalanced(clients, unit="record").assign(documents, 0)
    sizes = [len(own) for own in single.values()]
    assert max(sizes) - min(sizes) <= 1


def test_examples_by_their_labels():
    labels = [("x",), ("x",), ("y", "x"), ("y",), ("z",), ("z",)]
    records = [Example(f"e{i}", f"e{i}", "s", "text", own, "") for i, own in enumerate(labels)]
    assignment = RareTagBalanced(2).assign(records, 0)
    for label in ("y", "z"):
        assert [sum(label in records[i].labels for i in own) for own in assignment.values()] == [1, 1]
