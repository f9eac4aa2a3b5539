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


@dataclass
class Unmarked:
    """What labels of stretches leave of recordings.

    Attributes:
        short: Stretches shorter than a window.
        doubled: Seconds with several labels at once.
        unused: Seconds in no window: those without a label, those with several, and ends of stretches.
        given: Seconds in all.
        window: Length of a window (s).
    """

    short: int = 0
    doubled: float = 0.0
    unused: float = 0.0
    given: float = 0.0
    window: float = 0.0

    def kept(self, found: Sequence[Stretch], seconds: float, doubled: float, window: float) -> list[Stretch]:
        """The stretches of a recording that hold a window; what is not in one is counted.

        Args:
            found: Its stretches.
            seconds: Its length.
            doubled: Seconds with several labels at once.
            window: Length of a window (s).
        """
        counts = [int((one.stop - one.start) / window + 1e-6) for one in found]
        self.short += counts.count(0)
        self.doubled += doubled
        self.unused += seconds - sum(counts) * window
        self.given += seconds
        self.window = window
        return [one for one, count in zip(found, counts, strict=True) if count]

    def told(self) -> str | None:
        """A warning of stretches that are left out; else None."""
        if not self.short and not self.doubled:
            return None
        return (
            f"{self.short} stretch(es) shorter than data.window_seconds {self.window:g}, and {self.doubled:g} s with "
            f"several labels at once, are left out"
        )

    def counts(self) -> dict[str, float]:
        """For ``partition.json``."""
        times = {"doubled_s": self.doubled, "unused_s": self.unused, "given_s": self.given}
        return {"short": self.short} | {name: round(value, 3) for name, value in times.items()}


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
