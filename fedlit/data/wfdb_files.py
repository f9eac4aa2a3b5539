"""Channels in and out of WFDB files, with errors that name the file and the mend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedlit.data.records import BadRecord

MILLIVOLTS = {"mv": 1.0, "v": 1e3, "uv": 1e-3, "µv": 1e-3, "μv": 1e-3, "nv": 1e-6}
"""Factor to mV, by the unit in lower case: headers in use write ``mV``, ``mv`` and ``uV``."""
STEPS_PER_UNIT = 1000.0
"""Analogue-to-digital gain of what is written: 1 uV steps for mV."""


@dataclass(frozen=True)
class Channels:
    """Channels of one WFDB record.

    Attributes:
        rate: Hz.
        values: Channel name as asked for, to float32 of shape ``(samples,)``, NaN = missing.
        units: Channel name to unit; voltages are in mV.
        comments: Lines of the header that begin with ``#``.
    """

    rate: float
    values: dict[str, npt.NDArray[np.float32]]
    units: dict[str, str]
    comments: list[str]


def read_channels(path: Path, names: Sequence[str]) -> Channels:
    """Read some channels of a record; names are matched without regard to case.

    Args:
        path: Of the header or the signals, with or without suffix.
        names: Channels wanted.

    Raises:
        BadRecord: For files that are absent or malformed, and for channels that are not there.
    """
    import wfdb

    stem = path.with_suffix("") if path.suffix in (".hea", ".mat", ".dat") else path
    header_path = stem.parent / f"{stem.name}.hea"
    try:
        header = wfdb.rdheader(str(stem))
        there = [str(name) for name in header.sig_name or []]
    except Exception as error:  # wfdb raises ValueError, IndexError, TypeError and its own on malformed headers
        raise BadRecord(_malformed(header_path, error)) from error
    places = {name.strip().lower(): place for place, name in enumerate(there)}
    absent = [name for name in names if name.lower() not in places]
    if absent:
        raise BadRecord(f"{header_path}: no channel {absent[0]!r}, there are {', '.join(there)}: name one of them")
    wanted = [places[name.lower()] for name in names]
    try:
        record = wfdb.rdrecord(str(stem), channels=wanted, return_res=32)
        signals, units = record.p_signal, record.units
        rate = float(record.fs)
    except Exception as error:
        raise BadRecord(f"{header_path}: signals cannot be read ({_line(error)}): copy the files again") from error
    if signals is None or not rate > 0:
        raise BadRecord(f"{header_path}: holds no signals or no sampling rate: mend the header")
    # rdrecord gives the channels in the order asked for, but each only once.
    column = {place: i for i, place in enumerate(dict.fromkeys(wanted))}
    values, named_units = {}, {}
    for name, place in zip(names, wanted, strict=True):
        unit = str(units[column[place]]).strip()
        factor = MILLIVOLTS.get(unit.lower())
        values[name] = np.ascontiguousarray(signals[:, column[place]] * (factor or 1.0), dtype=np.float32)
        named_units[name] = unit if factor is None else "mV"
    return Channels(rate, values, named_units, [str(comment) for comment in header.comments or []])


def write_channels(
    folder: Path,
    name: str,
    rate: float,
    values: Mapping[str, npt.NDArray[np.floating]],
    units: Mapping[str, str],
    comments: Sequence[str] = (),
) -> None:
    """Write a record in format 16, 1000 steps per unit; NaN is written as WFDB's mark for a missing sample."""
    import wfdb

    signals = np.stack([np.asarray(channel, np.float64) for channel in values.values()], axis=1)
    limit = 32000 / STEPS_PER_UNIT
    wfdb.wrsamp(
        name,
        fs=rate,
        units=[units[channel] for channel in values],
        sig_name=list(values),
        p_signal=np.clip(signals, -limit, limit),
        fmt=["16"] * len(values),
        adc_gain=[STEPS_PER_UNIT] * len(values),
        baseline=[0] * len(values),
        comments=list(comments),
        write_dir=str(folder),
    )


def _malformed(header_path: Path, error: Exception) -> str:
    try:
        first = header_path.read_text(encoding="utf-8", errors="replace").lstrip().splitlines()[0]
    except (OSError, IndexError):
        return f"{header_path}: header is absent or empty: copy the file again"
    name = first.split()[0] if first.split() else ""
    if name.endswith((".mat", ".dat", ".hea")):
        bare = name.rsplit(".", 1)[0]
        return f"{header_path}: malformed header, its first line names the record {name!r}: write {bare!r} there"
    return f"{header_path}: malformed header ({_line(error)}), its first line is {first[:60]!r}: mend that line"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
