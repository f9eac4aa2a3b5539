"""The task's loss on one batch as rules see it: a function of the network's parameters."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import lightning as L  # noqa: N812
from torch import Tensor, nn
from torch.func import functional_call

from fedlit.engine.task_check import check_method, check_modules
from fedlit.errors import FedlitError
from fedlit.tree import Tree

if TYPE_CHECKING:
    from fedlit.engine.serial import SerialEngine
from fedlit.engine.batches import split_batch


class TaskCall(nn.Module):
    """A method of the task as a module's forward, the form that ``functional_call`` takes."""

    def __init__(self, task: L.LightningModule) -> None:
        super().__init__()
        self.task = task

    def forward(self, method: str, batch: Any, index: int) -> Tensor:
        name = type(self.task).__name__
        if method != "training_step":
            check_method(self.task, method)
            return getattr(self.task, method)(batch)  # type: ignore[no-any-return]
        out = self.task.training_step(batch, index)
        loss = out["loss"] if isinstance(out, dict) else out
        if not isinstance(loss, Tensor):
            raise FedlitError(f"{name}.training_step must return the loss, it gave {type(out)}")
        return loss


class BatchLoss:
    """A :class:`~fedlit.aggregators.Loss`.

    Args:
        engine: Whose network is used.
        live: The network's parameters that are themselves leaves of what the client trains.
        steps: Local steps in this round.
        step: Index of the current one.
        batch: The current batch, on the device.
    """

    def __init__(
        self, engine: SerialEngine, live: dict[str, nn.Parameter], steps: int, step: int = 0, batch: Any = None
    ) -> None:
        self.engine, self.live, self.steps, self.step, self.batch = engine, live, steps, step, batch

    def __call__(self, params: Tree) -> Tensor:
        return self._call("training_step", params)

    def features(self, params: Tree) -> Tensor:
        return self._call("features", params)

    def logits(self, params: Tree) -> Tensor:
        return self._call("logits", params)

    def outputs(self, params: Tree, pattern: str) -> tuple[Tensor, dict[str, Tensor]]:
        seen: dict[str, Tensor] = {}

        def keep(name: str) -> Callable[..., None]:
            return lambda module, inputs, output: seen.update({name: output})

        modules = [(name, m) for name, m in self.engine.task.named_modules() if re.search(pattern, name)]
        check_modules(modules, pattern)
        hooks = [module.register_forward_hook(keep(name)) for name, module in modules]
        try:
            return self(params), seen
        finally:
            for hook in hooks:
                hook.remove()

    def split(self, parts: int) -> list[BatchLoss]:
        pieces = split_batch(self.batch, parts)
        return [BatchLoss(self.engine, self.live, self.steps, self.step, piece) for piece in pieces]

    def _call(self, method: str, params: Tree) -> Tensor:
        with self.engine.fabric.autocast():
            if (
                isinstance(params, dict)
                and params.keys() == self.live.keys()
                and all(params[name] is parameter for name, parameter in self.live.items())
            ):
                return self.engine.call(method, self.batch, self.step)  # type: ignore[no-any-return]
            named = {f"task.{name}": value for name, value in self.engine.complete(params).items()}
            arguments = (method, self.batch, self.step)
            return functional_call(self.engine.call, named, arguments)  # type: ignore[no-any-return]
