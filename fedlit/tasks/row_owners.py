"""Examples that the rows of a network's input belong to, where the rows are not the examples themselves.

Training several clients in one pass needs the client of each row. A task whose network sees one row per example, in
their order, or the same number of adjacent rows per example, need not declare anything; others use :func:`rows_of`.
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
    """Context in which the network's rows belong to these examples, by their index in the batch.

    Args:
        examples: Example of each row; None where a row may hold several examples.
    """
    token = ROWS.set(MIXED if examples is None else tuple(examples))
    try:
        yield
    finally:
        ROWS.reset(token)
