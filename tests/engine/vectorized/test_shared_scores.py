"""Several clients are scored in one batch, and each gets its own figures."""

from __future__ import annotations

import csv

import pytest
import torch

from fedlit.aggregators import FedAvg, FedPer
from fedlit.data import SimulatedImages
from fedlit.engine.vectorized import evaluation as scoring
from fedlit.tasks import ClassificationTask
from fedlit.trainer import FederatedTrainer


def figures(tmp_path, rule, at_once, batch_size):
    trainer = FederatedTrainer(
        rule, max_rounds=1, local_steps=1, accelerator="cpu", default_root_dir=str(tmp_path / str(at_once)),
        enable_progress_bar=False, clients_at_once=at_once, evaluate_at=["start", "after_local", "after_aggregation"],
    )  # fmt: skip
    folder = trainer.fit(ClassificationTask("stand-in:vit"), SimulatedImages(batch_size=batch_size))
    with (folder.path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    names = ("round", "stage", "model", "client", "split", "metric", "num_examples")
    return {tuple(row[name] for name in names): float(row["value"]) for row in rows}


@pytest.mark.parametrize(("rule", "one"), [(FedAvg(), True), (FedPer(), False)], ids=["one model", "own models"])
def test_figures_are_those_of_each_alone(rule, one, tmp_path, monkeypatch):
    groups, real = [], scoring._score

    def note(passes, models, batches, metrics, shared):
        groups.append((len(models), shared))
        return real(passes, models, batches, metrics, shared)

    monkeypatch.setattr(scoring, "_score", note)
    alone = figures(tmp_path, rule, 1, 32)
    assert groups == []
    together = figures(tmp_path, rule, 4, 32)
    assert any(count > 1 and not shared for count, shared in groups)  # after their local steps, all have own models
    assert any(count > 1 and shared for count, shared in groups) is one  # before and after, all have one or none do
    assert alone.keys() == together.keys()
    for key, value in alone.items():
        assert together[key] == pytest.approx(value, abs=1e-5, nan_ok=True), key


def test_batches_are_filled_up_to_their_size_and_no_client_is_in_one_twice():
    data = [[torch.zeros(n, 1) for n in sizes] for sizes in ((4, 1), (2,), (3, 3), ())]
    filled = [(places, [len(batch) for batch in some]) for places, some in scoring._filled(data, 6)]
    assert filled == [([0, 1], [4, 2]), ([2], [3]), ([0, 2], [1, 3])]
