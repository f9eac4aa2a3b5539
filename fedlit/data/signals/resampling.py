"""Change of sampling rate that keeps gaps as gaps."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import numpy.typing as npt

from fedlit.errors import FedlitError

Signal = npt.NDArray[np.float32]
FILTER = 10
"""Half the length of SciPy's filter, in samples of the lower of both rates."""


def resample(values: Signal, rate: float, new_rate: float) -> Signal:
    """Polyphase resampling with an anti-alias filter (``scipy.signal.resample_poly``).

    Missing samples are bridged by straight lines for the filter and put back afterwards: a new sample is missing when
    any old sample nearest to it, or within half a new sample of it, was missing. Where all samples that the filter sees
    are equal, the new one equals them: the filter's ripple would make a movement of a sensor that is off.

    Args:
        values: Shape ``(samples,)``, NaN = missing.
        rate: Hz of ``values``.
        new_rate: Hz of the result.

    Returns:
        Shape ``(ceil(samples * new_rate / rate),)``.

    Raises:
        FedlitError: The rates are too far apart for a ratio of small whole numbers.
    """
    if rate == new_rate:
        return values
    from scipy.signal import resample_poly

    ratio = Fraction(new_rate / rate).limit_denominator(1000)
    if abs(float(ratio) * rate / new_rate - 1) > 1e-4:
        raise FedlitError(
            f"data.rate is {new_rate:g}: records at {rate:g} Hz cannot be resampled to it: mend one of both"
        )
    missing = np.isnan(values)
    if missing.all():
        return np.full(-(-len(values) * ratio.numerator // ratio.denominator), np.nan, np.float32)
    filled = values
    if missing.any():
        at = np.arange(len(values))
        filled = np.interp(at, at[~missing], values[~missing]).astype(np.float32)
    new = resample_poly(filled, ratio.numerator, ratio.denominator, padtype="line").astype(np.float32)
    _keep_flat(new, filled, ratio)
    if missing.any():
        new[_covers_missing(missing, len(new), 1 / float(ratio))] = np.nan
    return np.asarray(new)


def resample_linear(values: Signal, rate: float, new_rate: float) -> Signal:
    """Straight lines between samples, and no filter, as the code of FHBench (arXiv 2504.10817) resamples.

    The new samples reach from the first to the last old one, so their true rate is a little below ``new_rate``.

    Args:
        values: Shape ``(samples,)``.
        rate: Hz of ``values``.
        new_rate: Hz of the result.

    Returns:
        Shape ``(floor(samples * new_rate / rate),)``.
    """
    if rate == new_rate:
        return values
    count = int(len(values) * new_rate / rate)
    at = np.linspace(0, len(values) - 1, count)
    return np.interp(at, np.arange(len(values)), values).astype(np.float32)


def _keep_flat(new: Signal, old: Signal, ratio: Fraction) -> None:
    """Set new samples to the old ones where these are equal as far as the filter reaches."""
    moves = old[1:] != old[:-1]
    reach = FILTER * max(1, 1 / float(ratio))
    if len(old) < reach or moves.all():
        return
    before = np.concatenate([[0], np.cumsum(moves)])
    centre = np.arange(len(new)) / float(ratio)
    first = np.clip(np.floor(centre - reach), 0, len(old) - 1).astype(np.int64)
    last = np.clip(np.ceil(centre + reach), 0, len(old) - 1).astype(np.int64)
    still = before[first] == before[last]
    new[still] = old[first[still]]


def _covers_missing(missing: npt.NDArray[np.bool_], count: int, step: float) -> npt.NDArray[np.bool_]:
    """Which of ``count`` new samples, ``step`` old samples apart, rest on a missing old sample."""
    before = np.concatenate([[0], np.cumsum(missing)])
    centre = np.arange(count) * step
    half = max(step / 2, 0.5)
    first = np.clip(np.ceil(centre - half), 0, len(missing) - 1).astype(np.int64)
    last = np.clip(np.floor(centre + half), 0, len(missing) - 1).astype(np.int64)
    return np.asarray(before[last + 1] > before[first])
