"""What signals show of themselves: hours, channels with their amplitude, a few windows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fedlit.data.base.overview import Curve, Shown, Table, evenly_spaced
from fedlit.data.base.records import SPLITS, Record, natural
from fedlit.data.signals.checks import recorded_seconds
from fedlit.data.signals.flat import is_flat
from fedlit.data.signals.splits import Part
from fedlit.data.signals.windows import Run

STRETCHES, MOST = 64, 4096
"""Seconds of a record, evenly spaced, from which amplitude and flat share are taken, and about so many of all records
of a kind at a client; a record of fewer is looked at whole."""
Signal = npt.NDArray[np.float32]


class Look(NamedTuple):
    """What was looked at in records of one kind.

    Attributes:
        values: Shape ``(samples,)``, without missing ones.
        seconds: How many stretches of a second were looked at.
        flat: In how many of them nothing moves.
    """

    values: Signal
    seconds: int
    flat: int


def signals_shown(
    records: Sequence[Record],
    sides: Mapping[str, Mapping[str, Sequence[Part]]],
    windows: Mapping[str, Mapping[str, int]],
    missing: Mapping[str, int],
    training: str = "",
) -> Shown:
    """Tables of signals to forecast.

    Args:
        records: All that clients hold.
        sides: Their parts, by client and split.
        windows: Number of windows, by client and split.
        missing: Number of missing samples of a record, by its id.
        training: What must be known of training windows.
    """
    rows = []
    for client, own in sides.items():
        for split in SPLITS:
            held = {part.record for part in own[split]}
            subjects = len({records[i].subject for i in held})
            hours = _hours(records, own[split])
            rows.append((client, split, len(held), subjects, hours, windows[client][split]))
    everything = [part for own in sides.values() for parts in own.values() for part in parts]
    held = {part.record for part in everything}
    totals = {
        "clients": len(sides),
        "records": len(held),
        "subjects": len({records[i].subject for i in held}),
        "hours": _hours(records, everything),
        "windows": sum(sum(counts.values()) for counts in windows.values()),
    }
    columns = ("client", "split", "records", "subjects", "hours", "windows")
    note = "; ".join(filter(None, ["hours of recordings: channels of one recording count once", training]))
    holds = Table("Who holds what", columns, tuple(rows), note)
    return Shown(totals, [holds, _channels(records, sides, missing)])


def client_facts(
    records: Sequence[Record], held: Sequence[int], parts: Mapping[str, Sequence[Part]], rule: str
) -> dict[str, Any]:
    """What a client holds, for ``partition.json``.

    Args:
        records: All that clients hold.
        held: Which are the client's.
        parts: Its parts, by split.
        rule: How it was split.
    """
    own = [records[i] for i in held]
    return {
        "records": {split: [records[part.record].id for part in parts[split]] for split in SPLITS},
        "split": rule,
        "subjects": sorted({record.subject for record in own}, key=natural),
        "sites": sorted({record.site for record in own}, key=natural),
        "kinds": sorted({record.kind for record in own}),
        "rates": sorted({record.rate for record in own}),
        "seconds": round(recorded_seconds(own), 3),
        "channel_seconds": round(sum(record.seconds for record in own), 3),
    }


def window_curves(
    records: Sequence[Record], runs: Mapping[str, Sequence[Run]], context: int, horizon: int, most: int
) -> list[Curve]:
    """A few windows of each client and kind, evenly spaced, in original units.

    Args:
        records: All that clients hold.
        runs: Windows by client.
        context: Samples of a context.
        horizon: Samples of a target.
        most: Windows of each client and kind.
    """
    by_id = {record.id: record for record in records}
    out = []
    for client, own in runs.items():
        for kind in sorted({run.kind for run in own}):
            rows = [run for run in own if run.kind == kind]
            ends = np.cumsum([run.count for run in rows])
            for k in evenly_spaced(int(ends[-1]), most):
                row = int(np.searchsorted(ends, k, side="right"))
                run, before = rows[row], int(ends[row - 1]) if row else 0
                start = run.first + (k - before) * run.stride
                record = by_id[run.record]
                values = record.values[start : start + context + horizon]
                caption = f"{run.kind}, {run.record}, from {start / record.rate:.1f} s"
                out.append(Curve(client, caption, values[None], record.rate, record.unit, context))
    return out


def _hours(records: Sequence[Record], parts: Iterable[Part]) -> float:
    """Hours of recordings without their pauses: of the channels of one recording the longest counts."""
    seconds: dict[str, float] = defaultdict(float)
    channel: dict[tuple[str, int], float] = defaultdict(float)
    for part in parts:
        record = records[part.record]
        inside = np.clip(record.pauses, part.start, part.stop)
        samples = part.stop - part.start - int(np.diff(inside, axis=1).sum())
        channel[record.recording or record.id, part.record] += samples / record.rate
    for (recording, _), length in channel.items():
        seconds[recording] = max(seconds[recording], length)
    return sum(seconds.values()) / 3600


def _channels(
    records: Sequence[Record], sides: Mapping[str, Mapping[str, Sequence[Part]]], missing: Mapping[str, int]
) -> Table:
    rows = []
    for client, own in sides.items():
        held = sorted({part.record for parts in own.values() for part in parts})
        groups: dict[tuple[str, str], list[Record]] = defaultdict(list)
        for i in held:
            groups[records[i].kind, records[i].unit].append(records[i])
        for (kind, unit), same in sorted(groups.items(), key=lambda pair: (natural(pair[0][0]), pair[0][1])):
            stretches = max(1, min(STRETCHES, MOST // len(same)))
            looks = [look(record.values, record.rate, stretches) for record in same]
            values = np.concatenate([own.values for own in looks])
            low, high = np.percentile(values, [1, 99]) if len(values) else (np.nan, np.nan)
            rates = sorted({record.rate for record in same})
            hertz = f"{rates[0]:g}" + (f" to {rates[-1]:g}" if len(rates) > 1 else "")
            samples = sum(len(record.values) for record in same)
            lost = 100 * sum(missing.get(record.id, 0) for record in same) / samples
            flat = 100 * sum(own.flat for own in looks) / max(1, sum(own.seconds for own in looks))
            rows.append((client, kind, unit or "not said", hertz, len(same), float(low), float(high), lost, flat))
    columns = ("client", "kind", "unit", "Hz", "records", "1 %", "99 %", "missing %", "flat %")
    note = (
        "1 % and 99 %: percentiles of the values; missing: share of all samples; flat: share of seconds in which "
        f"nothing moves. Percentiles and flat share are of up to {STRETCHES} seconds of each record, evenly spaced"
    )
    return Table("Channels", columns, tuple(rows), note)


def look(values: Signal, rate: float, stretches: int = STRETCHES) -> Look:
    """Look at some seconds of a record, evenly spaced, or at all of a shorter one.

    Args:
        values: Shape ``(samples,)``, NaN = missing.
        rate: Samples per second (Hz).
        stretches: Seconds to look at.
    """
    second = max(2, round(rate))
    count = max(1, len(values) // second)
    size = second if count > 1 else len(values)
    starts = np.array(evenly_spaced(count, stretches)) * size
    seen = np.asarray(values[starts[:, None] + np.arange(size)])
    whole = ~np.isnan(seen).any(1)
    low, high = seen[whole].min(1, initial=np.inf), seen[whole].max(1, initial=-np.inf)
    return Look(seen[~np.isnan(seen)], int(whole.sum()), int(is_flat(low, high - low).sum()))
