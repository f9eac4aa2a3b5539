"""The network that all clients share, as a function of its named parameters."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import lightning as L  # noqa: N812
import torch
from torch import Tensor, nn
from torchmetrics import Metric

from fedlit import tree
from fedlit.engine.batches import Batch
from fedlit.engine.engine import Assignment
from fedlit.engine.task_check import check_method, check_task, unpack_optimizer
from fedlit.errors import FedlitError
from fedlit.tasks.task import member
from fedlit.tree import Tree


class TaskCall(nn.Module):
    """A method of the task as a module's forward, the form that ``functional_call`` takes."""

    def __init__(self, task: L.LightningModule) -> None:
        super().__init__()
        self.task = task

    def forward(self, method: str, batch: Batch, index: int) -> Tensor:
        name = type(self.task).__name__
        if method != "training_step":
            check_method(self.task, method)
            return getattr(self.task, method)(batch)  # type: ignore[no-any-return]
        out = self.task.training_step(batch, index)
        loss = out["loss"] if isinstance(out, dict) else out
        if not isinstance(loss, Tensor):
            raise FedlitError(f"{name}.training_step must return the loss, it gave {type(out)}")
        return loss


class Network:
    """The one network of all clients: models are put into it, and their losses and outputs are taken out.

    A model may leave parameters out: those keep their initial values.

    Args:
        task: A LightningModule; its parameters that require a gradient are what rules see.
        fabric: Gives device, precision and the backward pass.

    Raises:
        FedlitError: The task relies on a hook that is not called here, or none of its parameters trains.
    """

    def __init__(self, task: L.LightningModule, fabric: L.Fabric) -> None:
        check_task(task)
        self.task: Any = task
        self.fabric = fabric
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
        self.start_values = {name: p.detach().clone() for name, p in self.parameters.items()}
        self._changed: dict[str, Tensor] = {}
        turned = [name for name, m in task.named_modules() if getattr(m, "fan_in_fan_out", False)]
        self._turned = {f"{name}.base_layer.weight" for name in turned}  # adapted weights that are stored (in, out)

    def initial(self) -> dict[str, Tensor]:
        """A copy, on the CPU, of the initial values of the parameters that train."""
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

    def _added(self, name: str, value: Tensor) -> Tensor:
        """A frozen weight as it came, plus ``value``."""
        frozen = self._changed.get(name, self.frozen[name])
        value = value.T if name in self._turned else value
        if not frozen.is_floating_point() or frozen.shape != value.shape:
            seen = f"{frozen.dtype}{list(frozen.shape)}"
            mend = "" if frozen.is_floating_point() else (
                ": it is quantised; choose a rule that leaves the backbone as it is, or train without quantization"
            )  # fmt: skip
            raise FedlitError(f"the rule adds {list(value.shape)} to {name}, which is {seen} and cannot take it{mend}")
        return frozen + value.to(frozen)

    def load(self, params: Tree) -> None:
        """Put a model into the network.

        Raises:
            FedlitError: A name or a shape is not the network's.
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

    def bind(self, w: Tree) -> tuple[Tree, dict[str, nn.Parameter]]:
        """The tree to train, and which of the network's parameters are its leaves.

        The first leaf of a parameter's name becomes the parameter itself, so that the loss of that model needs no
        functional call.
        """
        self.load({})
        live: dict[str, nn.Parameter] = {}

        def bound(t: Tree, name: str = "") -> Tree:
            if isinstance(t, dict):
                return {k: bound(v, k) for k, v in t.items()}
            parameter = self.parameters.get(name)
            if parameter is None or name in live or parameter.shape != t.shape:
                return t.detach().clone().requires_grad_()
            live[name] = parameter
            return parameter.copy_(t)

        return bound(w), live

    def optimizer(self, w: Tree, assignment: Assignment) -> tuple[Any, Sequence[Any]]:
        """The task's own optimizer and schedulers, moved from the network's parameters to the leaves of ``w``.

        Leaves that have a parameter's name join that parameter's group, others the first group; all are in the
        network's order, in which norms for clipping are summed.

        Args:
            w: What is trained, by a client or by several with the same steps.
            assignment: Its steps and its round, which the task is told.
        """
        self.task.num_training_steps = assignment.steps
        self.task.current_round, self.task.num_rounds = assignment.round, assignment.rounds
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

    def training_mode(self) -> None:
        """Switch dropout on."""
        if not self.task.training:  # walking through all modules costs as much as a small step
            self.task.train()

    def inference(self, params: Tree, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches on the device; while one is in use, the model is loaded and gradients are off."""
        self.load(params)
        if self.task.training:
            self.task.eval()
        for batch in batches:
            moved = self.fabric.to_device(batch)
            with torch.inference_mode(), self.fabric.autocast():
                yield moved

    def mean_loss(self, params: Tree, batches: Iterable[Batch]) -> float:
        """Mean over the examples of the task loss; NaN where none has a loss."""
        total, count = 0.0, 0
        for losses in self._losses(params, batches):
            total, count = total + float(losses.sum()), count + len(losses)
        return total / count if count else math.nan

    def losses(self, params: Tree, batches: Iterable[Batch]) -> Tensor:
        """The task loss of each example that has one, (examples,), float64, on the CPU."""
        each = [losses.cpu() for losses in self._losses(params, batches)]
        return torch.cat(each) if each else torch.zeros(0, dtype=torch.float64)

    def _losses(self, params: Tree, batches: Iterable[Batch]) -> Iterator[Tensor]:
        check_method(self.task, "losses")
        for batch in self.inference(params, batches):
            yield defined(self.task, batch, self.task.losses(batch)).double()


def defined(task: L.LightningModule, batch: Batch, losses: Tensor) -> Tensor:
    """Losses (..., batch) without those of examples that have none."""
    supervised = member(task, "supervised")
    return losses if supervised is None else losses[..., supervised(batch).to(losses.device)]
