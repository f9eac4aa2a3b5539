"""Pictures as SVG: stretches of signal, histograms, images. The same input gives the same bytes."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape

import numpy as np
import numpy.typing as npt

from fedlit.data.base.overview import Curve, Thumbnail

WIDTH, LANE, EDGE = 280, 84, 44
"""Pixels: of a picture, of a channel in it, of the margin for numbers at the left."""
POINTS = 400
"""A stretch of more samples is drawn by the extremes of so many pieces."""
MOST_CHANNELS = 3
BINS = 24


def curve_svg(curve: Curve) -> str:
    """A stretch of signal; its first channels, one above the other, each on its own scale."""
    channels = curve.values[:MOST_CHANNELS]
    seconds = curve.values.shape[1] / curve.rate
    height = LANE * len(channels) + 18
    out = [f'<svg viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img">']
    for number, values in enumerate(channels):
        out += _lane(values, LANE * number + 6, curve.target)
    if curve.target is not None:
        x = _x(curve.target, curve.values.shape[1])
        out.append(f'<line class="cut" x1="{x:.1f}" x2="{x:.1f}" y1="4" y2="{height - 16}"/>')
    out.append(f'<text x="{EDGE}" y="{height - 3}">0 s</text>')
    out.append(f'<text class="end" x="{WIDTH - 2}" y="{height - 3}">{seconds:.3g} s</text></svg>')
    return "".join(out)


def histogram_svg(values: Sequence[float], reach: tuple[float, float], unit: str) -> str:
    """How often each length occurs.

    Args:
        values: Lengths, one at least.
        reach: Shortest and longest of all clients, so that histograms can be compared.
        unit: Of the lengths.
    """
    low, high = reach
    counts, _ = np.histogram(values, BINS, (low, high if high > low else low + 1))
    height, base = LANE + 24, LANE + 6
    wide = (WIDTH - EDGE - 4) / BINS
    out = [f'<svg viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img">']
    for i, count in enumerate(counts):
        tall = LANE * count / max(1, counts.max())
        if count:
            out.append(
                f'<rect class="bar" x="{EDGE + i * wide:.1f}" y="{base - tall:.1f}" width="{wide - 1:.1f}" '
                f'height="{tall:.1f}"/>'
            )
    out.append(f'<text class="end" x="{EDGE - 4}" y="14">{counts.max()}</text>')
    out.append(f'<line class="axis" x1="{EDGE}" x2="{WIDTH - 4}" y1="{base}" y2="{base}"/>')
    out.append(f'<text x="{EDGE}" y="{height - 4}">{low:.4g}</text>')
    out.append(f'<text class="end" x="{WIDTH - 2}" y="{height - 4}">{high:.4g} {escape(unit)}</text></svg>')
    return "".join(out)


def image_png(thumbnail: Thumbnail, size: int = 96) -> str:
    """An image as a data address, at most ``size`` pixels wide and high."""
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(thumbnail.pixels))
    image.thumbnail((size, size))
    file = io.BytesIO()
    image.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def _lane(values: npt.NDArray[np.float32], top: int, target: int | None) -> list[str]:
    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 0.0)
    reach = high - low or 1.0
    inner = LANE - 12
    parts = []
    for kind, first, stop in (("context", 0, target or len(values)), ("target", target or len(values), len(values))):
        for index, piece in _pieces(values, first, stop):
            points = " ".join(
                f"{_x(i, len(values)):.1f},{top + inner * (1 - (v - low) / reach):.1f}"
                for i, v in zip(index, piece, strict=True)
            )
            parts.append(f'<polyline class="{kind}" points="{points}"/>')
    for value, y in ((high, top + 8), (low, top + inner)):
        parts.append(f'<text class="end" x="{EDGE - 4}" y="{y}">{value:.3g}</text>')
    return parts


def _pieces(
    values: npt.NDArray[np.float32], first: int, stop: int
) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
    """Samples to draw, in pieces without a gap; of many, the extremes of short stretches."""
    index = np.arange(first, stop)
    if len(values) > 2 * POINTS:
        edges = np.linspace(first, stop, max(2, round(POINTS * (stop - first) / len(values))) + 1).astype(int)
        kept = []
        for a, b in zip(edges[:-1], edges[1:], strict=True):
            if a < b and np.isfinite(values[a:b]).any():
                kept += sorted({a + int(np.nanargmin(values[a:b])), a + int(np.nanargmax(values[a:b]))})
            elif a < b:
                kept.append(int(a))
        index = np.array(kept, np.int64)
    good = np.isfinite(values[index])
    breaks = np.flatnonzero(np.diff(good.astype(np.int8))) + 1
    return [(part, values[part]) for part in np.split(index, breaks) if len(part) and np.isfinite(values[part[0]])]


def _x(sample: int | np.int64, samples: int) -> float:
    return EDGE + (WIDTH - EDGE - 4) * float(sample) / max(1, samples - 1)
