"""What the generators of procedural images and sounds share: draws that remember what they were."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Drawn:
    """A batch of examples and what they were made from.

    Args:
        x: Images uint8 (count, height, width, 3) or waveforms float32 (count, samples).
        kind: Number of the kind, int64 (count,).
        values: Parameters in deviations from their middle, float32 (count, parameters); NaN where an example has no
            such thing, for instance the radius of cells in one without cells.
    """

    x: Tensor
    kind: Tensor
    values: Tensor


class Draws:
    """Parameters of ``count`` examples, each drawn from ``generator`` and kept as a target under its name."""

    def __init__(self, count: int, generator: torch.Generator) -> None:
        self.count, self.generator = count, generator
        self.kept: dict[str, Tensor] = {}

    def rand(self, *shape: int) -> Tensor:
        """Uniform in [0, 1), (count, *shape)."""
        return torch.rand(self.count, *shape, generator=self.generator)

    def randn(self, *shape: int) -> Tensor:
        """Standard normal, (count, *shape)."""
        return torch.randn(self.count, *shape, generator=self.generator)

    def between(self, low: float, high: float, *shape: int, log: bool = False) -> Tensor:
        """Uniform in a range, or with a uniform logarithm; not kept."""
        if log:
            return between(self.rand(*shape), math.log(low), math.log(high)).exp()
        return between(self.rand(*shape), low, high)

    def parameter(self, name: str, low: float, high: float, where: Tensor | None = None, log: bool = False) -> Tensor:
        """As :meth:`between` with shape (count,), and kept for the rows of ``where``."""
        drawn = self.rand()
        self.keep(name, drawn, 0.5, math.sqrt(1 / 12), where)
        return between(drawn, math.log(low), math.log(high)).exp() if log else between(drawn, low, high)

    def keep(self, name: str, value: Tensor, middle: float, deviation: float, where: Tensor | None = None) -> None:
        """Note a value (count,) of the rows of ``where``, in deviations from the middle."""
        target = (value - middle) / deviation
        self.kept[name] = target if where is None else target.masked_fill(~where, math.nan)

    def values(self, names: tuple[str, ...]) -> Tensor:
        """All that was kept, (count, parameters), in the order of ``names``, which are exactly those kept."""
        if set(names) != set(self.kept):
            raise ValueError(f"kept and named differ in {sorted(set(names) ^ set(self.kept))}")
        return torch.stack([self.kept[name] for name in names], dim=-1)


def between(drawn: Tensor, low: float, high: float) -> Tensor:
    """[0, 1) to [low, high)."""
    return low + (high - low) * drawn


def parts_of(kind: Tensor, kinds: dict[str, tuple[str, ...]]) -> dict[str, Tensor]:
    """For each part that some kind has: which examples have it, boolean (count,)."""
    parts = dict.fromkeys(part for of_kind in kinds.values() for part in of_kind)
    return {part: torch.tensor([part in of_kind for of_kind in kinds.values()])[kind] for part in parts}
