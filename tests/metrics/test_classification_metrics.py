import math

import numpy as np
import pytest
import torch
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from fedlit.errors import FedlitError
from fedlit.federation.scores import higher_is_better
from fedlit.metrics.classification import ClassificationMetrics
from fedlit.metrics.forecasting import ForecastMetrics


def scored(logits, target, sizes=None):
    metrics = ClassificationMetrics()
    for one in zip(logits.split(sizes or len(logits)), target.split(sizes or len(target)), strict=True):
        metrics.update(*one)
    return {name: value.item() for name, value in metrics.compute().items()}


def area(scores, positive):
    """Pairs of a positive and a negative that are in the right order; a tie is half a pair."""
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[positive] for b in scores[~positive]]
    return sum(pairs) / len(pairs)


def calibration_error(confidence, right):
    """Guo et al. 2017, equation 3, with 15 bins."""
    bins = np.minimum((confidence * 15).astype(int), 14)
    gaps = [abs(right[bins == b].mean() - confidence[bins == b].mean()) * (bins == b).mean() for b in set(bins)]
    return sum(gaps)


@pytest.fixture
def classes():
    generator = torch.Generator().manual_seed(0)
    target = torch.tensor([0, 1, 1, 3, 0, 0, 3, 1, 1, 0, 3, 3, 1, 0, 0, 1])  # class 2 has no example
    logits = torch.randn(16, 4, generator=generator) + 1.5 * torch.nn.functional.one_hot(target, 4)
    return torch.cat([logits, logits[:2]]).round(decimals=1), torch.cat([target, target[:2]])  # with ties


def test_classes_by_hand(classes):
    logits, target = classes
    got = scored(logits, target)
    p = np.exp(logits.double().numpy())
    p /= p.sum(1, keepdims=True)
    y, guess = target.numpy(), logits.numpy().argmax(1)
    assert 2 in guess  # or leaving the class out could not be seen
    recall, f1, areas = [], [], []
    for c in (0, 1, 3):
        right = np.sum((guess == c) & (y == c))
        recall.append(right / np.sum(y == c))
        precision = right / np.sum(guess == c)
        f1.append(2 * precision * recall[-1] / (precision + recall[-1]))
        areas.append(area(p[:, c], y == c))
    assert got["accuracy"] == pytest.approx(np.mean(guess == y), rel=1e-12)
    assert got["balanced_accuracy"] == pytest.approx(np.mean(recall), rel=1e-12)
    assert got["macro_f1"] == pytest.approx(np.mean(f1), rel=1e-12)
    assert got["auroc"] == pytest.approx(np.mean(areas), rel=1e-6)
    assert got["calibration_error"] == pytest.approx(calibration_error(p.max(1), (guess == y) * 1.0), rel=1e-5)
    assert got["loss"] == pytest.approx(-np.log(p[np.arange(len(y)), y]).mean(), rel=1e-12)
    assert got["classes_left_out"] == 1
    assert next(iter(got)) == "accuracy"


def test_labels_by_hand():
    generator = torch.Generator().manual_seed(1)
    target = (torch.rand(20, 4, generator=generator) < 0.4).float()
    target[:, 2], target[:, 3] = 0, 1  # one label that nobody has, one that all have
    logits = torch.randn(20, 4, generator=generator) + target
    got = scored(logits, target)
    p, y = 1 / (1 + np.exp(-logits.double().numpy())), target.numpy() == 1
    guess = p >= 0.5

    def f1(a, b):
        return 2 * np.sum(a & b) / (np.sum(a) + np.sum(b))

    assert got["macro_f1"] == pytest.approx(np.mean([f1(guess[:, c], y[:, c]) for c in (0, 1, 3)]), rel=1e-12)
    assert got["micro_f1"] == pytest.approx(f1(guess, y), rel=1e-12)
    assert got["auroc"] == pytest.approx(np.mean([area(p[:, c], y[:, c]) for c in (0, 1)]), rel=1e-6)
    assert got["subset_accuracy"] == np.mean((guess == y).all(1))
    assert got["calibration_error"] == pytest.approx(calibration_error(p.ravel(), y.ravel() * 1.0), rel=1e-5)
    assert got["loss"] == pytest.approx(-np.mean(np.log(np.where(y, p, 1 - p))), rel=1e-12)
    assert got["classes_left_out"] == 1
    assert next(iter(got)) == "macro_f1"


def test_order_and_cut_of_batches_do_not_matter(classes):
    logits, target = classes
    whole = scored(logits, target)
    assert scored(logits.flip(0), target.flip(0), [7, 1, 10]) == pytest.approx(whole, rel=1e-6)


def test_certain_and_wrong_shares_the_last_bin():
    """Confidences of exactly 1 are in one bin with those just below it."""
    logits = torch.tensor([[60.0, 0.0], [4.0, 0.0]])
    p = 1 / (1 + math.exp(-4.0))
    got = scored(logits, torch.tensor([1, 0]))["calibration_error"]
    assert got == pytest.approx((1 + p) / 2 - 0.5, rel=1e-5)
    assert got < 0.99 * (1 + 1 - p) / 2  # two bins


def test_a_client_of_one_class():
    got = scored(torch.tensor([[2.0, 0.0, 1.0], [0.0, 1.0, 0.0]]), torch.tensor([0, 0]))
    assert (got["accuracy"], got["balanced_accuracy"], got["classes_left_out"]) == (0.5, 0.5, 2)
    assert got["macro_f1"] == pytest.approx(2 / 3)
    assert math.isnan(got["auroc"])


def test_a_model_that_came_to_nothing_names_nothing_right(classes):
    logits, target = classes
    logits[3, 1] = math.nan
    got = scored(logits, target)
    assert got.pop("classes_left_out") == 1
    assert got
    assert {name for name, value in got.items() if math.isnan(value)} == {"auroc", "calibration_error", "loss"}
    assert all(value == 0 for value in got.values() if not math.isnan(value))


def test_reset_and_float64(classes):
    metrics = ClassificationMetrics()
    assert metrics.compute() == {}
    metrics.update(*classes)
    first = metrics.compute()
    metrics.reset()
    assert metrics.compute() == {}
    metrics.to(torch.float16).update(*classes)
    second = metrics.compute()
    assert all(torch.equal(first[name], second[name]) and second[name].dtype == torch.float64 for name in first)


def test_which_way_each_metric_points():
    mine = ClassificationMetrics()
    upwards = {"accuracy", "balanced_accuracy", "macro_f1", "micro_f1", "auroc", "subset_accuracy"}
    for name in (*upwards, "loss", "calibration_error", "classes_left_out"):
        assert higher_is_better(mine, name) is (name in upwards)
    assert not higher_is_better(ForecastMetrics(), "rmse/ecg")
    assert higher_is_better(MetricCollection({"right": MulticlassAccuracy(3)}), "right")
    assert higher_is_better(MulticlassAccuracy(3), "any")


def test_refuses_what_does_not_belong_together():
    with pytest.raises(FedlitError, match=r"logits \(3, 4\) and targets \(2,\)"):
        ClassificationMetrics().update(torch.zeros(3, 4), torch.zeros(2))
