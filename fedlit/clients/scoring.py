"""Scores of several clients' models on their own data."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch

from fedlit.clients.batched import BatchedEngine
from fedlit.clients.layout import Unfoldable
from fedlit.clients.loss import batch_length
from fedlit.clients.merging import Unmergeable
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
