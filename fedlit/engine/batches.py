"""Batches: which examples a client sees and in which order; one batch cut into several, several put together."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import Dataset

from fedlit.data.base.batch import AlteredExamples
from fedlit.data.base.module import FederatedDataModule
from fedlit.errors import FedlitError

Batch: TypeAlias = Any
"""What ``collate`` of the data gives: tensors and lists as long as the batch, nested in mappings, lists and tuples."""


def local_work(
    num_examples: int, batch_size: int, steps: int | None, epochs: float | None, batches_per_step: int = 1
) -> int:
    """Optimizer steps for a client: ``steps``, or as many as ``epochs`` over its examples need.

    Args:
        num_examples: Examples of the client.
        batch_size: Examples in a batch.
        steps: Steps to take; None: by epochs.
        epochs: Passes over the examples, if ``steps`` is None.
        batches_per_step: Batches in a step. An epoch whose batches it does not divide ends within a step.
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
        indices: One list of examples for each batch.
        collate: Makes a batch of a list of examples, or of what ``__getitems__`` gave.
    """

    dataset: Dataset[Any]
    indices: list[list[int]]
    collate: Callable[[Any], Any]

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[Batch]:
        if isinstance(self.dataset, AlteredExamples):
            yield from (self.collate(self.dataset.batch(own, number)) for number, own in enumerate(self.indices))
            return
        at_once = getattr(self.dataset, "__getitems__", None)
        for places in self.indices:
            yield self.collate(at_once(places) if at_once else [self.dataset[i] for i in places])


def evaluation_batches(num_examples: int, batch_size: int) -> list[list[int]]:
    """All examples once, in order."""
    return [list(range(i, min(i + batch_size, num_examples))) for i in range(0, num_examples, batch_size)]


def evaluation_batch_size(data: FederatedDataModule) -> int:
    """Examples in a batch that is not trained on: the data's ``eval_batch_size``, or their ``batch_size``."""
    return int(data.eval_batch_size or data.batch_size)


def evaluation_loader(data: FederatedDataModule, dataset: Any, limit: int | None = None) -> Iterable[Batch]:
    """All examples of one of ``data``'s data sets in batches, in order; only the first ``limit`` batches if given."""
    return Batches(dataset, evaluation_batches(len(dataset), evaluation_batch_size(data))[:limit], data.collate)


def batch_length(batch: Batch, default: int) -> int:
    """Examples in a batch: the length of the first tensor in it, ``default`` where it has none."""
    if isinstance(batch, Tensor) and batch.ndim:
        return len(batch)
    return next((n for part in _parts(batch) if (n := batch_length(part, 0))), default)


def split_batch(batch: Batch, parts: int) -> list[Batch]:
    """A batch in parts of equal length, the first ones longer by one if need be; a batch too short is repeated whole.

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


def _parts(batch: Batch) -> list[Batch]:
    if isinstance(batch, Mapping):
        return list(batch.values())
    return list(batch) if isinstance(batch, list | tuple) else []


def holds(values: Iterable[Any], count: int) -> bool:
    """Whether a tensor as long as the batch is among the values, or within one of them."""
    return any(len(v) == count if isinstance(v, Tensor) and v.ndim else holds(_parts(v), count) for v in values)


class Unmergeable(Exception):
    """These batches cannot be one batch; the message says why."""


def merged(batches: Sequence[Batch]) -> tuple[Batch, tuple[int, ...]]:
    """One batch of all their examples, batch after batch, and the number of examples of each.

    What :func:`split_batch` cuts is put together here: tensors and lists as long as the batch.

    Raises:
        Unmergeable: A batch does not tell its length, tensors differ in their other dimensions, or values that belong
            to no example differ between batches.
    """
    sizes = tuple(batch_length(batch, 0) for batch in batches)
    if not all(sizes):
        raise Unmergeable("batches have no tensor that tells their length")
    return (batches[0] if len(batches) == 1 else _concatenated(list(batches), sizes)), sizes


def _concatenated(values: list[Any], sizes: tuple[int, ...]) -> Any:
    first = values[0]
    if any(type(value) is not type(first) for value in values):
        raise Unmergeable("batches differ in their types")
    if isinstance(first, Mapping):
        if any(value.keys() != first.keys() for value in values):
            raise Unmergeable("batches differ in their keys")
        made = {key: _concatenated([value[key] for value in values], sizes) for key in first}
        return made if type(first) is dict else type(first)(made)  # type: ignore[call-arg]
    if isinstance(first, list | tuple) and all(holds(v, n) for v, n in zip(values, sizes, strict=True)):
        if any(len(value) != len(first) for value in values):
            raise Unmergeable("batches differ in their lengths")
        parts = [_concatenated(list(each), sizes) for each in zip(*values, strict=True)]
        return type(first)(*parts) if hasattr(first, "_fields") else type(first)(parts)
    long = first.ndim > 0 if isinstance(first, Tensor) else isinstance(first, list | tuple)
    if long and all(len(v) == n for v, n in zip(values, sizes, strict=True)):
        if not isinstance(first, Tensor):
            return type(first)(entry for value in values for entry in value)
        if any(value.shape[1:] != first.shape[1:] or value.dtype != first.dtype for value in values):
            raise Unmergeable("examples of different clients differ in shape")
        return torch.cat(values)
    if not all(_same(value, first) for value in values):
        raise Unmergeable("batches differ in what belongs to no example")
    return first


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    same = a == b
    return bool(same.all()) if hasattr(same, "all") else bool(same)
