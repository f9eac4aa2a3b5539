"""Batches of several clients as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fedlit.clients.loss import batch_length, holds


class Unmergeable(Exception):
    """These batches cannot be one batch; the message says why."""


def merged(batches: Sequence[Any]) -> tuple[Any, tuple[int, ...]]:
    """One batch of all their examples, batch after batch, and how many are of each.

    What :func:`fedlit.clients.loss.split_batch` cuts is put together here: tensors and lists as long as the batch.

    Raises:
        Unmergeable: A batch does not tell its length, tensors differ in their other dimensions, or what is not an
            example's differs between batches.
    """
    sizes = tuple(batch_length(batch, 0) for batch in batches)
    if not all(sizes):
        raise Unmergeable("batches have no tensor that tells their length")
    return (batches[0] if len(batches) == 1 else _joined(list(batches), sizes)), sizes


def _joined(values: list[Any], sizes: tuple[int, ...]) -> Any:
    first = values[0]
    if any(type(value) is not type(first) for value in values):
        raise Unmergeable("batches differ in their types")
    if isinstance(first, Mapping):
        if any(value.keys() != first.keys() for value in values):
            raise Unmergeable("batches differ in their keys")
        made = {key: _joined([value[key] for value in values], sizes) for key in first}
        return made if type(first) is dict else type(first)(made)  # type: ignore[call-arg]
    if isinstance(first, list | tuple) and all(holds(v, n) for v, n in zip(values, sizes, strict=True)):
        if any(len(value) != len(first) for value in values):
            raise Unmergeable("batches differ in their lengths")
        parts = [_joined(list(each), sizes) for each in zip(*values, strict=True)]
        return type(first)(*parts) if hasattr(first, "_fields") else type(first)(parts)
    long = first.ndim > 0 if isinstance(first, Tensor) else isinstance(first, list | tuple)
    if long and all(len(v) == n for v, n in zip(values, sizes, strict=True)):
        if not isinstance(first, Tensor):
            return type(first)(one for value in values for one in value)
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
