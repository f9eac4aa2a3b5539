"""What each client looked for, which types there are, and what the server holds."""

from __future__ import annotations

import pytest
from documents_in_memory import SPLITS, Given, doc, everything, many, ready

from fedlit.data import IID
from fedlit.data.base.records import BadRecord
from fedlit.data.documents.documents import BOTH
from fedlit.data.documents.looked_for import LookedFor, masked
from fedlit.errors import FedlitError

ENTITIES = frozenset({"entities"})
RELATIONS = frozenset({"relations"})


def test_what_a_client_looked_for():
    data = ready(many(), annotated={"site-b": ["entities"], "site-*": ["relations"]})
    for split in SPLITS:
        for own in data.dataset("site-b", split).documents:
            assert (own.annotated, own.relations, len(own.entities)) == (ENTITIES, (), 3)
        for own in data.dataset("site-a", split).documents:
            # The mentions are what the relations link: input, not a target.
            assert (own.annotated, len(own.relations), len(own.entities)) == (RELATIONS, 2, 3)
    clients = data.describe()["clients"]
    assert clients["site-b"]["looked_for"] == ["entities"]
    assert clients["site-b"]["annotated"]["train"] == {"entities": 7, "relations": 0}
    assert clients["site-a"]["annotated"]["train"] == {"entities": 0, "relations": 7}
    assert clients["site-b"]["type_counts"]["test"] == {
        "entities": {"drug": 3, "problem": 3, "test": 3},
        "relations": {},
    }
    assert all(len(own.relations) == 2 for own in data.documents)


def test_a_test_part_that_is_not_masked():
    data = ready(many(), annotated={"site-b": ["entities"]}, mask_test=False)
    assert {own.annotated for own in data.dataset("site-b", "train").documents} == {ENTITIES}
    assert {own.annotated for own in data.dataset("site-b", "val").documents} == {ENTITIES}
    assert {own.annotated for own in data.dataset("site-b", "test").documents} == {BOTH}


def test_documents_without_what_a_client_looks_for_are_left_out():
    given = [*many(), doc("n1", annotated=frozenset()), doc("r1", site="b", annotated=RELATIONS)]
    data = ready(given, annotated={"site-b": ["entities"]})
    reasons = {row["record"]: row["reason"] for row in data.describe()["excluded"]}
    assert reasons["n1"] == "nothing was looked for in it"
    assert reasons["r1"] == "nothing that client 'site-b' looks for was looked for in it"
    with pytest.raises(
        FedlitError, match="client 'site-b' has no document annotated with relations: mend data.annotated"
    ):
        ready([doc(own.id, site=own.site, annotated=ENTITIES) for own in many()], annotated={"site-b": ["relations"]})
    mixed = [doc(own.id, site=own.site, annotated=BOTH if own.site == "a" else ENTITIES) for own in many()]
    with pytest.warns(UserWarning, match=r"1 client\(s\) have no training document annotated with relations: site-b"):
        ready(mixed)
    assert masked(mixed[1], LookedFor(RELATIONS)) is None


def test_types():
    data = ready(many(), types=["drug", "problem", "treats"])
    assert data.schema == {"entities": ["drug", "problem"], "relations": {"treats": [["drug", "problem"]]}}
    assert all(len(own.entities) == 2 and len(own.relations) == 1 for own in data.documents)
    # A relation goes with its ends.
    assert ready(many(), types=["drug", "problem", "shows"]).schema["relations"] == {}
    assert ready(many(), types=["drug", "treats"]).schema == {"entities": ["drug"], "relations": {}}
    data = ready(many(), types=["drug"])
    assert {own.annotated for own in data.documents} == {ENTITIES}
    with pytest.raises(
        FedlitError, match="data.types: no mention or relation is of the type 'drugs'; there are drug, prob"
    ):
        ready(many(), types=["drugs"])
    with pytest.raises(FedlitError, match="data.types names no type of mention: add one of drug, problem, test"):
        ready(many(), types=["treats"])


def test_schema():
    found = {"entities": ["drug", "problem", "test"]}
    found["relations"] = {"shows": [["test", "problem"]], "treats": [["drug", "problem"]]}
    assert ready(many()).schema == found
    wide = {"entities": ["test", "problem", "drug", "age"], "relations": found["relations"] | {"of": [["age", "age"]]}}
    data = ready(many(), schema=wide)
    assert data.schema == data.config()["schema"] == wide
    for schema, message in (
        ({"entities": ["drug"]}, "'d0' has a mention of the type 'problem', data.schema has drug"),
        (found | {"relations": {}}, "'d0' has a relation of the type 'treats', data.schema has none"),
        (
            found | {"relations": found["relations"] | {"treats": [["problem", "drug"]]}},
            "'d0' has a 'treats' from 'drug' to 'problem', data.schema does not allow it",
        ),
    ):
        with pytest.raises(BadRecord, match=message):
            ready(many(), schema=schema)
    for schema in ({}, {"entities": "drug"}, {"entities": ["a"], "relations": ["r"]}, {"entities": ["a"], "else": 1}):
        with pytest.raises(FedlitError, match="data.schema is .*: give it as"):
            Given([], schema=schema)
    with pytest.raises(FedlitError, match="data.schema: 'r' links 'b', which is not among its entities: add it"):
        Given([], schema={"entities": ["a"], "relations": {"r": [["a", "b"]]}})


def test_the_server_holds_as_many_of_each_site():
    given = many(60, sites=("a", "a", "a", "b", "c"))
    data = ready(given, partition=IID(3), server_examples=6)
    server = data.server_dataset()
    assert sorted(own.site for own in server.documents) == ["a", "a", "b", "b", "c", "c"]
    assert set(server.clients) == {"server"}
    held = {own.id for parts in everything(data).values() for side in parts.values() for own in side}
    assert held == {own.id for own in given} - {own.id for own in server.documents}
    assert ready(given).server_dataset() is None
    again = ready(given, partition=IID(5), server_examples=6)
    assert again.server_dataset().documents == server.documents
    with pytest.raises(FedlitError, match="data.server_examples is 60 of 60: too many"):
        ready(given, server_examples=60)


def test_subjects_of_the_server_are_kept_from_clients():
    data = ready([doc(f"d{i}", subject=f"s{i // 3}") for i in range(36)], partition=IID(2), server_examples=4)
    served = {own.subject for own in data.server_dataset().documents}
    assert len(data.server_dataset()) == 4
    assert len(served) == 2
    assert not served & {own.subject for own in data.documents}
    reasons = [row["reason"] for row in data.describe()["excluded"]]
    assert reasons == ["is of a group that the server holds"] * 2


def test_copies_of_what_the_server_holds_are_kept_from_clients():
    data = ready([doc(f"d{i}", f"ab {i // 2}") for i in range(36)], partition=IID(2), server_examples=3)
    served = {own.text for own in data.server_dataset().documents}
    assert len(served) == 2
    assert not served & {own.text for own in data.documents}
    assert len(data.documents) == 32


def test_the_servers_documents_are_of_the_training_fold():
    given = [doc(f"d{i}", site="ab"[i % 2], fold=["train", "val", "test"][i // 2 % 3]) for i in range(36)]
    data = ready(given, split="fold", server_examples=6)
    assert {own.fold for own in data.server_dataset().documents} == {"train"}
