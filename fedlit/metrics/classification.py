"""Scores of classes and labels, computed from all examples at once, in float64 on the CPU."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.classification import (
    binary_auroc,
    binary_calibration_error,
    multiclass_calibration_error,
    multiclass_confusion_matrix,
    multilabel_confusion_matrix,
)

from fedlit.errors import FedlitError

BINS = 15
UNDEFINED = ("auroc", "calibration_error", "loss")
"""Where a logit is not finite; other scores are then 0, as of a model that names nothing right."""


class ClassificationMetrics(Metric):
    """Scores of one class for each example, or, where targets are (batch, labels), of any number of labels.

    Of classes:

    - ``accuracy``: share of examples whose likeliest class is the true one; of several, the first.
    - ``balanced_accuracy``: mean over classes of their recall.
    - ``macro_f1``: mean over classes of F1.
    - ``auroc``: mean over classes of the area under the ROC curve of that class against the rest, exact.
    - ``calibration_error``: expected calibration error of the likeliest class, 15 bins of equal width (Guo et al.
      2017, arXiv 1706.04599).
    - ``loss``: mean cross-entropy (nats), without class weights, whatever the task trains on.
    - ``classes_left_out``: classes that no target has. They are in no mean over classes.

    Of labels, each taken to be there from a probability of 0.5:

    - ``macro_f1``, ``auroc``, ``loss`` (binary cross-entropy, mean over labels) and ``classes_left_out``: likewise.
      AUROC also leaves out labels that every target has.
    - ``micro_f1``: F1 of all pairs of example and label.
    - ``subset_accuracy``: share of examples with every label right.
    - ``calibration_error``: of the probability of each pair against how often it is true, 15 bins.

    So a mean over clients is one over clients that may hold different classes. Once a logit is not finite, AUROC,
    calibration error and loss are NaN and the others 0, so that a client whose model broke counts in means and as the
    worst. AUROC is NaN, too, where no class has examples both of it and not of it. Not reduced across processes: each
    client is scored in one.
    """

    higher_is_better = True
    is_differentiable = False
    full_state_update = False
    directions: ClassVar[Mapping[str, bool]] = dict.fromkeys(("loss", "calibration_error", "classes_left_out"), False)
    headline: ClassVar[tuple[str, ...]] = ("accuracy", "macro_f1", "micro_f1", "auroc")
    """What tables show, the primary one first."""

    def __init__(self) -> None:
        super().__init__(sync_on_compute=False)
        self._logits: list[Tensor] = []
        self._targets: list[Tensor] = []

    def update(self, logits: Tensor, target: Tensor) -> None:
        """Add a batch.

        Args:
            logits: (batch, classes), before softmax or sigmoid.
            target: Indices of classes (batch,), or 0 and 1 (batch, classes).
        """
        if logits.ndim != 2 or target.shape not in (logits.shape[:1], logits.shape):
            raise FedlitError(f"logits {tuple(logits.shape)} and targets {tuple(target.shape)} do not belong together")
        self._logits.append(logits.detach().to("cpu", torch.float64))
        self._targets.append(target.detach().to("cpu", torch.int64))

    def compute(self) -> dict[str, Tensor]:
        """Every metric as a float64 scalar; empty before the first batch."""
        if not self._logits:
            return {}
        logits, target = torch.cat(self._logits), torch.cat(self._targets)
        known = bool(logits.isfinite().all())
        scores = (_of_classes if target.ndim == 1 else _of_labels)(torch.where(logits.isfinite(), logits, 0.0), target)
        if not known:
            scores |= {name: math.nan if name in UNDEFINED else 0.0 for name in scores if name != "classes_left_out"}
        return {name: torch.tensor(float(value), dtype=torch.float64) for name, value in scores.items()}

    def reset(self) -> None:
        super().reset()
        self._logits, self._targets = [], []

    def _apply(self, fn: Callable[..., object], exclude_state: Sequence[str] = ()) -> ClassificationMetrics:
        return self  # what was seen stays in float64 on the CPU, whatever device the task moves to


def _of_classes(logits: Tensor, target: Tensor) -> dict[str, float]:
    classes = logits.shape[1]
    logarithms = logits.log_softmax(dim=1)
    p = logarithms.exp()
    # rows are true classes, columns guessed ones
    table = multiclass_confusion_matrix(logits.argmax(dim=1), target, classes).double()
    right, true, guessed = table.diag(), table.sum(1), table.sum(0)
    present = true > 0
    return {
        "accuracy": float(right.sum() / table.sum()),
        "balanced_accuracy": float((right / true)[present].mean()),
        "macro_f1": float((2 * right / (true + guessed))[present].mean()),
        "auroc": _auroc(p, torch.nn.functional.one_hot(target, classes)),
        "calibration_error": float(multiclass_calibration_error(_below_one(p), target, classes, n_bins=BINS)),
        "loss": float(-logarithms.gather(1, target[:, None]).mean()),
        "classes_left_out": float((~present).sum()),
    }


def _of_labels(logits: Tensor, target: Tensor) -> dict[str, float]:
    p = logits.sigmoid()
    table = multilabel_confusion_matrix((logits >= 0).long(), target, logits.shape[1]).double()
    right, missed, false = table[:, 1, 1], table[:, 1, 0], table[:, 0, 1]
    present = right + missed > 0
    f1 = 2 * right / (2 * right + missed + false)
    whole = 2 * right.sum() / (2 * right.sum() + missed.sum() + false.sum())
    signs = torch.where(target > 0, logits, -logits)
    return {
        "macro_f1": float(f1[present].mean()),
        "micro_f1": float(whole),
        "auroc": _auroc(p, target),
        "subset_accuracy": float(((logits >= 0) == (target > 0)).all(dim=1).double().mean()),
        "calibration_error": float(binary_calibration_error(_below_one(p).flatten(), target.flatten(), n_bins=BINS)),
        "loss": float(-torch.nn.functional.logsigmoid(signs).mean()),
        "classes_left_out": float((~present).sum()),
    }


def _auroc(p: Tensor, target: Tensor) -> float:
    """Mean over the columns that hold both; NaN where none does."""
    both = [c for c in range(p.shape[1]) if 0 < int(target[:, c].sum()) < len(target)]
    areas = [float(binary_auroc(p[:, c], target[:, c])) for c in both]
    return math.fsum(areas) / len(areas) if areas else math.nan


def _below_one(p: Tensor) -> Tensor:
    return p.clamp(max=1 - 1e-7)  # torchmetrics would give what is exactly 1 a sixteenth bin
