"""Classification on tiny encoders, with data that a person can see through."""

from __future__ import annotations

import json

import lightning
import numpy as np
import pytest
import torch
from colours import BERT, BOLT, CLASSES, VIT, WAV, ColourData, batch, fit, tiny

from fedlit.backbones import LoRA
from fedlit.data import SimulatedSounds
from fedlit.engine.task_check import check_task
from fedlit.errors import FedlitError
from fedlit.tasks.class_losses import class_losses, label_losses
from fedlit.tasks.classification import ClassificationTask


@pytest.mark.parametrize("name", [VIT, BERT, WAV, BOLT])
def test_every_modality_gives_features_logits_and_losses(name):
    task = tiny(name).eval()
    one = batch(name)
    features, logits, losses = task.features(one), task.logits(one), task.losses(one)
    assert features.shape == (6, task.head.in_features)
    torch.testing.assert_close(logits, features @ task.head.weight.T + task.head.bias)
    torch.testing.assert_close(losses, torch.nn.functional.cross_entropy(logits, one["label"], reduction="none"))
    losses.mean().backward()
    assert all(p.grad is not None for p in task.parameters() if p.requires_grad)


@pytest.mark.parametrize("adapter", [LoRA(r=4), None])
@pytest.mark.parametrize("multi_label", [False, True])
def test_learns_on_a_random_backbone(adapter, multi_label):
    task = tiny(adapter=adapter)
    task.multi_label = multi_label
    losses = fit(task)
    assert np.mean(losses[-3:]) < 0.5 * np.mean(losses[:3])


def test_head_and_adapter_train_and_nothing_else():
    task = tiny(adapter=LoRA(r=4, dropout=0.5))
    check_task(task)
    trained = {name for name, p in task.named_parameters() if p.requires_grad}
    assert {name for name in trained if "lora_" not in name} == {"head.weight", "head.bias"}
    assert any("lora_" in name for name in trained)
    task.train()
    assert {m.training for n, m in task.network.named_modules() if "lora_dropout" not in n} == {False}
    whole = tiny(adapter=None)
    assert all(p.requires_grad for p in whole.parameters())
    assert not hasattr(task, "num_targets")


def test_first_values_are_the_seed_s_and_the_global_generator_is_kept():
    before = torch.random.get_rng_state()
    first, same, other = tiny(seed=1), tiny(seed=1), tiny(seed=2)
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(first.head.weight, same.head.weight)
    assert not torch.equal(first.head.weight, other.head.weight)
    assert first.head.bias.count_nonzero() == 0
    assert 0.005 < first.head.weight.std() < 0.05


def test_bf16_mixed_gives_a_float32_loss():
    task = tiny()
    fabric = lightning.Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    seen = []
    task.head.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    with fabric.autocast():
        loss = task.training_step(batch(), 0)
    assert (seen, loss.dtype) == ([torch.bfloat16], torch.float32)


@pytest.mark.parametrize("multi_label", [False, True])
def test_balanced_counts_are_each_client_s_own(multi_label):
    task, data = ClassificationTask(VIT, class_weights="balanced"), ColourData(multi_label)
    data.setup()
    task.take_data(data)
    task.use_stand_in()
    task.configure_model()
    given = torch.stack([task._by_client[c] for c in "abc"])
    if multi_label:
        torch.testing.assert_close(given, torch.tensor([[1 / 3, 3, 1], [1, 1, 1], [4, 1.5, 1.5]]))
    else:
        torch.testing.assert_close(given, torch.tensor([[4 / 6, 2, 1], [1, 1, 1], [5 / 3, 5 / 6, 5 / 6]]))
    one = data.dataset(["a", "c"], "train").__getitems__([1, 4])
    one["client"][1] = "server"
    plain = (label_losses if multi_label else class_losses)(task.logits(one), one["label"], 0.0, None)
    ratio = (task.losses(one) / plain).detach()
    assert ratio[1] == pytest.approx(1.0)  # an example of no client
    if not multi_label:
        assert ratio[0] == pytest.approx(2.0)


def test_given_weights_and_focal_loss_reach_the_loss():
    one = batch()
    plain = tiny().eval().losses(one)
    assert torch.allclose(tiny(class_weights=[2.0, 1, 0.0]).eval().losses(one), plain * torch.tensor([2.0, 1, 0] * 2))
    focal = tiny(loss="focal", gamma=1.0).eval().losses(one)
    torch.testing.assert_close(focal, plain * (1 - (-plain).exp()))
    assert torch.equal(tiny(gamma=1.0).eval().losses(one), plain)


@pytest.mark.parametrize("multi_label", [False, True])
def test_scores_and_predictions(multi_label):
    task = tiny().eval()
    task.multi_label = multi_label
    one = batch(multi_label=multi_label)
    one["label"][0] = 0
    task.validation_step(one, 0)
    scores = {name: value.item() for name, value in task.val_metrics.compute().items()}
    out = task.predict_step(one)
    p = out["probabilities"]
    columns = task.prediction_columns(out)
    assert {len(values) for values in columns.values()} == {6}
    right = np.mean([a == b for a, b in zip(columns["prediction"], columns["label"], strict=True)])
    assert columns["p_green"] == pytest.approx(p[:, 1])
    if multi_label:
        assert out["label"][0] == "none"
        assert p == pytest.approx(1 / (1 + np.exp(-out["logits"])), rel=1e-5)
        assert scores["subset_accuracy"] == right
    else:
        assert out["label"] == [CLASSES[i] for i in one["label"].tolist()]
        assert p.sum(1) == pytest.approx(1, abs=1e-6)
        assert scores["accuracy"] == right
        assert scores["loss"] == pytest.approx(task.losses(one).mean().item(), rel=1e-6)
    assert task.score_prediction(out, task.test_metrics)
    again = {name: value.item() for name, value in task.test_metrics.compute().items()}
    assert again == pytest.approx(scores, nan_ok=True)


def test_describe_and_config():
    task = tiny(class_weights=[1.0, 2, 3])
    about = task.describe()
    assert (about["family"], about["modality"], about["classes"]) == ("ViT", "image", CLASSES)
    assert about["trainable"] == sum(p.numel() for p in task.parameters() if p.requires_grad)
    assert json.loads(json.dumps(about)) == about
    assert json.loads(json.dumps(task.config())) == task.config()
    given = {"loss": "focal", "gamma": 1.0, "class_weights": "balanced", "learning_rate": 0.1, "max_length": 9}
    for name, value in given.items():
        assert ClassificationTask(**{name: value}).config()[name] == value != ClassificationTask().config()[name]


class Uncounted:
    classes, clients = CLASSES, ["a"]

    def dataset(self, clients, split):
        return []


class Other(ColourData):
    modality = "text"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"loss": "hinge"}, "model.loss is 'hinge'"),
        ({"gamma": -1.0}, "model.gamma is -1.0"),
        ({"class_weights": "even"}, "model.class_weights is 'even'"),
        ({"class_weights": [1.0, -1.0]}, "give numbers from 0"),
        ({"class_weights": [1.0, 2.0], "classes": CLASSES}, "has 2 numbers, and there are 3 classes"),
        ({"classes": ["a", "a"]}, "two or more names, each once"),
        ({"schedule": "step"}, "schedule 'step'"),
    ],
)
def test_arguments_that_are_refused(arguments, message):
    with pytest.raises(FedlitError, match=message):
        ClassificationTask(VIT, **arguments)


def test_sounds_of_another_rate_than_the_backbones_are_refused():
    data = SimulatedSounds(subjects=12, sites=2)
    data.setup()
    task = ClassificationTask("stand-in:wav2vec2")
    task.take_data(data)
    task.configure_model()
    data.rate = 8000.0
    task = ClassificationTask("stand-in:wav2vec2")
    task.take_data(data)
    with pytest.raises(FedlitError, match="takes 16000 Hz, and data.rate is 8000: set it to 16000"):
        task.configure_model()


def test_refusals():
    data = ColourData()
    data.setup()
    with pytest.raises(FedlitError, match="classes is not known"):
        ClassificationTask(VIT).configure_model()
    with pytest.raises(FedlitError, match="call configure_model"):
        ClassificationTask(VIT, classes=CLASSES).losses(batch())
    with pytest.raises(FedlitError, match="the model's classes are x, y, the data's blue, green, red"):
        ClassificationTask(VIT, classes=["x", "y"]).take_data(data)
    with pytest.raises(FedlitError, match="needs data with labels"):
        ClassificationTask(VIT).take_data(object())
    task = ClassificationTask(VIT)
    task.use_stand_in()
    task.take_data(Other())
    with pytest.raises(FedlitError, match="takes image, and the data hold text"):
        task.configure_model()
    with pytest.raises(FedlitError, match="counts the attribute `labels` of Uncounted's data sets"):
        ClassificationTask(VIT, class_weights="balanced").take_data(Uncounted())
    with pytest.raises(FedlitError, match="'balanced' needs a data module"):
        tiny(class_weights="balanced").losses(batch())
    with pytest.raises(FedlitError, match=r"labels of a batch are \(6, 3\), and multi_label is False"):
        tiny().losses(batch(multi_label=True))
