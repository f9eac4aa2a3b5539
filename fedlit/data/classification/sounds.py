"""Sound files to waveforms of one rate and length: decoded, mixed to mono, resampled, cut or padded."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from fedlit.data.base import arguments
from fedlit.data.base.records import BadRecord
from fedlit.data.classification.examples import Modality
from fedlit.data.classification.module import ClassificationDataModule
from fedlit.data.signals.resampling import resample
from fedlit.errors import FedlitError

Waveform = npt.NDArray[np.float32]
Padding = Literal["circular", "zeros", "crop"]
FADE_SECONDS = 1 / 16
OVERHANG_SECONDS = 0.05
"""How far an annotation may reach beyond the end of its sound: times are written by hand, and rounded."""
_UNKNOWN_SIZE = 0xFFFFFFFF


@dataclass(frozen=True)
class SoundHeader:
    """What a file says of its sound.

    Attributes:
        rate: Samples per second (Hz).
        frames: Samples of each channel.
    """

    rate: int
    frames: int

    @property
    def seconds(self) -> float:
        """Duration."""
        return self.frames / self.rate


def read_header(path: Path) -> SoundHeader:
    """Rate and length of a sound file, which must be whole.

    Raises:
        BadRecord: It is absent, no sound, empty, or cut short.
    """
    import soundfile

    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            lacking = _lacking(file, size)
        if not size:
            raise BadRecord(f"{path}: is empty (0 bytes): copy it again, or leave it out")
        if lacking:
            raise BadRecord(f"{path}: ends {lacking} bytes before the end of its sound: copy the whole file again")
        about = soundfile.info(str(path))
    except OSError as error:
        raise BadRecord(f"{path}: {error.strerror}: copy it there, or leave its record out") from error
    except soundfile.SoundFileError as error:
        raise BadRecord(_unreadable(path, error)) from error
    if not about.frames or not about.samplerate:
        raise BadRecord(f"{path}: holds no samples: copy it again, or leave it out")
    return SoundHeader(int(about.samplerate), int(about.frames))


def read_sound(path: Path) -> tuple[Waveform, int]:
    """Decode a file: WAV of 8, 16, 24, 32 bits or floats, and what else libsndfile reads.

    Returns:
        The mean of the channels, shape ``(samples,)``, integers scaled to [-1, 1); and its rate (Hz).

    Raises:
        BadRecord: It cannot be read whole, or holds NaN or infinite samples.
    """
    import soundfile

    header = read_header(path)
    try:
        values, rate = soundfile.read(str(path), dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError) as error:
        raise BadRecord(_unreadable(path, error)) from error
    if len(values) < header.frames:
        raise BadRecord(f"{path}: holds {len(values)} of {header.frames} samples: copy the whole file again")
    if not np.isfinite(values).all():
        raise BadRecord(f"{path}: holds {int((~np.isfinite(values)).sum())} NaN or infinite sample(s): mend them")
    return np.ascontiguousarray(values[:, 0] if values.shape[1] == 1 else values.mean(axis=1)), int(rate)


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
    whole = _faded(_faded(values, ramp)[::-1], ramp)[::-1]
    if len(whole) > size:
        return np.ascontiguousarray(whole[:size])
    if padding == "zeros":
        return np.pad(whole, (0, size - len(whole)))
    repeated = np.tile(whole, math.ceil(size / len(whole)))[:size]
    return np.ascontiguousarray(_faded(repeated[::-1], ramp)[::-1])


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
    0.5 MB in memory, or in ``cache_folder``.

    Args:
        rate: Samples per second (Hz) that the backbone wants: 16000 for wav2vec2 and AST.
        seconds: Length of each example; longer sounds lose their end.
        padding: What shorter sounds get: ``circular`` repeats them, ``zeros`` adds silence, ``crop`` takes none.
        kwargs: See :class:`fedlit.data.classification.module.ClassificationDataModule`.
    """

    modality: ClassVar[Modality] = "audio"
    rate: float

    def __init__(
        self, rate: float = 16000.0, seconds: float = 8.0, padding: Padding = "circular", **kwargs: Any
    ) -> None:
        arguments.above_zero(rate=rate, seconds=seconds)
        arguments.one_of("padding", padding, Padding)
        if round(seconds * rate) < 1:
            raise FedlitError(f"data.seconds is {seconds}: at {rate:g} Hz that is no sample, raise it")
        self.rate = rate
        self.seconds = seconds
        self.padding = padding
        self._decoded: tuple[Path, Waveform, int] | None = None
        super().__init__(**kwargs)

    def excerpt(self, path: Path, start: float = 0.0, stop: float | None = None) -> Waveform:
        """Part of a file, from ``start`` to ``stop`` (s), at ``rate`` and of ``seconds``.

        The last file is kept decoded, so that its parts, asked for one after the other, cost one decoding.

        Returns:
            Shape ``(round(seconds * rate),)``.

        Raises:
            BadRecord: The file cannot be read, or the part holds no sample.
        """
        if self._decoded is None or self._decoded[0] != path:
            self._decoded = (path, *read_sound(path))
        _, values, rate = self._decoded
        part = values[round(start * rate) : None if stop is None else round(stop * rate)]
        if not len(part):
            raise BadRecord(f"{path}: holds no sample from {start:g} s to {stop:g} s: mend the times")
        try:
            return fitted(resample(part, rate, self.rate), self.rate, self.seconds, self.padding)
        except FedlitError as error:
            raise BadRecord(f"{path}: {error}") from error

    def part(self, path: Path, start: float = 0.0, stop: float | None = None) -> partial[Waveform]:
        """A function that gives the :meth:`excerpt`, for ``Example.values``."""
        return partial(self.excerpt, path, start, stop)

    def setup(self, stage: str | None = None) -> None:
        """Read, check, partition, split."""
        super().setup(stage)
        self._decoded = None


def _faded(values: Waveform, samples: int) -> Waveform:
    """With a linear rise from 0 over the first ``samples``, at most half of all."""
    out = values.copy()
    length = min(samples, len(values) // 2)
    out[:length] *= np.linspace(0, 1, length, dtype=np.float32)
    return out


def _lacking(file: BinaryIO, size: int) -> int:
    """Bytes of sound that a RIFF file announces and does not hold: libsndfile would read the rest without a word."""
    mark, _, form = file.read(4), file.read(4), file.read(4)
    if mark not in (b"RIFF", b"RIFX") or form != b"WAVE":
        return 0
    order: Literal["little", "big"] = "little" if mark == b"RIFF" else "big"
    while len(chunk := file.read(8)) == 8:
        length = int.from_bytes(chunk[4:], order)
        if chunk[:4] == b"data":
            # Programs that write to a pipe do not know the length.
            return 0 if length == _UNKNOWN_SIZE else max(0, length - (size - file.tell()))
        file.seek(length + length % 2, os.SEEK_CUR)
    return 0


def _unreadable(path: Path, error: Exception) -> str:
    what = str(error).rpartition(": ")[2].strip().rstrip(".") or type(error).__name__
    return f"{path}: cannot be read as sound ({what}): give a WAV file, or leave it out"
