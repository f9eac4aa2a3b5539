"""Which example each row of a network's input belongs to, where a task gives the network other rows than its examples.

Training several clients in one pass needs to know whose each row is. A task whose network sees one row for each
example, in their order, or so many for each example side by side, says nothing. Others say it here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

ROWS: ContextVar[tuple[int, ...] | None] = ContextVar("rows", default=None)
MIXED = (-1,)
"""Rows that hold parts of several examples."""


@contextmanager
def rows_of(examples: Sequence[int] | None) -> Iterator[None]:
    """Within, the network's rows are of these examples, by their place in the batch.

    Args:
        examples: One for each row, in the rows' order; None where a row may hold several examples.
    """
    token = ROWS.set(MIXED if examples is None else tuple(examples))
    try:
        yield
    finally:
        ROWS.reset(token)
