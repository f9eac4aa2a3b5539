"""Features of examples that need no training, for a linear model."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
BANDS, SOUND_BANDS = 8, 24
"""Bands of the spectrum of a signal, and of a sound."""
FRAME, FRAMES = 1024, 64
"""Samples of a frame of a sound, and how many frames are looked at, evenly spaced."""
GRID = 8
BUCKETS = 1024
_LARGEST = 1e100
"""Larger samples count as this, so that no square of a sum is infinite."""
_SMALLEST = float(np.finfo(np.float32).tiny)


def of_signals(x: npt.NDArray[Any]) -> Array:
    """Of each channel the mean, deviation, minimum and maximum, and log energies of 8 bands: (batch, 12 channels).

    Args:
        x: (batch, channels, samples). A sample that is not finite counts as the mean of the others of its channel.
    """
    values = _filled(x)
    padded = max(values.shape[-1], 2 * BANDS)
    energies = _log_energies(values - values.mean(axis=-1, keepdims=True), padded, BANDS)
    plain = [values.mean(-1), values.std(-1), values.min(-1), values.max(-1)]
    return np.concatenate([*plain, energies.reshape(len(values), -1)], axis=1)


def of_sounds(x: npt.NDArray[Any]) -> Array:
    """Mean and deviation over frames of the log energies of 24 bands, (batch, 48).

    Args:
        x: (batch, samples). A sample that is not finite counts as the mean of the others of its frame.
    """
    width = min(FRAME, x.shape[1])
    last = x.shape[1] - width
    starts = np.unique(np.linspace(0, last, min(FRAMES, 1 + last // width)).round().astype(int))
    frames = _filled(np.stack([x[:, start : start + width] for start in starts], axis=1))
    window = np.hanning(width + 2)[1:-1]
    energies = _log_energies((frames - frames.mean(axis=-1, keepdims=True)) * window, FRAME, SOUND_BANDS)
    return np.concatenate([energies.mean(axis=1), energies.std(axis=1)], axis=1)


def of_images(x: npt.NDArray[Any]) -> Array:
    """Mean and deviation of each colour, and the grey image's means in 8 x 8 parts, all of 0 to 1: (batch, 70).

    Args:
        x: (batch, height, width, 3), 0 to 255.
    """
    down, across = _parts(x.shape[1]), _parts(x.shape[2]).T
    rows = []
    for image in x:
        colours = np.array(image.reshape(-1, 3).T, np.float64, order="C")  # each colour's numbers beside each other
        colours = np.clip(np.nan_to_num(colours), 0, 255) / 255
        grey = down @ colours.mean(axis=0).reshape(image.shape[:2]) @ across
        rows.append(np.concatenate([colours.mean(axis=1), colours.std(axis=1), grey.ravel()]))
    return np.stack(rows)


def of_texts(x: Sequence[str]) -> Array:
    """Logarithms of 1 + how often words occur, without case, each text brought to length 1: (batch, 1024).

    A word counts in the bucket that is the CRC-32 of its UTF-8, modulo 1024.
    """
    counts = np.zeros((len(x), BUCKETS))
    for row, text in zip(counts, x, strict=True):
        for word in re.findall(r"\w+", text.casefold()):
            row[zlib.crc32(word.encode("utf-8", "replace")) % BUCKETS] += 1
    logs = np.log1p(counts)
    return np.asarray(logs / np.maximum(np.linalg.norm(logs, axis=1, keepdims=True), _SMALLEST))


FEATURES: Mapping[str, Callable[[Any], Array]] = {
    "signal": of_signals,
    "audio": of_sounds,
    "image": of_images,
    "text": of_texts,
}
"""Of a batch's examples, by modality: float64 (batch, features), finite, as many whatever the length or size."""


def band_edges(bins: int, bands: int) -> npt.NDArray[np.int64]:
    """First bins of bands, and one after the last bin: (bands + 1,).

    Bands are equally wide on a logarithmic scale of frequency, but of one bin at least. Bin 0, the mean, is in none.

    Args:
        bins: Bins of the spectrum, more than ``bands``.
        bands: How many bands.
    """
    even = np.geomspace(1, bins, bands + 1).round().astype(np.int64)
    places = np.arange(bands + 1)
    return np.minimum(np.maximum.accumulate(even - places) + places, bins - bands + places)


def _log_energies(values: Array, padded: int, bands: int) -> Array:
    """Of waveforms (..., samples), brought to ``padded`` samples by zeros: natural logarithms (..., bands)."""
    energy = np.abs(np.fft.rfft(values, n=padded)) ** 2 / values.shape[-1]
    edges = band_edges(energy.shape[-1], bands)
    return np.asarray(np.log(np.add.reduceat(energy, edges[:-1], axis=-1) + _SMALLEST))


def _filled(x: npt.NDArray[Any]) -> Array:
    values = np.asarray(x, np.float64)
    known = np.isfinite(values)
    values = np.clip(np.where(known, values, 0), -_LARGEST, _LARGEST)
    if known.all():
        return values
    mean = values.sum(axis=-1, keepdims=True) / np.maximum(known.sum(axis=-1, keepdims=True), 1)
    return np.where(known, values, mean)


def _parts(size: int) -> Array:
    """A matrix (8, size) that makes a column the means of its 8 parts; these overlap where 8 do not divide it."""
    first, place = np.arange(GRID)[:, None], np.arange(size)[None]
    inside = (place >= first * size // GRID) & (place < -(-(first + 1) * size // GRID))
    return np.asarray(inside / inside.sum(axis=1, keepdims=True))
