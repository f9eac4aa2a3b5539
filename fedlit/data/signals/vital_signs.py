"""Vital signs of 30 subjects on a tilt table (Schellenberger et al. 2020, doi:10.1038/s41597-020-00629-5)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from fedlit.data.base.names import few
from fedlit.data.base.partitions import BySubject, Partition
from fedlit.data.base.records import BadRecord, Record
from fedlit.data.files.matlab import read_variables
from fedlit.data.generated.population import stand_in_channels
from fedlit.data.signals.module import SignalDataModule
from fedlit.data.signals.splits import SplitRule
from fedlit.errors import FedlitError

CHANNELS = {
    "tfm_ecg1": ("ecg", "fs_ecg", 2000.0),
    "tfm_ecg2": ("ecg", "fs_ecg", 2000.0),
    "tfm_icg": ("icg", "fs_icg", 1000.0),
    "tfm_bp": ("bp", "fs_bp", 200.0),
    "tfm_z0": ("z0", "fs_z0", 100.0),
    "radar_i": ("radar", "fs_radar", 2000.0),
    "radar_q": ("radar", "fs_radar", 2000.0),
}
"""Variable to kind, variable of its rate, and the rate it had when published (Hz; for stand-ins only)."""
BEST = "ecg_best"
_FIRST_LEAD = (6, 15, 21, 22)
BEST_LEADS = tuple(1 if subject in _FIRST_LEAD else 2 for subject in range(1, 31))
"""The authors' choice of ECG lead for subjects 1 to 30."""
_NAME = re.compile(r"^(GDN(\d{4}))_.*?_?([A-Za-z]+)$")


class VitalSigns(SignalDataModule):
    """ECG, ICG, blood pressure, impedance and radar of 30 healthy subjects, clients by subject.

    Files are ``GDN00xx/GDN00xx_<k>_<Scenario>.mat``; ``k`` does not tell the scenario, the last word does.

    Args:
        root: Folder with the folders GDN0001 to GDN0030.
        channels: Variables to read (case does not matter), each a record of its own at its own rate; ``ecg_best``
            takes each subject's better ECG lead, as the authors list it. None for ``["tfm_ecg2"]``.
        scenarios: Some of Resting, Valsalva, Apnea, TiltUp, TiltDown; None for Resting. Not every subject has all.
        split: One subject a client cannot be split by subject, so the default here is by time.
        kwargs: See :class:`fedlit.data.signals.module.SignalDataModule`.
    """

    default_partition: ClassVar[Partition] = BySubject()

    def __init__(
        self,
        root: Path,
        channels: list[str] | None = None,
        scenarios: list[str] | None = None,
        split: SplitRule = "time",
        **kwargs: Any,
    ) -> None:
        self.root = Path(root)
        self.channels = [channel.lower() for channel in channels or ["tfm_ecg2"]]
        self.scenarios = list(scenarios or ["Resting"])
        unknown = [channel for channel in self.channels if channel not in CHANNELS and channel != BEST]
        if unknown:
            raise FedlitError(f"data.channels: no {unknown[0]!r}, there are {', '.join(CHANNELS)} and {BEST}")
        super().__init__(split=split, **kwargs)

    def read(self) -> Iterable[Record]:
        """One record per file and channel."""
        files = [path for path in self.files_to_read("the folders GDN0001 to GDN0030") if path.suffix == ".mat"]
        found = {path: match for path in files if (match := _NAME.match(path.stem))}
        present = {match.group(3).lower(): match.group(3) for match in found.values()}
        for scenario in self.scenarios:
            if scenario.lower() not in present:
                there = ", ".join(sorted(present.values())) or "no file GDN00xx_<k>_<Scenario>.mat"
                raise FedlitError(
                    f"{self.root}: no scenario {scenario!r}, there are {there}: set data.scenarios or data.root"
                )
            having = {match.group(1) for match in found.values() if match.group(3).lower() == scenario.lower()}
            lacking = sorted({match.group(1) for match in found.values()} - having)
            if lacking:
                self.say(f"scenario {scenario}: no file of {len(lacking)} subject(s): {few(lacking)}")
        wanted = {scenario.lower() for scenario in self.scenarios}
        for path, match in found.items():
            subject, number, scenario = match.group(1), int(match.group(2)), match.group(3)
            if scenario.lower() not in wanted:
                continue
            for channel in self.channels:
                name = f"{subject}-{scenario}" + (f"-{channel}" if len(self.channels) > 1 else "")
                if self.excluded(name):
                    continue
                try:
                    record = _read(path, name, subject, number, channel)
                except BadRecord as error:
                    self.refuse(name, str(error))
                    continue
                yield record

    def write_stand_in(self, folder: Path) -> None:
        """Thirty subjects, only the channels and scenarios asked for, only as long as the windows need."""
        from scipy.io import savemat

        names = sorted({name for c in self.channels for name in (("tfm_ecg1", "tfm_ecg2") if c == BEST else (c,))})
        seconds = self.stand_in_seconds(min(CHANNELS[name][2] for name in names))
        for number in range(1, 31):
            variables: dict[str, Any] = {"measurement_info": np.array(["stand-in", "", f"GDN{number:04d}"], object)}
            for name in names:
                kind, rate_name, rate = CHANNELS[name]
                made = stand_in_channels(number, rate, seconds, ("icg",) if kind == "icg" else ("ecg",))
                signal = made["ICG"] if kind == "icg" else made["V5" if name == "tfm_ecg1" else "II"]
                variables |= {name: signal.astype(np.float32)[:, None], rate_name: rate}
            target = folder / f"GDN{number:04d}"
            target.mkdir(parents=True, exist_ok=True)
            for k, scenario in enumerate(self.scenarios, 1):
                savemat(target / f"GDN{number:04d}_{k}_{scenario}.mat", variables)


def _read(path: Path, name: str, subject: str, number: int, channel: str) -> Record:
    """One channel of one file."""
    variable = f"tfm_ecg{BEST_LEADS[number - 1] if number <= len(BEST_LEADS) else 2}" if channel == BEST else channel
    kind, rate_name, _ = CHANNELS[variable]

    def choose(there: list[str]) -> list[str]:
        lower = {n.lower(): n for n in there}
        for needed in (variable, rate_name):
            if needed not in lower:
                raise BadRecord(
                    f"{path}: no variable {needed!r}, there are {', '.join(there)}: take data.channels of them"
                )
        return [lower[variable], lower[rate_name]]

    values, rate = read_variables(path, choose).values()
    if len(rate) != 1 or not rate[0] > 0:
        raise BadRecord(f"{path}: {rate_name} is {rate.tolist()}: it must be one rate in Hz, mend the file")
    samples = values.astype(np.float32)
    return Record(name, subject, "vital-signs", kind, float(rate[0]), samples, recording=path.stem)
