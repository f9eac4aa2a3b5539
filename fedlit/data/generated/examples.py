"""Simulated images, texts, sounds and signals of a few classes, for demonstrations: what tells a class is known.

Each function draws one value. Sites differ in how they record (``style``, numbers in [-1, 1]), not in classes.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedlit import seeds
from fedlit.data.generated.heart import LEADS, simulate
from fedlit.data.generated.population import draw_site, draw_subject

STYLES = 4
"""Numbers that say how a site records."""
IMAGE_CLASSES = ("sparse", "dense", "large", "striped", "mixed")
TEXT_CLASSES = ("neoplasm", "digestive", "nervous", "cardiovascular", "general")
SOUND_CLASSES = ("normal", "crackle", "wheeze", "both")
SIGNAL_CLASSES = ("usual", "fast", "wide", "raised", "inverted")
SIDE, SOUND_RATE, SIGNAL_RATE, SIGNAL_SECONDS = 32, 16000, 100.0, 2.56
CELLS = {"sparse": (8, 1.6), "dense": (34, 1.6), "large": (8, 3.6), "striped": (0, 1.0), "mixed": (18, 2.4)}
"""Number and radius (pixels) of the cells of an image."""
WORDS = {
    "neoplasm": ("tumour", "biopsy", "lymph", "radiation", "metastasis", "grade", "margin"),
    "digestive": ("gastric", "bowel", "liver", "biliary", "colon", "reflux", "ulcer"),
    "nervous": ("cortex", "seizure", "nerve", "cognitive", "spinal", "tremor", "migraine"),
    "cardiovascular": ("cardiac", "artery", "pressure", "valve", "infarction", "rhythm", "stent"),
    "general": ("infection", "fever", "injury", "fracture", "syndrome", "wound", "fatigue"),
}
FILLERS = ("patients", "the group", "was seen", "after", "treatment", "with", "during", "clinical", "weeks", "results",
           "in both", "compared", "follow-up", "no change", "of", "reported")  # fmt: skip


def image(label: str, style: npt.NDArray[np.float64], generator: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Cells on a pale ground, uint8 (32, 32, 3): number and size, or stripes, tell the class; sites stain."""
    rows, columns = np.mgrid[:SIDE, :SIDE].astype(np.float64)
    count, radius = CELLS[label]
    dark = np.zeros((SIDE, SIDE))
    for _ in range(generator.poisson(count)):
        y, x = generator.uniform(0, SIDE, 2)
        size = radius * generator.uniform(0.8, 1.2)
        dark = np.maximum(dark, np.exp(-((((rows - y) ** 2 + (columns - x) ** 2) / (2 * size**2)) ** 2)))
    if label == "striped" or (label == "mixed" and generator.random() < 0.5):
        angle, wave = generator.uniform(0, np.pi), generator.uniform(4, 6)
        turned = rows * np.sin(angle) + columns * np.cos(angle)
        dark = np.maximum(dark, 0.4 + 0.4 * np.sin(2 * np.pi * turned / wave))
    stain = np.array([0.45, 0.65, 0.25]) + 0.12 * style[:3]
    ground = np.array([0.93, 0.85, 0.92]) + 0.05 * style[[3, 0, 1]]
    noisy = ground - dark[..., None] * stain + generator.normal(0, 0.03 + 0.02 * (1 + style[3]), (SIDE, SIDE, 3))
    return (255 * np.clip(noisy, 0, 1)).astype(np.uint8)


def text(label: str, style: npt.NDArray[np.float64], generator: np.random.Generator) -> str:
    """A line of notes, 10 to 24 words: a third of them of its class, a few of another; sites differ in length."""
    others = [name for name in TEXT_CLASSES if name != label]
    out = []
    for _ in range(int(10 + 7 * (1 + style[0]) * generator.uniform(0.6, 1.0))):
        draw = generator.random()
        source = WORDS[label] if draw < 0.3 else WORDS[str(generator.choice(others))] if draw < 0.4 else FILLERS
        out.append(str(generator.choice(source)))
    return " ".join(out).capitalize() + "."


def sound(label: str, style: npt.NDArray[np.float64], generator: np.random.Generator) -> npt.NDArray[np.float32]:
    """One second of breath at 16 kHz, float32: clicks are crackles, a tone of 200 to 500 Hz is a wheeze."""
    n = SOUND_RATE
    t = np.arange(n) / n
    noise = np.fft.rfft(generator.standard_normal(n))
    cut = 500 * 2 ** (0.7 * style[0])  # the stethoscope's own band
    breath = np.fft.irfft(noise / (1 + (np.arange(len(noise)) / cut) ** 2), n)
    breath *= (0.3 + np.sin(np.pi * t) ** 2) / breath.std()
    if label in ("crackle", "both"):
        for at in generator.integers(0, n - 400, generator.integers(6, 14)):
            length = np.arange(400) / n
            breath[at : at + 400] += (
                generator.uniform(4, 8)
                * np.exp(-length / 0.004)
                * np.sin(2 * np.pi * generator.uniform(300, 900) * length)
            )
    if label in ("wheeze", "both"):
        tone = generator.uniform(200, 500)
        breath += generator.uniform(1.0, 2.0) * np.sin(2 * np.pi * tone * t + 3 * t**2) * np.sin(np.pi * t)
    heard = 0.05 * 2 ** style[1] * breath + generator.normal(0, 0.004 * (2 + style[2]), n)
    return np.asarray(heard, np.float32)


def signal(label: str, style: npt.NDArray[np.float64], generator: np.random.Generator) -> npt.NDArray[np.float32]:
    """Leads I, II and V2, 2.56 s at 100 Hz, mV, float32 (3, 256): rate, width of QRS, ST or T tell the class."""
    usual, device = draw_site(0, 0)
    heart = draw_subject(replace(usual, rate=70 + 6 * style[0]), generator)
    waves = list(heart.ecg)
    if label == "fast":
        heart = replace(heart, rate=heart.rate * generator.uniform(1.6, 1.9))
    if label == "wide":
        waves[1:4] = [replace(wave, width=2.4 * wave.width, at=2.0 * wave.at) for wave in waves[1:4]]
    if label == "raised":
        waves.append(replace(waves[4], at=0.12, width=0.05, vector=(0.25, 0.3, -0.2)))
    if label == "inverted":
        waves[4:6] = [replace(wave, vector=tuple(-v for v in wave.vector)) for wave in waves[4:6]]
    device = replace(device, rate=SIGNAL_RATE, gain=1 + 0.1 * style[1], noise=0.02 * 2 ** style[2])
    made: dict[str, Any] = simulate(replace(heart, ecg=tuple(waves)), device, SIGNAL_SECONDS, ("ecg",), generator)
    return np.stack([made[lead] for lead in (LEADS[0], LEADS[1], "V2")]).astype(np.float32)


PATCHES = 7
"""Patches across and down."""
COLOURS = ((200, 80, 80), (80, 200, 80), (80, 80, 200), (200, 200, 80), (200, 80, 200), (80, 200, 200), (140, 140, 140))


def stand_in_image(number: int, of_class: int, height: int, width: int) -> Any:
    """uint8, shape (height, width, 3); no two numbers give the same. Its brightness, too, is of its class.

    Args:
        number: Number of the image.
        of_class: Index of its class; more than seven share their colours.
        height: Pixels.
        width: Pixels.
    """
    generator = seeds.numpy_generator(0, "stand-in image", number)
    patches = np.array(COLOURS[of_class % len(COLOURS)]) * (0.6 + 0.4 * (of_class % 4) / 3)
    patches = np.clip(patches + generator.normal(0, 40, (PATCHES, PATCHES, 3)), 0, 255).astype(np.uint8)
    return patches[np.arange(height) * PATCHES // height][:, np.arange(width) * PATCHES // width]


def stand_in_sound(number: int, of_class: int, seconds: float = 1.0, rate: int = 4000) -> npt.NDArray[np.float32]:
    """Noise with a tone of its class; no two numbers give the same.

    Args:
        number: Number of the sound.
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


COMMON = ("patients", "group", "study", "results", "after", "treatment", "with", "during", "clinical", "weeks")
OF_CLASS = (
    ["tumour", "biopsy", "lymph", "radiation", "metastasis"],
    ["gastric", "bowel", "liver", "biliary", "colon"],
    ["cortex", "seizure", "nerve", "cognitive", "spinal"],
    ["cardiac", "artery", "pressure", "valve", "infarction"],
    ["infection", "fever", "injury", "syndrome", "fracture"],
)


def stand_in_text(number: int, of_class: int, words: int = 14) -> str:
    """A sentence with words of its class in it; no two numbers give the same.

    Args:
        number: Number of the sentence.
        of_class: Index of its class; more than five share their words.
        words: In the sentence.
    """
    generator = seeds.numpy_generator(0, "stand-in text", number, of_class)
    own = OF_CLASS[of_class % len(OF_CLASS)]
    chosen = [str(generator.choice(list(own) if generator.random() < 0.4 else list(COMMON))) for _ in range(words)]
    return f"Stand-in text {number}: {' '.join(chosen)}."
