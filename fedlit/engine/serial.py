"""Local training and evaluation on one device: the one place where pure rules meet Lightning's stateful modules."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import Any

import lightning as L  # noqa: N812
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torchmetrics import Metric

from fedlit import tree
from fedlit.aggregators import Aggregator, Work
from fedlit.backbones.lora import lora_scaling
from fedlit.engine.batches import batch_length
from fedlit.engine.loss import BatchLoss, TaskCall
from fedlit.engine.task_check import check_method, check_task, unpack_optimizer
from fedlit.errors import FedlitError
from fedlit.tree import Tree


@dataclass(frozen=True)
class Trained:
    """What local training of one client gave."""

    upload: Tree
    memory: Tree
    model: Tree
    """What the client would serve now."""
    work: Work
    loss: float
    """Mean over the steps of the objective; NaN or infinite if any was."""


class SerialEngine:
    """Trains one client after the other on the one backbone that all of them share.

    A model may leave parameters out: those keep their initial values.

    Args:
        task: A LightningModule; its parameters that require a gradient are what rules see.
        fabric: Gives device, precision and the backward pass.
        gradient_clip_val: Largest L2 norm of a step's gradient over all of a client's tensors, or None.
        accumulate_grad_batches: Batches of a step, whose objectives are averaged.

    Raises:
        FedlitError: The task relies on a hook that this engine does not call, or nothing in it trains.
    """

    def __init__(
        self,
        task: L.LightningModule,
        fabric: L.Fabric,
        gradient_clip_val: float | None = None,
        accumulate_grad_batches: int = 1,
    ) -> None:
        check_task(task)
        self.task: Any = task
        self.fabric, self.gradient_clip_val = fabric, gradient_clip_val
        self.accumulate_grad_batches = accumulate_grad_batches
        fabric.to_device(task)
        task.train()  # all modules in one mode, so that the task's own flag tells it from here on
        for metric in (m for m in task.modules() if isinstance(m, Metric)):
            # Each client is scored on one rank; a sum over ranks would mix clients, and wait for ranks that have none.
            metric.sync_on_compute = metric._to_sync = False
        self.call = TaskCall(task)
        self.parameters = {name: p for name, p in task.named_parameters() if p.requires_grad}
        if not self.parameters:
            raise FedlitError(
                f"nothing in {type(task).__name__} requires a gradient: unfreeze it or give it an adapter"
            )
        self.frozen = {name: p for name, p in task.named_parameters() if not p.requires_grad}
        self._changed: dict[str, Tensor] = {}
        turned = [name for name, m in task.named_modules() if getattr(m, "fan_in_fan_out", False)]
        self._turned = {f"{name}.base_layer.weight" for name in turned}  # adapted weights that are stored (in, out)
        self.scaling = lora_scaling(task)
        self.start_values = {name: p.detach().clone() for name, p in self.parameters.items()}
        scaler = getattr(fabric._precision, "scaler", None)
        self._scaler, self._fresh_scaler = scaler, scaler.state_dict() if scaler is not None else None

    def initial(self) -> dict[str, Tensor]:
        """A copy on the CPU of the initial values of the parameters that train."""
        return {name: value.cpu().clone() for name, value in self.start_values.items()}

    def complete(self, params: Tree) -> dict[str, Tensor]:
        """A model with a value for every parameter that trains, and for the frozen ones that it adds something to.

        Raises:
            FedlitError: It names a parameter that the network does not have, or a quantised one.
        """
        known = self.parameters.keys() | self.frozen.keys()
        if not isinstance(params, dict) or not params.keys() <= known:
            wrong = sorted(params.keys() - known)[:3] if isinstance(params, dict) else "a bare tensor"
            raise FedlitError(f"the rule gives the network parameters that it does not have: {wrong}")
        values: dict[str, Any] = params
        given = {name: v if name in self.parameters else self._added(name, v) for name, v in values.items()}
        return {**self.start_values, **given}

    def _added(self, name: str, value: Any) -> Tensor:
        frozen = self._changed.get(name, self.frozen[name])
        value = value.T if name in self._turned else value
        if not frozen.is_floating_point() or frozen.shape != value.shape:
            seen = f"{frozen.dtype}{list(frozen.shape)}"
            mend = "" if frozen.is_floating_point() else (
                ": it is quantised; choose a rule that leaves the backbone as it is, or train without quantization"
            )  # fmt: skip
            raise FedlitError(f"the rule adds {list(value.shape)} to {name}, which is {seen} and cannot take it{mend}")
        added: Tensor = frozen + value.to(frozen)
        return added

    def train(
        self,
        rule: Aggregator,
        down: Tree,
        memory: Tree,
        batches: Iterable[Any],
        steps: int,
        batch_size: int,
        seed: int,
        everything: Iterable[Any] = (),
    ) -> Trained:
        """One client's local steps.

        Args:
            rule: Whose client half runs.
            down: What the client received.
            memory: What it kept.
            batches: At least ``steps`` times ``accumulate_grad_batches``.
            steps: Optimizer steps to take.
            batch_size: Nominal examples in a batch, for :class:`Work` where a batch does not tell.
            seed: Of everything random inside the network, dropout above all.
            everything: All the client's training data in batches, for a rule that measures its loss.
        """
        device = self.fabric.device
        down, memory = tree.to(down, device), tree.to(memory, device)
        start_loss = end_loss = math.nan
        with torch.no_grad():
            w = rule.start(down, memory)
            if "start_loss" in rule.measures:
                start_loss = self.mean_loss(rule.model(w, down, memory), everything)
            w, live = self._bind(w)
        optimizer, schedulers = self._optimizer(w, steps)
        loss, total = BatchLoss(self, live, steps), torch.zeros((), dtype=torch.float64, device=device)
        travel, examples, targets = 0.0, 0, 0
        count = getattr(self.task, "num_targets", None)
        if not self.task.training:  # walking through all modules costs as much as a small step
            self.task.train()
        if self._scaler is not None:
            self._scaler.load_state_dict(self._fresh_scaler)  # a client's scale must not depend on who came before
        kernels = sdpa_kernel(SDPBackend.MATH) if rule.second_order else nullcontext()
        with self._keyed_rng(seed), kernels:
            waiting = iter(batches)
            for loss.step in range(steps):
                optimizer.zero_grad()
                for batch in islice(waiting, self.accumulate_grad_batches):
                    loss.batch = self.fabric.to_device(batch)
                    value = rule.objective(loss, w, down, memory) / self.accumulate_grad_batches
                    self.fabric.backward(value)
                    total += value.detach()
                    length = batch_length(batch, batch_size)
                    examples, targets = examples + length, targets + (length if count is None else int(count(batch)))
                if self.gradient_clip_val is not None:
                    # Not an error here: a client whose gradient is not finite is refused by name at admission.
                    self.fabric.clip_gradients(
                        self.call, optimizer, max_norm=self.gradient_clip_val, error_if_nonfinite=False
                    )
                travel += optimizer.param_groups[0]["lr"]
                optimizer.step()
                for scheduler in schedulers:
                    scheduler.step()
        with torch.no_grad():
            trained = tree.clone(w)
            for leaf in tree.leaves(w):
                leaf.grad = None
            model = rule.model(trained, down, memory)
            if "end_loss" in rule.measures:
                end_loss = self.mean_loss(model, everything)
            done = (steps, examples, travel, targets, start_loss, end_loss)
            work = Work(*(torch.tensor(float(x), dtype=torch.float64) for x in done))
            upload, kept = rule.finish(trained, down, memory, work)
        return Trained(tree.to(upload, "cpu"), tree.to(kept, "cpu"), model, work, float(total) / max(steps, 1))

    def load(self, params: Tree) -> None:
        """Put a model into the network.

        Raises:
            FedlitError: A tensor has another shape than the network's parameter.
        """
        full = self.complete(params)
        for name, value in full.items():
            shape = self.parameters[name].shape if name in self.parameters else value.shape
            if value.shape != shape:  # copy_ would broadcast
                shapes = f"{list(value.shape)}, the network's has {list(shape)}"
                raise FedlitError(f"the rule gives {name} the shape {shapes}: bring it to that shape in `model`")
        with torch.no_grad():
            for name in full.keys() & self.frozen.keys():
                self._changed.setdefault(name, self.frozen[name].clone())
            for name in list(self._changed):
                self.frozen[name].copy_(full[name] if name in full else self._changed.pop(name))
            for name, parameter in self.parameters.items():
                parameter.copy_(full[name])

    def evaluate(self, params: Tree, batches: Iterable[Any], split: str) -> dict[str, float]:
        """The task's metrics of a model, by ``validation_step`` or, for the split ``test``, ``test_step``."""
        metrics = self.task.test_metrics if split == "test" else self.task.val_metrics
        step = self.task.test_step if split == "test" else self.task.validation_step
        metrics.reset()
        for index, batch in enumerate(self._inference(params, batches)):
            step(batch, index)
        values = {name: float(value) for name, value in metrics.compute().items()}
        metrics.reset()
        return values

    def predict(self, params: Tree, batches: Iterable[Any]) -> Iterator[Any]:
        """What ``predict_step`` gives for each batch."""
        for index, batch in enumerate(self._inference(params, batches)):
            yield self.task.predict_step(batch, index)

    def mean_loss(self, params: Tree, batches: Iterable[Any]) -> float:
        """Mean over the examples of the task loss."""
        total, count = 0.0, 0
        for losses in self._losses(params, batches):
            total, count = total + float(losses.sum()), count + len(losses)
        return total / max(count, 1)

    def losses(self, params: Tree, batches: Iterable[Any]) -> Tensor:
        """The task loss of each example, float64, on the CPU."""
        each = [losses.cpu() for losses in self._losses(params, batches)]
        return torch.cat(each) if each else torch.zeros(0, dtype=torch.float64)

    def _losses(self, params: Tree, batches: Iterable[Any]) -> Iterator[Tensor]:
        check_method(self.task, "losses")
        for batch in self._inference(params, batches):
            yield self.task.losses(batch).double()

    def _inference(self, params: Tree, batches: Iterable[Any]) -> Iterator[Any]:
        self.load(params)
        if self.task.training:
            self.task.eval()
        for batch in batches:
            batch = self.fabric.to_device(batch)
            with torch.inference_mode(), self.fabric.autocast():
                yield batch

    def _bind(self, w: Tree) -> tuple[Tree, dict[str, nn.Parameter]]:
        """The tree to train, and which of the network's parameters are its leaves.

        The first leaf of a parameter's name becomes the parameter itself, so that the loss of that model needs no
        functional call.
        """
        self.load({})
        live: dict[str, nn.Parameter] = {}

        def bind(t: Tree, name: str = "") -> Tree:
            if isinstance(t, dict):
                return {k: bind(v, k) for k, v in t.items()}
            parameter = self.parameters.get(name)
            if parameter is None or name in live or parameter.shape != t.shape:
                return t.detach().clone().requires_grad_()
            live[name] = parameter
            return parameter.copy_(t)

        return bind(w), live

    def _optimizer(self, w: Tree, steps: int) -> tuple[Any, Sequence[Any]]:
        """The task's own optimizer, moved from the network's parameters to the leaves of ``w``.

        Leaves that have a parameter's name join that parameter's group, others the first group; all are in the
        network's order, in which norms for clipping are summed.
        """
        self.task.num_training_steps = steps
        configured = self.task.configure_optimizers()
        optimizer, schedulers = unpack_optimizer(configured, type(self.task).__name__)
        group_of = {id(p): i for i, group in enumerate(optimizer.param_groups) for p in group["params"]}
        members: list[list[Tensor]] = [[] for _ in optimizer.param_groups]
        rank = {name: i for i, name in enumerate(self.parameters)}
        named = [(path.split(tree.SEPARATOR)[-1], leaf) for path, leaf in sorted(tree.flatten(w).items())]
        for name, leaf in sorted(named, key=lambda pair: rank.get(pair[0], len(rank))):
            parameter = self.parameters.get(name)
            members[group_of.get(id(parameter), 0)].append(leaf)
        groups = [{**g, "params": m} for g, m in zip(optimizer.param_groups, members, strict=True)]
        optimizer.param_groups.clear()
        optimizer.state.clear()
        for group in groups:
            optimizer.add_param_group(group)
        return self.fabric.setup_optimizers(optimizer), schedulers

    @contextmanager
    def _keyed_rng(self, seed: int) -> Iterator[None]:
        devices = [self.fabric.device] if self.fabric.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            yield
