"""Stretches without movement: a sensor that is off, a lead that fell off, a loop that was cut."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Signal = npt.NDArray[np.float32]
FLAT = 1e-6
"""A context that varies by no more than this share of its size is flat: what is left of a constant is float32's
rounding, which would be blown up to the range 0 to 1, and the target with it."""
STEEP = 100.0
"""A context is nearly flat where its target leaves its range by more than so many times that range: one digit of noise
on a constant, and then the signal. ECG stays below 25 where a context has 64 samples or more."""
_CHUNK = 2**17


def is_flat(low: Signal | np.float32, reach: Signal | np.float32) -> npt.NDArray[np.bool_]:
    """Whether contexts with these minima and ranges do not move, but for rounding."""
    return np.asarray(reach <= FLAT * (np.abs(low) + reach))


def flat_windows(
    values: Signal, context_length: int, prediction_length: int, stride: int, total: int
) -> npt.NDArray[np.bool_]:
    """Which windows have a context that is flat, or nearly so against its target.

    Args:
        values: Shape ``(samples,)``, NaN = missing; missing samples are not looked at.
        context_length: Samples of a context.
        prediction_length: Samples of a target.
        stride: Samples from one window to the next; the first starts at 0.
        total: Number of windows.

    Returns:
        Shape ``(total,)``.
    """
    flat = np.zeros(total, np.bool_)
    whole = float(np.fmax.reduce(values)) - float(np.fmin.reduce(values))
    each = max(1, _CHUNK // stride)
    for first in range(0, total, each):
        count = min(each, total - first)
        piece = values[first * stride : (first + count - 1) * stride + context_length]
        missing = np.isnan(piece)
        holed = bool(missing.any())
        low = _sliding(np.minimum, np.where(missing, np.inf, piece) if holed else piece, context_length)[::stride]
        high = _sliding(np.maximum, np.where(missing, -np.inf, piece) if holed else piece, context_length)[::stride]
        with np.errstate(invalid="ignore", over="ignore"):
            reach = high - low
            own = is_flat(low, reach)
            # No target leaves the context by more than all samples differ.
            near = ~own & (reach * STEEP < whole)
            if near.any():
                ahead = values[first * stride + context_length :][: (count - 1) * stride + prediction_length]
                lowest = _sliding(np.minimum, ahead, prediction_length)[::stride]
                highest = _sliding(np.maximum, ahead, prediction_length)[::stride]
                own |= near & (np.maximum(highest - high, low - lowest) > STEEP * reach)
        flat[first : first + count] = own
    return flat


def flat_stretches(values: Signal, shortest: int) -> tuple[int, int]:
    """Number of runs of at least ``shortest`` equal samples, and of the samples in them."""
    if len(values) < max(shortest, 2):
        return 0, 0
    still = np.concatenate([[False], values[1:] == values[:-1], [False]])
    edges = np.flatnonzero(still[1:] != still[:-1])
    lengths = edges[1::2] - edges[::2] + 1
    lengths = lengths[lengths >= shortest]
    return len(lengths), int(lengths.sum())


def _sliding(extreme: Callable[..., Signal], values: Signal, width: int) -> Signal:
    """Minima or maxima of all stretches of ``width`` samples, shape ``(samples - width + 1,)``, by doubling."""
    found, size = values, 1
    while 2 * size <= width:
        found = extreme(found[:-size], found[size:])
        size *= 2
    return extreme(found[: len(values) - width + 1], found[width - size :]) if size < width else found
