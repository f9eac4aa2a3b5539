"""What is looked at in every record before it is used."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from fedlit.data.base.names import few
from fedlit.data.base.records import SPLITS, Record
from fedlit.data.signals.splits import Parts

AMPLITUDE_FACTOR = 4.0
"""A record this many times larger or smaller than the median of its kind is named: gains go wrong by 5, 10 or 1000."""
CODES = frozenset(
    float(np.float32(code))
    for code in (
        *(-99, -99.99, -999, -999.9, -8888, -9999, -99999, -999999, -32768, -(2**31), -1e20, -1e30),
        *(999, 999.9, 9999, 99999, 999999, 32767, 65535, 2**31 - 1, 1e20, 1e30),
    )
)
"""Numbers that programs write for samples that are missing."""
FLAT_SHARE = 0.1
"""Share of a client's windows that may be left out as flat without a warning."""


def fault(record: Record, shortest: int) -> str | None:
    """Why the record cannot be used, or None.

    Args:
        record: At the rate it will be used at.
        shortest: Samples that one window needs.
    """
    infinite = int(np.isinf(record.values).sum())
    if infinite:
        first = int(np.flatnonzero(np.isinf(record.values))[0]) + 1
        return f"holds {infinite} infinite sample(s), sample {first} first: mend them, or leave them missing"
    finite = record.values[np.isfinite(record.values)]
    if not len(finite):
        return "holds no sample that is not missing"
    if finite.min() == finite.max():
        return f"is flat: every sample is {finite[0]:g}"
    if len(record.values) < shortest:
        seconds = len(record.values) / record.rate
        return (
            f"has {len(record.values)} samples ({seconds:g} s at {record.rate:g} Hz), "
            f"fewer than context_length + prediction_length = {shortest}"
        )
    return None


def gaps(record: Record) -> tuple[int, int]:
    """Number of runs of missing samples, and of missing samples in all."""
    missing = np.isnan(record.values)
    if not missing.any():
        return 0, 0
    return int(missing[0]) + int(np.count_nonzero(missing[1:] & ~missing[:-1])), int(missing.sum())


def recorded_seconds(records: Sequence[Record]) -> float:
    """How long was recorded, without pauses; channels of one recording run side by side."""
    longest: dict[str, float] = {}
    for record in records:
        name = record.recording or record.id
        longest[name] = max(longest.get(name, 0.0), record.seconds)
    return sum(longest.values())


def amplitude(record: Record) -> float:
    """1st to 99th percentile range, in the record's unit."""
    low, high = np.nanpercentile(record.values, [1, 99])
    return float(high - low)


def amplitude_outliers(records: Sequence[Record], factor: float = AMPLITUDE_FACTOR) -> dict[str, float]:
    """Records whose amplitude is ``factor`` or more times the median of their kind, or as much smaller.

    Returns:
        Record id to amplitude over the median of its kind; a kind with fewer than 3 records is not judged.
    """
    by_kind: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_kind[record.kind].append(record)
    found = {}
    for same in by_kind.values():
        sizes = np.array([amplitude(record) for record in same])
        middle = float(np.median(sizes))
        if len(same) < 3 or middle <= 0:
            continue
        for record, size in zip(same, sizes / middle, strict=True):
            if size >= factor or size <= 1 / factor:
                found[record.id] = float(size)
    return found


def gain_ratios(amplitudes: Mapping[float, Sequence[float]], factor: float = AMPLITUDE_FACTOR) -> dict[float, float]:
    """Gains whose records, as a group, are ``factor`` or more times as large or small as those of the commonest gain.

    A wrong gain shows in a group even where its single records are naturally small or large.

    Args:
        amplitudes: Amplitudes of usable records of one kind, by the gain in their headers.
        factor: From which a group is odd.

    Returns:
        Gain to median amplitude over that of the commonest gain; groups of fewer than 3 records are not judged.
    """
    middle = {gain: float(np.median(sizes)) for gain, sizes in amplitudes.items() if len(sizes) >= 3}
    if not middle:
        return {}
    usual = middle[max(middle, key=lambda gain: len(amplitudes[gain]))]
    ratios = {gain: size / usual for gain, size in middle.items() if usual > 0}
    return {gain: ratio for gain, ratio in ratios.items() if ratio >= factor or ratio <= 1 / factor}


def missing_code(record: Record) -> float | None:
    """A number that looks like a code for missing samples: one of the usual ones, and far off all others; or None."""
    values = record.values[np.isfinite(record.values)]
    for code in (values.min(), values.max()) if len(values) else ():
        others = values[values != code] if float(code) in CODES else values[:0]
        if len(others) and len(values) - len(others) > 1:
            low, high = float(others.min()), float(others.max())
            if max(low - code, code - high) > 2 * (high - low) > 0:
                return float(code)
    return None


def say_odd(odd: Mapping[str, float], records: Sequence[Record], codes: Mapping[str, float]) -> list[str]:
    """Warnings of what is odd in records, but not wrong in itself.

    Args:
        odd: What :func:`amplitude_outliers` found.
        records: All that are used.
        codes: What :func:`missing_code` found, by record.
    """
    said = []
    if odd:
        named = few([f"{name} ({ratio:.2g}x)" for name, ratio in odd.items()])
        said.append(
            f"{len(odd)} record(s) differ from the median amplitude of their kind by a factor of {AMPLITUDE_FACTOR:g} "
            f"or more: {named}: check the gain in the header"
        )
    for kind in sorted({record.kind for record in records}):
        rates = sorted({record.rate for record in records if record.kind == kind})
        if len(rates) > 1:
            hertz = few([f"{rate:g}" for rate in rates])
            said.append(f"{kind} records have different rates ({hertz} Hz): set data.rate to resample them to one")
    if codes:
        named = few([f"{name} ({code:g})" for name, code in codes.items()])
        said.append(
            f"{len(codes)} record(s) hold a number that looks like a code for missing samples: {named}: leave such "
            f"samples missing in the files"
        )
    return said


def say_flat(flat: Mapping[str, int], kept: Mapping[str, int]) -> list[str]:
    """A warning of clients that lose many windows because the contexts do not move, or none.

    Args:
        flat: Windows left out so, by client.
        kept: Windows that are used, by client.
    """
    shares = {name: flat[name] / (flat[name] + count) for name, count in kept.items() if flat[name]}
    many = [f"{name} ({share:.0%})" for name, share in shares.items() if share > FLAT_SHARE]
    if not many:
        return []
    return [
        f"{len(many)} client(s) have many windows whose context does not move, which are left out: {few(many)}: look "
        f"at `flat` in partition.json for sensors that were off; where the signal holds its value, give a longer "
        f"data.context_length, or data.scale none"
    ]


def say_shared_subjects(records: Sequence[Record], sides: Mapping[str, Parts], rules: Mapping[str, str]) -> list[str]:
    """A warning of subjects with whole records in several splits, which makes errors look smaller than they are.

    Args:
        records: All that clients hold.
        sides: Parts of them in each split, by client.
        rules: How each client was split; one that was split in time is not looked at.
    """
    found: dict[str, set[str]] = defaultdict(set)
    for client, own in sides.items():
        if "time" not in rules[client]:
            for split in SPLITS:
                for part in own[split]:
                    found[records[part.record].subject].add(split)
    shared = sorted(subject for subject, splits in found.items() if len(splits) > 1)
    if not shared:
        return []
    return [
        f"{len(shared)} subject(s) have records in several splits: {few(shared)}: "
        f"set data.split to subject for errors on subjects never seen"
    ]
