"""Classification losses of each example, and class weights against imbalance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fedlit.errors import FedlitError

FLOOR = 1e-7
"""Least 1 - p in the focal factor, whose slope is infinite at 0 for gamma below 1."""


def class_losses(logits: Tensor, target: Tensor, gamma: float = 0.0, weights: Tensor | None = None) -> Tensor:
    """-w (1 - p)^gamma log p, with p the softmax of the true class and w its weight, in nats: (batch,).

    gamma of 0 is cross-entropy; above it, the focal loss of Lin et al. 2017 (arXiv 1708.02002).

    Args:
        logits: (batch, classes).
        target: Indices, int64 (batch,).
        gamma: At least 0.
        weights: (classes,) or, one row for each example, (batch, classes).
    """
    logarithm = -nn.functional.cross_entropy(logits, target, reduction="none")
    losses = _focal(logarithm, gamma)
    if weights is None:
        return losses
    return losses * weights.expand_as(logits).gather(1, target[:, None])[:, 0]


def label_losses(logits: Tensor, target: Tensor, gamma: float = 0.0, weights: Tensor | None = None) -> Tensor:
    """As :func:`class_losses` with a sigmoid for each label; mean over the labels: (batch,).

    Args:
        logits: (batch, labels).
        target: 0 or 1, (batch, labels).
        gamma: At least 0.
        weights: Weights of a label's positive examples, (labels,) or (batch, labels); negative ones weigh 1.
    """
    logarithm = nn.functional.logsigmoid(torch.where(target > 0.5, logits, -logits))
    losses = _focal(logarithm, gamma)
    if weights is not None:
        losses = losses * torch.where(target > 0.5, weights.expand_as(logits), torch.ones_like(logits))
    return losses.mean(dim=1)


def _focal(logarithm: Tensor, gamma: float) -> Tensor:
    if gamma == 0:
        return -logarithm
    return -logarithm * (-torch.expm1(logarithm)).clamp(min=FLOOR).pow(gamma)


def balanced_class_weights(counts: Sequence[int]) -> list[float]:
    """n / (k n_c) for each of the k classes that have examples, so that these weigh alike; 1 for the others.

    Their mean over the n examples is 1.
    """
    total, present = sum(counts), sum(count > 0 for count in counts)
    return [total / (present * count) if count else 1.0 for count in counts]


def balanced_label_weights(counts: Sequence[int], examples: int) -> list[float]:
    """Negative examples per positive one, so that both weigh alike; 1 for labels without either.

    Args:
        counts: Number of positive examples of each label.
        examples: Number of all examples.
    """
    return [(examples - count) / count if 0 < count < examples else 1.0 for count in counts]


def class_counts(data: Any, client: str, classes: Sequence[str]) -> tuple[list[int], int]:
    """Training examples of a client: of each class, and in all.

    Args:
        data: A data module, whose data sets have ``labels``; or, without data, what clients told of them:
            ``class_counts``, ``{client: {class: examples}}``, and with ``multi_label`` ``examples``,
            ``{client: examples}``.
        client: Name of the client.
        classes: Names, in the order of the counts.

    Raises:
        FedlitError: The data sets have no ``labels``.
    """
    if not hasattr(data, "dataset"):
        counts = [data.class_counts[client].get(name, 0) for name in classes]
        return counts, data.examples[client] if data.multi_label else sum(counts)
    labels = getattr(data.dataset((client,), "train"), "labels", None)
    if labels is None:
        raise FedlitError(
            f"model.class_weights 'balanced' counts the attribute `labels` of {type(data).__name__}'s data sets, "
            "which is not there: add it, or give a list of numbers"
        )
    found: Tensor = labels.long().sum(dim=0) if labels.ndim == 2 else torch.bincount(labels, minlength=len(classes))
    return found.tolist(), len(labels)


def given_weights(weights: str | Sequence[float]) -> Tensor | None:
    """The argument ``class_weights`` as a tensor; None where it is ``"none"`` or ``"balanced"``.

    Raises:
        FedlitError: It is neither of these nor a list of weights.
    """
    if isinstance(weights, str):
        if weights not in ("none", "balanced"):
            raise FedlitError(f"model.class_weights is {weights!r}: give 'none', 'balanced' or a number for each class")
        return None
    if not all(math.isfinite(w) and w >= 0 for w in weights) or not any(weights):
        raise FedlitError(f"model.class_weights is {list(weights)}: give numbers from 0, not all of them 0")
    return torch.tensor([float(w) for w in weights])
