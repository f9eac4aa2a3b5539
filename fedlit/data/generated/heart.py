"""Simulated heart signals: a beating dipole seen by twelve leads, and the impedance cardiogram that goes with it.

Electrocardiogram. The heart is one dipole that turns and grows as five Gaussian waves pass (P, Q, R, S, T), each with a
direction in space; McSharry et al. 2003 (doi:10.1109/TBME.2003.808805) is the one-lead ancestor of the idea. Twelve
leads are fixed linear views of it: leads I, II and V1 to V6 by the inverse Dower matrix (Dower, Machado and Osborne
1980, doi:10.1002/clc.4960030204), the other four by Einthoven's and Goldberger's laws, as a real device computes them.

Impedance cardiogram (dZ/dt, Ohm/s). Per beat a small O wave, the B notch, the C peak of ejection and the X trough of
valve closure (names after Sherwood et al. 1990, doi:10.1111/j.1469-8986.1990.tb03171.x), on top of respiration.

Times are in s, rates in Hz, the dipole and the leads in mV. Axes: x to the left, y to the feet, z to the back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

_RECORDED = {
    "I": (0.632, -0.235, 0.059),
    "II": (0.235, 1.066, -0.132),
    "V1": (-0.515, 0.157, -0.917),
    "V2": (0.044, 0.164, -1.387),
    "V3": (0.882, 0.098, -1.277),
    "V4": (1.213, 0.127, -0.601),
    "V5": (1.125, 0.127, -0.086),
    "V6": (0.831, 0.076, 0.230),
}
LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
RECORDED = tuple(_RECORDED)
"""The eight leads that a device records; the other four follow."""


def twelve_leads(recorded: Array) -> Array:
    """Twelve leads from the eight recorded ones, shape ``(8, ...)`` to ``(12, ...)`` in the order of ``LEADS``.

    Einthoven: ``I + III = II``. Goldberger: ``aVR = -(I + II) / 2``, ``aVL = (I - III) / 2``, ``aVF = (II + III) / 2``.
    """
    one, two = recorded[0], recorded[1]
    three = two - one
    return np.stack([one, two, three, -(one + two) / 2, (one - three) / 2, (two + three) / 2, *recorded[2:]])


LEAD_MATRIX: Array = twelve_leads(np.array(list(_RECORDED.values())))
"""mV per mV of dipole, shape ``(12 leads, 3 axes)``."""


@dataclass(frozen=True)
class Wave:
    """One Gaussian wave of a beat.

    Attributes:
        at: Centre after the R peak (s, at a heart beat of 1 s).
        width: Standard deviation (s).
        vector: Size and direction: mV along x, y, z; or one number for a scalar signal.
        stretch: How far ``at`` follows the beat's length, as its power: 0 not, 0.5 as the QT interval does (Bazett).
    """

    at: float
    width: float
    vector: tuple[float, ...]
    stretch: float = 0.0


@dataclass(frozen=True)
class Heart:
    """One subject.

    Attributes:
        rate: Mean heart rate (beats per minute).
        breathing: Respiration (Hz).
        sinus_arrhythmia: Share by which respiration changes the length of a beat.
        slow_variability: The same for slow waves about 0.1 Hz and the drift below them.
        ectopic: Probability that a beat comes early and wide, from the ventricle.
        ecg: Waves of the dipole.
        icg: Waves of dZ/dt (Ohm/s).
    """

    rate: float
    breathing: float
    sinus_arrhythmia: float
    slow_variability: float
    ectopic: float
    ecg: tuple[Wave, ...] = field(repr=False)
    icg: tuple[Wave, ...] = field(repr=False)


@dataclass(frozen=True)
class Device:
    """What a site's recorder does to the signals.

    Attributes:
        rate: Sampling rate (Hz).
        gain: Error of calibration: 1 is right.
        noise: Standard deviation of muscle and amplifier noise (mV; for the ICG, Ohm/s times 2).
        wander: Standard deviation of the baseline's wander (mV; the same).
    """

    rate: float
    gain: float
    noise: float
    wander: float


ECTOPIC = (
    Wave(-0.02, 0.035, (0.5, 1.3, 0.9)),
    Wave(0.06, 0.04, (-0.6, -0.9, -0.5)),
    Wave(0.32, 0.06, (-0.2, -0.5, 0.3)),
)


def beats(heart: Heart, seconds: float, generator: np.random.Generator) -> tuple[Array, Array, npt.NDArray[np.bool_]]:
    """Times of the R peaks (s), length of each beat (s), and which are ectopic; a little beyond both ends."""
    mean = 60.0 / heart.rate
    slow_rate, slow_phase, breath_phase = generator.uniform(0.07, 0.13), *generator.uniform(0, 2 * np.pi, 2)
    times, lengths, early = [], [], []
    now, drift, pause = -4.0 + generator.uniform(), 0.0, 0.0
    while now < seconds + 2.0:
        drift = 0.95 * drift + 0.3 * generator.standard_normal()
        slow = np.sin(2 * np.pi * slow_rate * now + slow_phase) + drift
        breath = np.sin(2 * np.pi * heart.breathing * now + breath_phase)
        length = mean * (1 + heart.sinus_arrhythmia * breath + 0.7 * heart.slow_variability * slow)
        length = float(np.clip(length, 0.6 * mean, 1.6 * mean)) + pause
        pause = 0.0
        is_early = bool(generator.random() < heart.ectopic)
        if is_early:
            # A beat that comes early is followed by a pause that makes up for it.
            pause, length = 0.35 * mean, 0.65 * length
        now += length
        times.append(now)
        lengths.append(length)
        early.append(is_early)
    return np.array(times), np.array(lengths), np.array(early)


def add_waves(out: Array, rate: float, times: Array, lengths: Array, waves: Sequence[Wave], sizes: Array) -> None:
    """Add the waves of every beat to ``out``, shape ``(axes, samples)``; ``sizes`` scales each beat."""
    samples = out.shape[1]
    for wave in waves:
        vector = np.asarray(wave.vector)[:, None]
        reach = int(np.ceil(5 * wave.width * rate))
        for time, length, size in zip(times, lengths, sizes, strict=True):
            centre = (time + wave.at * length**wave.stretch) * rate
            start, stop = max(int(centre) - reach, 0), min(int(centre) + reach + 2, samples)
            if start < stop:
                distance = (np.arange(start, stop) - centre) / (wave.width * rate)
                out[:, start:stop] += size * vector * np.exp(-0.5 * distance**2)


def simulate(
    heart: Heart, device: Device, seconds: float, kinds: Sequence[str], generator: np.random.Generator
) -> dict[str, Array]:
    """Channels of one recording: the twelve leads (mV), ``ICG`` (Ohm/s), or both; each of shape ``(samples,)``."""
    samples = int(round(seconds * device.rate))
    clock = np.arange(samples) / device.rate
    times, lengths, early = beats(heart, seconds, generator)
    breath = np.sin(2 * np.pi * heart.breathing * clock + generator.uniform(0, 2 * np.pi))
    at_beats = np.interp(times, clock, breath)
    out: dict[str, Array] = {}
    if "ecg" in kinds:
        dipole = np.zeros((3, samples))
        add_waves(dipole, device.rate, times[~early], lengths[~early], heart.ecg, 1 + 0.05 * at_beats[~early])
        add_waves(dipole, device.rate, times[early], lengths[early], ECTOPIC, np.ones(int(early.sum())))
        clean = np.array([_RECORDED[lead] for lead in RECORDED]) @ dipole
        dirt = [_dirt(device, breath, device.rate, generator) for _ in RECORDED]
        leads = twelve_leads(device.gain * (clean + np.stack(dirt)))
        out |= dict(zip(LEADS, leads, strict=True))
    if "icg" in kinds:
        flow = np.zeros((1, samples))
        sizes = (1 + 0.15 * at_beats) * np.where(early, 0.5, 1.0)
        add_waves(flow, device.rate, times, lengths, heart.icg, sizes)
        out["ICG"] = device.gain * (flow[0] + 0.12 * breath + 2 * _dirt(device, breath, device.rate, generator))
    return out


def _dirt(device: Device, breath: Array, rate: float, generator: np.random.Generator) -> Array:
    """Noise, slightly smoothed as by a recorder's filter, and wander: slow random waves and respiration."""
    samples = len(breath)
    white = generator.standard_normal(samples + 1)
    noise = (white[1:] + 0.5 * white[:-1]) / np.sqrt(1.25)
    # Straight lines between random points every 2 s would have corners; cosines of random phase have none.
    clock = np.arange(samples) / rate
    frequencies = generator.uniform(0.02, 0.3, 4)
    phases = generator.uniform(0, 2 * np.pi, 4)
    slow = np.cos(2 * np.pi * frequencies[:, None] * clock + phases[:, None]).sum(0) / np.sqrt(2)
    return np.asarray(device.noise * noise + device.wander * (0.8 * slow + 0.6 * breath))
