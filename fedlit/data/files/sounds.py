"""Sound files, decoded: WAV and what else libsndfile reads, whole or not at all."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import numpy.typing as npt

from fedlit.data.base.records import BadRecord

Waveform = npt.NDArray[np.float32]
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
