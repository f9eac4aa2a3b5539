"""The engine that does one client's work after the other's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import islice
from typing import Any

import lightning as L  # noqa: N812
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from fedlit import tree
from fedlit.aggregators import Aggregator
from fedlit.backbones.lora import lora_scaling
from fedlit.engine.batches import Batch
from fedlit.engine.client_run import begin, end
from fedlit.engine.engine import Assignment, Trained
from fedlit.engine.loss import BatchLoss
from fedlit.engine.network import Network
from fedlit.engine.own_rates import check_unscaled, descend
from fedlit.tree import Tree


class SerialEngine:
    """An :class:`~fedlit.engine.engine.Engine` for one client after the other.

    Args:
        task: A LightningModule; its parameters that require a gradient are what rules see.
        fabric: Gives device, precision and the backward pass.
        gradient_clip_val: Largest L2 norm of a step's gradient over all of a client's tensors, or None.
        accumulate_grad_batches: Batches in a step, whose objectives are averaged.

    Raises:
        FedlitError: The task relies on a hook that this engine does not call, or none of its parameters trains.
    """

    def __init__(
        self,
        task: L.LightningModule,
        fabric: L.Fabric,
        gradient_clip_val: float | None = None,
        accumulate_grad_batches: int = 1,
    ) -> None:
        self.network = Network(task, fabric)
        self.task: Any = task
        self.fabric, self.gradient_clip_val = fabric, gradient_clip_val
        self.accumulate_grad_batches = accumulate_grad_batches
        self.parameters, self.frozen = self.network.parameters, self.network.frozen
        self.scaling = lora_scaling(task)
        self.scaler = getattr(fabric._precision, "scaler", None)
        """Of the loss, in 16-mixed precision, or None."""
        self._fresh_scaler = None if self.scaler is None else self.scaler.state_dict()

    def initial(self) -> dict[str, Tensor]:
        """A copy, on the CPU, of the initial values of the parameters that train."""
        return self.network.initial()

    def load(self, params: Tree) -> None:
        """Put a model into the network; see :meth:`Network.load`."""
        self.network.load(params)

    def train(self, rule: Aggregator, work: Sequence[Assignment], batch_size: int) -> list[Trained]:
        """Local training of several clients, in the order given."""
        return [self._train(rule, assignment, batch_size) for assignment in work]

    def _train(self, rule: Aggregator, assignment: Assignment, batch_size: int) -> Trained:
        network, steps = self.network, assignment.steps
        run = begin(network, rule, assignment)
        with torch.no_grad():
            w, live = network.bind(run.w)
        optimizer, schedulers = network.optimizer(w, assignment)
        loss = BatchLoss(network, live, steps)
        total, travel = torch.zeros((), dtype=torch.float64, device=self.fabric.device), 0.0
        network.training_mode()
        if self.scaler is not None:
            check_unscaled(rule, w)
            self.scaler.load_state_dict(self._fresh_scaler)  # a client's scale must not depend on who came before
        kernels = sdpa_kernel(SDPBackend.MATH) if rule.second_order else nullcontext()
        with self._keyed_rng(assignment.seed), kernels:
            batches = iter(assignment.batches)
            for loss.step in range(steps):
                optimizer.zero_grad()
                for batch in islice(batches, self.accumulate_grad_batches):
                    loss.batch = self.fabric.to_device(batch)
                    value = rule.objective(loss, w, run.down, run.memory) / self.accumulate_grad_batches
                    self.fabric.backward(value)
                    total += value.detach()
                    run.count(batch, batch_size)
                descend(rule, w)
                if self.gradient_clip_val is not None:
                    # Not an error here: a client whose gradient is not finite is refused by name at admission.
                    self.fabric.clip_gradients(
                        network.call, optimizer, max_norm=self.gradient_clip_val, error_if_nonfinite=False
                    )
                travel += optimizer.param_groups[0]["lr"]
                optimizer.step()
                for scheduler in schedulers:
                    scheduler.step()
        for leaf in tree.leaves(w):
            leaf.grad = None
        return end(run, w, travel, float(total) / max(steps, 1))

    def evaluate(
        self, models: Sequence[Tree], data: Sequence[Iterable[Batch]], split: str, batch_size: int
    ) -> list[dict[str, float]]:
        """The task's metrics of each model on its own batches: ``validation_step``, or ``test_step`` for ``test``."""
        return [self._evaluate(model, batches, split) for model, batches in zip(models, data, strict=True)]

    def _evaluate(self, model: Tree, batches: Iterable[Batch], split: str) -> dict[str, float]:
        metrics = self.task.test_metrics if split == "test" else self.task.val_metrics
        step = self.task.test_step if split == "test" else self.task.validation_step
        metrics.reset()
        for index, batch in enumerate(self.network.inference(model, batches)):
            step(batch, index)
        values = {name: float(value) for name, value in metrics.compute().items()}
        metrics.reset()
        return values

    def losses(self, models: Iterable[Tree], batches: Iterable[Batch], at_once: int = 1) -> list[Tensor]:
        """The task loss of each example by each model, whatever ``at_once`` says one model after the other."""
        return [self.network.losses(model, batches) for model in models]

    def predict(self, model: Tree, batches: Iterable[Batch]) -> Iterator[Any]:
        """What the task's ``predict_step`` gives for each batch."""
        for index, batch in enumerate(self.network.inference(model, batches)):
            yield self.task.predict_step(batch, index)

    def why_not(self, rule: Aggregator, work: Sequence[Assignment]) -> str | None:
        """Why these clients cannot train at once: they never do here."""
        return "this engine trains one client after the other"

    @contextmanager
    def _keyed_rng(self, seed: int) -> Iterator[None]:
        devices = [self.fabric.device] if self.fabric.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            yield
