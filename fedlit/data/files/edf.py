"""Channels and annotations out of EDF, EDF+ and BDF files (Kemp and Olivan 2003, doi:10.1016/S1388-2457(03)00123-8).

Fields of the patient are never looked at, and no text of a header that cannot be read is shown: it may hold them.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from fedlit.data.base.records import BadRecord
from fedlit.data.files.channels import MILLIVOLTS, Channels, chosen, demand_distinct, place_of
from fedlit.errors import FedlitError

ENDINGS = (".edf", ".bdf")
_ANNOTATIONS = ("EDF Annotations", "BDF Annotations")
_ONSET = re.compile(rb"([+-]\d+(?:\.\d*)?)\x14")


class EDFRecord:
    """A recording: its channels, each at its own rate, and its annotations.

    Args:
        path: The file; ``.bdf`` is read as BDF (24 bits), others as EDF.

    Raises:
        BadRecord: It cannot be read, or is cut short.
        FedlitError: edfio is not installed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        edfio = _edfio()
        try:
            self._head = _Head(path)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what they say of lengths is looked at here
                read = edfio.read_bdf if path.suffix.lower() == ".bdf" else edfio.read_edf
                self._file: Any = read(path, header_encoding="latin-1")
                self._signals = list(self._file.signals)
                self.names = [_text(signal.label) for signal in self._signals]
        except OSError as error:
            raise BadRecord(f"{path}: {error.strerror}: make the file readable") from error
        except Exception as error:  # edfio raises many kinds on damaged headers
            raise BadRecord(f"{path}: is no EDF file that can be read ({_kind(error)}): copy it again") from error
        there = self._file.num_data_records
        if there < self._head.records:
            raise BadRecord(f"{path}: is cut short, it has {there} of {self._head.records} blocks: copy it again")

    @property
    def seconds(self) -> float:
        """Length from its first to its last sample, gaps included."""
        onsets = self._onsets()
        return float(onsets[-1] - onsets[0] + self._file.data_record_duration) if len(onsets) else 0.0

    def find(self, wanted: str | Sequence[str]) -> str:
        """The channel to read: the name, or the first of several that is there.

        Raises:
            BadRecord: None is there, or it is ambiguous, or not calibrated.
        """
        found = chosen(self.path, wanted, self.names, lambda name: self._place(name) is not None)
        self._gain(found)
        return found

    def read(self, names: Sequence[str]) -> Channels:
        """Samples of some channels, as :meth:`find` names them; gaps of discontinuous files (EDF+D) are NaN.

        Raises:
            BadRecord: They cannot be read, or two names are of one channel.
        """
        places = {name: place for name in names if (place := self._place(name)) is not None}
        demand_distinct(self.path, places)
        onsets = self._onsets()
        values, rates, units, gains = {}, {}, {}, {}
        for name, place in places.items():
            signal = self._signals[place]
            step, offset = self._gain(name)
            unit = _text(signal.physical_dimension)
            factor = MILLIVOLTS.get(unit.lower())
            rate = self._rate(name, place)
            try:
                digital = np.asarray(signal.digital, np.float64)
            except Exception as error:  # edfio raises many kinds on damaged files
                raise BadRecord(f"{self.path}: samples cannot be read ({_kind(error)}): copy it again") from error
            physical = ((digital * step + offset) * (factor or 1.0)).astype(np.float32)
            values[name] = self._in_time(physical, onsets, rate, signal.samples_per_data_record)
            rates[name], units[name], gains[name] = rate, unit if factor is None else "mV", 1 / step
        return Channels(rates, values, units, gains, [], [])

    def annotations(self) -> list[tuple[float, float, str]]:
        """Start (s from the first sample), duration (s, 0 without one) and text of each annotation.

        Raises:
            BadRecord: They cannot be read.
        """
        try:
            found = [(float(a.onset), float(a.duration or 0.0), a.text.strip()) for a in self._file.annotations]
        except Exception as error:  # edfio raises many kinds on damaged files
            raise BadRecord(f"{self.path}: annotations cannot be read ({_kind(error)}): copy it again") from error
        return [one for one in found if one[2]]

    def starts_after(self, other: EDFRecord) -> float:
        """Seconds by which it starts after another.

        Raises:
            BadRecord: They start at different times, of which one is no date and time.
        """
        if self._head.clock == other._head.clock:
            return 0.0
        try:
            own, its = (datetime.strptime(head.clock, "%d.%m.%y%H.%M.%S") for head in (self._head, other._head))
        except ValueError as error:
            what = f"when it starts, and when {other.path.name} does, cannot be compared"
            raise BadRecord(f"{self.path}: {what}: mend the date and time in both headers") from error
        return (own - its).total_seconds()

    def _place(self, name: str) -> int | None:
        return place_of(self.path, name, self.names)

    def _rate(self, name: str, place: int) -> float:
        rate = self._signals[place].sampling_frequency
        if not rate > 0 or not self._file.data_record_duration > 0:
            raise BadRecord(f"{self.path}: channel {name!r} has no sampling rate: mend the header")
        return float(rate)

    def _gain(self, name: str) -> tuple[float, float]:
        """Physical value of a step, and of step 0."""
        place = self._place(name)
        assert place is not None  # it was found
        try:
            signal = self._signals[place]
            low, high = float(signal.physical_min), float(signal.physical_max)
            bottom, top = int(signal.digital_min), int(signal.digital_max)
        except Exception as error:  # edfio raises many kinds on damaged headers
            raise BadRecord(f"{self.path}: channel {name!r}: its range is no number: mend the header") from error
        if low == high or bottom >= top or not np.isfinite([low, high]).all():
            what = f"physical {low:g} to {high:g}, digital {bottom} to {top}"
            raise BadRecord(f"{self.path}: channel {name!r} is not calibrated ({what}): mend the header")
        step = (high - low) / (top - bottom)
        return step, low - bottom * step

    def _onsets(self) -> npt.NDArray[np.float64]:
        """Start of each block (s)."""
        count, duration = self._file.num_data_records, self._file.data_record_duration
        told = self._head.onsets(count)
        if told is None:
            if self._head.discontinuous:
                raise BadRecord(f"{self.path}: is discontinuous, but its blocks have no times: export it anew")
            return np.arange(count) * float(duration)
        return told

    def _in_time(
        self, samples: npt.NDArray[np.float32], onsets: npt.NDArray[np.float64], rate: float, each: int
    ) -> npt.NDArray[np.float32]:
        """Samples at their times, missing ones in gaps."""
        starts = np.round((onsets - onsets[0]) * rate).astype(np.int64) if len(onsets) else np.zeros(0, np.int64)
        if (np.diff(starts) == each).all():
            return samples
        if (np.diff(starts) < each).any():
            raise BadRecord(f"{self.path}: blocks overlap in time, or run back: export it anew")
        out = np.full(int(starts[-1]) + each, np.nan, np.float32)
        for start, block in zip(starts, samples.reshape(len(starts), each), strict=True):
            out[start : start + each] = block
        return out


class _Head:
    """What the first bytes say of blocks: edfio tells whether they follow each other, but not when they start.

    Args:
        path: The file.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no EDF file.
    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            fixed = file.read(256)
            self.records, count = int(fixed[236:244]), int(fixed[252:256])
            fields = file.read(256 * count)
        self.path = path
        self.bytes = 3 if path.suffix.lower() == ".bdf" else 2
        self.start = int(fixed[184:192])
        self.clock = fixed[168:184].decode("latin-1")
        self.discontinuous = fixed[192:236].strip()[3:5] == b"+D"
        self.labels = [fields[16 * i : 16 * i + 16].decode("latin-1").strip() for i in range(count)]
        lengths = [int(fields[216 * count + 8 * i : 216 * count + 8 * i + 8]) for i in range(count)]
        self.ends = np.cumsum([0, *lengths])

    @property
    def has_signals(self) -> bool:
        """Whether it holds more than annotations."""
        return any(label not in _ANNOTATIONS for label in self.labels)

    def onsets(self, records: int) -> npt.NDArray[np.float64] | None:
        """Start of each block (s); None where no annotation says it."""
        place = next((i for i, label in enumerate(self.labels) if label in _ANNOTATIONS), None)
        if place is None:
            return None
        width = int(self.ends[-1]) * self.bytes
        first, last = int(self.ends[place]) * self.bytes, int(self.ends[place + 1]) * self.bytes
        found = []
        with self.path.open("rb") as file:
            for number in range(records):
                file.seek(self.start + number * width + first)
                match = _ONSET.match(file.read(last - first))
                if match is None:
                    return None
                found.append(float(match.group(1)))
        return np.array(found)


def has_signals(path: Path) -> bool:
    """Whether a file holds signals, and not annotations alone (a hypnogram); True where it cannot be told."""
    try:
        return _Head(path).has_signals
    except (OSError, ValueError):
        return True  # it is refused when it is read


def write_edf(
    path: Path,
    rate: float,
    values: Mapping[str, npt.NDArray[np.floating]],
    units: Mapping[str, str],
    annotations: Sequence[tuple[float, float, str]] = (),
) -> None:
    """Write an EDF file, or EDF+ where there are annotations: start (s), duration (s) and text of each."""
    edfio = _edfio()
    signals = [
        edfio.EdfSignal(np.asarray(own, np.float64), rate, label=name, physical_dimension=units[name])
        for name, own in values.items()
    ]
    marks = [edfio.EdfAnnotation(start, duration or None, text) for start, duration, text in annotations]
    edfio.Edf(signals, annotations=marks or None).write(path)


def _edfio() -> ModuleType:
    try:
        import edfio
    except ImportError as error:
        raise FedlitError("EDF files are read by edfio, which is not installed: pip install fedlit[edf]") from error
    return edfio


def _text(text: str) -> str:
    """Text of a header that was read as Latin-1, and may be UTF-8."""
    try:
        return text.encode("latin-1").decode("utf-8").strip()
    except UnicodeDecodeError:
        return text.strip()


def _kind(error: Exception) -> str:
    return type(error).__name__
