"""What the federated engine asks of a task, beyond what a LightningModule gives."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

import lightning
import torch
from torch import Tensor
from torchmetrics import Metric

from fedlit.data.base.arguments import constructor_arguments
from fedlit.errors import FedlitError

Batch = Mapping[str, Any]
Naive = Callable[[Batch, Metric], None]
"""Adds a batch, and what a predictor without a network says of it, to metrics."""


class Tally(Protocol):
    """What a task counts of the examples it has seen; the ranks of a run exchange ``rows`` before a report."""

    rows: dict[tuple[Any, ...], tuple[Any, ...]]
    """Counts of each example or question, by a key that is the same on every rank."""


class Task(lightning.LightningModule):
    """A model with its loss and its metrics, trained by the federated engine or by a plain ``lightning.Trainer``.

    Parameters that require a gradient are the ones that train and travel.

    Subclasses give ``configure_model`` (idempotent; ``__init__`` loads nothing heavy), ``configure_optimizers``,
    :meth:`losses`, :meth:`outputs` and :meth:`score_outputs`, and set ``val_metrics`` and ``test_metrics``, whose
    ``compute()`` is a dict of scalars. The other members have a default that means "no"; callers ask for them by
    :func:`member`, of any LightningModule:

    - :meth:`take_data`, before ``configure_model``; :meth:`use_stand_in`, before it, by ``fast_dev_run``.
    - ``num_targets``, on each training batch, for rules that weigh clients by it.
    - :meth:`supervised`, before training, on all of a client's training data, and wherever losses are averaged.
    - :meth:`features` and :meth:`logits`, on a training batch, by rules that look at more than the loss.
    - :meth:`naive`, at the end of a run, for predictors without a network in the comparison.
    - ``gradient_checkpointing``, by the engine that trains several clients in one pass, which cannot have it.
    - ``spans_run``, by the fingerprint: a run with it cannot be resumed with another ``trainer.max_rounds``.
    - ``tally``, before a report, to put the counts of all ranks together; :meth:`describe`, by reports.
    - :meth:`prediction_columns`, :meth:`score_prediction` and ``prediction_file``, beside Lightning's ``predict_step``,
      by ``fedlit predict``; :meth:`export`, at the end of a run.
    - :meth:`config` and ``added_arguments``, by the fingerprint of a run; :meth:`run_files`, at its start.
    """

    val_metrics: Metric
    test_metrics: Metric
    prediction_file: ClassVar[str] = "predictions.parquet"
    """Name of the file that ``fedlit predict`` writes."""
    gradient_checkpointing: bool = False
    """Whether activations are computed again in the backward pass."""
    spans_run: bool = False
    """Whether the learning rate has a course over the run, by ``current_round`` and ``num_rounds``."""
    tally: Tally | None = None
    """Counts over the examples seen so far."""
    num_targets: Callable[[Batch], int]
    """Method that counts the supervised targets in a batch, such as tokens; without it, the examples count."""
    added_arguments: ClassVar[Mapping[str, Any]] = {}
    """Constructor arguments that :meth:`config` of earlier versions left out, with the value that their runs had."""

    def __init__(self) -> None:
        super().__init__()
        self._num_training_steps: int | None = None
        self.current_round = 0
        """Index of the round, set by the engine, on any LightningModule, before ``configure_optimizers``."""
        self.num_rounds = 1
        """Rounds of the run, set likewise: ``trainer.max_rounds``. A ``lightning.Trainer`` trains as in one round."""

    def setup(self, stage: str) -> None:
        if self._attached and (data := getattr(self.trainer, "datamodule", None)) is not None:
            self.take_data(data)

    def losses(self, batch: Batch) -> Tensor:
        """One loss per example, (batch,); NaN where :meth:`supervised` says that there is none."""
        raise NotImplementedError

    def supervised(self, batch: Batch) -> Tensor:
        """Whether each example has anything to learn from, (batch,), bool, on the CPU; by default all have.

        Others, such as documents whose answer is cut off, are not trained on, and are in no mean of losses.
        """
        raise NotImplementedError

    def outputs(self, batch: Batch) -> Tensor:
        """Predictions to score, (batch, ...), without gradients; each row depends on its own example alone."""
        raise NotImplementedError

    def score_outputs(self, outputs: Tensor, batch: Batch, metrics: Metric) -> None:
        """Add a batch and its :meth:`outputs` to ``metrics``."""
        raise NotImplementedError

    def evaluate(self, batch: Batch, metrics: Metric) -> None:
        """Add the batch to ``metrics``. Where a subclass overrides this, its clients are scored one after the other."""
        self.score_outputs(self.outputs(batch), batch, metrics)

    def naive(self, training: Iterable[Batch]) -> Mapping[str, Naive]:
        """Predictors without the network, to compare the rules with; none by default.

        Args:
            training: Batches of one client's training examples, gone through once at most, and kept by nobody.

        Returns:
            By the name in tables, for instance ``last value``.
        """
        return {}

    def take_data(self, data: object) -> None:
        """Take from the data what the model depends on, such as the classes. Nothing by default.

        Args:
            data: A data module after its ``setup``, or, at a server that holds no data, the facts that its clients gave
                (attributes such as ``classes``, ``modality``, ``schema``, and no ``dataset``).
        """

    def use_stand_in(self) -> None:
        """Replace the backbone by a tiny random one of the same architecture; called before ``configure_model``."""
        raise NotImplementedError

    def features(self, batch: Batch) -> Tensor:
        """Inputs of the network's head, (batch, features), with gradients."""
        raise NotImplementedError

    def logits(self, batch: Batch) -> Tensor:
        """Class scores before softmax, (batch, classes), with gradients."""
        raise NotImplementedError

    def prediction_columns(self, prediction: Any) -> Mapping[str, Any]:
        """Result of ``predict_step`` as columns of one length, by name."""
        raise NotImplementedError

    def score_prediction(self, prediction: Any, metrics: Metric) -> bool:
        """Add a result of ``predict_step`` to ``metrics``; False where that cannot be done."""
        return False

    def run_files(self) -> dict[str, str]:
        """Files to write into the run folder at its start, where they are not there: name to contents."""
        return {}

    def export(self, folder: Path | str, merge: bool = False) -> None:
        """Write the trained model: a PEFT adapter or, with ``merge``, the whole network in its own format."""
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        """Facts for reports: ``backbone``, ``stand_in``, ``parameters``, ``trainable``, ``source``, and more."""
        return {"class": type(self).__name__}

    def config(self) -> dict[str, Any]:
        """Constructor arguments in JSON's types, for the fingerprint of a run."""
        return {name: self.argument(name) for name in arguments(type(self))}

    def argument(self, name: str) -> Any:
        """Value of a constructor argument in JSON's types, by default that of the attribute of the same name.

        Raises:
            FedlitError: There is no such attribute.
        """
        try:
            return getattr(self, name)
        except AttributeError as error:
            raise FedlitError(
                f"{type(self).__name__} takes {name!r} and keeps no attribute of that name, so that a resume could not "
                f"tell another {name} from the run's: set self.{name}"
            ) from error

    @property
    def num_training_steps(self) -> int:
        """Optimizer steps that the learning rate is planned over, set by the engine or estimated by the Trainer.

        Raises:
            FedlitError: It is not set, and there is no Trainer.
        """
        if self._num_training_steps is not None:
            return self._num_training_steps
        if self._attached:
            return int(self.trainer.estimated_stepping_batches)
        raise FedlitError("num_training_steps is not set: set it before configure_optimizers, or train by a Trainer")

    @num_training_steps.setter
    def num_training_steps(self, value: int) -> None:
        self._num_training_steps = int(value)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        supervised = member(self, "supervised")
        loss = mean_loss(self.losses(batch), None if supervised is None else supervised(batch))
        self.log("train/loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=_size(batch))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.evaluate(batch, self.val_metrics)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.evaluate(batch, self.test_metrics)

    def on_validation_epoch_end(self) -> None:
        self._report("val", self.val_metrics)

    def on_test_epoch_end(self) -> None:
        self._report("test", self.test_metrics)

    def log(self, name: str, value: Any, *args: Any, **kwargs: Any) -> None:
        """Log under Lightning's Trainer; do nothing elsewhere, since the engine writes metrics by itself."""
        if self._attached:
            super().log(name, value, *args, **kwargs)

    @property
    def _attached(self) -> bool:
        return self._trainer is not None

    def _report(self, split: str, metrics: Metric) -> None:
        if self._attached:
            for name, value in metrics.compute().items():
                self.log(f"{split}/{name}", value.float())
            metrics.reset()


def _size(batch: Batch) -> int:
    return next(len(value) for value in batch.values() if isinstance(value, Tensor))


def mean_loss(losses: Tensor, supervised: Tensor | None) -> Tensor:
    """Mean of the losses (batch,) of the examples that have one; 0 with zero gradients where none has."""
    if supervised is None or bool(supervised.all()):
        return losses.mean()
    kept = torch.where(supervised.to(losses.device), losses, 0.0)
    return kept.sum() / max(1, int(supervised.sum()))


def member(task: lightning.LightningModule, name: str) -> Any:
    """An optional member of a task, or None where it has none.

    Args:
        task: A :class:`Task`, or any other LightningModule.
        name: Member that :class:`Task` declares.

    Returns:
        For a method: the bound method, or None where the task does not override the default. For an attribute: its
        value, or the default where the task does not set it.
    """
    if name not in Task.__annotations__ | vars(Task):
        raise AttributeError(f"no task declares {name!r}")
    default = inspect.getattr_static(Task, name, None)
    if not inspect.isfunction(default):
        return getattr(task, name, default)
    given = getattr(task, name, None)
    return given if callable(given) and getattr(given, "__func__", None) is not default else None


def arguments(cls: type) -> list[str]:
    """Names of the constructor arguments of a task, those that ``**kwargs`` passes on to its bases included."""
    return constructor_arguments(cls, Task)
