"""Scores of several clients' models on their own data."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from fedlit.engine.batches import Unmergeable, batch_length
from fedlit.engine.task_check import check_method
from fedlit.engine.vectorized.engine import BatchedEngine
from fedlit.engine.vectorized.modules import Unfoldable
from fedlit.tasks.task import Task
from fedlit.tree import Tree


def scores_of(
    together: BatchedEngine, models: Sequence[Tree], data: Sequence[Iterable[Any]], split: str, room: int
) -> list[dict[str, float]]:
    """The task's metrics of each model on its own batches, as :meth:`SerialEngine.evaluate` gives them.

    Batches of several clients are one batch where their examples fit into it and the network can be folded; so many
    small clients cost as much as a few large ones. A model that is the same object for all needs no folding.

    Args:
        together: Whose network is used.
        models: Of each client.
        data: Batches of each client.
        split: ``val`` or ``test``.
        room: Examples in a batch.
    """
    engine, task = together.engine, together.engine.task
    if not _has_outputs(task):
        return [engine.evaluate(model, batches, split) for model, batches in zip(models, data, strict=True)]
    kind = task.test_metrics if split == "test" else task.val_metrics
    kind.reset()
    metrics = [copy.deepcopy(kind) for _ in models]
    alone = set()
    for places, some in _filled(data, room):
        shared = all(models[i] is models[places[0]] for i in places)
        try:
            if not (shared or _complete(together, [models[i] for i in places], some)):
                raise Unfoldable("these models are scored one after the other")
            _score(together, [models[i] for i in places], some, [metrics[i] for i in places], shared)
        except (Unmergeable, Unfoldable):
            alone.update(places)
    return [
        engine.evaluate(models[i], data[i], split)
        if i in alone
        else {name: float(value) for name, value in own.compute().items()}
        for i, own in enumerate(metrics)
    ]


def _has_outputs(task: Any) -> bool:
    """Whether scores are made of what the task puts out for each example, and of nothing else."""
    names = ("validation_step", "test_step", "evaluate")
    return isinstance(task, Task) and all(getattr(type(task), name) is getattr(Task, name) for name in names)


def _complete(together: BatchedEngine, models: Sequence[Tree], batches: Sequence[Any]) -> bool:
    known = together.engine.parameters
    return all(isinstance(m, dict) and m.keys() == known.keys() for m in models) and together.folds(batches) is None


def _filled(data: Sequence[Iterable[Any]], room: int) -> Iterator[tuple[list[int], list[Any]]]:
    """Batches that go together, with whose each is; no client has two of them."""
    waiting = [iter(batches) for batches in data]
    left = list(range(len(data)))
    while left:
        places: list[int] = []
        some: list[Any] = []
        filled = 0
        for place in list(left):
            batch = next(waiting[place], None)
            if batch is None:
                left.remove(place)
                continue
            length = batch_length(batch, room)
            if some and filled + length > room:
                yield places, some
                places, some, filled = [], [], 0
            places.append(place)
            some.append(batch)
            filled += length
        if some:
            yield places, some


def _score(
    together: BatchedEngine, models: Sequence[Any], batches: Sequence[Any], metrics: Sequence[Any], shared: bool
) -> None:
    engine = together.engine
    task = engine.task
    moved = [engine.fabric.to_device(batch) for batch in batches]
    engine.load(models[0] if shared else {})
    if task.training:
        task.eval()
    rows = together.runs.rows("outputs", None if shared else together.runs.stacked(models), moved)
    with torch.inference_mode(), engine.fabric.autocast():
        for part, own, metric in zip(rows, moved, metrics, strict=True):
            task.score_outputs(part, own, metric)


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
