"""Windows of a context and the target after it, cut from signals that lie once in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from fedlit.data.base.batch import Batch
from fedlit.data.signals.flat import flat_windows, is_flat

Scale = Literal["context", "standard", "none"]
Values = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Run:
    """Windows at equal distances in one record: ``first, first + stride, ...``, ``count`` of them.

    Attributes:
        client: Name of the client.
        record: Record id.
        kind: Kind of the record.
        base: Where the record starts in the flat array of all signals.
        first: Sample of the record at which the first context starts.
        count: Number of windows.
        stride: Samples from one window to the next.
        fixed: ``(offset, scale)`` fitted on a whole part (parity with published code), else None.
    """

    client: str
    record: str
    kind: str
    base: int
    first: int
    count: int
    stride: int
    fixed: tuple[float, float] | None = None


class Cut(NamedTuple):
    """Where windows fit into a stretch of signal.

    Attributes:
        rows: ``(first, count)`` of each row of windows that are ``stride`` apart.
        missing: Windows left out because a target sample, or too much of the context, is missing.
        flat: Windows left out because their context does not move, see :func:`fedlit.data.signals.flat.flat_windows`.
    """

    rows: list[tuple[int, int]]
    missing: int
    flat: int


def cut(
    values: npt.NDArray[np.float32],
    context_length: int,
    prediction_length: int,
    stride: int,
    max_missing: float,
    moving: bool = True,
) -> Cut:
    """Where windows fit into a stretch of signal.

    Args:
        values: Shape ``(samples,)``, NaN = missing.
        context_length: Samples of a context.
        prediction_length: Samples of a target.
        stride: Samples from one window to the next.
        max_missing: Largest share of a context that may be missing; a target has to be whole.
        moving: Whether windows with a flat context are left out: no scale can be taken from it.
    """
    total = (len(values) - context_length - prediction_length) // stride + 1
    if total <= 0:
        return Cut([], 0, 0)
    whole = np.ones(total, np.bool_)
    missing = np.isnan(values)
    if missing.any():
        before = np.concatenate([[0], np.cumsum(missing)])
        start = np.arange(total) * stride
        middle = start + context_length
        in_context, in_target = before[middle] - before[start], before[middle + prediction_length] - before[middle]
        whole = (in_target == 0) & (in_context <= max_missing * context_length) & (in_context < context_length)
    good = whole
    if moving and whole.any():
        good = whole & ~flat_windows(values, context_length, prediction_length, stride, total)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], good, [False]])))
    rows = [(int(first * stride), int(stop - first)) for first, stop in zip(edges[::2], edges[1::2], strict=True)]
    return Cut(rows, int(total - whole.sum()), int(whole.sum() - good.sum()))


def evenly(total: int, most: int | None) -> npt.NDArray[np.int64]:
    """At most ``most`` of ``range(total)``, evenly spaced."""
    if most is None or total <= most:
        return np.arange(total)
    return (np.arange(most, dtype=np.int64) * total + total // 2) // most


class Windows(Dataset[Batch]):
    """Map-style data set of windows; a list of indices gives a whole batch at once.

    A batch is a dict of ``context`` (B, context_length) and ``target`` (B, prediction_length), both float32 and scaled
    (``original = scaled * scale + offset``; NaN in a context = missing), ``offset`` (B,), ``scale`` (B,),
    ``start`` (B,) int64 (sample of the record at which the context starts), and the lists of strings
    ``record``, ``client``, ``kind``.

    Args:
        flat: float32, all signals one after the other, shape ``(samples of all records,)``. Not copied.
        runs: Where the windows lie.
        context_length: Samples of a context.
        prediction_length: Samples of a target.
        scale: ``"context"`` maps the context's minimum and maximum to 0 and 1, ``"standard"`` its mean and standard
            deviation to 0 and 1, ``"none"`` leaves it. Only the context is looked at, never the target.
        picks: Ascending indices of the windows to keep, shape ``(kept,)``; None for all.
    """

    def __init__(
        self,
        flat: npt.NDArray[np.float32],
        runs: Sequence[Run],
        context_length: int,
        prediction_length: int,
        scale: Scale = "context",
        picks: npt.NDArray[np.int64] | None = None,
    ) -> None:
        self.runs = list(runs)
        self.context_length = context_length
        self.prediction_length = prediction_length
        self.scale = scale
        self._flat = flat
        self._ends = np.cumsum([run.count for run in self.runs], dtype=np.int64)
        self._base = np.array([run.base for run in self.runs], np.int64)
        self._first = np.array([run.first for run in self.runs], np.int64)
        self._stride = np.array([run.stride for run in self.runs], np.int64)
        self._fixed = np.array([run.fixed or (np.nan, np.nan) for run in self.runs], np.float32).reshape(-1, 2)
        total = int(self._ends[-1]) if self.runs else 0
        self._picks = picks
        self._length = total if picks is None else len(picks)

    def __len__(self) -> int:
        return self._length

    def where(self, indices: Sequence[int]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Run and first context sample (in its record) of windows.

        Raises:
            IndexError: For an index outside of the data set.
        """
        index = np.asarray(indices, np.int64)
        index = np.where(index < 0, index + self._length, index)
        if len(index) and (index.min() < 0 or index.max() >= self._length):
            raise IndexError(f"window {indices} of {self._length}")
        if self._picks is not None:
            index = self._picks[index]
        run = np.searchsorted(self._ends, index, side="right")
        before = np.where(run > 0, self._ends[run - 1], 0)
        return run, self._first[run] + (index - before) * self._stride[run]

    def values(self, run: npt.NDArray[np.int64], start: npt.NDArray[np.int64]) -> Values:
        """Context and target of windows that :meth:`where` found, (B, context_length + prediction_length), unscaled."""
        reach = np.arange(self.context_length + self.prediction_length)
        found: Values = self._flat[(self._base[run] + start)[:, None] + reach]
        return found

    def scaled(self, values: Values, run: npt.NDArray[np.int64], start: npt.NDArray[np.int64]) -> Batch:
        """The batch of such windows."""
        offset, scale = self._scaling(values[:, : self.context_length], run)
        values = (values - offset[:, None]) / scale[:, None]
        chosen = [self.runs[i] for i in run]
        return {
            "context": torch.from_numpy(values[:, : self.context_length].copy()),
            "target": torch.from_numpy(values[:, self.context_length :].copy()),
            "offset": torch.from_numpy(offset),
            "scale": torch.from_numpy(scale),
            "record": [r.record for r in chosen],
            "client": [r.client for r in chosen],
            "kind": [r.kind for r in chosen],
            "start": torch.from_numpy(start),
        }

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        run, start = self.where(indices)
        return self.scaled(self.values(run, start), run, start)

    def __getitem__(self, index: int) -> Batch:
        return {name: value[0] for name, value in self.__getitems__([index]).items()}

    def _scaling(
        self, context: npt.NDArray[np.float32], run: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Offset and scale of each window, shape ``(B,)``.

        The scale is 1 where nothing moves: of flat contexts that :func:`cut` was told to keep, and of parts without
        movement under parity, as the published code has it.
        """
        count = len(context)
        if self.scale == "none":
            offset, scale = np.zeros(count, np.float32), np.ones(count, np.float32)
            still = np.zeros(count, np.bool_)
        else:
            offset = np.fmin.reduce(context, axis=1, initial=np.float32(np.nan))
            scale = np.fmax.reduce(context, axis=1, initial=np.float32(np.nan)) - offset
            still = is_flat(offset, scale)
        if self.scale == "standard":
            seen = np.isfinite(context)
            known = np.maximum(seen.sum(1), 1)
            offset = np.where(seen, context, 0).sum(1, dtype=np.float64) / known
            spread = np.where(seen, context - offset[:, None], 0)
            scale = np.sqrt(np.square(spread).sum(1) / known)
        fixed = self._fixed[run]
        given = ~np.isnan(fixed[:, 0])
        offset = np.where(given, fixed[:, 0], offset)
        scale = np.where(given, fixed[:, 1], scale)
        still = np.where(given, is_flat(fixed[:, 0], fixed[:, 1]), still)
        offset = np.where(np.isfinite(offset), offset, 0).astype(np.float32)
        moves = np.isfinite(scale) & ~still
        return offset, np.where(moves, scale, 1).astype(np.float32)
