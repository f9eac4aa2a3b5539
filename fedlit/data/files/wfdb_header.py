"""WFDB headers as they are written: any encoding, fields that may be absent, and nothing guessed without a word.

Source of the format: the manual page ``header(5)`` of the WFDB Applications Guide.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedlit.data.base.records import BadRecord
from fedlit.data.files.channels import MILLIVOLTS

GAP = "~"
"""Name of a segment without samples, and of the file of a layout's signals."""
USUAL_GAIN, USUAL_RATE = 200.0, 250.0
"""What the format says of a header without a gain (steps per unit), or a rate (Hz)."""
_RECORD = re.compile(r"(?P<name>[-\w]+)(?:/(?P<segments>\d+))?")
_FORMAT = re.compile(r"(?P<format>\d+)(?:x(?P<each>\d+))?(?::(?P<skew>\d+))?(?:\+(?P<offset>\d+))?")
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_GAIN = re.compile(rf"(?P<gain>{_NUMBER})(?:\((?P<baseline>{_NUMBER})?\))?(?:/(?P<unit>\S*))?")
_RATE = re.compile(rf"(?P<rate>{_NUMBER})(?:/{_NUMBER}(?:\({_NUMBER}\))?)?")
_TIME = re.compile(r"(\d{1,3}:)?(\d{1,2}:)?\d{1,2}(\.\d+)?|\[.*")
_DATE = re.compile(r"(\d{1,2})/(\d{1,2})/\d{4}\]?")


@dataclass(frozen=True)
class Signal:
    """One line of a header.

    Attributes:
        name: As written; ``#2`` for the second where it has none.
        file: Of the samples, beside the header; ``~`` in a layout.
        format: Storage format, as a number of the format's list.
        each: Samples in a frame.
        skew: Frames by which its samples come late in the file.
        offset: Bytes before the first sample.
        gain: Field of gain, baseline and unit as written; empty where there is none.
        zero: Field of the converter's zero, in steps; empty where there is none.
        first: Field of the first sample, in steps; empty where there is none.
    """

    name: str
    file: str
    format: str
    each: int = 1
    skew: int = 0
    offset: int = 0
    gain: str = ""
    zero: str = ""
    first: str = ""


@dataclass(frozen=True)
class Calibration:
    """How steps of the converter become a physical quantity: ``(step - baseline) / gain``.

    Attributes:
        gain: Steps per unit, of the unit in the header.
        baseline: Step of value 0.
        unit: As written; ``mV`` where there is none, as the format says.
        factor: To mV, for voltages.
        given: Whether the header gives a gain; otherwise it is the format's usual one.
    """

    gain: float
    baseline: float
    unit: str
    factor: float | None
    given: bool


@dataclass(frozen=True)
class Header:
    """A header.

    Attributes:
        path: Its file.
        rate: Frames per second (Hz).
        frames: Samples of a channel with one sample a frame; None where the header gives none, or 0.
        signals: In order of their lines; empty in a record of several segments.
        segments: Name and frames of each segment, in order; a gap is named ``~``.
        comments: Lines that begin with ``#``, without it.
        notes: What is unusual, and how it was read.
    """

    path: Path
    rate: float
    frames: int | None
    signals: tuple[Signal, ...]
    segments: tuple[tuple[str, int], ...]
    comments: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def is_layout(self) -> bool:
        """Whether it only lists the channels of a record's segments."""
        return bool(self.signals) and all(signal.file == GAP for signal in self.signals)


def read_header(path: Path) -> Header:
    """A header and what it says.

    Raises:
        BadRecord: It is absent, or a line that is needed cannot be read.
    """
    lines = _lines(path)
    kept = [line for line in lines if line and not line.startswith("#")]
    comments = tuple(line.lstrip("#").strip() for line in lines if line.startswith("#"))
    if not kept:
        raise BadRecord(f"{path}: header is absent or empty: copy the file again")
    first = kept[0].split()
    named = _RECORD.fullmatch(first[0])
    if named is None or len(first) < 2 or not first[1].isdecimal():
        raise BadRecord(_malformed(path, kept[0], "no record name and number of signals"))
    notes: list[str] = []
    rate = USUAL_RATE
    if len(first) > 2:
        given = _RATE.fullmatch(first[2])
        if given is None or not 0 < float(given["rate"]) < math.inf:
            raise BadRecord(_malformed(path, kept[0], f"{first[2]!r} is no sampling rate"))
        rate = float(given["rate"])
    else:
        notes.append(f"no sampling rate: {USUAL_RATE:g} Hz, as the format says")
    if len(first) > 3 and not first[3].isdecimal():
        raise BadRecord(_malformed(path, kept[0], f"{first[3]!r} is no number of samples"))
    frames = int(first[3]) if len(first) > 3 else 0
    if not _is_time(first[4:]):
        notes.append("a date or time in another form, which is not needed")
    if named["segments"] is not None:
        segments = _segments(path, kept[1:], int(named["segments"]))
        return Header(path, rate, frames or None, (), segments, comments, tuple(notes))
    count = int(first[1])
    if len(kept) - 1 < count:
        raise BadRecord(_malformed(path, kept[0], f"{count} signals, but {len(kept) - 1} lines of signals"))
    signals = tuple(_signal(path, line, place) for place, line in enumerate(kept[1 : count + 1], 1))
    return Header(path, rate, frames or None, signals, (), comments, tuple(notes))


def joined(paths: Sequence[Path]) -> dict[Path, Path]:
    """Headers that another of them names as its segment, or as its layout, to that other one."""
    found: dict[Path, Path] = {}
    for path in paths:
        try:
            kept = [line for line in _lines(path) if line and not line.startswith("#")]
        except BadRecord:
            continue  # it is refused when it is read
        named = _RECORD.fullmatch(kept[0].split()[0]) if kept else None
        if named is not None and named["segments"] is not None:
            names = [line.split()[0] for line in kept[1:]]
            found |= {path.parent / f"{name}.hea": path for name in names if name != GAP}
    return found


def calibration(path: Path, signal: Signal) -> Calibration:
    """Gain, baseline and unit of a signal.

    Raises:
        BadRecord: The field cannot be read; the message shows it.
    """
    if not signal.gain:
        return Calibration(USUAL_GAIN, 0.0, "mV", 1.0, given=False)
    found = _GAIN.fullmatch(signal.gain)
    if found is None:
        what = f"{path}: channel {signal.name!r}: {signal.gain!r} is no gain"
        raise BadRecord(f"{what}: write steps per unit, baseline and unit, as 1000(0)/mV")
    gain = float(found["gain"])
    baseline = found["baseline"] or signal.zero or "0"
    if not re.fullmatch(_NUMBER, baseline):
        raise BadRecord(f"{path}: channel {signal.name!r}: {baseline!r} is no value of the converter: write a number")
    unit = found["unit"] or "mV"
    return Calibration(gain or USUAL_GAIN, float(baseline), unit, MILLIVOLTS.get(unit.lower()), given=gain != 0)


def _lines(path: Path) -> list[str]:
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise BadRecord(f"{path}: header is absent or empty: copy the file again") from error
    except OSError as error:
        raise BadRecord(f"{path}: {error.strerror}: make the file readable") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    return [line.strip() for line in re.split(r"\r\n|\r|\n", text)]


def _is_time(fields: Sequence[str]) -> bool:
    """Whether what follows the number of samples is a time and a date as the format writes them, or nothing."""
    if not fields:
        return True
    date = _DATE.fullmatch(fields[1]) if len(fields) > 1 else None
    if len(fields) > 1 and (date is None or not (0 < int(date[1]) < 32 and 0 < int(date[2]) < 13)):
        return False
    return _TIME.fullmatch(fields[0]) is not None


def _signal(path: Path, line: str, place: int) -> Signal:
    file, form, gain, *rest = [*line.split(None, 3), "", "", "", ""][:4]
    found = _FORMAT.fullmatch(form)
    if found is None:
        what = f"{path}: signal {place}: {form!r} is no storage format"
        raise BadRecord(f"{what}: malformed header, mend that line")
    sizes = {name: int(text or 0) for name, text in found.groupdict().items() if name != "format"}
    # Resolution, zero, first sample, checksum, block size; what comes after those that are given is the name.
    numbers: list[str] = []
    name = rest[0]
    while name and len(numbers) < 5 and re.fullmatch(_NUMBER, name.split(None, 1)[0]):
        numbers.append(name.split(None, 1)[0])
        name = name[len(numbers[-1]) :].lstrip()
    _, zero, first = [*numbers, "", "", ""][:3]
    name = name or f"#{place}"
    return Signal(name, file, found["format"], sizes["each"] or 1, sizes["skew"], sizes["offset"], gain, zero, first)


def _segments(path: Path, lines: Sequence[str], count: int) -> tuple[tuple[str, int], ...]:
    fields = [line.split() for line in lines[:count]]
    if len(fields) < count or any(len(own) < 2 or not own[1].isdecimal() for own in fields):
        raise BadRecord(f"{path}: {count} segments, each with its samples, are not listed: mend the header")
    return tuple((own[0], int(own[1])) for own in fields)


def _malformed(path: Path, first: str, why: str) -> str:
    name = first.split()[0]
    if name.endswith((".mat", ".dat", ".hea")):
        bare = name.rsplit(".", 1)[0]
        return f"{path}: malformed header, its first line names the record {name!r}: write {bare!r} there"
    return f"{path}: malformed header ({why}), its first line is {first[:60]!r}: mend that line"
