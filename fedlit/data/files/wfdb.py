"""Channels in and out of WFDB files, with errors that name the file and the mend."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedlit.data.base.names import few
from fedlit.data.base.records import BadRecord
from fedlit.data.files.channels import Channels, chosen, demand_distinct, place_of
from fedlit.data.files.wfdb_header import GAP, Calibration, Header, Signal, calibration, read_header
from fedlit.data.files.wfdb_samples import read_steps

STEPS_PER_UNIT = 1000.0
"""Analogue-to-digital gain of what is written: 1 uV steps for mV."""
_MISSING = -32768
"""Missing sample in format 16."""


@dataclass(frozen=True)
class _Piece:
    """A stretch of a recording: of the whole of it, or of one segment.

    Attributes:
        header: None for a gap.
        frames: None where only the size of the file tells.
    """

    header: Header | None
    frames: int | None


class WFDBRecord:
    """A recording, of one segment or several: what its headers say, and its samples.

    Args:
        path: Of the header or the signals, with or without suffix.

    Raises:
        BadRecord: A header is absent or malformed, or headers contradict each other.
    """

    def __init__(self, path: Path) -> None:
        stem = path.with_suffix("") if path.suffix in (".hea", ".mat", ".dat") else path
        self.path = stem.parent / f"{stem.name}.hea"
        self.header = read_header(self.path)
        if self.header.is_layout:
            raise BadRecord(f"{self.path}: lists channels, but no samples: it belongs to a header of several segments")
        self._headers = [self.header]
        self._pieces = [_Piece(self.header, self.header.frames)]
        if self.header.segments:
            self._pieces = [self._piece(name, frames) for name, frames in self.header.segments]
            self._headers = [piece.header for piece in self._pieces if piece.header is not None]
            self._pieces = [piece for piece in self._pieces if piece.header is None or not piece.header.is_layout]

    @cached_property
    def names(self) -> list[str]:
        """Channels, each once where a segment has it once."""
        found: dict[str, str] = {}
        for header in self._headers:
            turns: dict[str, int] = defaultdict(int)
            for signal in header.signals:
                key = signal.name.lower()
                turns[key] += 1
                found.setdefault(f"{key}#{turns[key]}", signal.name)
        return list(found.values())

    @property
    def seconds(self) -> float:
        """Length (s); where no header tells it, of the first signal.

        Raises:
            BadRecord: That cannot be read.
        """
        frames = 0.0
        for header, count in ((piece.header, piece.frames) for piece in self._pieces):
            if count is None and header is not None and header.signals:
                count = len(read_steps(header, None, [0])[0]) // header.signals[0].each
            frames += count or 0
        return frames / self.header.rate

    def find(self, wanted: str | Sequence[str]) -> str:
        """The channel to read: the name, or the first of several that is there.

        Raises:
            BadRecord: None is there, or it is ambiguous, or its gain cannot be read.
        """
        name = chosen(self.path, wanted, self.names, lambda name: bool(self._lines(name, self._headers)))
        for header, signal in self._lines(name, [piece.header for piece in self._pieces if piece.header]):
            calibration(header.path, signal)
        return name

    def read(self, names: Sequence[str]) -> Channels:
        """Samples of some channels, as :meth:`find` names them.

        Raises:
            BadRecord: They cannot be read, or two names are of one channel.
        """
        for header in self._headers:
            there = [signal.name for signal in header.signals]
            known = {name: place_of(header.path, name, there) for name in names}
            demand_distinct(self.path, {name: place for name, place in known.items() if place is not None})
        each = {name: self._each(name) for name in names}
        parts: dict[str, list[npt.NDArray[np.float32]]] = {name: [] for name in names}
        scales: dict[str, list[Calibration]] = {name: [] for name in names}
        for piece in self._pieces:
            own = self._of_piece(piece, names)
            for name in names:
                if name in own:
                    scale, values = own[name]
                    scales[name].append(scale)
                    parts[name].append(values)
                else:
                    parts[name].append(np.full((piece.frames or 0) * each[name], np.nan, np.float32))
        notes = list(dict.fromkeys(note for header in self._headers for note in header.notes))
        for name in names:
            if not all(scale.given for scale in scales[name]):
                notes.append(f"no gain: {scales[name][0].gain:g} steps per mV, as the format says, uncalibrated")
        return Channels(
            {name: self.header.rate * each[name] for name in names},
            {name: np.concatenate(own) if len(own) > 1 else own[0] for name, own in parts.items()},
            {name: self._unit(name, scales[name]) for name in names},
            {name: own[0].gain if own else np.nan for name, own in scales.items()},
            list(self.header.comments),
            list(dict.fromkeys(notes)),
        )

    def _piece(self, name: str, frames: int) -> _Piece:
        if name == GAP:
            return _Piece(None, frames)
        path = self.path.parent / f"{name}.hea"
        if not path.is_file():
            raise BadRecord(f"{self.path}: its segment {path.name} is absent: copy it beside the header")
        header = read_header(path)
        if header.segments:
            raise BadRecord(f"{path}: is a segment of {self.path.name} and has segments: name those in that header")
        if abs(header.rate / self.header.rate - 1) > 1e-6:
            what = f"{header.rate:g} Hz, the whole {self.path.name} {self.header.rate:g} Hz"
            raise BadRecord(f"{path}: {what}: mend the rate in one of both")
        if not header.is_layout and header.frames not in (None, frames):
            what = f"{header.frames} samples, of which {self.path.name} says {frames}"
            raise BadRecord(f"{path}: {what}: mend the number in one of both")
        return _Piece(header, frames)

    def _lines(self, name: str, headers: Sequence[Header]) -> list[tuple[Header, Signal]]:
        """Where a channel is described."""
        found = []
        for header in headers:
            place = place_of(header.path, name, [signal.name for signal in header.signals])
            if place is not None:
                found.append((header, header.signals[place]))
        return found

    def _each(self, name: str) -> int:
        """Samples of a channel in a frame."""
        lines = self._lines(name, [h for h in self._headers if not h.is_layout]) or self._lines(name, self._headers)
        rates = sorted({signal.each for _, signal in lines})
        if len(rates) > 1:
            hertz = few([f"{self.header.rate * each:g} Hz" for each in rates])
            raise BadRecord(f"{self.path}: channel {name!r} has several rates ({hertz}): give segments of one rate")
        return rates[0]

    def _unit(self, name: str, scales: Sequence[Calibration]) -> str:
        units = list(dict.fromkeys("mV" if scale.factor is not None else scale.unit for scale in scales))
        if len(units) > 1:
            what = f"{self.path}: channel {name!r} has other units in other segments ({', '.join(units)})"
            raise BadRecord(f"{what}: mend the segments' headers")
        return units[0] if units else ""

    def _of_piece(self, piece: _Piece, names: Sequence[str]) -> dict[str, tuple[Calibration, npt.NDArray[np.float32]]]:
        """Those of the channels that a segment has."""
        header = piece.header
        if header is None or (piece.frames == 0 and header is not self.header):
            return {}
        there = [signal.name for signal in header.signals]
        places = {name: place for name in names if (place := place_of(header.path, name, there)) is not None}
        steps = read_steps(header, piece.frames, sorted(places.values()))
        out = {}
        for name, place in places.items():
            scale = calibration(header.path, header.signals[place])
            physical = (steps[place] - scale.baseline) / scale.gain * (scale.factor or 1.0)
            with np.errstate(over="ignore"):  # too large for float32 is infinite, and refused as such
                out[name] = scale, physical.astype(np.float32)
        return out


def read_channels(path: Path, names: Sequence[str]) -> Channels:
    """Read some channels of a record; names are matched without regard to case.

    Args:
        path: Path of the header or the signals, with or without suffix.
        names: Channels wanted, each once.

    Raises:
        BadRecord: For files that are absent or malformed, and for channels that are not there.
    """
    record = WFDBRecord(path)
    return record.read([record.find(name) for name in names])


def read_comments(path: Path) -> list[str]:
    """Comments of a header, without ``#``.

    Raises:
        BadRecord: The header is absent or malformed.
    """
    return list(read_header(path.with_suffix(".hea")).comments)


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
