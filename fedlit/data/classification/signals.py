"""Signals to classify: channels brought to one rate and scaled, as whole records or cut into windows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import numpy as np
import numpy.typing as npt

from fedlit.data.base import arguments
from fedlit.data.base.names import NameRule, few
from fedlit.data.base.overview import Shown
from fedlit.data.base.records import BadRecord
from fedlit.data.classification import examples
from fedlit.data.classification.examples import Example, Modality
from fedlit.data.classification.module import ClassificationDataModule
from fedlit.data.classification.overview import ChannelAsRead, channels_as_read
from fedlit.data.classification.reach import Reach
from fedlit.data.classification.windows import Signals, Window, faults, filled, runs, standardised
from fedlit.errors import FedlitError

SignalScale = Literal["record", "window", "none"]


class SignalClasses(ClassificationDataModule):
    """Recordings of several channels to classify. A reader gives each example ``self.values_of(id, file)`` as values.

    Missing samples (NaN) are no fault of a recording that is cut into windows: those that hold one are left out, and so
    are those in which no channel moves (with ``parity`` these are kept), both counted in ``partition.json``; a
    recording without a window left is a bad record. A recording that is one example must be whole.

    Args:
        rate: Hz that all recordings are brought to: polyphase with a filter against aliasing; with ``parity``, by
            straight lines without one, as the code of FHBench (arXiv 2504.10817).
        window_seconds: Length of the windows that a recording is cut into, one after the other from its first sample,
            each an example of its own; what is left at the end is dropped, and counted. None: a recording is one
            example.
        max_windows: At most so many windows a recording, evenly spaced among those that can be used; None: all.
        scale: Mean 0 and deviation 1 of each channel over its ``record`` or ``window``, or ``none``. A constant channel
            becomes 0 and is counted.
        fill_gaps_seconds: Gaps (missing samples) of at most this length become straight lines between their
            neighbours; None: none do.
        kwargs: See :class:`fedlit.data.classification.module.ClassificationDataModule`.
    """

    modality: ClassVar[Modality] = "signal"
    unit: ClassVar[str] = "s"
    added_arguments: ClassVar[Mapping[str, object]] = {"fill_gaps_seconds": None}
    added_facts: ClassVar[Mapping[str, str | None]] = {"windows_left_out": None}
    rate: float
    _last: tuple[str, Signals] | None
    _constant: dict[str, list[str]]
    _gaps: dict[str, dict[str, int]]
    _faulty: dict[str, dict[str, int]]

    def __init__(
        self,
        rate: float,
        window_seconds: float | None = None,
        max_windows: int | None = None,
        scale: SignalScale = "record",
        fill_gaps_seconds: float | None = None,
        **kwargs: Any,
    ) -> None:
        self.rate = float(rate)
        self.window_seconds = window_seconds
        self.max_windows = max_windows
        self.scale = scale
        self.fill_gaps_seconds = fill_gaps_seconds
        arguments.above_zero(rate=self.rate, window_seconds=window_seconds, max_windows=max_windows)
        arguments.above_zero(fill_gaps_seconds=fill_gaps_seconds)
        if self.window_samples == 0:
            raise FedlitError(f"data.window_seconds is {window_seconds}: less than a sample at data.rate {rate:g} Hz")
        arguments.one_of("scale", scale, SignalScale)
        if max_windows is not None and window_seconds is None:
            raise FedlitError("data.max_windows needs windows: set data.window_seconds, or leave it out")
        super().__init__(**kwargs)

    @property
    def window_samples(self) -> int | None:
        """Samples in a window; None for whole recordings."""
        return None if self.window_seconds is None else round(self.window_seconds * self.rate)

    def read_signals(self, path: Path) -> tuple[Mapping[str, npt.NDArray[np.floating]], float | Mapping[str, float]]:
        """Channel name to its samples, in the order wanted, and their rate (Hz), or that of each channel.

        Raises:
            BadRecord: The file cannot be used; the message names it and the mend.
        """
        raise NotImplementedError

    def values_of(self, record_id: str, path: Path) -> Callable[[], Signals]:
        """``Example.values`` of a recording: a function that reads it, ``(channels, samples)``."""
        return partial(self._values, record_id, path)

    def cut(self, example: Example) -> list[Example]:
        """The windows of a recording, named ``<id>/<number>``, numbers from 0 at its start."""
        length = self.window_samples
        if length is None:
            return [example]
        value = cast(Signals, example.value)
        numbers = self._usable_windows(value)
        if any((counts := faults(value, length).counts()).values()):
            self._faulty[example.id] = counts
        most = min(len(numbers), int(self.max_windows or len(numbers)))
        chosen = [numbers[(2 * k + 1) * len(numbers) // (2 * most)] for k in range(most)]
        sound = value.shape[1] - length * (value.shape[1] // length - len(numbers))
        self._reach = Reach(sound / self.rate, most * length / self.rate)
        source = cast(Signals | Callable[[], Signals], example.values)
        scaled = self.scale == "window"
        return [
            replace(example, id=f"{example.id}/{k}", values=Window(source, k * length, (k + 1) * length, scaled))
            for k in chosen
        ]

    def value_fault(self, value: object) -> str | None:
        """Why a value cannot be used, or None; windows with missing samples are left out when it is cut."""
        return examples.value_fault(value, self.modality, gaps=self._cuts)

    def blank(self, value: object) -> str | None:
        """What a value that does not vary says; windows that do not are left out when it is cut."""
        return None if self._cuts else super().blank(value)

    def mend_of_cuts(self) -> str:
        """The recordings' ends are lost, or windows that were not asked for."""
        if self.max_windows is not None:
            return "raise data.max_windows, or leave it out"
        return "set a smaller data.window_seconds, or one that divides the recordings' length"

    def describe(self) -> dict[str, Any]:
        """Contents of ``partition.json``, with what was done to the signals."""
        return super().describe() | {
            "signals": {
                "rate": self.rate,
                "resampled": self.protocol.resampling,
                "window_seconds": self.window_seconds,
                "max_windows": self.max_windows,
                "scale": self.scale,
                "fill_gaps_seconds": self.fill_gaps_seconds,
                "constant_channels": dict(sorted(self._constant.items())),
                "gaps": dict(sorted(self._gaps.items())),
                "windows_left_out": dict(sorted(self._faulty.items())),
            }
        }

    def shown(self, samples: int) -> Shown:
        """What signals show, with the channels as they are in the files."""
        held = {c: [self.records[i].id for own in sides.values() for i in own] for c, sides in self._sides.items()}
        shown, as_read = super().shown(samples), channels_as_read(held, self._as_read, self.channel_unit)
        return shown._replace(tables=[*shown.tables, as_read])

    def channel_unit(self, channel: str) -> str:
        """Unit of the values that :meth:`read_signals` gave for a channel; empty where it is not known."""
        return ""

    @property
    def _cuts(self) -> bool:
        return self.window_seconds is not None

    def _values(self, record_id: str, path: Path) -> Signals:
        # With parity, windows are cut before any value is kept, and come in the order of their recordings.
        if self._last is None or self._last[0] != record_id:
            self._last = (record_id, self._prepared(record_id, path))
        return self._last[1]

    def _prepared(self, record_id: str, path: Path) -> Signals:
        channels, rate = self.read_signals(path)
        rates = rate if isinstance(rate, Mapping) else dict.fromkeys(channels, rate)
        self._check_samples(path, channels)
        self._as_read[record_id] = {name: ChannelAsRead.of(values, rates[name]) for name, values in channels.items()}
        whole_channels, gaps = filled(channels, rates, self.fill_gaps_seconds)
        if not self._cuts:
            self._check_whole(path, whole_channels, rates)
        rows, constant = [], []
        for name, values in whole_channels.items():
            rows.append(self.protocol.resample(np.asarray(values, np.float32), rates[name], self.rate))
            if np.nanmin(values) == np.nanmax(values):
                rows[-1] = np.where(np.isnan(rows[-1]), rows[-1], np.float32(np.nanmin(values)))
                constant.append(name)
        out = np.stack(_of_one_length(path, dict(zip(channels, rows, strict=True))))
        if len(constant) == len(rows):
            raise BadRecord(f"{path}: every channel is constant: leave the record out")
        if out.shape[1] < (self.window_samples or 1):
            lasts = max(len(values) / rates[name] for name, values in channels.items())
            raise BadRecord(
                f"{path}: {lasts:g} s long, shorter than data.window_seconds "
                f"{self.window_seconds}: lower it, or leave the record out"
            )
        scaled = self.scale == "record" or (self.scale == "window" and self.window_seconds is None)
        out = standardised(out) if scaled else out
        self._check_windows(path, out)
        if gaps is not None:
            self._gaps[record_id] = gaps
        if constant:
            self._constant[record_id] = constant
        return out

    @staticmethod
    def _check_samples(path: Path, channels: Mapping[str, npt.NDArray[np.floating]]) -> None:
        """Refuse channels without a sample, and infinite samples."""
        for name, values in channels.items():
            if not len(values):
                raise BadRecord(f"{path}: channel {name} holds no samples: copy the file again")
            if np.isnan(values).all():
                raise BadRecord(f"{path}: channel {name} has no sample that is not missing: leave the record out")
            if bad := int(np.isinf(values).sum()):
                raise BadRecord(f"{path}: channel {name} has {bad} infinite sample(s): mend them")

    @staticmethod
    def _check_whole(path: Path, channels: Mapping[str, npt.NDArray[np.floating]], rates: Mapping[str, float]) -> None:
        """Refuse missing samples where a recording is one example."""
        for name, values in channels.items():
            if len(gaps := runs(values)):
                lengths = np.diff(gaps)
                longest = f"{lengths.max() / rates[name]:.4g}"
                ends = gaps[0, 0] == 0 or gaps[-1, 1] == len(values)
                fill = "" if ends else f"data.fill_gaps_seconds to {longest}, or "
                raise BadRecord(
                    f"{path}: channel {name} has {lengths.sum()} missing sample(s) in {len(gaps)} gap(s) of up to "
                    f"{longest} s{' (at its start or end)' if ends else ''}: set {fill}data.window_seconds, so that "
                    f"only windows with missing samples are left out"
                )

    def _check_windows(self, path: Path, values: Signals) -> None:
        """Refuse a recording of which no window can be used."""
        if self.window_samples is None or self._usable_windows(values):
            return
        counts = faults(values, self.window_samples).counts()
        filling = "data.fill_gaps_seconds, or a smaller data.window_seconds"
        mend = f"set {filling}" if counts["missing"] else "leave the record out"
        raise BadRecord(
            f"{path}: none of its {sum(counts.values())} windows can be used, {counts['missing']} have missing "
            f"samples, in {counts['flat']} no channel moves: {mend}"
        )

    def _usable_windows(self, values: Signals) -> list[int]:
        """Numbers of the windows that become examples; with ``parity``, those that do not move are among them."""
        assert self.window_samples is not None  # a recording is cut
        found = faults(values, self.window_samples)
        return [int(k) for k in np.flatnonzero(~found.missing)] if self.parity else found.usable

    def _describe_client(self, client: str) -> dict[str, Any]:
        held = {self.records[i].id for side in self._sides[client].values() for i in side}
        own = [counts for name, counts in self._faulty.items() if name in held]
        left_out = {fault: sum(counts[fault] for counts in own) for fault in ("missing", "flat")}
        return super()._describe_client(client) | ({"windows_left_out": left_out} if self._cuts else {})

    def _look_over(self) -> None:
        super()._look_over()
        if self._constant:
            done = "left as they are" if self.scale == "none" else "scaled to 0"
            named = [f"{name} ({few(channels)})" for name, channels in sorted(self._constant.items())]
            self.say(f"{len(named)} record(s) have constant channels, which are {done}: {few(named)}")
        if self._faulty:
            missing, flat = (sum(own[fault] for own in self._faulty.values()) for fault in ("missing", "flat"))
            kept = " (which parity keeps)" if self.parity else ""
            self.say(
                f"{missing} window(s) with missing samples and {flat} in which no channel moves{kept} are left out of "
                f"{len(self._faulty)} record(s): {few(sorted(self._faulty))}; see partition.json"
            )
        samples = sum(own["filled_samples"] for own in self._gaps.values())
        if samples:
            gaps = sum(own["filled_gaps"] for own in self._gaps.values())
            self.say(f"{samples} missing sample(s) in {gaps} gap(s) are filled by straight lines (fill_gaps_seconds)")

    def _forget(self) -> None:
        super()._forget()
        self._as_read: dict[str, dict[str, ChannelAsRead]] = {}
        self._constant = {}
        self._gaps = {}
        self._faulty = {}
        self._last = None


def _of_one_length(path: Path, rows: Mapping[str, Signals]) -> list[Signals]:
    """Channels of one duration; where their rates differ, rounding may leave a sample more in one, which is cut."""
    shortest = min(map(len, rows.values()))
    longest = max(rows, key=lambda name: len(rows[name]))
    if len(rows[longest]) - shortest > 1:
        lengths = ", ".join(f"{name} {len(row)}" for name, row in rows.items())
        raise BadRecord(f"{path}: channels are of different length at data.rate ({lengths} samples): mend the file")
    return [row[:shortest] for row in rows.values()]


def unique_names(argument: str, names: list[str] | None, usual: tuple[str, ...]) -> list[str]:
    """Channels asked for, or the usual ones; case does not matter.

    Raises:
        FedlitError: There are none, or one twice; it names ``argument``.
    """
    chosen = list(usual if names is None else names)
    if not chosen or len({name.lower() for name in chosen}) < len(chosen):
        raise FedlitError(f"data.{argument} is {', '.join(chosen) or 'empty'}: name each channel once, any case")
    return chosen


def named_by(argument: str, pattern: str | None) -> NameRule | None:
    """The rule of a pattern, or None without one."""
    return None if pattern is None else NameRule(f"data.{argument}", pattern)
