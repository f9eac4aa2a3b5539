"""Classes without a model: against truth worked out by hand, finite differences and separable sets."""

import numpy as np
import pytest
import torch
from scipy.optimize import check_grad

from fedlit.metrics.classification import ClassificationMetrics
from fedlit.tasks import ClassificationTask
from fedlit.tasks.naive.classification import MOST, Linear, features, frequencies, prior

RNG = np.random.default_rng(0)


def one_hot(labels, classes):
    return np.eye(classes)[labels]


def test_shares_by_hand():
    np.testing.assert_allclose(np.exp(frequencies(one_hot([0, 0, 1], 3))), [3 / 6, 2 / 6, 1 / 6])
    p = 1 / (1 + np.exp(-prior(np.array([[1.0, 0], [1, 0], [0, 0]]))))
    np.testing.assert_allclose(p, [3 / 5, 1 / 5])


@pytest.mark.parametrize("multi_label", [False, True])
def test_the_gradient_is_that_of_the_loss(multi_label):
    x = RNG.normal(size=(12, 3))
    target = (RNG.random((12, 4)) < 0.4).astype(float) if multi_label else one_hot(RNG.integers(0, 4, 12), 4)
    model = Linear(x, target, multi_label)
    for seed in range(3):
        at = np.random.default_rng(seed).normal(size=16)
        wrong = check_grad(lambda w: model.loss(w, x, target)[0], lambda w: model.loss(w, x, target)[1], at)
        assert wrong < 1e-5
    assert np.abs(model.loss(model.weights.ravel(), model._plain(x), target)[1]).max() < 1e-2, "it is fitted"


def test_a_set_that_a_line_separates():
    x = RNG.normal(size=(60, 5))
    labels = (x[:, 2] > 0).astype(int)
    x[:, 2] += np.where(labels, 3, -3)
    model = Linear(x, one_hot(labels, 3), multi_label=False)
    assert (model.logits(x).argmax(axis=1) == labels).all()
    several = np.stack([labels, 1 - labels], axis=1).astype(float)
    assert ((Linear(x, several, multi_label=True).logits(x) > 0) == (several > 0)).all()


def test_a_constant_feature_and_one_class_are_no_obstacle():
    x = np.concatenate([np.full((8, 1), 5.0), RNG.normal(size=(8, 1))], axis=1)
    model = Linear(x, one_hot(np.zeros(8, int), 2), multi_label=False)
    assert np.isfinite(model.logits(x + 1)).all()
    assert (model.logits(x).argmax(axis=1) == 0).all()


def test_many_examples_are_thinned_evenly():
    x = np.arange(3.0 * MOST)[:, None]
    model = Linear(x, one_hot((x[:, 0] > x.mean()).astype(int), 2), multi_label=False)
    assert model.mean[0] == pytest.approx(x.mean(), rel=1e-3)


@pytest.mark.parametrize(
    ("value", "modality", "size"),
    [
        (np.float32([[1, 2, 3, 4] * 10, [0] * 40]), "signal", 2 * (4 + 8)),
        (np.full(40, np.nan, np.float32), "audio", 4 + 24),
        (np.zeros((5, 7, 3), np.uint8), "image", 6 + 5 * 7),
        (np.zeros((64, 64, 3), np.uint8), "image", 6 + 64),
        ("", "text", 1024),
    ],
)
def test_features_are_finite_and_of_one_size(value, modality, size):
    found = features([value, value], modality)
    assert found.shape == (2, size)
    assert np.isfinite(found).all()


def test_words_count_without_case_and_alike_in_every_process():
    found = features(["Pain, pain and fever", "fever PAIN pain and"], "text")
    np.testing.assert_allclose(found[0], found[1])
    assert (
        np.flatnonzero(found[0]).tolist() == sorted({26, 475, 864} & set(range(1024)))
        or len(np.flatnonzero(found[0])) == 3
    )
    assert np.linalg.norm(found[0]) == pytest.approx(1)


def test_the_task_scores_both_by_its_own_metrics():
    task = ClassificationTask(classes=["a", "b"])
    task.modality = "signal"
    t = np.arange(100) / 100

    def batch(labels):
        waves = [np.sin(2 * np.pi * (30 if label else 4) * t + shift) for shift, label in enumerate(labels)]
        return {"x": torch.tensor(np.array(waves), dtype=torch.float32)[:, None], "label": torch.tensor(labels)}

    found = task.naive([batch([0, 1, 1]), batch([1, 0, 1])])
    assert list(found) == ["commonest class", "linear model"]
    scores = {}
    for name, add in found.items():
        metrics = ClassificationMetrics()
        add(batch([0, 1, 0, 0]), metrics)
        scores[name] = {key: float(value) for key, value in metrics.compute().items()}
    assert scores["commonest class"]["accuracy"] == pytest.approx(0.25)
    assert scores["linear model"]["accuracy"] == 1
    assert task.naive([]) == {}
