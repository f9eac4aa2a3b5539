"""What examples to classify show of themselves: classes, sizes and lengths, and a few images, sounds or signals."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fedlit.data.base.overview import Bars, Cell, Curve, Lengths, Shown, Table, Thumbnail, evenly_spaced
from fedlit.data.base.records import SPLITS
from fedlit.data.classification.examples import Example, class_counts

LOOKED_AT = 200
"""Records of a client, evenly spaced, whose amplitude is looked at."""
PIXELS, SAMPLES = 64, 20_000
"""An image is looked at in about so many rows and columns, a sound or signal in about so many samples."""


class ChannelAsRead(NamedTuple):
    """A channel of a recording before it is resampled and scaled.

    Attributes:
        rate: Samples per second (Hz).
        reach: 99th less 1st percentile of its values; NaN where all are missing.
    """

    rate: float
    reach: float

    @classmethod
    def of(cls, values: npt.NDArray[np.floating], rate: float) -> ChannelAsRead:
        """From its samples, shape ``(samples,)``; of many, about :data:`SAMPLES` evenly spaced ones count."""
        seen = values[:: max(1, len(values) // SAMPLES)]
        known = seen[np.isfinite(seen)]
        low, high = np.percentile(known, [1, 99]) if len(known) else (np.nan, np.nan)
        return cls(float(rate), float(high - low))


Sides = Mapping[str, Mapping[str, Sequence[Example]]]


def examples_shown(
    records: Sides, pieces: Sides, classes: Sequence[str], rate: float | None, seconds: Mapping[str, float]
) -> Shown:
    """Tables and charts.

    Args:
        records: Whole records, by client and split.
        pieces: What they are cut to.
        classes: Names in order.
        rate: Samples per second (Hz) of sounds and signals; None of others.
        seconds: How long records are in their files, by id, where they are cut or padded.
    """

    def lasts(own: Example) -> float:
        return seconds.get(own.id, length(own, rate))

    counts = {c: {s: class_counts(pieces[c][s], classes) for s in SPLITS} for c in pieces}
    every = [own for sides in records.values() for held in sides.values() for own in held]
    lengths = {c: [lasts(own) for held in sides.values() for own in held] for c, sides in records.items()}
    text = bool(every) and isinstance(every[0].value, str)
    sampled = rate is not None
    rows: list[tuple[Cell, ...]] = []
    for client, sides in records.items():
        for split in SPLITS:
            held = sides[split]
            subjects = len({own.subject for own in held})
            row: list[Cell] = [client, split, len(held), subjects, len(pieces[client][split])]
            rows.append((*row, *([sum(map(lasts, held)) / 3600] if sampled else [])))
    columns = ("client", "split", "records", "subjects", "examples", *(["hours"] if sampled else []))
    tables = [Table("Who holds what", columns, tuple(rows)), _classes(counts, classes)]
    if text:
        tables.append(_text_lengths(lengths))
    elif sampled:
        tables.append(_amplitudes(records, rate or 1.0))
    else:
        tables.append(_sizes(records))
    bars = tuple((c, s, tuple(counts[c][s].get(name, 0) for name in classes)) for c in counts for s in SPLITS)
    charts: list[Bars | Lengths] = [Bars("Classes", tuple(classes), bars)]
    if (text or sampled) and len({size for own in lengths.values() for size in own}) > 1:
        charts.append(Lengths("Lengths", "characters" if text else "s", lengths))
    totals: dict[str, Cell] = {
        "clients": len(records),
        "records": len(every),
        "subjects": len({own.subject for own in every}),
        "examples": sum(len(held) for sides in pieces.values() for held in sides.values()),
        "classes": len(classes),
    }
    if sampled:
        totals["hours"] = sum(sum(own) for own in lengths.values()) / 3600
    return Shown(totals, tables, charts)


def example_samples(train: Mapping[str, Sequence[Example]], rate: float | None, most: int) -> list[Curve | Thumbnail]:
    """A few training examples of each client, as even in classes as they come; none of texts.

    Args:
        train: Training examples by client.
        rate: Samples per second (Hz) of sounds and signals.
        most: Examples of each client; of images twice as many.
    """
    out: list[Curve | Thumbnail] = []
    for client, held in train.items():
        for example in in_turn(held, 2 * most if rate is None else most):
            value: Any = example.value
            caption = f"{example.label}, {example.id}"
            if isinstance(value, str):
                continue
            if value.dtype == np.uint8:
                out.append(Thumbnail(client, caption, value))
            else:
                out.append(Curve(client, caption, np.atleast_2d(value), example.rate or rate or 1.0))
    return out


def channels_as_read(
    held: Mapping[str, Sequence[str]],
    as_read: Mapping[str, Mapping[str, ChannelAsRead]],
    unit_of: Callable[[str], str],
) -> Table:
    """Rate, unit and amplitude of each channel of the recordings in their files, by client.

    Args:
        held: Records of each client, by id; stretches and windows of a recording have a slash and a number after it.
        as_read: Channels of recordings, by id.
        unit_of: Unit of a channel.
    """
    rows: list[tuple[Cell, ...]] = []
    for client, ids in held.items():
        own = dict.fromkeys(_recording(name, as_read) for name in ids)
        groups: dict[tuple[str, float], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for name in own:
            for channel, (rate, reach) in as_read.get(name, {}).items():
                groups[unit_of(channel), rate][channel].append(reach)
        for (unit, rate), reaches in sorted(groups.items()):
            named = ", ".join(f"{channel} {np.nanmedian(each):.3g}" for channel, each in reaches.items())
            most = max(len(each) for each in reaches.values())
            rows.append((client, unit or "not said", f"{rate:g}", most, named))
    columns = ("client", "unit", "Hz", "recordings", "amplitude of each channel")
    note = "as in the files; amplitude: 99th less 1st percentile of a recording, median of recordings"
    return Table("Channels as read", columns, tuple(rows), note)


def _recording(name: str, as_read: Mapping[str, object]) -> str:
    while name not in as_read and "/" in name:
        name = name.rpartition("/")[0]
    return name


def in_turn(examples: Sequence[Example], most: int) -> list[Example]:
    """At most ``most`` examples, one of each label in turn, in order of labels."""
    by_label: dict[str, list[Example]] = {}
    for example in examples:
        by_label.setdefault(example.label, []).append(example)
    queues = [by_label[label] for label in sorted(by_label)]
    turns = [queue[k] for k in range(most) for queue in queues if k < len(queue)]
    return turns[:most]


def length(example: Example, rate: float | None) -> float:
    """Characters of a text, seconds of a sound or signal; 0 of an image."""
    value: Any = example.value
    if isinstance(value, str):
        return len(value)
    return 0.0 if rate is None else value.shape[-1] / rate


def _classes(counts: Mapping[str, Mapping[str, Mapping[str, int]]], classes: Sequence[str]) -> Table:
    rows = []
    for client, own in counts.items():
        for split in SPLITS:
            most = sorted(own[split].items(), key=lambda pair: -pair[1])
            absent = [name for name in classes if name not in own[split]]
            named = ", ".join(f"{name} {count}" for name, count in most)
            rows.append((client, split, named + (f"; none of {', '.join(absent)}" if absent and most else "")))
    return Table("Classes", ("client", "split", "examples of each class"), tuple(rows))


def _text_lengths(lengths: Mapping[str, Sequence[float]]) -> Table:
    rows = []
    for client, own in lengths.items():
        low, middle, high = np.percentile(own, [0, 50, 100]) if own else (0, 0, 0)
        rows.append((client, len(own), int(low), int(middle), int(high)))
    columns = ("client", "texts", "shortest", "median", "longest")
    return Table("Lengths", columns, tuple(rows), "in characters")


def _sizes(records: Sides) -> Table:
    rows = []
    for client, sides in records.items():
        held = [own for side in sides.values() for own in side]
        some: list[Any] = [held[i].value for i in evenly_spaced(len(held), LOOKED_AT)]
        height, width = some[0].shape[:2]
        step = max(1, max(height, width) // PIXELS)
        low, high = np.percentile(np.stack([own[::step, ::step] for own in some]), [1, 99])
        rows.append((client, f"{height} x {width}", len(held), int(low), int(high)))
    columns = ("client", "height x width", "images", "1 %", "99 %")
    return Table("Sizes", columns, tuple(rows), "1 % and 99 %: percentiles of the pixels' values, of 0 to 255")


def _amplitudes(records: Sides, rate: float) -> Table:
    rows = []
    for client, sides in records.items():
        held = [own for side in sides.values() for own in side]
        some: list[Any] = [np.atleast_2d(held[i].value) for i in evenly_spaced(len(held), LOOKED_AT)]
        values = np.concatenate([own[:, :: max(1, own.size // SAMPLES)].ravel() for own in some])
        known = values[np.isfinite(values)]
        low, high = np.percentile(known, [1, 99]) if len(known) else (np.nan, np.nan)
        still = [np.fmax.reduce(own, axis=1) == np.fmin.reduce(own, axis=1) for own in some]
        seconds = sorted(length(own, rate) for own in held)
        spread = f"{seconds[0]:.3g}" + (f" to {seconds[-1]:.3g}" if seconds[-1] > seconds[0] else "")
        kinds = ", ".join(sorted({own.kind for own in held}))
        channels = ", ".join(str(n) for n in sorted({len(own) for own in some}))
        flat = 100 * float(np.concatenate(still).mean())
        rows.append((client, kinds, channels, f"{rate:g}", spread, float(low), float(high), flat))
    columns = ("client", "kind", "channels", "Hz", "seconds", "1 %", "99 %", "flat %")
    note = (
        "as the model is given them; 1 % and 99 %: percentiles of the values; flat: share of channels without "
        f"movement; of up to {LOOKED_AT} records of a client, evenly spaced"
    )
    return Table("Channels", columns, tuple(rows), note)
