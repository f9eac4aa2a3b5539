"""Channels in and out of WFDB files, with errors that name the file and the mend."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedlit.data.base.records import BadRecord

MILLIVOLTS = {"mv": 1.0, "v": 1e3, "uv": 1e-3, "µv": 1e-3, "μv": 1e-3, "nv": 1e-6}
"""Factor to mV, by the unit in lower case: headers in use write ``mV``, ``mv`` and ``uV``."""
STEPS_PER_UNIT = 1000.0
"""Analogue-to-digital gain of what is written: 1 uV steps for mV."""
_MISSING = -32768
"""Missing sample in format 16."""
_FIRST_LINE = re.compile(r"^\s*[-\w]+(/\d+)?\s+\d+(\s|$)")


@dataclass(frozen=True)
class Channels:
    """Channels of one WFDB record.

    Attributes:
        rate: Hz.
        values: Channel name as asked for, to float32 of shape ``(samples,)``, NaN = missing.
        units: Channel name to unit; voltages are in mV.
        gains: Channel name to steps of the converter per unit of the header.
        comments: Lines of the header that begin with ``#``.
    """

    rate: float
    values: dict[str, npt.NDArray[np.float32]]
    units: dict[str, str]
    gains: dict[str, float]
    comments: list[str]


def read_channels(path: Path, names: Sequence[str]) -> Channels:
    """Read some channels of a record; names are matched without regard to case.

    Args:
        path: Path of the header or the signals, with or without suffix.
        names: Channels wanted, each once.

    Raises:
        BadRecord: For files that are absent or malformed, and for channels that are not there.
    """
    with _quiet():
        import wfdb

    stem = path.with_suffix("") if path.suffix in (".hea", ".mat", ".dat") else path
    header_path = stem.parent / f"{stem.name}.hea"
    there = _channel_names(header_path)
    try:
        if not {name.lower() for name in names} <= {name.lower() for name in there}:
            with _quiet():
                there = [str(name) for name in wfdb.rdheader(str(stem), rd_segments=True).sig_name or []]
    except Exception as error:  # wfdb raises ValueError, IndexError, TypeError and its own on malformed headers
        raise BadRecord(_malformed(header_path, error)) from error
    places = {name.strip().lower(): place for place, name in enumerate(there)}
    absent = [name for name in names if name.lower() not in places]
    if absent:
        raise BadRecord(f"{header_path}: no channel {absent[0]!r}, there are {', '.join(there)}: name one of them")
    wanted = [places[name.lower()] for name in names]
    try:
        with _quiet():
            record = wfdb.rdrecord(str(stem), channels=wanted, return_res=32)
        signals, units, rate = record.p_signal, record.units, float(record.fs)
    except wfdb.io.header.HeaderSyntaxError as error:
        raise BadRecord(_malformed(header_path, error)) from error
    except Exception as error:
        what = f"signals cannot be read ({_line(error)})"
        raise BadRecord(f"{header_path}: {what}: mend the header, or copy the files again") from error
    if signals is None or not rate > 0:
        raise BadRecord(f"{header_path}: holds no signals or no sampling rate: mend the header")
    values, named_units = {}, {}
    for i, name in enumerate(names):
        unit = str(units[i]).strip()
        factor = MILLIVOLTS.get(unit.lower())
        values[name] = np.ascontiguousarray(signals[:, i] * (factor or 1.0), dtype=np.float32)
        named_units[name] = unit if factor is None else "mV"
    gains = {name: float(gain) for name, gain in zip(names, record.adc_gain, strict=True)}
    return Channels(rate, values, named_units, gains, [str(comment) for comment in record.comments or []])


def read_comments(path: Path) -> list[str]:
    """Comments of a header, without ``#``: a look at the text, in a hundredth of the time that wfdb takes.

    Raises:
        BadRecord: The header is absent or empty, or its first line is not that of a header.
    """
    header_path = path.with_suffix(".hea")
    try:
        lines = header_path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise BadRecord(_malformed(header_path, error)) from error
    first = next((line for line in lines if line.strip() and not line.startswith("#")), "")
    if not _FIRST_LINE.match(first):
        raise BadRecord(_malformed(header_path, ValueError("no record name and number of signals")))
    return [line.lstrip("#").strip() for line in lines if line.startswith("#")]


def write_channels(
    folder: Path,
    name: str,
    rate: float,
    values: Mapping[str, npt.NDArray[np.floating]],
    units: Mapping[str, str],
    comments: Sequence[str] = (),
) -> None:
    """Write a record in format 16, 1000 steps per unit; NaN is written as WFDB's mark for a missing sample.

    By hand, not by wfdb: the bytes are then ours to keep the same, and a header takes no 20 ms.
    """
    signals = np.stack([np.asarray(channel, np.float64) for channel in values.values()], axis=1)
    steps = np.clip(np.round(signals * STEPS_PER_UNIT), -32767, 32767)
    digital = np.where(np.isnan(steps), _MISSING, steps).astype("<i2")
    lines = [f"{name} {len(values)} {rate:g} {len(digital)}"]
    for channel, column in zip(values, digital.T, strict=True):
        checksum = int(column.sum(dtype=np.int64).astype(np.int16))
        gain = f"{STEPS_PER_UNIT:g}(0)/{units[channel]}"
        lines.append(f"{name}.dat 16 {gain} 16 0 {column[0]} {checksum} 0 {channel}")
    lines += [f"# {comment}" for comment in comments]
    (folder / f"{name}.dat").write_bytes(digital.tobytes())
    (folder / f"{name}.hea").write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without wfdb's warnings about its own use of pandas."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def _channel_names(header_path: Path) -> list[str]:
    """Names at the ends of a header's signal lines: a quick look, as wfdb takes milliseconds to parse a header."""
    try:
        text = header_path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [fields[8].strip() for fields in (line.split(None, 8) for line in lines[1:]) if len(fields) == 9]


def _malformed(header_path: Path, error: Exception) -> str:
    try:
        first = header_path.read_text(encoding="utf-8", errors="replace").lstrip().splitlines()[0]
    except (FileNotFoundError, IndexError):
        return f"{header_path}: header is absent or empty: copy the file again"
    except OSError as cause:
        return f"{header_path}: {cause.strerror}: make the file readable"
    name = first.split()[0] if first.split() else ""
    if name.endswith((".mat", ".dat", ".hea")):
        bare = name.rsplit(".", 1)[0]
        return f"{header_path}: malformed header, its first line names the record {name!r}: write {bare!r} there"
    return f"{header_path}: malformed header ({_line(error)}), its first line is {first[:60]!r}: mend that line"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
