"""Windows of recordings of several channels: which can be used, gaps that are bridged, scaling."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedlit.data.signals.flat import FLAT

Signals = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Window:
    """Samples ``[start, stop)`` of a recording, copied when called, so that a window does not keep its recording.

    Attributes:
        source: Shape ``(channels, samples)``, or a function that gives it.
        start: First sample.
        stop: One after the last.
        scaled: Whether each channel is brought to mean 0 and deviation 1 over the window.
    """

    source: Signals | Callable[[], Signals]
    start: int
    stop: int
    scaled: bool

    def __call__(self) -> Signals:
        whole = self.source() if callable(self.source) else self.source
        part = whole[:, self.start : self.stop]
        return standardised(part) if self.scaled else part.copy()


def standardised(values: Signals) -> Signals:
    """Each channel at mean 0 and (population) deviation 1 of the samples that are not missing (NaN), which stay so.

    A constant channel becomes 0. Shape ``(channels, samples)``; each has a sample that is not missing.
    """
    wide = values.astype(np.float64)
    deviation = np.nanstd(wide, axis=1, keepdims=True)
    flat = deviation <= FLAT * np.nanmax(np.abs(wide), axis=1, keepdims=True)
    out = (wide - np.nanmean(wide, axis=1, keepdims=True)) / np.where(flat, 1.0, deviation)
    return np.where(flat & ~np.isnan(out), 0.0, out).astype(np.float32)


@dataclass(frozen=True)
class Faults:
    """Windows of a recording that cannot be used, each shape ``(windows,)``.

    Attributes:
        missing: Those with a missing sample in any channel.
        flat: Of the others, those in which no channel moves.
    """

    missing: npt.NDArray[np.bool_]
    flat: npt.NDArray[np.bool_]

    @property
    def usable(self) -> list[int]:
        """Numbers of the windows that can be used."""
        return [int(k) for k in np.flatnonzero(~(self.missing | self.flat))]

    def counts(self) -> dict[str, int]:
        """How many windows have which fault."""
        return {"missing": int(self.missing.sum()), "flat": int(self.flat.sum())}


def faults(values: Signals, length: int) -> Faults:
    """What is wrong with the windows of ``length`` samples, one after the other from the first sample.

    Args:
        values: Shape ``(channels, samples)``, NaN = missing.
        length: Samples of a window.
    """
    count = values.shape[1] // length
    each = values[:, : count * length].reshape(len(values), count, length)
    missing = np.asarray(np.isnan(each).any(axis=(0, 2)))
    reach = np.where(missing, 0, each.max(axis=2) - each.min(axis=2))
    peak = np.nan_to_num(np.fmax.reduce(np.abs(values), axis=1))
    flat = np.asarray((reach <= FLAT * peak[:, None]).all(axis=0) & ~missing)
    return Faults(missing, flat)


def runs(values: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
    """First sample of each gap (run of NaN) and the sample after its last, shape ``(gaps, 2)``; of ``(samples,)``."""
    missing = np.concatenate([[False], np.isnan(values), [False]])
    return np.flatnonzero(missing[1:] != missing[:-1]).reshape(-1, 2).astype(np.int64)


def bridged(values: npt.NDArray[np.floating], longest: float) -> npt.NDArray[np.floating]:
    """A channel (samples,) whose gaps of at most ``longest`` samples are straight lines between their neighbours.

    Gaps at its ends have one neighbour only, and stay.
    """
    gaps = runs(values)
    inner = gaps[(gaps[:, 0] > 0) & (gaps[:, 1] < len(values)) & (gaps[:, 1] - gaps[:, 0] <= longest)]
    if not len(inner):
        return values
    out = values.copy()
    known = np.flatnonzero(~np.isnan(values))
    for start, stop in inner:
        out[start:stop] = np.interp(np.arange(start, stop), known, values[known])
    return out


def filled(
    channels: Mapping[str, npt.NDArray[np.floating]], rates: Mapping[str, float], seconds: float | None
) -> tuple[dict[str, npt.NDArray[np.floating]], dict[str, int] | None]:
    """Channels with their short gaps bridged, and how many gaps and samples there were and are; None without a gap.

    Args:
        channels: Channel to its samples, NaN = missing.
        rates: Channel to its rate (Hz).
        seconds: Longest gap that is filled; None fills none.
    """
    before = [runs(values) for values in channels.values()]
    if not any(len(gaps) for gaps in before):
        return dict(channels), None
    out = {name: bridged(values, (seconds or 0.0) * rates[name]) for name, values in channels.items()}
    after = [runs(values) for values in out.values()]
    counts = {"gaps": sum(map(len, before)), "samples": int(sum(np.diff(gaps).sum() for gaps in before))}
    left = {"gaps": sum(map(len, after)), "samples": int(sum(np.diff(gaps).sum() for gaps in after))}
    return out, counts | {f"filled_{name}": counts[name] - left[name] for name in counts}
