"""The task's loss on one batch as rules see it: a function of the network's parameters."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import lightning as L  # noqa: N812
from torch import Tensor, nn
from torch.func import functional_call

from fedlit.errors import FedlitError
from fedlit.rehearsal import check_method, check_modules
from fedlit.tree import Tree

if TYPE_CHECKING:
    from fedlit.clients.engine import SerialEngine


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


def batch_length(batch: Any, default: int) -> int:
    """Examples in a batch: the length of the first tensor in it, ``default`` where it has none."""
    if isinstance(batch, Tensor) and batch.ndim:
        return len(batch)
    return next((n for part in _parts(batch) if (n := batch_length(part, 0))), default)


def split_batch(batch: Any, parts: int) -> list[Any]:
    """A batch in equal parts, the first ones longer by one where it does not go; the whole one where it is too short.

    Tensors and lists as long as the batch are cut along their first dimension, in whatever they are nested; anything
    else goes to every part.

    Raises:
        FedlitError: There is no tensor by which to tell its length.
    """
    count = batch_length(batch, 0)
    if not count:
        raise FedlitError(f"this rule splits batches, and a {type(batch).__name__} has no tensor that tells its length")
    if count < parts:
        return [batch] * parts
    ends = [count * i // parts for i in range(parts + 1)]
    bounds = [(count - b, count - a) for a, b in zip(ends, ends[1:], strict=False)][::-1]

    def cut(value: Any, a: int, b: int) -> Any:
        if isinstance(value, Mapping):
            parts = {k: cut(v, a, b) for k, v in value.items()}
            return parts if type(value) is dict else type(value)(parts)  # type: ignore[call-arg]
        if isinstance(value, list | tuple) and holds(value, count):
            made = [cut(v, a, b) for v in value]
            return type(value)(*made) if hasattr(value, "_fields") else type(value)(made)
        long = value.ndim > 0 if isinstance(value, Tensor) else isinstance(value, list | tuple)
        return value[a:b] if long and len(value) == count else value

    return [cut(batch, a, b) for a, b in bounds]


def _parts(batch: Any) -> list[Any]:
    if isinstance(batch, Mapping):
        return list(batch.values())
    return list(batch) if isinstance(batch, list | tuple) else []


def holds(values: Iterable[Any], count: int) -> bool:
    """Whether a tensor as long as the batch is among the values, or within one of them."""
    return any(len(v) == count if isinstance(v, Tensor) and v.ndim else holds(_parts(v), count) for v in values)
