"""What crossed between server and clients in training, counted where it crosses."""

from __future__ import annotations

import math
from collections.abc import Iterable

from fedlit import codec
from fedlit.errors import FedlitError

Row = tuple[int, str, str, int, int, str]


def measure(round: int, client: str, direction: str, payload: bytes) -> Row:  # noqa: A002
    """One row of ``ledger.csv`` for one payload; bytes are those of the payload as sent, its header included.

    What crossed crossed, also if it is no tree at all: then it counts 0 parameters, of dtype ``unreadable``.
    """
    try:
        head = codec.header(payload)
        head.pop("__metadata__", None)
        parameters = sum(math.prod(entry["shape"]) for entry in head.values())
        dtypes = sorted({str(entry["dtype"]) for entry in head.values()})
    except (FedlitError, KeyError, TypeError):
        return round, client, direction, 0, len(payload), "unreadable"
    return round, client, direction, parameters, len(payload), "+".join(dtypes) or "none"


def totals(rows: Iterable[dict[str, str]]) -> dict[str, int]:
    """Bytes by direction."""
    out = {"down": 0, "up": 0}
    for row in rows:
        out[row["direction"]] += int(row["bytes"])
    return out
