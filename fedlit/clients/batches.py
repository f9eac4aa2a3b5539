"""Which examples a client sees, and in which order."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset


def local_work(num_examples: int, batch_size: int, steps: int | None, epochs: float | None) -> int:
    """Optimizer steps for a client: ``steps``, or as many batches as ``epochs`` over its examples hold."""
    return steps if steps is not None else round((epochs or 0) * math.ceil(num_examples / batch_size))


def training_batches(num_examples: int, batch_size: int, steps: int, generator: torch.Generator) -> list[list[int]]:
    """Indices of ``steps`` batches: epochs of shuffled examples one after the other, each epoch's last batch short."""
    batches: list[list[int]] = []
    while len(batches) < steps:
        order = torch.randperm(num_examples, generator=generator).tolist()
        batches += [order[i : i + batch_size] for i in range(0, num_examples, batch_size)]
    return batches[:steps]


def loader(dataset: Dataset[Any], batches: list[list[int]], collate: Any) -> Iterable[Any]:
    """The batches with these indices, in this order."""
    # A generator of its own, or each pass over a DataLoader would draw from the global one.
    return DataLoader(dataset, batch_sampler=batches, collate_fn=collate, generator=torch.Generator())


def evaluation_batches(num_examples: int, batch_size: int) -> list[list[int]]:
    """All examples once, in order."""
    return [list(range(i, min(i + batch_size, num_examples))) for i in range(0, num_examples, batch_size)]


def evaluation_batch_size(data: Any) -> int:
    """Examples in a batch that is not trained on: the data's ``eval_batch_size``, or their ``batch_size``."""
    return int(getattr(data, "eval_batch_size", None) or data.batch_size)


def evaluation_loader(data: Any, dataset: Any, limit: int | None = None) -> Iterable[Any]:
    """All examples of one of ``data``'s data sets in batches, in order; only the first ``limit`` batches if given."""
    return loader(dataset, evaluation_batches(len(dataset), evaluation_batch_size(data))[:limit], data.collate)
