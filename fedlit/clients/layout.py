"""Whose each row of a batch of several clients is."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fedlit.rows import MIXED, ROWS


class Unfoldable(Exception):
    """The network cannot take several clients in one pass; the message says why."""


class Layout:
    """Whose each row is: rows of one client are side by side.

    Args:
        sizes: Examples of each client, in the order of the batch.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes, self.total, self.clients = tuple(sizes), sum(sizes), len(sizes)
        self._rows: tuple[tuple[int, ...] | None, tuple[int, ...]] = (None, self.sizes)
        self._index: dict[tuple[tuple[int, ...], torch.device], tuple[Tensor, Tensor]] = {}

    def rows(self) -> tuple[int, ...]:
        """Rows of each client, by what the task says of them."""
        if torch.compiler.is_compiling():  # a context variable cannot be; a task that sets it is not compiled
            return self.sizes
        told = ROWS.get()
        if told is not self._rows[0]:
            self._rows = (told, self.sizes if told is None else self._count(told))
        return self._rows[1]

    def _count(self, told: tuple[int, ...]) -> tuple[int, ...]:
        if told is MIXED:
            raise Unfoldable("a row of the network holds several examples")
        if list(told) != sorted(told):
            raise Unfoldable("the network's rows are not in the order of the examples")
        owner = torch.arange(len(self.sizes)).repeat_interleave(torch.tensor(self.sizes))
        return tuple(torch.bincount(owner[list(told)], minlength=len(self.sizes)).tolist())

    def apart(self, x: Tensor) -> Tensor:
        """Rows by client: (clients, rows, ...), shorter ones filled up by repeating a row.

        An input of one row, where the batch has more, is one that is meant for all of them.
        """
        x = self._spread(x)
        rows = self.of(x)
        if len({*rows}) == 1:
            return x.reshape(len(rows), rows[0], *x.shape[1:])
        return x[self._places(rows, x.device)[0]]

    def together(self, y: Tensor, like: Tensor) -> Tensor:
        """The inverse of :meth:`apart`, for what was made of the rows of ``like``."""
        like = self._spread(like)
        rows = self.of(like)
        if len({*rows}) == 1:
            return y.reshape(like.shape[0], *y.shape[2:])
        return y.flatten(0, 1)[self._places(rows, y.device)[1]]

    def _spread(self, x: Tensor) -> Tensor:
        alone = x.ndim > 1 and x.shape[0] == 1
        return x.expand(sum(self.rows()), *x.shape[1:]) if alone else x

    def of(self, x: Tensor) -> tuple[int, ...]:
        """Rows of each client in ``x``."""
        rows = self.rows()
        total = sum(rows)
        if not x.ndim or not total or x.shape[0] % total:
            raise Unfoldable(f"an input has {list(x.shape)[:1]} rows, and the batch {total}")
        each = x.shape[0] // total
        return rows if each == 1 else tuple(each * n for n in rows)

    def _places(self, rows: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
        """Where each client's rows are in the batch (clients, longest), and the batch's rows in that, flat."""
        key = (rows, device)
        if key not in self._index:
            longest, starts = max(rows), [sum(rows[:i]) for i in range(len(rows))]
            take = [
                [min(start + j, start + n - 1) for j in range(longest)] for start, n in zip(starts, rows, strict=True)
            ]
            back = [i * longest + j for i, n in enumerate(rows) for j in range(n)]
            self._index[key] = torch.tensor(take, device=device).clamp(min=0), torch.tensor(back, device=device)
        return self._index[key]
