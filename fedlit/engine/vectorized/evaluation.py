"""Scores and losses of several models in one pass."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import torch
from torch import Tensor
from torchmetrics import Metric

from fedlit.engine.batches import Batch, Unmergeable, batch_length
from fedlit.engine.network import defined
from fedlit.engine.serial import SerialEngine
from fedlit.engine.task_check import check_method
from fedlit.engine.vectorized.check import FoldingCheck
from fedlit.engine.vectorized.modules import Unfoldable
from fedlit.engine.vectorized.passes import SharedPasses
from fedlit.tasks.task import Task
from fedlit.tree import Tree


class SharedEvaluation:
    """Evaluates models that differ in what trains as clients train at once: each has its own rows of a batch.

    Figures equal those of one model after the other up to rounding. Where the network cannot be folded, or a model
    changes frozen weights, models are evaluated one by one; where memory does not suffice, half as many at once.

    Args:
        serial: Evaluates one by one.
        check: Whether the network can be folded.

    Attributes:
        at_once: Models in a pass that takes losses, by how many were asked for; what does not fit is found out once.
    """

    def __init__(self, serial: SerialEngine, check: FoldingCheck) -> None:
        self.serial, self.check, self.passes = serial, check, check.passes
        self.at_once: dict[int, int] = {}

    def scores(
        self, models: Sequence[Tree], data: Sequence[Iterable[Batch]], split: str, batch_size: int
    ) -> list[dict[str, float]]:
        """The task's metrics of each model on its own batches.

        Batches of several clients are one batch where their examples fit into it and the network can be folded; so many
        small clients cost as much as a few large ones. A model that is the same object for all needs no folding.
        """
        task, serial = self.serial.task, self.serial
        if len(models) < 2 or not _has_outputs(task):
            return serial.evaluate(models, data, split, batch_size)
        kind = task.test_metrics if split == "test" else task.val_metrics
        kind.reset()
        metrics = [copy.deepcopy(kind) for _ in models]
        alone = set()
        for places, batches in _filled(data, batch_size):
            some = [models[i] for i in places]
            same = all(model is some[0] for model in some)
            try:
                if not (same or self._foldable(some, batches)):
                    raise Unfoldable("these models are scored one after the other")
                _score(self.passes, some, batches, [metrics[i] for i in places], same)
            except (Unmergeable, Unfoldable):
                alone.update(places)
        return [
            serial.evaluate([models[i]], [data[i]], split, batch_size)[0]
            if i in alone
            else {name: float(value) for name, value in own.compute().items()}
            for i, own in enumerate(metrics)
        ]

    def _foldable(self, models: Sequence[Tree], batches: Sequence[Batch]) -> bool:
        known = self.serial.parameters
        complete = all(isinstance(model, dict) and model.keys() == known.keys() for model in models)
        return complete and self.check.why_not(batches) is None

    def losses(self, models: Iterable[Tree], batches: Iterable[Batch], at_once: int) -> list[Tensor]:
        """The task loss of each example that has one by each model, (examples,), float64, on the CPU."""
        check_method(self.serial.task, "losses")
        self.at_once.setdefault(at_once, at_once)
        waiting, out = iter(models), list[Tensor]()
        while chunk := list(islice(waiting, self.at_once[at_once])):
            out += self._chunk(chunk, batches, at_once)
        return out

    def _chunk(self, models: list[Tree], batches: Iterable[Batch], at_once: int) -> Iterator[Tensor]:
        network = self.serial.network
        complete = [network.complete(model) for model in models]
        if len(models) == 1 or any(model.keys() != network.parameters.keys() for model in complete):
            yield from self.serial.losses(models, batches)
            return
        first = next(iter(batches), None)
        if first is None:
            yield from (torch.zeros(0, dtype=torch.float64) for _ in models)
            return
        stacked = self.passes.stacked(complete)
        try:
            if (why := self.check.why_not([first, first])) is not None:
                raise Unfoldable(why)
            yield from self._folded(stacked, len(models), batches)
            return
        except torch.OutOfMemoryError:
            self.at_once[at_once] = max(1, len(models) // 2)
        except (Unfoldable, Unmergeable):
            self.at_once[at_once] = 1
        del stacked, complete
        for start in range(0, len(models), self.at_once[at_once]):
            yield from self._chunk(models[start : start + self.at_once[at_once]], batches, at_once)

    def _folded(self, stacked: dict[str, Tensor], count: int, batches: Iterable[Batch]) -> list[Tensor]:
        network = self.serial.network
        network.load({})
        network.task.eval()
        seen = []
        for batch in batches:
            each = self.passes.rows("losses", stacked, [network.fabric.to_device(batch)] * count)
            seen.append(defined(network.task, batch, torch.stack(each).double().cpu().flatten(1)))
        return list(torch.cat(seen, dim=1))


def _has_outputs(task: object) -> bool:
    """Whether scores are made of what the task puts out for each example, and of nothing else."""
    names = ("validation_step", "test_step", "evaluate")
    return isinstance(task, Task) and all(getattr(type(task), name) is getattr(Task, name) for name in names)


def _filled(data: Sequence[Iterable[Batch]], batch_size: int) -> Iterator[tuple[list[int], list[Batch]]]:
    """Batches that go together, with the clients that they are of; no client has two of them."""
    waiting = [iter(batches) for batches in data]
    left = list(range(len(data)))
    while left:
        places: list[int] = []
        some: list[Batch] = []
        filled = 0
        for place in list(left):
            batch = next(waiting[place], None)
            if batch is None:
                left.remove(place)
                continue
            length = batch_length(batch, batch_size)
            if some and filled + length > batch_size:
                yield places, some
                places, some, filled = [], [], 0
            places.append(place)
            some.append(batch)
            filled += length
        if some:
            yield places, some


def _score(
    passes: SharedPasses, models: Sequence[Tree], batches: Sequence[Batch], metrics: Sequence[Metric], same: bool
) -> None:
    """Add each model's outputs for its batch to its metrics; ``same``: all models are one object."""
    network = passes.network
    task = network.task
    moved = [network.fabric.to_device(batch) for batch in batches]
    network.load(models[0] if same else {})
    if task.training:
        task.eval()
    rows = passes.rows("outputs", None if same else passes.stacked(models), moved)
    with torch.inference_mode(), network.fabric.autocast():
        for outputs, batch, metric in zip(rows, moved, metrics, strict=True):
            task.score_outputs(outputs, batch, metric)
