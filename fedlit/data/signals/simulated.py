"""Simulated recordings of many subjects at several sites."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from fedlit import seeds
from fedlit.data.base import arguments
from fedlit.data.base.partitions import BySite, Partition
from fedlit.data.base.reader import Reader
from fedlit.data.base.records import Record
from fedlit.data.files.wfdb import read_channels, write_channels
from fedlit.data.generated.heart import LEADS, simulate
from fedlit.data.generated.population import RATES, draw_site, draw_subject
from fedlit.data.signals.module import SignalDataModule
from fedlit.errors import FedlitError

VERSION = 2
"""Counts changes of the generator: another version never reads an older one's cache."""
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
        simulation_seed: Seed of the simulated subjects; ``seed`` is that of partition and split.
        rate: Resample every record to this rate (Hz); sites record at 100, 125 and 250 Hz.
        kwargs: See :class:`fedlit.data.signals.module.SignalDataModule`.
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

    def read(self) -> Iterable[Record]:
        """One record per subject and kind, written first where the cache does not hold them."""
        if "ecg" not in self.kinds and arguments.differ_from_default(self, Reader, ["lead"]):
            self.say(f"data.lead has no effect beside data.kinds {self.kinds}: leave it out")
        channels = {"ecg": self.lead, "icg": "ICG"}
        wanted = {kind: channels[kind] for kind in self.kinds}
        for header in sorted(self.folder().glob("*.hea")):
            site, subject = header.stem.split("_")
            read = read_channels(header, list(wanted.values()))
            for kind, channel in wanted.items():
                name = f"{subject}-{kind}" if len(wanted) > 1 else subject
                if not self.excluded(name):
                    values, unit = read.values[channel], read.units[channel]
                    rate = read.rates[channel]
                    yield Record(name, subject, site, kind, rate, values, unit, recording=subject)

    def folder(self) -> Path:
        """Where the recordings are; they are written there when they are not yet."""
        root = self.root or _cache()
        wanted = (self.subjects, self.sites, self.seconds, sorted(self.kinds), self.simulation_seed)
        folder = Path(root) / f"simulated-{seeds.key(VERSION, *wanted):016x}"
        if not folder.exists():
            try:
                write_folder(folder, *wanted)
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
        unfinished.chmod(0o755)
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


def _cache() -> Path:
    if os.environ.get("FEDLIT_CACHE"):
        return Path(os.environ["FEDLIT_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fedlit"
