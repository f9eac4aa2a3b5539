"""A task that is told of the data, without them, is the task that the data make."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from colours import VIT, ColourData
from tagged import Notes

from fedlit.backbones import LoRA
from fedlit.backbones.causal_lms import causal_stand_in
from fedlit.data import SimulatedImages, SimulatedSounds, SimulatedVitals
from fedlit.errors import FedlitError
from fedlit.tasks import ClassificationTask, ForecastingTask, InstructionTask, TokenClassificationTask


def facts(data) -> SimpleNamespace:
    """What clients tell of data: no data set, and nothing that holds one."""
    told = {name: getattr(data, name) for name in ("classes", "multi_label", "modality", "rate") if hasattr(data, name)}
    own = {client: data.dataset((client,), "train") for client in data.clients}
    told["examples"] = {client: len(held) for client, held in own.items()}
    if "classes" in told:
        told["class_counts"] = {client: counts(held.labels, data.classes) for client, held in own.items()}
    if hasattr(data, "schema"):
        told["schema"] = data.schema
    return SimpleNamespace(clients=list(data.clients), **told)


def counts(labels, classes) -> dict[str, int]:
    each = labels.long().sum(0) if labels.ndim == 2 else torch.bincount(labels, minlength=len(classes))
    return {name: count for name, count in zip(classes, each.tolist(), strict=True) if count}


def both(make, data):
    """The task made with the data, and with the facts alone."""
    data.setup()
    out = []
    for given in (data, facts(data)):
        task = make()
        task.take_data(given)
        task.configure_model()
        out.append(task)
    return out


def assert_same(one, other):
    here, there = dict(one.named_parameters()), dict(other.named_parameters())
    assert here.keys() == there.keys()
    assert all(torch.equal(here[name], there[name]) for name in here)
    assert one.config() == other.config()
    ours, theirs = ({**one.describe(), "training_documents": None} for one in (one, other))  # a server holds none
    assert ours == theirs


@pytest.mark.parametrize("data", [SimulatedImages(subjects=24, sites=3), ColourData(), ColourData(multi_label=True)])
def test_a_classifier_with_balanced_weights(data):
    def make():
        return ClassificationTask("stand-in:vit", LoRA(r=2), class_weights="balanced")

    one, other = both(make, data)
    assert_same(one, other)
    assert one._by_client.keys() == other._by_client.keys() == set(data.clients)
    assert all(torch.equal(one._by_client[client], other._by_client[client]) for client in data.clients)
    batch = data.collate(data.dataset(data.clients, "train").__getitems__([0, 1, 2]))
    assert torch.equal(one.eval().losses(batch), other.eval().losses(batch))


def test_sounds_of_another_rate_are_refused_by_facts_too():
    data = SimulatedSounds(subjects=12, sites=2)
    data.setup()
    task = ClassificationTask("stand-in:wav2vec2")
    task.take_data(SimpleNamespace(**(vars(facts(data)) | {"rate": 8000.0})))
    with pytest.raises(FedlitError, match="takes 16000 Hz, and data.rate is 8000"):
        task.configure_model()


def test_facts_without_classes_are_refused():
    with pytest.raises(FedlitError, match="SimpleNamespace has no classes"):
        ClassificationTask(VIT).take_data(SimpleNamespace(clients=["a"]))


def test_a_forecaster():
    data = SimulatedVitals(prediction_length=16, context_length=64, subjects=6, sites=2, seconds=20.0)
    assert_same(*both(lambda: ForecastingTask("builtin", LoRA(r=2), prediction_length=16), data))


def test_a_tagger():
    assert_same(*both(lambda: TokenClassificationTask("stand-in:bert", learning_rate=1e-3), Notes()))


def test_a_language_model_of_a_folder(tmp_path):
    made = causal_stand_in("stand-in:llama", [document.text for document in Notes().given])
    made.network.save_pretrained(tmp_path)
    made.family.save(tmp_path)
    assert_same(*both(lambda: InstructionTask(str(tmp_path), LoRA(r=2)), Notes()))


def test_a_tokenizer_of_texts_that_are_elsewhere_is_refused():
    data = Notes()
    data.setup()
    with pytest.raises(FedlitError, match="stand-in is made of the training texts, and SimpleNamespace holds none"):
        InstructionTask("stand-in:llama").take_data(facts(data))
    with pytest.raises(FedlitError, match="lacks"):
        InstructionTask("somewhere", schema="clinical").take_data(facts(data))
