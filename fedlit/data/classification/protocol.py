"""How examples are grouped, cut and split: as the arguments say, or as the code of FHBench (arXiv 2504.10817) did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from fedlit.data.base.grouped import GroupProtocol
from fedlit.data.base.groups import PARITY, Sides, split_parity
from fedlit.data.base.partitions import Assignment
from fedlit.data.base.protocol import PublishedProtocol
from fedlit.data.base.records import Foldable
from fedlit.data.signals import resampling
from fedlit.data.signals.resampling import Signal


@dataclass(frozen=True)
class ExampleProtocol(GroupProtocol):
    """Subjects on one side of the split; records are cut into windows after it."""

    windows_first: ClassVar[bool] = False
    """Whether records are cut before the partition, and each window is dealt out by itself."""
    resampling: ClassVar[str] = "polyphase"
    label: ClassVar[str] = ""
    """Prefix of warnings about what the protocol itself brings about."""

    def resample(self, values: Signal, rate: float, new_rate: float) -> Signal:
        """A signal (samples,) at another rate (Hz)."""
        return resampling.resample(values, rate, new_rate)


class FHBenchExamples(PublishedProtocol, ExampleProtocol):
    """Official parts pooled, windows cut before the partition and dealt out whatever subject they are from."""

    means: ClassVar[str] = "split as the paper's code, whose subjects and duplicates leak between train and test"
    published: ClassVar[tuple[float, float]] = (PARITY["val"], PARITY["test"])
    windows_first: ClassVar[bool] = True
    resampling: ClassVar[str] = "linear"
    label: ClassVar[str] = "parity: "
    follows_source = False

    def group(self, item: Foldable) -> str:
        return item.id

    def split(
        self, items: Sequence[Foldable], held: Assignment, units: Sequence[str], classes: Sequence[str], seed: int
    ) -> dict[str, Sides]:
        return split_parity(held, classes, seed)

    def resample(self, values: Signal, rate: float, new_rate: float) -> Signal:
        return resampling.resample_linear(values, rate, new_rate)
