"""Losses of several models on the same batches, in one pass over the backbone that they share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from fedlit.clients.batched import BatchedEngine
from fedlit.clients.layout import Unfoldable
from fedlit.clients.merging import Unmergeable
from fedlit.rehearsal import check_method
from fedlit.tree import Tree


class SharedPass:
    """Evaluates models that differ in what trains as clients train at once: each has the batch's rows to itself.

    Figures equal those of one model after the other up to rounding. Where the network cannot be folded, or a model
    changes frozen weights, models are evaluated one by one; where memory does not suffice, half as many at once. That
    is found out once.

    Args:
        together: Whose network is used.
        at_once: Models in one pass.
    """

    def __init__(self, together: BatchedEngine, at_once: int) -> None:
        self.together, self.engine, self.at_once = together, together.engine, at_once

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
        first = next(iter(batches), None)
        if first is None:
            yield from (torch.zeros(0, dtype=torch.float64) for _ in models)
            return
        stacked = self.together.runs.stacked(complete)
        try:
            if (why := self.together.folds([first, first])) is not None:
                raise Unfoldable(why)
            yield from self._folded(stacked, len(models), batches)
            return
        except torch.OutOfMemoryError:
            self.at_once = max(1, len(models) // 2)
        except (Unfoldable, Unmergeable):
            self.at_once = 1
        del stacked, complete
        for start in range(0, len(models), self.at_once):
            yield from self._chunk(models[start : start + self.at_once], batches)

    def _folded(self, stacked: dict[str, Tensor], count: int, batches: Iterable[Any]) -> list[Tensor]:
        engine = self.engine
        engine.load({})
        engine.task.eval()
        seen = []
        for batch in batches:
            each = self.together.runs.rows("losses", stacked, [engine.fabric.to_device(batch)] * count)
            seen.append(torch.stack(each).double().cpu().flatten(1))
        return list(torch.cat(seen, dim=1))
