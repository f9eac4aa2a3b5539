"""How signals are split, cut and scaled: as the arguments say, or as the code of arXiv 2502.09744 did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from fedlit.data.base.protocol import PublishedProtocol, SplitProtocol
from fedlit.data.base.records import SPLITS, Record
from fedlit.data.signals.splits import Parts, SplitRule, split_as_published, split_clients
from fedlit.data.signals.windows import Scale


@dataclass(frozen=True)
class SignalProtocol(SplitProtocol):
    """Split and scale as the arguments say; no scale looks at a target."""

    rule: SplitRule
    scale: Scale

    @property
    def needed(self) -> list[str]:
        """Splits that no client may be without."""
        shares = zip(SPLITS, (1.0, self.val_fraction, self.test_fraction), strict=True)
        return [split for split, share in shares if share]

    def split(
        self, records: Sequence[Record], assignment: Mapping[str, Sequence[int]], seed: int
    ) -> tuple[dict[str, Parts], dict[str, str]]:
        """Parts of records, and the rule that was followed, of each client."""
        parts = split_clients(records, assignment, self.rule, self.val_fraction, self.test_fraction, seed)
        return parts, dict.fromkeys(assignment, self.rule)

    def usual_stride(self, prediction_length: int) -> int:
        """Samples between windows where no stride is given."""
        return prediction_length

    def fixed_scale(self, part: npt.NDArray[np.float32]) -> tuple[float, float] | None:
        """Offset and scale of all windows of a part; None where each has its own."""
        return None

    @property
    def idle(self) -> tuple[str, Sequence[str]]:
        """What leaves some arguments without effect, and their names."""
        if self.rule != "fold":
            return "", ()
        shares = {"val_fraction": self.val_fraction, "test_fraction": self.test_fraction}
        return "data.split fold", [name for name, share in shares.items() if share]

    @property
    def moving(self) -> bool:
        """Whether windows whose context is flat are left out, as no scale can be taken from it."""
        return self.scale != "none"

    @property
    def scale_name(self) -> str:
        """The scale in ``partition.json``."""
        return self.scale

    @property
    def smallest_part(self) -> float:
        """Share of a recording that its smallest part has."""
        if self.rule != "time":
            return 1.0
        return min(share for share in (self.val_fraction, self.test_fraction, 0.5) if share > 0)


class PublishedSignals(PublishedProtocol, SignalProtocol):
    """60/40 without a validation part; each part or record is mapped to [0, 1] by its own extremes; stride 1."""

    means: ClassVar[str] = "split and scaled as the paper's code, the scale has seen the targets"
    published: ClassVar[tuple[float, float]] = (0.0, 0.4)
    scale_name = "extremes of the whole part or record"
    smallest_part = 0.4
    moving = False

    @property
    def idle(self) -> tuple[str, Sequence[str]]:
        shares = ["val_fraction", "test_fraction", "scale"]
        return "data.parity", shares if self.rule in ("time", "record") else [*shares, "split"]

    needed = ["train", "test"]

    def split(
        self, records: Sequence[Record], assignment: Mapping[str, Sequence[int]], seed: int
    ) -> tuple[dict[str, Parts], dict[str, str]]:
        made = {c: split_as_published(records, indices, c, self.rule, seed) for c, indices in assignment.items()}
        return {c: parts for c, (parts, _) in made.items()}, {c: rule for c, (_, rule) in made.items()}

    def usual_stride(self, prediction_length: int) -> int:
        return 1

    def fixed_scale(self, part: npt.NDArray[np.float32]) -> tuple[float, float]:
        low, high = float(np.nanmin(part)), float(np.nanmax(part))
        return low, high - low
