"""Signals to classify: channels brought to one rate and scaled, as whole records or cut into windows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import numpy as np
import numpy.typing as npt

from fedlit.data.base import arguments
from fedlit.data.base.names import NameRule, few
from fedlit.data.base.records import BadRecord
from fedlit.data.classification.examples import Example, Modality
from fedlit.data.classification.module import ClassificationDataModule
from fedlit.data.signals.flat import FLAT
from fedlit.errors import FedlitError

SignalScale = Literal["record", "window", "none"]
Signals = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Window:
    """Samples ``[start, stop)`` of a recording, copied when called, so that a window does not keep its recording.

    Attributes:
        source: Shape ``(channels, samples)``, or a function that gives it.
        start: First sample.
        stop: One after the last.
        scaled: Whether each channel is brought to mean 0 and deviation 1 over the window.
    """

    source: Signals | Callable[[], Signals]
    start: int
    stop: int
    scaled: bool

    def __call__(self) -> Signals:
        whole = self.source() if callable(self.source) else self.source
        part = whole[:, self.start : self.stop]
        return standardised(part) if self.scaled else part.copy()


def standardised(values: Signals) -> Signals:
    """Each channel at mean 0 and (population) deviation 1; a constant one becomes 0. Shape ``(channels, samples)``."""
    wide = values.astype(np.float64)
    deviation = wide.std(axis=1, keepdims=True)
    flat = deviation <= FLAT * np.abs(wide).max(axis=1, keepdims=True)
    out = (wide - wide.mean(axis=1, keepdims=True)) / np.where(flat, 1.0, deviation)
    return np.where(flat, 0.0, out).astype(np.float32)


class SignalClasses(ClassificationDataModule):
    """Recordings of several channels to classify. A reader gives each example ``self.values_of(id, file)`` as values.

    Args:
        rate: Hz that all recordings are brought to: polyphase with a filter against aliasing; with ``parity``, by
            straight lines without one, as the code of FHBench (arXiv 2504.10817).
        window_seconds: Length of the windows that a recording is cut into, one after the other from its first sample,
            each an example of its own; what is left at the end is dropped. None: a recording is one example.
        max_windows: At most so many windows a recording, evenly spaced; None: all.
        scale: Mean 0 and deviation 1 of each channel over its ``record`` or ``window``, or ``none``. A constant channel
            becomes 0 and is counted.
        kwargs: See :class:`fedlit.data.classification.module.ClassificationDataModule`.
    """

    modality: ClassVar[Modality] = "signal"
    rate: float
    _last: tuple[str, Signals] | None
    _constant: dict[str, list[str]]

    def __init__(
        self,
        rate: float,
        window_seconds: float | None = None,
        max_windows: int | None = None,
        scale: SignalScale = "record",
        **kwargs: Any,
    ) -> None:
        self.rate = float(rate)
        self.window_seconds = window_seconds
        self.max_windows = max_windows
        self.scale = scale
        arguments.above_zero(rate=self.rate, window_seconds=window_seconds, max_windows=max_windows)
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
        count = np.shape(example.value)[1] // length
        most = min(count, int(self.max_windows or count))
        numbers = [(2 * k + 1) * count // (2 * most) for k in range(most)]
        source = cast(Signals | Callable[[], Signals], example.values)
        scaled = self.scale == "window"
        return [
            replace(example, id=f"{example.id}/{k}", values=Window(source, k * length, (k + 1) * length, scaled))
            for k in numbers
        ]

    def describe(self) -> dict[str, Any]:
        """Contents of ``partition.json``, with what was done to the signals."""
        return super().describe() | {
            "signals": {
                "rate": self.rate,
                "resampled": self.protocol.resampling,
                "window_seconds": self.window_seconds,
                "max_windows": self.max_windows,
                "scale": self.scale,
                "constant_channels": dict(sorted(self._constant.items())),
            }
        }

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
        rows, constant = [], []
        for name, values in channels.items():
            bad = int((~np.isfinite(values)).sum())
            if bad:
                raise BadRecord(f"{path}: channel {name} has {bad} missing or infinite sample(s): mend them")
            if not len(values):
                raise BadRecord(f"{path}: channel {name} holds no samples: copy the file again")
            rows.append(self.protocol.resample(np.asarray(values, np.float32), rates[name], self.rate))
            if values.min() == values.max():
                rows[-1] = np.full_like(rows[-1], values[0])
                constant.append(name)
        out = np.stack(_of_one_length(path, dict(zip(channels, rows, strict=True))))
        if len(constant) == len(rows):
            raise BadRecord(f"{path}: every channel is constant: leave the record out")
        if out.shape[1] < (self.window_samples or 1):
            raise BadRecord(
                f"{path}: {out.shape[1] / self.rate:g} s long, shorter than data.window_seconds "
                f"{self.window_seconds}: lower it, or leave the record out"
            )
        if constant:
            self._constant[record_id] = constant
        whole = self.scale == "record" or (self.scale == "window" and self.window_seconds is None)
        return standardised(out) if whole else out

    def _look_over(self) -> None:
        super()._look_over()
        if self._constant:
            done = "left as they are" if self.scale == "none" else "scaled to 0"
            named = [f"{name} ({few(channels)})" for name, channels in sorted(self._constant.items())]
            self.say(f"{len(named)} record(s) have constant channels, which are {done}: {few(named)}")

    def _forget(self) -> None:
        super()._forget()
        self._constant = {}
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
