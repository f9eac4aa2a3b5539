"""Generated sounds for stand-ins: no recording of anyone's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedlit import seeds


def stand_in_sound(number: int, of_class: int, seconds: float = 1.0, rate: int = 4000) -> npt.NDArray[np.float32]:
    """Noise with a tone of its class; no two numbers give the same.

    Args:
        number: Of the sound.
        of_class: Index of its class.
        seconds: Duration.
        rate: Samples per second (Hz).

    Returns:
        Shape ``(round(seconds * rate),)``, within [-0.8, 0.8].
    """
    time = np.arange(round(seconds * rate)) / rate
    noise = seeds.numpy_generator(0, "stand-in sound", number).uniform(-1, 1, len(time))
    tone = np.sin(2 * np.pi * 100 * (1 + of_class) * time)
    return (0.4 * noise + 0.4 * tone).astype(np.float32)


def write_sound(path: Path, values: npt.NDArray[np.float32], rate: int = 4000) -> None:
    """As WAV of 16 bits; folders are made."""
    import soundfile

    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(str(path), values, rate, subtype="PCM_16", format="WAV")
