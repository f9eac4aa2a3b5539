"""Windows cut out of parts of records, and a count of those that are left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from fedlit.data.base.records import Record
from fedlit.data.signals.flat import is_flat
from fedlit.data.signals.protocol import SignalProtocol
from fedlit.data.signals.splits import Part
from fedlit.data.signals.windows import Run, cut


class WindowCutter:
    """Cuts windows, and counts by client.

    Args:
        context_length: Samples of a context.
        prediction_length: Samples of a target.
        max_missing: Largest share of a context that may be missing.
        protocol: How windows are scaled.

    Attributes:
        missing: Windows left out for missing samples, by client; ``""`` for the server.
        flat: Windows left out because their context does not move. Under parity: those that lie in a part without
            movement, which stay, as the published code has it.
    """

    def __init__(
        self, context_length: int, prediction_length: int, max_missing: float, protocol: SignalProtocol
    ) -> None:
        self.context_length, self.prediction_length = context_length, prediction_length
        self.max_missing, self.protocol = max_missing, protocol
        self.missing: Counter[str] = Counter()
        self.flat: Counter[str] = Counter()

    def cut(self, client: str, record: Record, base: int, part: Part, stride: int) -> list[Run]:
        """Rows of windows of a part of a record, which starts at ``base`` in the array of all signals."""
        values = record.values[part.start : part.stop]
        moving = self.protocol.moving
        found = cut(values, self.context_length, self.prediction_length, stride, self.max_missing, moving)
        fixed = self.protocol.fixed_scale(values) if found.rows else None
        self.missing[client] += found.missing
        self.flat[client] += found.flat
        if fixed is not None and is_flat(np.float32(fixed[0]), np.float32(fixed[1])):
            self.flat[client] += sum(count for _, count in found.rows)
        return [
            Run(client, record.id, record.kind, base, part.start + first, count, stride, fixed)
            for first, count in found.rows
        ]

    def nothing(self, client: str, split: str, parts: Sequence[Part]) -> str:
        """Why a client has no windows in a split, and the mend."""
        longest = max((part.stop - part.start for part in parts), default=0)
        need = self.context_length + self.prediction_length
        why = (
            f"{self.missing[client]} of its windows have too many missing samples (data.max_missing), and "
            f"{self.flat[client]} a context that does not move, which data.scale {self.protocol.scale} needs"
            if longest >= need
            else f"its longest {split} part has {longest} samples, context_length + prediction_length is {need}"
        )
        mend = "use longer records, a shorter context, or another data.split, or leave the client out by data.exclude"
        return f"has no {split} windows: {why}: {mend}"
