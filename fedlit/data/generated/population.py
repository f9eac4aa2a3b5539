"""Who is simulated: sites and subjects drawn from ranges seen in adults at rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fedlit import seeds
from fedlit.data.generated.heart import Array, Device, Heart, Wave, simulate

RATES = (100.0, 125.0, 250.0)
"""Sampling rates (Hz) of the sites, in turn."""


def draw_site(seed: int, site: int) -> tuple[Heart, Device]:
    """Average subject and recorder of a site."""
    g = seeds.numpy_generator(seed, "simulated site", site)
    turn = g.uniform(-0.5, 0.5)
    qrs = g.uniform(0.8, 1.5)
    widen = g.uniform(0.9, 1.4)
    t_size = g.uniform(0.12, 0.45)
    ecg = (
        Wave(g.uniform(-0.20, -0.15), 0.022, (0.06, 0.12, -0.02), 0.3),
        Wave(-0.026 * widen, 0.009 * widen, _turned((-0.12, -0.02, 0.20), turn, qrs)),
        Wave(0.0, 0.012 * widen, _turned((0.95, 0.90, 0.30), turn, qrs)),
        Wave(0.030 * widen, 0.011 * widen, _turned((-0.10, -0.25, 0.45), turn, qrs)),
        Wave(g.uniform(0.26, 0.33), g.uniform(0.045, 0.065), _turned((0.6, 0.7, -0.4), turn, t_size), 0.5),
        Wave(g.uniform(0.21, 0.25), 0.04, _turned((0.3, 0.35, -0.2), turn, 0.4 * t_size), 0.5),
    )
    ejection = g.uniform(0.11, 0.15)
    icg = (
        Wave(-0.06, 0.035, (g.uniform(0.05, 0.25),), 0.3),
        Wave(ejection - 0.055, 0.012, (-g.uniform(0.05, 0.2),)),
        Wave(ejection, g.uniform(0.032, 0.045), (g.uniform(0.9, 1.8),)),
        Wave(ejection + 0.09, 0.05, (0.35,)),
        Wave(g.uniform(0.30, 0.36), g.uniform(0.025, 0.04), (-g.uniform(0.4, 0.8),), 0.5),
        Wave(g.uniform(0.44, 0.50), 0.05, (g.uniform(0.05, 0.3),), 0.5),
    )
    heart = Heart(
        rate=g.uniform(58, 92),
        breathing=g.uniform(0.2, 0.3),
        sinus_arrhythmia=g.uniform(0.01, 0.06),
        slow_variability=g.uniform(0.01, 0.04),
        ectopic=float(g.choice([0.0, 0.0, 0.02, 0.05])),
        ecg=ecg,
        icg=icg,
    )
    device = Device(
        rate=RATES[site % len(RATES)],
        gain=g.uniform(0.9, 1.1),
        noise=g.uniform(0.005, 0.04),
        wander=g.uniform(0.02, 0.12),
    )
    return heart, device


def draw_subject(site: Heart, generator: np.random.Generator) -> Heart:
    """A subject near the site's average: rate, sizes, directions and times of the waves vary."""

    def near(wave: Wave) -> Wave:
        size = generator.normal(1.0, 0.12)
        turn = generator.normal(0.0, 0.12)
        vector = tuple(size * v for v in wave.vector)
        return replace(
            wave,
            at=wave.at + generator.normal(0.0, 0.04) * abs(wave.at),
            width=wave.width * generator.uniform(0.9, 1.1),
            vector=_turned(vector, turn) if len(vector) == 3 else vector,
        )

    return replace(
        site,
        rate=float(np.clip(site.rate + generator.normal(0, 7), 48, 110)),
        breathing=site.breathing * generator.uniform(0.85, 1.15),
        sinus_arrhythmia=site.sinus_arrhythmia * generator.uniform(0.6, 1.4),
        ecg=tuple(near(wave) for wave in site.ecg),
        icg=tuple(near(wave) for wave in site.icg),
    )


def _turned(vector: Sequence[float], angle: float, size: float = 1.0) -> tuple[float, ...]:
    """Vector turned in the frontal plane (x, y) by an angle (rad), times ``size``."""
    x, y, z = vector
    cos, sin = np.cos(angle), np.sin(angle)
    return (float(size * (cos * x - sin * y)), float(size * (sin * x + cos * y)), float(size * z))


def stand_in_channels(number: int, rate: float, seconds: float, kinds: Sequence[str]) -> dict[str, Array]:
    """Channels of the stand-in subject ``number``; for the same number, other rates and kinds have the same beats."""
    site, device = draw_site(0, number % 6)
    heart = draw_subject(site, seeds.numpy_generator(0, "stand-in subject", number))
    generator = seeds.numpy_generator(0, "stand-in signal", number)
    return simulate(heart, replace(device, rate=rate), seconds, kinds, generator)
