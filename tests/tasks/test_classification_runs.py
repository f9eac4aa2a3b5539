"""Classification by both trainers."""

from __future__ import annotations

import json
import math

import lightning
import pyarrow.parquet as pq
import pytest
import torch
from colours import CLASSES, VIT, ColourData
from safetensors.torch import load_file

from fedlit.aggregators import FedAvg, FedPer, LocalOnly
from fedlit.aggregators.drift import MOON
from fedlit.tasks import load_classifier
from fedlit.tasks.classification import ClassificationTask
from fedlit.trainer import FederatedTrainer

RATE = 2.5e-3  # two rounds of one step teach some classes only


@pytest.mark.parametrize("multi_label", [False, True])
def test_plain_lightning_trainer_takes_the_classes(multi_label, tmp_path):
    task = ClassificationTask(VIT, learning_rate=1e-2, class_weights="balanced", schedule="cosine")
    task.use_stand_in()
    trainer = lightning.Trainer(
        max_epochs=4, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(task, ColourData(multi_label))
    assert (task.classes, task.multi_label) == (CLASSES, multi_label)
    assert {"train/loss", "val/loss", "val/macro_f1", "val/auroc"} <= set(trainer.callback_metrics)
    assert trainer.lr_scheduler_configs[0].scheduler.get_last_lr() == pytest.approx([0.0])
    outs = trainer.predict(task, ColourData(multi_label))
    assert [len(out["id"]) for out in outs] == [4, 4, 3]


def test_a_federated_run_with_labels_that_differ_between_clients(fit_run, tmp_path, capsys):
    folder, trainer = fit_run(FedAvg(), baselines=[LocalOnly()], local_steps=1, max_rounds=2)
    out = capsys.readouterr().out
    rows = [row for row in folder.metrics.read() if row["split"] == "test" and row["model"] == "personal"]
    value = {(row["client"], row["metric"]): float(row["value"]) for row in rows}
    assert {client for client, _ in value} >= {"a", "b", "c"}
    assert value["b", "classes_left_out"] == 2
    assert math.isnan(value["b", "auroc"])
    assert value["worst", "accuracy"] < value["mean", "accuracy"]
    assert value["worst", "accuracy"] == min(value[c, "accuracy"] for c in "abc")
    assert value["worst", "loss"] == max(value[c, "loss"] for c in "abc")
    shown = [word for line in out.splitlines() for word in line.split() if word in {m for _, m in value}]
    assert list(dict.fromkeys(shown))[:3] == ["accuracy", "macro_f1", "auroc"]
    assert "loss" not in shown
    assert "accuracy of each client on test data" in out
    assert "backbone: tiny random stand-in" in " ".join(out.split())
    assert load_classifier(folder.path / "adapters" / "global").classes == CLASSES

    again = ClassificationTask(VIT, learning_rate=RATE)
    again.use_stand_in()
    path = trainer.predict(again, ColourData(), ckpt_path=str(folder.path))
    table = pq.read_table(path).to_pandas()
    assert path.name == "predictions.parquet"
    assert list(table.columns) == ["client", "id", "label", "prediction", "p_blue", "p_green", "p_red"]
    pooled = json.loads((folder.path / "pooled.json").read_text())
    assert pooled["clients"] == 3
    assert "data: SIMULATED" in pooled["labels"]
    assert pooled["test"]["macro_f1"] != pytest.approx(value["weighted_mean", "macro_f1"])
    assert pooled["test"]["accuracy"] == pytest.approx((table["label"] == table["prediction"]).mean())
    assert pooled["test"]["accuracy"] == pytest.approx(value["weighted_mean", "accuracy"])
    assert pooled["test"]["classes_left_out"] == 0


@pytest.mark.parametrize("rule", [FedPer(), MOON()])
def test_rules_that_need_a_head_or_features(rule, fit_run):
    folder, _ = fit_run(rule, local_steps=2, max_rounds=1)
    own = folder.path / "adapters" / "clients"
    if isinstance(rule, FedPer):
        heads = [load_file(own / c / "head.safetensors")["weight"] for c in "abc"]
        assert not torch.equal(heads[0], heads[1])
        adapters = [load_file(own / c / "adapter_model.safetensors") for c in "abc"]
        assert all(torch.equal(adapters[0][name], adapters[1][name]) for name in adapters[0])


@pytest.fixture
def fit_run(tmp_path):
    def run(rule, **settings):
        given = {"default_root_dir": str(tmp_path), "accelerator": "cpu", "enable_progress_bar": False}
        trainer = FederatedTrainer(rule, **given, **settings)
        task = ClassificationTask(VIT, learning_rate=RATE)
        task.use_stand_in()
        return trainer.fit(task, ColourData()), trainer

    return run
