"""Losses of several models on the same batches, in one pass over the backbone that they share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from fedlit.rehearsal import check_method
from fedlit.tree import Tree

if TYPE_CHECKING:
    from fedlit.clients.engine import SerialEngine

AT_ONCE = 8


class SharedPass:
    """Evaluates models that differ in what trains, with ``vmap`` over those tensors.

    Frozen weights are there once, and their products see one batch. Figures equal those of one model after the other
    up to rounding. Where the network has an operation that ``vmap`` cannot do (4-bit layers), or a model changes frozen
    weights, models are evaluated one by one; where memory does not suffice, half as many at once. Either is found out
    once.

    Args:
        engine: Whose network is used.
        at_once: Models in one pass; None: 8 on a GPU, 1 on a CPU, where one by one is faster.
    """

    def __init__(self, engine: SerialEngine, at_once: int | None = None) -> None:
        self.engine = engine
        self.at_once = at_once or (1 if engine.fabric.device.type == "cpu" else AT_ONCE)

    def losses(self, models: Iterable[Tree], batches: Iterable[Any]) -> list[Tensor]:
        """The task loss of each example by each model, float64, on the CPU.

        Args:
            models: As the engine takes them; read as they are needed.
            batches: All of the data; gone through once for each pass.
        """
        check_method(self.engine.task, "losses")
        waiting, out = iter(models), list[Tensor]()
        while chunk := list(islice(waiting, self.at_once)):
            out += self._chunk(chunk, batches)
        return out

    def _chunk(self, models: list[Tree], batches: Iterable[Any]) -> Iterator[Tensor]:
        engine = self.engine
        complete = [engine.complete(model) for model in models]
        if len(models) == 1 or any(one.keys() != engine.parameters.keys() for one in complete):
            yield from (engine.losses(model, batches) for model in models)
            return
        device = engine.fabric.device
        stacked = {
            f"task.{name}": torch.stack([one[name].to(device) for one in complete]) for name in engine.parameters
        }
        try:
            yield from self._vmapped(stacked, batches)
            return
        except torch.OutOfMemoryError:
            self.at_once = max(1, len(models) // 2)
        except RuntimeError:  # what vmap raises of operations that it has no rule for
            self.at_once = 1
        del stacked, complete
        for start in range(0, len(models), self.at_once):
            yield from self._chunk(models[start : start + self.at_once], batches)

    def _vmapped(self, stacked: dict[str, Tensor], batches: Iterable[Any]) -> list[Tensor]:
        engine = self.engine
        engine.load({})
        engine.task.eval()
        count = len(next(iter(stacked.values())))
        seen = [torch.zeros(count, 0, dtype=torch.float64)]
        with torch.no_grad(), engine.fabric.autocast(), sdpa_kernel(SDPBackend.MATH):
            for batch in batches:
                arguments = ("losses", engine.fabric.to_device(batch), 0)
                each = vmap(lambda values, given=arguments: functional_call(engine.call, values, given))(stacked)
                seen.append(each.double().cpu())
        return list(torch.cat(seen, dim=1))
