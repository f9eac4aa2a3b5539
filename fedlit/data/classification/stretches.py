"""Stretches of a recording that were given a label, with what is marked twice, or by nothing, left out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Stretch:
    """A part of a recording with one label.

    Attributes:
        start: Seconds from its start.
        stop: The same; infinite where it lasts to the recording's end.
        label: What it was marked as.
    """

    start: float
    stop: float
    label: str


def unambiguous(marks: Sequence[Stretch], end: float, rest: str | None = None) -> tuple[list[Stretch], float]:
    """The parts of a recording with exactly one label, in order of time, neighbours of one label joined.

    Args:
        marks: In any order; they may overlap.
        end: Length of the recording (s).
        rest: Label of what is not marked; None: it has none.

    Returns:
        The stretches, and the seconds that are marked with several labels at once, which are left out.
    """
    marks = [Stretch(max(m.start, 0.0), min(m.stop, end), m.label) for m in marks if m.stop > m.start]
    marks = [mark for mark in marks if mark.stop > mark.start]
    times = sorted({0.0, end, *(mark.start for mark in marks), *(mark.stop for mark in marks)})
    events = sorted([(m.start, 1, m.label) for m in marks] + [(m.stop, -1, m.label) for m in marks])
    active: dict[str, int] = {}
    out: list[Stretch] = []
    doubled, place = 0.0, 0
    for start, stop in zip(times, times[1:], strict=False):
        while place < len(events) and events[place][0] <= start:
            _, change, name = events[place]
            active[name] = active.get(name, 0) + change
            place += 1
        now = [name for name, count in active.items() if count > 0]
        if len(now) > 1:
            doubled += stop - start
            continue
        label = now[0] if now else rest
        if label is None:
            continue
        if out and out[-1].label == label and math.isclose(out[-1].stop, start, abs_tol=1e-6):
            out[-1] = Stretch(out[-1].start, stop, label)
        else:
            out.append(Stretch(start, stop, label))
    return out, doubled
