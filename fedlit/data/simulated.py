"""Simulated recordings of many subjects at several sites."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from fedlit import seeds
from fedlit.data.partitions import BySite, Partition
from fedlit.data.records import Record
from fedlit.data.signals import SignalDataModule
from fedlit.data.synthesis import LEADS, Device, Heart, Wave, simulate
from fedlit.data.wfdb_files import read_channels, write_channels
from fedlit.errors import FedlitError

VERSION = 1
"""Counts changes of the generator: another version never reads an older one's cache."""
RATES = (100.0, 125.0, 250.0)
UNITS = {**dict.fromkeys(LEADS, "mV"), "ICG": "Ohm/s"}


class SimulatedVitals(SignalDataModule):
    """ECG and ICG that a generator of ours writes once to a cache, as WFDB records, and reads back (see ``synthesis``).

    Sites differ in heart rate, morphology, calibration, noise and sampling rate, subjects within a site less so; all
    are drawn from ranges seen in adults at rest. Everything is labelled as simulated.

    Args:
        root: Cache folder; None for ``$FEDLIT_CACHE``, or ``fedlit`` in the user's cache folder. Each set of arguments
            has a folder of its own below.
        subjects: How many, dealt evenly over the sites.
        sites: How many.
        seconds: Length of each recording.
        kinds: ``ecg``, ``icg`` or both; each is a record of its own.
        lead: ECG lead to read.
        simulation_seed: Of the simulated subjects; ``seed`` is that of partition and split.
        rate: Resample every record to this rate (Hz); sites record at 100, 125 and 250 Hz.
        kwargs: See :class:`fedlit.data.signals.SignalDataModule`.
    """

    default_partition: ClassVar[Partition] = BySite()

    def __init__(
        self,
        root: Path | None = None,
        subjects: int = 24,
        sites: int = 6,
        seconds: float = 60.0,
        kinds: list[Literal["ecg", "icg"]] | None = None,
        lead: str = "II",
        simulation_seed: int = 0,
        rate: float | None = 100.0,
        **kwargs: Any,
    ) -> None:
        self.root = Path(root) if root is not None else None
        self.subjects = subjects
        self.sites = sites
        self.seconds = seconds
        self.kinds: list[str] = list(kinds or ["ecg"])
        self.lead = lead
        self.simulation_seed = simulation_seed
        super().__init__(rate=rate, **kwargs)
        self.simulated = True
        if not 0 < sites <= subjects:
            raise FedlitError(f"data.sites is {sites}, data.subjects {subjects}: give 1 <= sites <= subjects")
        if self.lead.lower() not in {name.lower() for name in LEADS}:
            raise FedlitError(f"data.lead is {lead!r}: give one of {', '.join(LEADS)}")
        if not set(self.kinds) <= {"ecg", "icg"}:
            raise FedlitError(f"data.kinds is {kinds}: give ecg, icg or both")

    def read(self) -> list[Record]:
        """One record per subject and kind, written first where the cache does not hold them."""
        channels = {"ecg": self.lead, "icg": "ICG"}
        wanted = {kind: channels[kind] for kind in self.kinds}
        records = []
        for header in sorted(self.folder().glob("*.hea")):
            site, subject = header.stem.split("_")
            read = read_channels(header, list(wanted.values()))
            for kind, channel in wanted.items():
                name = f"{subject}-{kind}" if len(wanted) > 1 else subject
                if not self.excluded(name):
                    values, unit = read.values[channel], read.units[channel]
                    records.append(Record(name, subject, site, kind, read.rate, values, unit))
        return records

    def folder(self) -> Path:
        """Where the recordings are; they are written there when they are not yet."""
        root = self.root or _cache()
        arguments = (self.subjects, self.sites, self.seconds, sorted(self.kinds), self.simulation_seed)
        folder = Path(root) / f"simulated-{seeds.key(VERSION, *arguments):016x}"
        if not folder.exists():
            try:
                write_folder(folder, *arguments)
            except OSError as error:
                raise FedlitError(
                    f"{folder}: {error.strerror}: give a folder that can be written as data.root"
                ) from error
        return folder

    def write_stand_in(self, folder: Path) -> None:
        """As many subjects, but only as long as the windows need."""
        self.seconds = min(self.seconds, self.stand_in_seconds(min(RATES)))
        self.root = folder
        self.folder()


def write_folder(folder: Path, subjects: int, sites: int, seconds: float, kinds: Sequence[str], seed: int) -> None:
    """Write all recordings: to a folder beside it first, so that ``folder`` is whole or absent."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=folder.parent))
    try:
        width = len(str(subjects))
        for number in range(subjects):
            site = number * sites // subjects
            site_heart, device = draw_site(seed, site)
            generator = seeds.numpy_generator(seed, "simulated subject", number)
            heart = draw_subject(site_heart, generator)
            name = f"site-{site + 1:0{len(str(sites))}d}_subject-{number + 1:0{width}d}"
            channels = simulate(heart, device, seconds, kinds, generator)
            comments = ["simulated by fedlit", f"heart rate: {heart.rate:.1f} per min"]
            write_channels(unfinished, name, device.rate, channels, UNITS, comments)
        try:
            os.replace(unfinished, folder)
        except OSError:
            # Another process was faster: what it wrote has the same bytes.
            if not folder.exists():
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


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


def _cache() -> Path:
    if os.environ.get("FEDLIT_CACHE"):
        return Path(os.environ["FEDLIT_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fedlit"
