"""What readers of documents share: splits, duplicates, bad documents and arguments, the description."""

from __future__ import annotations

import json

import pytest
from documents_in_memory import SPLITS, Given, doc, everything, many, ready

from fedlit.data import IID, BySite, BySubject
from fedlit.data.base.records import BadRecord
from fedlit.data.documents.dataset import Documents
from fedlit.data.documents.documents import Document, Entity, Relation
from fedlit.errors import FedlitError


def test_batches():
    data = Given(many(), partition=BySite())
    data.setup()
    assert data.clients == ["site-a", "site-b"]
    both = data.dataset(data.clients, "train")
    assert isinstance(both, Documents)
    assert len(both) == 14
    batch = both.__getitems__([0, 13])
    assert set(batch) == {"document", "client", "index"}
    assert batch["index"].tolist() == [0, 13]
    assert batch["client"] == ["site-a", "site-b"]
    assert data.collate(batch) is batch
    assert str(data.collate([both[0], both[13]])) == str(batch)
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


@pytest.mark.filterwarnings("ignore:10 subject")
def test_subjects_and_equal_texts_stay_on_one_side():
    given = [doc(f"d{i}", f"ab {i // 2} same", site="ab"[i % 2], subject=f"s{i // 4}") for i in range(48)]
    given += [doc(f"e{i}", f"AB {i}  same") for i in range(6)]
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


def test_bad_documents():
    bad = [
        Document("b1", " "),
        Document("b2", "ab", (Entity("T1", "x", 0, 9),)),
        Document("b3", "ab", (), (Relation("r", "T1", "T2"),)),
    ]
    for own, message in zip(
        bad, ["empty text", "'T1' at 0 to 9, and 2 characters", "whose head is no mention"], strict=True
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
    # Runs are resumed by what clients hold: a field more would stop those made before.
    assert description["clients"]["site-a"].keys() == {
        "looked_for",
        "documents",
        "annotated",
        "type_counts",
        "subjects",
        "sites",
    }
    assert len(description["server"]) == 2
    assert description["statistics"]["site"]["counts"] == {"site-a": {"a": 11}, "site-b": {"b": 11}}
    config = json.loads(json.dumps(Given([], types=["a"], partition=IID(2)).config()))
    assert config["partition"] == {"class": "IID", "clients": 2, "unit": "subject"}
    assert (config["types"], config["schema"], config["annotated"]) == (["a"], None, {})
