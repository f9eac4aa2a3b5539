"""What crossed between server and clients, counted where it crosses."""

from __future__ import annotations

import math
from collections.abc import Iterable

from fedlit import codec

Row = tuple[int, str, str, int, int, str]


def measure(round: int, client: str, direction: str, payload: bytes) -> Row:  # noqa: A002
    """One row of ``ledger.csv`` for one payload; bytes are those of the payload as sent, its header included."""
    head = codec.header(payload)
    head.pop("__metadata__", None)
    parameters = sum(math.prod(entry["shape"]) for entry in head.values())
    dtypes = sorted({entry["dtype"] for entry in head.values()})
    return round, client, direction, parameters, len(payload), "+".join(dtypes) or "none"


def totals(rows: Iterable[dict[str, str]]) -> dict[str, int]:
    """Bytes by direction."""
    out = {"down": 0, "up": 0}
    for row in rows:
        out[row["direction"]] += int(row["bytes"])
    return out
