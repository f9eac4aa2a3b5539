"""Scores and losses of several models, by the names that callers used before the engines had them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor

from fedlit.engine.batches import Batch
from fedlit.engine.vectorized.engine import VectorizedEngine
from fedlit.tree import Tree


def scores_of(
    together: VectorizedEngine, models: Sequence[Tree], data: Sequence[Iterable[Batch]], split: str, room: int
) -> list[dict[str, float]]:
    """See :meth:`VectorizedEngine.evaluate`."""
    return together.evaluate(models, data, split, room)


class SharedPass:
    """See :meth:`VectorizedEngine.losses`."""

    def __init__(self, together: VectorizedEngine, at_once: int) -> None:
        self.together, self.at_once = together, at_once

    def losses(self, models: Iterable[Tree], batches: Iterable[Batch]) -> list[Tensor]:
        """See :meth:`VectorizedEngine.losses`."""
        return self.together.losses(models, batches, self.at_once)
