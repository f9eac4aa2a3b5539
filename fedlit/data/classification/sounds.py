"""Sounds to waveforms of one rate and length: resampled, cut or padded."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import numpy as np

from fedlit.data.base import arguments
from fedlit.data.base.names import few
from fedlit.data.base.records import BadRecord
from fedlit.data.classification.examples import Example, Modality
from fedlit.data.classification.module import ClassificationDataModule
from fedlit.data.classification.reach import Reach
from fedlit.data.files.sounds import Waveform, read_sound
from fedlit.data.signals.resampling import resample
from fedlit.errors import FedlitError

Padding = Literal["circular", "zeros", "crop"]
Long = Literal["cut", "pieces"]
FADE_SECONDS = 1 / 16
OVERHANG_SECONDS = 0.05
"""How far an annotation may reach beyond the end of its sound: times are written by hand, and rounded."""


def fitted(values: Waveform, rate: float, seconds: float, padding: Padding) -> Waveform:
    """A waveform of exactly ``seconds``; what is longer is cut at the end.

    ``circular`` does as the code of FHBench (arXiv 2504.10817): linear fades from and to 0 of 1/16 s at both ends (of
    half of the sound where that is shorter), then the sound repeated from its start until the length is reached, then
    such a fade to 0 at the end once more. ``zeros`` has the same fades at the sound's ends, and silence after it.
    ``crop`` changes no sample, and takes no shorter sound.

    Args:
        values: Shape ``(samples,)``.
        rate: Its samples per second (Hz).
        seconds: Length wanted.
        padding: What a shorter sound gets.

    Returns:
        Shape ``(round(seconds * rate),)``.

    Raises:
        FedlitError: A shorter sound where ``padding`` is ``crop``.
    """
    size = round(seconds * rate)
    if padding == "crop":
        if len(values) < size:
            lasts = f"lasts {len(values) / rate:.3f} s, data.seconds is {seconds:g}"
            raise FedlitError(f"{lasts}: lower it, or set data.padding to circular or zeros")
        return values[:size].copy()
    ramp = round(rate * FADE_SECONDS)
    whole = _faded_at_both_ends(values, rate)
    if len(whole) > size:
        return np.ascontiguousarray(whole[:size])
    if padding == "zeros":
        return np.pad(whole, (0, size - len(whole)))
    repeated = np.tile(whole, math.ceil(size / len(whole)))[:size]
    return np.ascontiguousarray(_faded(repeated[::-1], ramp)[::-1])


def pieces(values: Waveform, rate: float, seconds: float, padding: Padding) -> Waveform:
    """A waveform as pieces of ``seconds``, evenly spaced from its start to its end, as few as hold every sample.

    Neighbours overlap where the length is no multiple of ``seconds``. The first is what :func:`fitted` gives of a
    longer sound, and all of a shorter one is a single piece.

    Returns:
        Shape ``(pieces, round(seconds * rate))``.

    Raises:
        FedlitError: A shorter sound where ``padding`` is ``crop``.
    """
    size = round(seconds * rate)
    if len(values) <= size:
        return fitted(values, rate, seconds, padding)[None]
    whole = values if padding == "crop" else _faded_at_both_ends(values, rate)
    count = math.ceil(len(whole) / size)
    starts = np.linspace(0, len(whole) - size, count).round().astype(np.int64)
    return np.stack([whole[start : start + size] for start in starts])


def span_fault(start: float, stop: float, seconds: float) -> str | None:
    """Why the part from ``start`` to ``stop`` (s) of a sound of ``seconds`` cannot be used, or None."""
    if not (math.isfinite(start) and math.isfinite(stop)):
        return f"lasts from {start} to {stop} s: mend the times"
    if stop <= start:
        return f"ends at {stop:g} s, and starts at {start:g} s: mend the times"
    if start < 0:
        return f"starts at {start:g} s, before the sound: mend the times"
    if stop > seconds + OVERHANG_SECONDS or start >= seconds:
        return f"ends at {stop:g} s, and the sound at {seconds:.3f} s: mend the times, or copy the whole sound file"
    return None


class SoundReader(ClassificationDataModule):
    """Sounds to classify, as waveforms of one rate and length.

    Each sound is resampled (polyphase, with an anti-alias filter) and padded once, when it is loaded; 8 s at 16 kHz are
    0.5 MB in memory, or in ``cache_folder``. What is cut off is counted in ``partition.json``.

    Args:
        rate: Samples per second (Hz) that the backbone wants: 16000 for wav2vec2 and AST.
        seconds: Length of each example.
        padding: What shorter sounds get: ``circular`` repeats them, ``zeros`` adds silence, ``crop`` takes none.
        long: What longer sounds become: ``cut`` drops their end; ``pieces`` makes evenly spaced examples of them,
            ``<id>/0``, ``<id>/1``, ..., which stay on one side of the split, see :func:`pieces`.
        kwargs: See :class:`fedlit.data.classification.module.ClassificationDataModule`.
    """

    modality: ClassVar[Modality] = "audio"
    unit: ClassVar[str] = "s"
    added_arguments: ClassVar[Mapping[str, object]] = {"long": "cut"}
    rate: float
    _decoded: tuple[Path, Waveform, int] | None
    _whole: tuple[str, Waveform] | None
    _silent: dict[str, int]

    def __init__(
        self,
        rate: float = 16000.0,
        seconds: float = 8.0,
        padding: Padding = "circular",
        long: Long = "cut",
        **kwargs: Any,
    ) -> None:
        arguments.above_zero(rate=rate, seconds=seconds)
        arguments.one_of("padding", padding, Padding)
        arguments.one_of("long", long, Long)
        if round(seconds * rate) < 1:
            raise FedlitError(f"data.seconds is {seconds}: at {rate:g} Hz that is no sample, raise it")
        self.rate = rate
        self.seconds = seconds
        self.padding = padding
        self.long = long
        super().__init__(**kwargs)

    @property
    def _in_pieces(self) -> bool:
        return self.long == "pieces"

    @property
    def _cuts(self) -> bool:
        return self._in_pieces or type(self).cut is not SoundReader.cut

    def cut(self, example: Example) -> list[Example]:
        """The pieces of a sound, named ``<id>/<number>``; silent ones are left out and counted, but with ``parity``."""
        if not self._in_pieces:
            return [example]
        value = cast(Waveform, example.value).reshape(-1, self._samples)
        moves = np.ptp(value, axis=1) > 0
        if (still := int((~moves).sum())) and not self.parity:
            self._silent[example.id] = still
        source = partial(self._whole_of, example) if callable(example.values) else value
        return [
            replace(example, id=f"{example.id}/{k}", values=partial(_piece, source, k))
            for k in range(len(value))
            if moves[k] or self.parity
        ]

    def _whole_of(self, example: Example) -> Waveform:
        """All pieces of a sound, (pieces, samples); the last sound's are kept for the next piece."""
        if self._whole is None or self._whole[0] != example.id:
            self._whole = (example.id, cast(Waveform, example.value).reshape(-1, self._samples))
        return self._whole[1]

    def mend_of_cuts(self) -> str:
        """Sounds lose their ends."""
        return "raise data.seconds, or set data.long to pieces"

    @property
    def _samples(self) -> int:
        """Samples of an example."""
        return round(self.seconds * self.rate)

    def excerpt(self, path: Path, start: float = 0.0, stop: float | None = None) -> Waveform:
        """Part of a file, from ``start`` to ``stop`` (s), at ``rate``, cut to ``seconds`` or into pieces of them.

        The last file is kept decoded, so that its parts, asked for one after the other, cost one decoding.

        Returns:
            Shape ``(pieces * round(seconds * rate),)``; one piece unless ``long`` is ``pieces``.

        Raises:
            BadRecord: The file cannot be read, or the part holds no sample.
        """
        if self._decoded is None or self._decoded[0] != path:
            self._decoded = (path, *read_sound(path))
        _, values, rate = self._decoded
        part = values[round(start * rate) : None if stop is None else round(stop * rate)]
        if not len(part):
            raise BadRecord(f"{path}: holds no sample from {start:g} s to {stop:g} s: mend the times")
        make = pieces if self._in_pieces else fitted
        try:
            out = make(resample(part, rate, self.rate), self.rate, self.seconds, self.padding).ravel()
        except FedlitError as error:
            raise BadRecord(f"{path}: {error}") from error
        lasts = len(part) / rate
        self._reach = Reach(lasts, lasts if self._in_pieces else min(lasts, self.seconds))
        return out

    def part(self, path: Path, start: float = 0.0, stop: float | None = None) -> partial[Waveform]:
        """A function that gives the :meth:`excerpt`, for ``Example.values``."""
        return partial(self.excerpt, path, start, stop)

    def describe(self) -> dict[str, Any]:
        """Contents of ``partition.json``, with what was done to the sounds."""
        own = {"rate": self.rate, "seconds": self.seconds, "padding": self.padding, "long": self.long}
        return super().describe() | {"sounds": own | {"silent_pieces_left_out": dict(sorted(self._silent.items()))}}

    def _look_over(self) -> None:
        super()._look_over()
        if self._silent:
            named = few(sorted(self._silent))
            self.say(f"{sum(self._silent.values())} silent piece(s) of {len(self._silent)} sound(s) left out: {named}")

    def setup(self, stage: str | None = None) -> None:
        """Read, check, partition, split."""
        super().setup(stage)
        self._decoded = self._whole = None

    def _forget(self) -> None:
        super()._forget()
        self._decoded = self._whole = None
        self._silent = {}


def _piece(pieces_of: Callable[[], Waveform] | Waveform, number: int) -> Waveform:
    whole = pieces_of() if callable(pieces_of) else pieces_of
    return np.asarray(whole[number])


def _faded_at_both_ends(values: Waveform, rate: float) -> Waveform:
    ramp = round(rate * FADE_SECONDS)
    return _faded(_faded(values, ramp)[::-1], ramp)[::-1]


def _faded(values: Waveform, samples: int) -> Waveform:
    """With a linear rise from 0 over the first ``samples``, at most half of all."""
    out = values.copy()
    length = min(samples, len(values) // 2)
    out[:length] *= np.linspace(0, 1, length, dtype=np.float32)
    return out
