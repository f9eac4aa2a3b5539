"""Classes without a model: against truth worked out by hand, finite differences and separable sets."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import check_grad

from fedlit.metrics.classification import ClassificationMetrics
from fedlit.tasks import ClassificationTask
from fedlit.tasks.naive.classification import MOST, Linear, classifiers, usual_logits
from fedlit.tasks.naive.features import FEATURES

RNG = np.random.default_rng(0)
NAMES = ["commonest class", "linear model"]


def one_hot(labels, classes):
    return np.eye(classes)[labels]


def softmax(z):
    return np.exp(z) / np.exp(z).sum(axis=-1, keepdims=True)


def signals(labels, seed=0):
    """One channel; 4 cycles of class 0, 30 of class 1."""
    shifts = np.random.default_rng(seed).uniform(0, 6, len(labels))
    t = np.arange(100) / 100
    waves = [np.sin(2 * np.pi * (4, 30)[label] * t + shift) for label, shift in zip(labels, shifts, strict=True)]
    return np.float32(waves)[:, None]


def test_shares_by_hand():
    np.testing.assert_allclose(np.exp(usual_logits(one_hot([0, 0, 1], 3), False)), [3 / 6, 2 / 6, 1 / 6])
    p = 1 / (1 + np.exp(-usual_logits(np.array([[1.0, 0], [1, 0], [0, 0]]), True)))
    np.testing.assert_allclose(p, [3 / 5, 1 / 5])


def test_the_first_of_equally_common_classes_is_the_likeliest():
    assert usual_logits(one_hot([2, 1, 1, 2, 0], 3), False).argmax() == 1


@pytest.mark.parametrize("multi_label", [False, True])
def test_the_gradient_is_that_of_the_loss_and_none_is_left(multi_label):
    x = RNG.normal(size=(12, 3))
    target = (RNG.random((12, 4)) < 0.4).astype(float) if multi_label else one_hot(RNG.integers(0, 4, 12), 4)
    model = Linear(x, target, multi_label)
    known = model.with_one_of_each(model.standardised(x), target)
    for seed in range(3):
        at = np.random.default_rng(seed).normal(size=16)
        wrong = check_grad(lambda w: model.loss(w, *known)[0], lambda w: model.loss(w, *known)[1], at)
        assert wrong < 1e-5
    assert np.abs(model.loss(model.weights.ravel(), *known)[1]).max() < 1e-2, "it is fitted"


def test_the_loss_by_hand():
    model = Linear(np.array([[0.0], [1.0]]), one_hot([0, 1], 2), multi_label=False)
    weights, x = np.array([[2.0, -1.0], [0.5, 0.0]]), np.array([[1.0], [-1.0]])
    z = np.array([[2.5, -1.0], [-1.5, 1.0]])
    p = softmax(z)
    own = -np.log(p[0, 0]) - np.log(p[1, 1]) + (4 + 1) / 2
    assert model.loss(weights.ravel(), x, one_hot([0, 1], 2))[0] == pytest.approx(own)


def test_a_set_that_a_line_separates():
    x = RNG.normal(size=(60, 5))
    labels = (x[:, 2] > 0).astype(int)
    x[:, 2] += np.where(labels, 3, -3)
    model = Linear(x, one_hot(labels, 3), multi_label=False)
    assert (model.logits(x).argmax(axis=1) == labels).all()
    several = np.stack([labels, 1 - labels], axis=1).astype(float)
    assert ((Linear(x, several, multi_label=True).logits(x) > 0) == (several > 0)).all()


@given(st.integers(0, 999))
def test_units_and_order_of_the_examples_do_not_matter(seed):
    draw = np.random.default_rng(seed)
    x, labels = draw.normal(size=(40, 3)), draw.integers(0, 3, 40)
    order, units = draw.permutation(40), 10 ** draw.uniform(-6, 6, 3)
    plain = Linear(x, one_hot(labels, 3), multi_label=False).logits(x)
    other = Linear((x * units + 3 * units)[order], one_hot(labels, 3)[order], multi_label=False)
    np.testing.assert_allclose(softmax(other.logits(x * units + 3 * units)), softmax(plain), atol=2e-3)


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("count", [1, 8, 500])
def test_of_one_class_only_the_linear_model_is_the_commonest_class(multi_label, count):
    x = RNG.standard_cauchy(size=(count, 3))  # some are so far off that they are cut
    target = np.tile([[0.0, 1.0, 0.0]], (count, 1))
    model = Linear(x, target, multi_label)
    for logits in model.logits(10 * x):
        np.testing.assert_allclose(logits, usual_logits(target, multi_label), atol=1e-6)


@pytest.mark.filterwarnings("error")
def test_constant_features_say_nothing_and_huge_ones_do_no_harm():
    target = one_hot([0, 0, 0, 1], 2)
    constant = Linear(np.full((4, 2), 0.1), target, multi_label=False)
    np.testing.assert_allclose(constant.logits(np.array([[7.0, -9e99]]))[0], usual_logits(target, False), atol=1e-6)
    huge = Linear(np.array([[1e100], [1e100], [1e100], [-1e100]]), target, multi_label=False)
    assert huge.logits(np.array([[1e100], [-1e100]])).argmax(axis=1).tolist() == [0, 1]
    outlier = Linear(RNG.normal(size=(4, 1)), target, multi_label=False).logits(np.array([[3e38]]))
    assert np.abs(outlier).max() < 30, "no loss of 1e38 by one faulty value"


@given(st.integers(1, 60), st.lists(st.integers(1, 25), min_size=1, max_size=8))
def test_of_many_examples_every_second_fourth_and_so_on_is_taken(most, sizes):
    count = sum(sizes)
    x, labels = np.arange(3.0 * count).reshape(count, 1, 3) % 7, np.arange(count) % 3
    cuts = np.cumsum(sizes)[:-1]
    batches = list(zip(np.split(x, cuts), np.split(labels, cuts), strict=True))
    step = next(2**k for k in range(20) if -(-count // 2**k) <= most)
    by_batches, directly = (
        classifiers(given, "signal", 3, size)["linear model"](x)
        for given, size in ((batches, most), ([(x[::step], labels[::step])], count))
    )
    np.testing.assert_allclose(by_batches, directly, atol=1e-9)
    usual = classifiers(batches, "signal", 3, most)["commonest class"](x)
    np.testing.assert_allclose(usual, np.tile(usual_logits(one_hot(labels, 3), False), (count, 1)))


def test_not_many_more_examples_than_are_kept_are_looked_at(monkeypatch):
    looked = []
    monkeypatch.setitem(FEATURES, "text", lambda x: looked.extend(x) or np.zeros((len(x), 1)))
    classifiers(((["a"] * 100, np.zeros(100, int)) for _ in range(100)), "text", 2)
    assert MOST <= len(looked) <= 3 * MOST, "of 10,000"


def test_the_task_scores_both_by_its_own_metrics():
    task = ClassificationTask(classes=["a", "b"])
    task.modality = "signal"

    def batch(labels, seed=0):
        return {"x": torch.from_numpy(signals(labels, seed)), "label": torch.tensor(labels)}

    found = task.naive([batch([0, 1, 1]), batch([1, 0, 1], 1)])
    assert list(found) == NAMES
    scores = {}
    for name, add in found.items():
        metrics = ClassificationMetrics()
        add(batch([0, 1, 0, 0], 2), metrics)
        scores[name] = {key: float(value) for key, value in metrics.compute().items()}
    assert scores[NAMES[0]]["accuracy"] == pytest.approx(0.25)
    assert scores[NAMES[0]]["auroc"] == pytest.approx(0.5)
    assert scores[NAMES[0]]["loss"] == pytest.approx(-(3 * np.log(3 / 8) + np.log(5 / 8)) / 4)
    assert scores[NAMES[1]]["accuracy"] == 1
    assert task.naive([]) == {}


def test_labels_of_texts_are_scored_too():
    task = ClassificationTask(classes=["pain", "fever"])
    task.modality, task.multi_label = "text", True
    texts = ["chest pain", "fever", "fever and pain", "nothing"] * 5
    batch = {"x": texts, "label": torch.tensor([[1.0, 0], [0, 1], [1, 1], [0, 0]] * 5)}
    scores = {}
    for name, add in task.naive([batch]).items():
        metrics = ClassificationMetrics()
        add(batch, metrics)
        scores[name] = float(metrics.compute()["subset_accuracy"])
    assert scores[NAMES[1]] == 1
    assert scores[NAMES[0]] < 1


def test_data_of_an_unknown_modality_have_no_linear_model():
    task = ClassificationTask(classes=["a", "b"])
    assert list(task.naive([{"x": torch.zeros(2, 3), "label": torch.tensor([0, 1])}])) == NAMES[:1]


def test_the_same_examples_give_the_same_bytes():
    labels = RNG.integers(0, 2, 30)
    x = signals(labels)
    first, second = (classifiers([(x, labels)], "signal", 2)["linear model"](x) for _ in range(2))
    assert first.tobytes() == second.tobytes()
