"""Classes without a network: the commonest one, and a linear model on features that need no training."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from fedlit.tasks.naive.features import FEATURES, Array

MOST = 2000
"""Training examples of a client that the linear model is fitted on."""
PENALTY = 1.0
"""Weight of half the squared norm of the weights, beside the sum of the losses."""
FARTHEST = 10.0
"""Deviations from the mean; a feature that is farther off counts as this far."""


Logits = Callable[[Any], Array]
"""Logits (batch, classes) of a batch's values."""


def classifiers(
    training: Iterable[tuple[Any, npt.NDArray[Any]]], modality: str | None, classes: int, most: int = MOST
) -> dict[str, Logits]:
    """Classifiers of a client's training examples, by their names in tables; none without an example.

    - ``commonest class``: :func:`usual_logits`; the first of equally common classes is the likeliest.
    - ``linear model``: a :class:`Linear` of the modality's features, see :mod:`fedlit.tasks.naive.features`; not of an
      unknown modality.

    Args:
        training: Batches: values as the features of the modality take them, and labels, whole numbers (batch,) or 0 and
            1 (batch, classes).
        modality: What the values are.
        classes: How many classes or labels there are.
        most: Of more examples, the linear model is fitted on every second, fourth, ... of them, so that it is on half
            of ``most`` at least; the features of others are not kept.
    """
    make = FEATURES.get(modality or "")
    labels: list[npt.NDArray[Any]] = []
    rows: list[Array] = []
    step, seen = 1, 0
    for values, label in training:
        labels.append(label)
        places = range(-seen % step, len(label), step)
        seen += len(label)
        if make is not None and places:
            rows += list(make(values[places.start :: step]))
        while len(rows) > most:
            rows, step = rows[::2], 2 * step
    if not seen:
        return {}
    label = np.concatenate(labels)
    multi_label = label.ndim == 2
    target = label.astype(np.float64) if multi_label else np.eye(classes)[label]
    usual = usual_logits(target, multi_label)
    out: dict[str, Logits] = {"commonest class": lambda values: np.tile(usual, (len(values), 1))}
    if make is not None:
        linear = Linear(np.stack(rows), target[::step], multi_label)
        out["linear model"] = lambda values: linear.logits(make(values))
    return out


def usual_logits(target: Array, multi_label: bool) -> Array:
    """Logits of the share of each class, with one example of each added (Laplace), (classes,).

    Shares are (count + 1) / (examples + classes), of several labels (count + 1) / (examples + 2): none is 0.

    Args:
        target: 0 and 1, (examples, classes).
        multi_label: Whether an example has any number of classes: logits are then before sigmoids.
    """
    count, examples, classes = target.sum(axis=0) + 1, *target.shape
    if multi_label:
        return np.asarray(np.log(count) - np.log(examples + 2 - count))
    return np.asarray(np.log(count) - np.log(examples + classes))


class Linear:
    """Logistic regression with an L2 penalty on standardised features, fitted by L-BFGS (``scipy.optimize``).

    It minimises the sum over examples of the cross-entropy (of several labels: the sum of the binary ones) plus
    ``PENALTY / 2`` times the squared norm of the weights; the biases are free. An example of each class at the mean of
    all features is added (of several labels: one with all and one with none), so that a model without weights is
    :func:`usual_logits`. This it is where features say nothing or all examples are of one class.

    Args:
        inputs: Features (examples, features), finite.
        target: 0 and 1 (examples, classes).
        multi_label: Whether an example has any number of classes.
    """

    def __init__(self, inputs: Array, target: Array, multi_label: bool) -> None:
        from scipy.optimize import minimize

        self.multi_label = multi_label
        self.mean, scale = inputs.mean(axis=0), inputs.std(axis=0)
        self.scale = np.where(scale > 1e-9 * np.abs(inputs).max(axis=0), scale, np.inf)  # a constant one counts as 0
        self.middle: Array = np.zeros(inputs.shape[1])
        self.middle = self.standardised(inputs).mean(axis=0)
        start = np.zeros((inputs.shape[1] + 1, target.shape[1]))
        start[-1] = usual_logits(target, multi_label)
        known = self.with_one_of_each(self.standardised(inputs), target)
        found = minimize(self.loss, start.ravel(), known, jac=True, method="L-BFGS-B", options={"maxiter": 200})
        self.weights = found.x.reshape(start.shape)

    def logits(self, inputs: Array) -> Array:
        """Logits (examples, classes)."""
        return np.asarray(self.standardised(inputs) @ self.weights[:-1] + self.weights[-1])

    def standardised(self, inputs: Array) -> Array:
        """Features of mean 0 and deviation 1 over the training examples, but for those that are far off."""
        return np.asarray(np.clip((inputs - self.mean) / self.scale, -FARTHEST, FARTHEST) - self.middle)

    def with_one_of_each(self, inputs: Array, target: Array) -> tuple[Array, Array]:
        """Standardised features and targets, and the examples that are added to them."""
        classes = target.shape[1]
        added = np.stack([np.ones(classes), np.zeros(classes)]) if self.multi_label else np.eye(classes)
        return np.concatenate([inputs, np.zeros((len(added), inputs.shape[1]))]), np.concatenate([target, added])

    def loss(self, flat: Array, inputs: Array, target: Array) -> tuple[float, Array]:
        """What is minimised, and its gradient.

        Args:
            flat: Weights, and biases last, (features + 1, classes) as one row.
            inputs: Standardised features.
            target: 0 and 1.
        """
        weights = flat.reshape(-1, target.shape[1])
        z = inputs @ weights[:-1] + weights[-1]
        if self.multi_label:
            total = np.logaddexp(0, z).sum() - (z * target).sum()
            p = np.exp(-np.logaddexp(0, -z))
        else:
            whole = np.logaddexp.reduce(z, axis=1, keepdims=True)
            total = whole.sum() - (z * target).sum()
            p = np.exp(z - whole)
        slope = np.vstack([inputs.T @ (p - target) + PENALTY * weights[:-1], (p - target).sum(axis=0)])
        return float(total + PENALTY / 2 * (weights[:-1] ** 2).sum()), slope.ravel()
