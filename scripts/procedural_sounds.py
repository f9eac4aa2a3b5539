"""Procedural sounds of 4 s at 8 kHz, made on the fly: nothing is read, no recording of anything is used.

Voices by source and filter (a pulse whose harmonics fall off exponentially, through formants) in bouts with a melody,
breath, tones, clicks and band noise, alone or in pairs, behind a random recording band, level and background noise.
"""

from __future__ import annotations

import math

import torch
from procedural import Drawn, Draws, parts_of
from torch import Tensor
from torch.nn import functional

RATE, SECONDS = 8000, 4
SAMPLES = RATE * SECONDS
KINDS: dict[str, tuple[str, ...]] = {
    "voice": ("voice", "bouts"),
    "breath": ("breath", "bouts"),
    "tone": ("tone",),
    "clicks": ("clicks",),
    "band noise": ("noise",),
    "voice and breath": ("voice", "breath", "bouts"),
    "voice and clicks": ("voice", "clicks", "bouts"),
    "breath and tone": ("breath", "tone", "bouts"),
    "noise and clicks": ("noise", "clicks"),
}
PARAMETERS = (
    "bouts: rate", "bouts: share of time", "voice: pitch", "voice: arc of the melody", "voice: fall of the melody",
    "voice: vibrato depth", "voice: vibrato rate", "voice: brightness", "voice: first formant",
    "voice: second formant", "voice: roughness", "breath: pitch", "tone: pitch", "tone: slide", "clicks: rate",
    "clicks: pitch", "clicks: decay", "noise: pitch", "noise: width", "background: depth", "background: tilt",
    "band: low end", "band: high end", "level",
)  # fmt: skip


def sounds(count: int, generator: torch.Generator) -> Drawn:
    """``count`` waveforms, float32 (count, 32000), each kind as likely as another."""
    draws = Draws(count, generator)
    kind = torch.randint(len(KINDS), (count,), generator=generator)
    has = parts_of(kind, KINDS)
    place, open_ = _bouts(draws, has["bouts"])
    spectrum = _of(has["voice"], *_voice(draws, has["voice"], place, open_))
    spectrum = spectrum + draws.between(0.3, 1.0, 1, log=True) * _of(has["breath"], *_breath(draws, has, open_))
    spectrum = spectrum + draws.between(0.3, 1.5, 1, log=True) * _of(has["tone"], *_tone(draws, has["tone"]))
    spectrum = spectrum + draws.between(0.5, 2.0, 1, log=True) * _of(has["clicks"], *_clicks(draws, has["clicks"]))
    pitch = draws.parameter("noise: pitch", 150, 3500, has["noise"], log=True)
    width = draws.parameter("noise: width", 0.15, 1.2, has["noise"])
    spectrum = spectrum + _of(has["noise"], _white(draws), _bell(pitch, width))

    depth = draws.parameter("background: depth", 0.005, 0.3, log=True)
    tilt = draws.parameter("background: tilt", 0.0, 1.0)
    spectrum = spectrum + depth[:, None] * _unit(_white(draws) * (_hertz() / 500).clamp(min=0.1) ** -tilt[:, None])
    low = draws.parameter("band: low end", 30, 400, log=True)[:, None]
    high = draws.parameter("band: high end", 1500, 4500, log=True)[:, None]
    band = (1 + (low / _hertz().clamp(min=1)) ** 4).rsqrt() * (1 + (_hertz() / high) ** 8).rsqrt()
    level = draws.parameter("level", 0.003, 0.3, log=True)[:, None]
    waveform = torch.fft.irfft(spectrum * band, n=SAMPLES)
    waveform = level * waveform / waveform.square().mean(-1, keepdim=True).sqrt()
    return Drawn(waveform.float().clamp(-1, 1), kind, draws.values(PARAMETERS))


def _hertz() -> Tensor:
    return torch.arange(SAMPLES // 2 + 1) / SECONDS


def _white(draws: Draws) -> Tensor:
    return torch.view_as_complex(draws.randn(SAMPLES // 2 + 1, 2))


def _unit(spectrum: Tensor) -> Tensor:
    """A spectrum (count, frequencies) whose waveform has a mean square of 1."""
    power = 2 * spectrum.abs().square().sum(-1, keepdim=True) / SAMPLES**2
    return spectrum * power.clamp(min=1e-12).rsqrt()


def _of(where: Tensor, spectrum: Tensor, response: Tensor) -> Tensor:
    """A filtered spectrum of unit power, and nothing in the rows that have no such part."""
    return _unit(spectrum * response) * where[:, None]


def _bell(pitch: Tensor, octaves: Tensor) -> Tensor:
    """Response (count, frequencies) about ``pitch`` Hz, Gaussian in octaves."""
    away = (_hertz().clamp(min=1) / pitch[:, None]).log2() / octaves[:, None]
    return torch.exp(-0.5 * away.square())


def _curve(draws: Draws, knots: int) -> Tensor:
    """Random polylines over the whole sound, (count, samples), of unit variance at their knots."""
    return functional.interpolate(draws.randn(1, knots), SAMPLES, mode="linear", align_corners=True)[:, 0]


def _bouts(draws: Draws, where: Tensor) -> tuple[Tensor, Tensor]:
    """Place in the bout (0 to 1 while it lasts, more in the pause) and its loudness (0 in the pause).

    Each (count, samples); bouts come at a rate that wanders by about a tenth.
    """
    rate = draws.parameter("bouts: rate", 0.4, 4.0, where, log=True)[:, None]
    share = draws.parameter("bouts: share of time", 0.3, 0.95, where)[:, None]
    time = torch.arange(SAMPLES) / RATE
    turn = rate * time + draws.rand(1) + 0.12 * _curve(draws, 6)
    loud = 1 + 0.25 * _curve(draws, 8).clamp(-2, 2)
    place = (turn - turn.floor()) / share
    return place, loud * (place * (1 - place)).clamp(min=0).mul(4) ** draws.between(0.3, 1.0, 1)


def _voice(draws: Draws, where: Tensor, place: Tensor, open_: Tensor) -> tuple[Tensor, Tensor]:
    """Spectrum of the source, and the response of the formants."""
    pitch = draws.parameter("voice: pitch", 150, 700, where, log=True)[:, None]
    arc = draws.parameter("voice: arc of the melody", -0.2, 0.7, where)[:, None]
    fall = draws.parameter("voice: fall of the melody", -0.5, 0.5, where)[:, None]
    vibrato = draws.parameter("voice: vibrato depth", 0.0, 0.08, where)[:, None]
    shakes = draws.parameter("voice: vibrato rate", 4.0, 9.0, where)[:, None]
    bright = draws.parameter("voice: brightness", 250, 1400, where, log=True)[:, None]
    rough = draws.parameter("voice: roughness", 0.0, 0.8, where)[:, None]
    time, inside = torch.arange(SAMPLES) / RATE, place.clamp(max=1)
    octaves = arc * (4 * inside * (1 - inside) - 0.5) - fall * (inside - 0.5) + 0.04 * _curve(draws, 12)
    octaves = octaves + vibrato * (2 * math.pi * (shakes * time + draws.rand(1))).sin()
    hertz = (pitch * torch.exp2(octaves)).clamp(80, 1200)
    turns = (hertz.double() / RATE).cumsum(-1)
    cosine = (2 * math.pi * (turns - turns.floor()).float()).cos()
    # the sum over k of r^k cos(k phase): harmonics fall by e every ``bright`` Hz
    falling = torch.exp(-hertz / bright)
    source = falling * (cosine - falling) / (1 - 2 * falling * cosine + falling.square())
    noise = functional.interpolate(draws.randn(1, SAMPLES // 40), SAMPLES, mode="linear")[:, 0]
    first = draws.parameter("voice: first formant", 400, 1200, where, log=True)
    second = draws.parameter("voice: second formant", 1300, 3200, where, log=True)
    formants = 0.15 + _bell(first, torch.full_like(first, 0.25)) + 0.8 * _bell(second, torch.full_like(first, 0.15))
    return torch.fft.rfft(source * open_ * (1 + rough * noise)), formants


def _breath(draws: Draws, has: dict[str, Tensor], open_: Tensor) -> tuple[Tensor, Tensor]:
    """Noise in bouts, or in the pauses of a voice."""
    pitch = draws.parameter("breath: pitch", 250, 2500, has["breath"], log=True)
    pauses = (1 - 3 * open_).clamp(min=0)
    loud = torch.where(has["voice"][:, None], pauses + 0.05, open_)
    waveform = torch.fft.irfft(_white(draws) * _bell(pitch, draws.between(0.5, 1.0)), n=SAMPLES)
    return torch.fft.rfft(waveform * loud), torch.ones(1)


def _tone(draws: Draws, where: Tensor) -> tuple[Tensor, Tensor]:
    pitch = draws.parameter("tone: pitch", 200, 3000, where, log=True)[:, None]
    slide = draws.parameter("tone: slide", -0.3, 0.3, where)[:, None]
    time = torch.arange(SAMPLES) / RATE
    hertz = (pitch * torch.exp2(slide * (time - SECONDS / 2))).clamp(100, 3900)
    turns = (hertz.double() / RATE).cumsum(-1)
    swell = (draws.between(0.3, 1.0, 1) + _curve(draws, 10)).clamp(0, 1)
    return torch.fft.rfft((2 * math.pi * (turns - turns.floor()).float()).sin() * swell), torch.ones(1)


def _clicks(draws: Draws, where: Tensor) -> tuple[Tensor, Tensor]:
    """Impulses at random instants, and the spectrum of one click: a sine that dies away."""
    rate = draws.parameter("clicks: rate", 1.0, 25.0, where, log=True)[:, None]
    pitch = draws.parameter("clicks: pitch", 250, 3000, where, log=True)[:, None]
    decay = draws.parameter("clicks: decay", 0.001, 0.015, where, log=True)[:, None]
    impulses = (draws.rand(SAMPLES) < rate / RATE) * draws.between(0.4, 1.0, SAMPLES)
    time = torch.arange(RATE // 10) / RATE
    click = torch.exp(-time / decay) * (2 * math.pi * pitch * time).sin()
    return torch.fft.rfft(impulses), torch.fft.rfft(click, n=SAMPLES)
