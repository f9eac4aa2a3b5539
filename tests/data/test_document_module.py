"""What readers of documents share: types, splits, duplicates, masks, what the server holds, the description."""

from __future__ import annotations

import json

import pytest

from fedlit.data import IID, BySite, BySubject
from fedlit.data.document_module import DocumentDataModule, Documents
from fedlit.data.document_splits import masked
from fedlit.data.documents import BOTH, Document, Entity, Relation
from fedlit.data.records import BadRecord
from fedlit.errors import FedlitError

SPLITS = ("train", "val", "test")
ENTITIES = frozenset({"entities"})
RELATIONS = frozenset({"relations"})


class Given(DocumentDataModule):
    """A reader of what it was given."""

    def __init__(self, given, **kwargs):
        self.given = given
        super().__init__(**kwargs)

    def read(self):
        return list(self.given)

    def write_stand_in(self, folder):
        raise AssertionError("not used")


def doc(id, text=None, site="a", annotated=BOTH, **kwargs):
    entities = (Entity("T1", "drug", 0, 2), Entity("T2", "problem", 3, 4), Entity("T3", "test", 3, 4))
    relations = (Relation("treats", "T1", "T2"), Relation("shows", "T3", "T2")) if "relations" in annotated else ()
    return Document(id, text or f"ab {id}", entities, relations, site=site, annotated=annotated, **kwargs)


def many(count=24, sites=("a", "b"), **kwargs):
    return [doc(f"d{i}", site=sites[i % len(sites)], **kwargs) for i in range(count)]


def everything(data):
    return {c: {s: data.dataset(c, s).documents for s in SPLITS} for c in data.clients}


def test_batches():
    data = Given(many(), partition=BySite())
    data.setup()
    assert data.clients == ["site-a", "site-b"]
    both = data.dataset(data.clients, "train")
    assert isinstance(both, Documents)
    assert len(both) == 14
    batch = both.__getitems__([0, 13])
    assert set(batch) == {"document", "client"}
    assert batch["client"] == ["site-a", "site-b"]
    assert data.collate([both[0], both[13]]) == batch == data.collate(batch)
    loaded = next(iter(data.train_dataloader()))
    assert len(loaded["document"]) == 4
    assert all(isinstance(own, Document) for own in loaded["document"])
    with pytest.raises(FedlitError, match="no client 'c'"):
        data.dataset("c", "train")


def test_a_split_is_a_partition_and_follows_the_seed():
    given = many(40)
    first, again, other = (everything(ready(given, seed)) for seed in (0, 0, 1))
    assert first == again != other
    ids = [own.id for parts in first.values() for side in parts.values() for own in side]
    assert sorted(ids) == sorted(own.id for own in given)
    assert [len(side) for side in first["site-a"].values()] == [12, 3, 5]


def ready(given, seed=0, **kwargs):
    data = Given(given, seed=seed, **({"partition": BySite()} | kwargs))
    data.setup()
    return data


@pytest.mark.filterwarnings("ignore:10 subject")
def test_subjects_and_equal_texts_stay_on_one_side():
    given = [doc(f"d{i}", f"ab {i // 2} same", site="ab"[i % 2], subject=f"s{i // 4}") for i in range(48)]
    given += [doc(f"e{i}", f"AB  {i} same") for i in range(6)]
    data = ready(given)
    side = {}
    for parts in everything(data).values():
        for split, own in parts.items():
            for one in own:
                side.setdefault(" ".join(one.text.lower().split()), set()).add(split)
                side.setdefault(one.subject, set()).add(split)
    assert {len(splits) for splits in side.values()} == {1}
    duplicates = data.describe()["duplicates"]
    assert (duplicates["values"], duplicates["repeats"], duplicates["merged"]) == (24, 30, True)
    assert data.describe()["leaks"] == {"subjects": 0, "duplicates": 0}
    with pytest.warns(UserWarning, match="text\\(s\\) occur more than once"):
        loose = ready(given, split="record", merge_duplicates=False)
    assert loose.describe()["leaks"]["duplicates"] > 0


def test_folds_of_the_source():
    folds = ["train", "train", "val", "test"]
    given = [doc(f"d{i}", site="ab"[i % 2], fold=folds[i // 2 % 4]) for i in range(32)]
    for parts in everything(ready(given, split="fold")).values():
        assert all(own.fold == split for split, side in parts.items() for own in side)
        assert [len(side) for side in parts.values()] == [8, 4, 4]
    with pytest.raises(FedlitError, match="record 'd24' has no fold: set data.split to subject"):
        ready([*given[:24], doc("d24")], split="fold")


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
    assert masked(mixed[1], RELATIONS) is None


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


def test_bad_documents():
    bad = [
        Document("b1", " "),
        Document("b2", "ab", (Entity("T1", "x", 0, 9),)),
        Document("b3", "ab", (), (Relation("r", "T1", "T2"),)),
    ]
    for own, message in zip(
        bad, ["empty text", "'T1' at 0 to 9, and 2 characters", "with 'T1', which is no"], strict=True
    ):
        with pytest.raises(BadRecord, match=rf"document '{own.id}' has .*{message}.*data.exclude \['{own.id}'\]"):
            ready([*many(), own])
    with pytest.warns(UserWarning, match=r"3 bad record\(s\) skipped, 24 kept: b1, b2, b3"):
        data = ready([*many(), *bad], on_bad_record="skip")
    assert {row["record"] for row in data.describe()["excluded"]} == {"b1", "b2", "b3"}
    assert len(ready([*many(), *bad], exclude=["b*"]).documents) == 24
    with pytest.raises(FedlitError, match="two documents are named 'd0', ids must be unique"):
        ready([*many(), doc("d0")])
    with pytest.raises(FedlitError, match="no document left to use: 1 left out, first 'd0': excluded by"):
        ready(many(1), exclude=["*"])
    with pytest.warns(UserWarning, match="data.exclude: no record is named like x"):
        ready(many(), exclude=["x"])


def test_clients_that_are_too_small_and_alone():
    message = r"client 'subject-d0' has 1 group\(s\), a split needs 3: use a partition with fewer, larger clients"
    with pytest.raises(FedlitError, match=message) as caught:
        ready(many(), partition=BySubject())
    assert "stratified" not in str(caught.value)
    with pytest.warns(UserWarning, match="there is one client: name sites, or set data.partition"):
        ready(many(sites=("a",)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "time"}, "data.split is 'time': give one of subject, record, fold"),
        ({"val_fraction": 0.6, "test_fraction": 0.4}, "leave nothing to train on"),
        ({"val_fraction": 1.5}, "data.val_fraction is 1.5"),
        ({"batch_size": 0}, "data.batch_size is 0"),
        ({"server_examples": -1}, "data.server_examples is -1"),
        (
            {"annotated": {"a": ["mentions"]}},
            r"data.annotated of 'a' is \['mentions'\]: give entities, relations, or both",
        ),
        ({"annotated": {"a": []}}, "give entities, relations, or both"),
        ({"on_bad_record": "warn"}, "data.on_bad_record is 'warn'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(FedlitError, match=message):
        Given([], **arguments)


def test_a_pattern_that_names_no_client():
    with pytest.raises(FedlitError, match="data.annotated: no client is named like 'ward-1'; there are site-a, site-b"):
        ready(many(), annotated={"ward-1": ["entities"]})


def test_the_description_and_the_configuration_are_json():
    data = ready(many(), annotated={"site-b": ["entities"]}, server_examples=2)
    description = json.loads(json.dumps(data.describe()))
    sizes = {split: len(ids) for split, ids in description["clients"]["site-a"]["documents"].items()}
    assert sizes == {split: len(data.dataset("site-a", split)) for split in SPLITS}
    assert description["schema"] == data.schema
    assert len(description["server"]) == 2
    assert description["statistics"]["site"]["counts"] == {"site-a": {"a": 11}, "site-b": {"b": 11}}
    config = json.loads(json.dumps(Given([], types=["a"], partition=IID(2)).config()))
    assert config["partition"] == {"class": "IID", "clients": 2, "unit": "subject"}
    assert (config["types"], config["schema"], config["annotated"]) == (["a"], None, {})
