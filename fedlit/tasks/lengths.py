"""Count of what an encoder's window cuts off examples, by client."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from fedlit.backbones.encoders.family import Extent

TELL_FROM = 0.05
"""Share of a client's tokens, samples or frames from which a cut is told of."""


class Lengths:
    """Lengths of the examples seen so far, each counted once.

    Attributes:
        rows: ``{(client, id): (length, of which are cut off)}``.
    """

    def __init__(self) -> None:
        self.rows: dict[tuple[Any, ...], tuple[Any, ...]] = {}
        self._told: set[str] = set()
        self._totals: dict[str, list[int]] = {}

    def unseen(self, clients: Sequence[str], ids: Sequence[str]) -> list[int]:
        """Which examples of a batch were not seen before."""
        return [i for i, key in enumerate(zip(clients, ids, strict=True)) if key not in self.rows]

    def note(self, clients: Sequence[str], ids: Sequence[str], extent: Extent, mend: str) -> None:
        """Take examples in; warn once of a client that loses more than :data:`TELL_FROM`.

        Args:
            clients: Of each example.
            ids: Likewise.
            extent: Likewise.
            mend: What can be done.
        """
        for client, name, length in zip(clients, ids, extent.lengths, strict=True):
            cut = max(0, length - extent.limit)
            self.rows[client, name] = (length, cut)
            total = self._totals.setdefault(client, [0, 0, 0, 0])
            for i, value in enumerate((1, cut > 0, length, cut)):
                total[i] += value
        for client in dict.fromkeys(clients):
            count, longer, whole, lost = self._totals[client]
            if lost > TELL_FROM * whole and client not in self._told:
                self._told.add(client)
                warnings.warn(
                    f"client {client!r}: {longer} of the first {count} examples are longer than the {extent.limit} "
                    f"{extent.unit} that are looked at, and lose {lost / whole:.0%} of all {extent.unit}; summary.json "
                    f"counts them: {mend}",
                    stacklevel=3,
                )

    def counts(self) -> dict[str, dict[str, float]]:
        """By client: ``examples`` seen, those ``cut``, and the ``cut_share`` of their tokens, samples or frames."""
        by_client: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
        for (client, _), row in self.rows.items():
            by_client[client].append(row)
        out: dict[str, dict[str, float]] = {}
        for client, own in sorted(by_client.items()):
            whole, lost = (sum(row[i] for row in own) for i in (0, 1))
            out[client] = {
                "examples": len(own),
                "cut": sum(row[1] > 0 for row in own),
                "cut_share": lost / whole if whole else 0.0,
            }
        return out
