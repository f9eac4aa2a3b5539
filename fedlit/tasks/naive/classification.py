"""Classes without a model: the commonest one, and a linear model on features that need no training."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
MOST = 2000
"""Training examples of a client that the linear model is fitted on, evenly spaced."""
PENALTY = 1.0
"""Weight of half the squared norm of the weights, beside the sum of the losses."""
BUCKETS = 1024
"""Features of a text."""
_BANDS = {"signal": 8, "audio": 24}
_GRID = 8
_TINY = 1e-12


def features(values: Sequence[Any], modality: str) -> Array:
    """Simple features of examples, float64 (examples, features), finite.

    - ``signal`` (channels, samples): of each channel the mean, deviation, minimum and maximum, and the logarithms of
      its energy in 8 bands of equal width up to half the rate.
    - ``audio`` (samples,): the same with 24 bands.
    - ``image`` (height, width, 3), 0 to 255: mean and deviation of each colour, and means of the grey image in 8 x 8
      parts.
    - ``text``: logarithms of 1 + how often words occur, in 1024 buckets by CRC-32 of the word, brought to length 1.
    """
    made: dict[str, Callable[[Any], Array]] = {"image": _of_image, "text": _of_text}
    of_wave = partial(_of_waves, bands=_BANDS.get(modality, 0))
    rows = [made.get(modality, of_wave)(value) for value in values]
    return np.asarray(np.nan_to_num(np.stack(rows), nan=0.0, posinf=0.0, neginf=0.0))


def _of_waves(value: npt.NDArray[Any], bands: int) -> Array:
    wide = np.nan_to_num(np.atleast_2d(np.asarray(value, np.float64)))
    energy = np.abs(np.fft.rfft(wide - wide.mean(axis=1, keepdims=True), axis=1)) ** 2
    parts = [part.sum(axis=1) for part in np.array_split(energy, bands, axis=1)]
    plain = [wide.mean(1), wide.std(1), wide.min(1), wide.max(1)]
    return np.concatenate([*plain, *(np.log(part / wide.shape[1] + _TINY) for part in parts)])


def _of_image(value: npt.NDArray[Any]) -> Array:
    wide = np.asarray(value, np.float64) / 255
    grey = wide.mean(axis=2)
    rows = np.array_split(grey, min(_GRID, grey.shape[0]), axis=0)
    grid = [part.mean() for row in rows for part in np.array_split(row, min(_GRID, grey.shape[1]), axis=1)]
    return np.concatenate([wide.mean(axis=(0, 1)), wide.std(axis=(0, 1)), grid])


def _of_text(value: str) -> Array:
    counts = np.zeros(BUCKETS)
    for word in re.findall(r"\w+", value.casefold()):
        counts[zlib.crc32(word.encode("utf-8", "replace")) % BUCKETS] += 1
    logs = np.log1p(counts)
    return logs / max(float(np.linalg.norm(logs)), _TINY)


def prior(target: Array) -> Array:
    """Logits of the share of each class, (classes,), one example of each added (Laplace).

    Args:
        target: 0 and 1, (examples, classes).
    """
    share = (target.sum(axis=0) + 1) / (len(target) + 2)
    return np.asarray(np.log(share) - np.log1p(-share))


def frequencies(target: Array) -> Array:
    """Logarithms of the share of each class among examples of one class each, one added to each, (classes,)."""
    count = target.sum(axis=0) + 1
    return np.asarray(np.log(count / count.sum()))


class Linear:
    """Logistic regression with an L2 penalty on standardised features, fitted by L-BFGS (``scipy.optimize``).

    It minimises the sum over examples of the cross-entropy (of several labels: the sum of the binary ones) plus
    ``PENALTY / 2`` times the squared norm of the weights; the biases are free.

    Args:
        inputs: Features (examples, features).
        target: 0 and 1 (examples, classes).
        multi_label: Whether an example has any number of classes.
    """

    def __init__(self, inputs: Array, target: Array, multi_label: bool) -> None:
        from scipy.optimize import minimize

        chosen = np.unique(np.linspace(0, len(inputs) - 1, min(len(inputs), MOST)).round().astype(int))
        inputs, target = inputs[chosen], target[chosen]
        self.multi_label = multi_label
        self.mean, self.scale = inputs.mean(axis=0), inputs.std(axis=0)
        self.scale = np.where(
            self.scale > 1e-9 * (1 + np.abs(self.mean)), self.scale, np.inf
        )  # constant ones count as 0
        plain = self._plain(inputs)
        start = np.zeros((plain.shape[1] + 1, target.shape[1]))
        found = minimize(
            self.loss, start.ravel(), (plain, target), jac=True, method="L-BFGS-B", options={"maxiter": 200}
        )
        self.weights = found.x.reshape(start.shape)

    def logits(self, inputs: Array) -> Array:
        """Logits (examples, classes)."""
        return np.asarray(self._plain(inputs) @ self.weights[:-1] + self.weights[-1])

    def loss(self, flat: Array, plain: Array, target: Array) -> tuple[float, Array]:
        """What is minimised, and its gradient.

        Args:
            flat: Weights, and biases last, (features + 1, classes) as one row.
            plain: Standardised features.
            target: 0 and 1.
        """
        weights = flat.reshape(-1, target.shape[1])
        z = plain @ weights[:-1] + weights[-1]
        if self.multi_label:
            total = np.logaddexp(0, z).sum() - (z * target).sum()
            p = np.exp(-np.logaddexp(0, -z))
        else:
            whole = np.logaddexp.reduce(z, axis=1, keepdims=True)
            total = whole.sum() - (z * target).sum()
            p = np.exp(z - whole)
        slope = np.vstack([plain.T @ (p - target) + PENALTY * weights[:-1], (p - target).sum(axis=0)])
        return float(total + PENALTY / 2 * (weights[:-1] ** 2).sum()), slope.ravel()

    def _plain(self, inputs: Array) -> Array:
        return np.asarray((inputs - self.mean) / self.scale)
