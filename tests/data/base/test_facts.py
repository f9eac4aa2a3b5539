"""What a server without data is told of them."""

import json

import pytest

from fedlit.data import FederatedDataModule, SimulatedImages, SimulatedNotes, SimulatedSignals, SimulatedVitals
from fedlit.data.base.module import Facts


def test_facts_of_examples_are_what_tasks_read_of_the_module():
    data = SimulatedSignals(subjects=60, sites=3)
    facts = json.loads(json.dumps(data.facts()))
    assert (facts["modality"], facts["multi_label"], facts["rate"]) == ("signal", False, 100.0)
    assert facts["classes"] == data.classes
    for client in data.clients:
        counted = data.dataset(client, "train").labels.bincount(minlength=5).tolist()
        assert [facts["class_counts"][client].get(name, 0) for name in data.classes] == counted
    assert SimulatedImages(subjects=60, sites=3).facts()["rate"] is None


def test_facts_of_documents_and_of_signals():
    notes = SimulatedNotes(notes=60, sites=3)
    assert notes.facts() == {
        "schema": {"entities": ["Chemical", "Disease"], "relations": {"CID": [["Chemical", "Disease"]]}}
    }
    assert SimulatedVitals().facts() == {}


def test_counts_of_examples():
    data = SimulatedNotes(notes=60, sites=3)
    data.setup()
    described = data.describe()["clients"]
    for client in data.clients:
        assert data.example_counts(client) == {split: len(ids) for split, ids in described[client]["documents"].items()}


def test_facts_stand_for_a_module():
    told = {"b": {"train": 5, "val": 1, "test": 2}, "a": {"train": 3, "val": 1, "test": 1}}
    facts = Facts({"classes": ["x", "y"], "multi_label": True}, told)
    assert (facts.clients, facts.classes, facts.examples) == (["a", "b"], ["x", "y"], {"a": 3, "b": 5})
    assert not hasattr(facts, "dataset")
    with pytest.raises(AttributeError):
        facts.schema  # noqa: B018
    assert FederatedDataModule.facts(SimulatedVitals()) == {}
