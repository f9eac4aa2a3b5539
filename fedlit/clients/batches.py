"""Which examples a client sees, and in which order."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch


def local_work(
    num_examples: int, batch_size: int, steps: int | None, epochs: float | None, batches_per_step: int = 1
) -> int:
    """Optimizer steps for a client: ``steps``, or as many as ``epochs`` over its examples need.

    Args:
        batches_per_step: Batches of a step; where it does not go, an epoch's last step takes some of the next.
    """
    each = math.ceil(math.ceil(num_examples / batch_size) / batches_per_step)
    return steps if steps is not None else round((epochs or 0) * each)


def training_batches(num_examples: int, batch_size: int, steps: int, generator: torch.Generator) -> list[list[int]]:
    """Indices of ``steps`` batches: epochs of shuffled examples one after the other, each epoch's last batch short."""
    batches: list[list[int]] = []
    while len(batches) < steps:
        order = torch.randperm(num_examples, generator=generator).tolist()
        batches += [order[i : i + batch_size] for i in range(0, num_examples, batch_size)]
    return batches[:steps]


@dataclass(frozen=True)
class Batches:
    """Some batches of a data set, in this order, as often as they are gone through.

    Attributes:
        dataset: A map-style data set; ``__getitems__``, where it has one, is given a whole batch's indices.
        indices: Of each batch.
        collate: Makes a batch of a list of examples, or of what ``__getitems__`` gave.
    """

    dataset: Any
    indices: list[list[int]]
    collate: Callable[[Any], Any]

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[Any]:
        at_once = getattr(self.dataset, "__getitems__", None)
        for places in self.indices:
            yield self.collate(at_once(places) if at_once else [self.dataset[i] for i in places])


def evaluation_batches(num_examples: int, batch_size: int) -> list[list[int]]:
    """All examples once, in order."""
    return [list(range(i, min(i + batch_size, num_examples))) for i in range(0, num_examples, batch_size)]


def evaluation_batch_size(data: Any) -> int:
    """Examples in a batch that is not trained on: the data's ``eval_batch_size``, or their ``batch_size``."""
    return int(getattr(data, "eval_batch_size", None) or data.batch_size)


def evaluation_loader(data: Any, dataset: Any, limit: int | None = None) -> Iterable[Any]:
    """All examples of one of ``data``'s data sets in batches, in order; only the first ``limit`` batches if given."""
    return Batches(dataset, evaluation_batches(len(dataset), evaluation_batch_size(data))[:limit], data.collate)
