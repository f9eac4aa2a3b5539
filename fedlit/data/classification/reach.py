"""How much of what was given reaches the model: what is cut off is counted, for each client and in all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypedDict

TOLD = 0.05
"""Share cut off above which a warning says so."""


@dataclass(frozen=True, slots=True)
class Reach:
    """How much of a record is used.

    Attributes:
        given: How much there is, in the reader's unit (seconds, pixels).
        used: How much of it is in the examples.
    """

    given: float
    used: float


class CutOff(TypedDict):
    """What is cut off of several records, in ``partition.json``."""

    unit: str
    given: float
    used: float
    records: int


def cut_off(reaches: Iterable[Reach], unit: str) -> CutOff:
    """The sums over records; ``records`` is how many of them lose something."""
    own = list(reaches)
    given, used = sum(one.given for one in own), sum(one.used for one in own)
    shortened = sum(one.used < one.given for one in own)
    return {"unit": unit, "given": round(given, 3), "used": round(used, 3), "records": shortened}


def told(total: CutOff, mend: str) -> str | None:
    """A warning of what is cut off, above a share of what there is; else None."""
    lost = total["given"] - total["used"]
    if not lost > TOLD * total["given"]:
        return None
    return (
        f"{lost:g} of {total['given']:g} {total['unit']} ({lost / total['given']:.0%}) of {total['records']} record(s) "
        f"are cut off: {mend}"
    )
