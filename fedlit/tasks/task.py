"""What the federated engine needs of a task, beyond what a LightningModule is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import lightning
from torch import Tensor
from torchmetrics import Metric

from fedlit.errors import FedlitError

Batch = Mapping[str, Any]


class Task(lightning.LightningModule):
    """A model with its loss and its metrics, trainable by the federated engine or by a plain ``lightning.Trainer``.

    Subclasses give ``configure_model`` (idempotent; ``__init__`` loads nothing heavy), ``losses``,
    ``configure_optimizers``, ``outputs``, ``score_outputs``, ``predict_step``, ``export``, ``describe``, ``config`` and
    ``use_stand_in``, and set ``val_metrics`` and ``test_metrics``, whose ``compute()`` is a dict of scalars.
    Parameters that need a gradient are the ones that train and travel.
    """

    val_metrics: Metric
    test_metrics: Metric
    prediction_file: ClassVar[str] = "predictions.parquet"
    """What ``fedlit predict`` writes."""

    def __init__(self) -> None:
        super().__init__()
        self._num_training_steps: int | None = None

    def setup(self, stage: str) -> None:
        if self._attached and (data := getattr(self.trainer, "datamodule", None)) is not None:
            self.take_data(data)

    def take_data(self, data: Any) -> None:
        """Take from the data module, after its ``setup`` and before ``configure_model``, what the model depends on.

        Both trainers call it. Nothing by default.
        """

    def losses(self, batch: Batch) -> Tensor:
        """One loss per example, (batch,)."""
        raise NotImplementedError

    def outputs(self, batch: Batch) -> Tensor:
        """What scores are made of, (batch, ...): without gradients, each example's from itself alone."""
        raise NotImplementedError

    def score_outputs(self, outputs: Tensor, batch: Batch, metrics: Metric) -> None:
        """Add a batch and what :meth:`outputs` gave for it to ``metrics``."""
        raise NotImplementedError

    def evaluate(self, batch: Batch, metrics: Metric) -> None:
        """Add the batch to ``metrics``. A task that overrides this one has its clients scored one after the other."""
        self.score_outputs(self.outputs(batch), batch, metrics)

    def prediction_columns(self, prediction: Any) -> dict[str, Any]:
        """What ``predict_step`` gave as columns of one length, by name."""
        raise NotImplementedError

    def score_prediction(self, prediction: Any, metrics: Metric) -> bool:
        """Add what ``predict_step`` gave to ``metrics``; False where that cannot be done."""
        return False

    def use_stand_in(self) -> None:
        """Take a tiny random model of the same architecture; called before ``configure_model``."""
        raise NotImplementedError

    def export(self, folder: Path | str, merge: bool = False) -> None:
        """Write what was trained: a PEFT adapter, or the whole network in its own format, which ``merge`` asks for."""
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        """Facts for reports: ``backbone``, ``stand_in``, ``parameters``, ``trainable``, ``source``, and more."""
        raise NotImplementedError

    def config(self) -> dict[str, Any]:
        """Constructor arguments in JSON's types, for the fingerprint of a run."""
        raise NotImplementedError

    @property
    def num_training_steps(self) -> int:
        """Optimizer steps that the learning rate is planned over: set by the engine, else asked of the Trainer.

        Raises:
            FedlitError: Neither is there.
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
        loss = self.losses(batch).mean()
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
        """As Lightning's under its Trainer; elsewhere nothing, since the engine keeps its own books."""
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
