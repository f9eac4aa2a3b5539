"""The data, partitions and backbones of ``fhbench.py``: small real sets of four modalities."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fedlit.backbones import LoRA
from fedlit.data import (
    IID,
    BySite,
    ClassificationDataModule,
    Dirichlet,
    MedicalAbstracts,
    MedMNIST,
    Partition,
    SoundTable,
    WFDBLabels,
)
from fedlit.data.examples import Example

SHARES: dict[str, Any] = {"val_fraction": 0.3, "test_fraction": 0.3}
"""As FHBench: 40 % to train on."""
DIAGNOSES = {
    "427084000": "sinus tachycardia",
    "284470004": "premature atrial contraction",
    "426783006": "sinus rhythm",
    "164934002": "T wave abnormal",
    "428750005": "nonspecific ST-T",
}
HOSPITALS = ["A", "E", "HR", "JS", "Q"]
RATE, SECONDS, WINDOWS = 250.0, 1.024, 8
"""Of ECGs, near to FHBench's windows of 1 s at 250 Hz."""
PIECES = 4
"""Windows of each cry."""


class CryWindows(SoundTable):
    """Each recording as four windows, cut after the split, or before it with ``parity``."""

    def cut(self, example: Example) -> list[Example]:
        value = example.value
        length = len(value) // PIECES
        parts = [value[i * length : (i + 1) * length] for i in range(PIECES)]
        return [replace(example, id=f"{example.id}/{i}", values=part) for i, part in enumerate(parts)]


@dataclass(frozen=True)
class Setting:
    """One data set under one partition.

    Attributes:
        about: What it is, for the table.
        make: Data module from the folder of data, seed and further arguments.
        backbone: Which of ``Backbones``.
        rounds: Communication rounds of one local epoch.
        learning_rate: Of the optimizer, chosen by ``fhbench.py --choose`` on validation data of seed 100.
        max_length: Tokens of a text.
        channels: Of a signal.
    """

    about: str
    make: Callable[..., ClassificationDataModule]
    backbone: str
    rounds: int
    learning_rate: float
    max_length: int | None = None
    channels: int | None = None

    def adapter(self, rank: int = 8) -> LoRA:
        """LoRA with alpha twice the rank, as in FHBench."""
        return LoRA(r=rank, alpha=2 * rank)


def images(root: Path, seed: int, partition: Partition | None = None, **more: Any) -> MedMNIST:
    """718 histopathology patches of nine tissues; the set names no patient."""
    return MedMNIST(
        root / "img_pathmnist_subset", name="pathmnist", check_md5=False, batch_size=16, seed=seed,
        partition=partition or Dirichlet(10, 0.1, min_records=20), **SHARES | more,
    )  # fmt: skip


def texts(root: Path, seed: int, partition: Partition | None = None, **more: Any) -> MedicalAbstracts:
    """Abstracts of five kinds of condition, three in ten of the 2,888 in the official test file."""
    return MedicalAbstracts(
        root / "txt_medical_abstracts", fraction=0.3, batch_size=16, seed=seed,
        partition=partition or Dirichlet(20, 0.1, min_records=20), **SHARES | more,
    )  # fmt: skip


def hospitals(root: Path, seed: int, partition: Partition | None = None, **more: Any) -> WFDBLabels:
    """Windows of three leads of 100 ECGs; the class is the hospital system that recorded them."""
    return WFDBLabels(
        root / "ecg_cinc_multisite" / "records", label_pattern="^([A-Z]+)", classes=HOSPITALS, exclude=["S*"],
        channels=["II", "V1", "V5"], rate=RATE, window_seconds=SECONDS, max_windows=WINDOWS, batch_size=16, seed=seed,
        partition=partition or Dirichlet(10, 0.1, min_records=5), **SHARES | more,
    )  # fmt: skip


def diagnoses(root: Path, seed: int, partition: Partition | None = None, **more: Any) -> WFDBLabels:
    """Windows of the ECGs with a diagnosis, five of them as labels; clients are hospital systems."""
    return WFDBLabels(
        root / "ecg_cinc_multisite" / "records", names=DIAGNOSES, classes=list(DIAGNOSES.values()),
        channels=["II", "V1", "V5"], rate=RATE, window_seconds=SECONDS, max_windows=WINDOWS, batch_size=16, seed=seed,
        partition=partition or BySite(min_records=5), **SHARES | more,
    )  # fmt: skip


def cries(root: Path, seed: int, partition: Partition | None = None, **more: Any) -> CryWindows:
    """Windows of 60 infant cries by their reason. Five apps hold most of them, too few subjects to deal out to ten
    clients, so the windows of a recording stay on one side, and not all recordings of an app."""
    return CryWindows(
        root / "aud_donateacry" / "index.csv", group_column="client", site_column="client", seconds=6.4, rate=8000.0,
        batch_size=16, seed=seed, partition=partition or Dirichlet(10, 0.1, min_records=5),
        **{**SHARES, "split": "stratified"} | more,
    )  # fmt: skip


def cries_by_app(root: Path, seed: int, **more: Any) -> CryWindows:
    """The five app instances with six recordings or more; an instance is one subject, so recordings are dealt out."""
    return cries(root, seed, BySite(min_records=6), **more)


SETTINGS: dict[str, Setting] = {
    "images": Setting("PathMNIST subset, 9 tissues, Dirichlet 0.1, 10 clients", images, "image", 30, 1e-2),
    "texts": Setting("Medical Abstracts, 5 conditions, Dirichlet 0.1, 20 clients", texts, "text", 10, 1e-2, 32),
    "hospitals": Setting("ECG, 5 hospital systems, Dirichlet 0.1, 10 clients", hospitals, "signal", 30, 1e-3, None, 3),
    "diagnoses": Setting("ECG, 5 diagnoses (multi-label), by hospital", diagnoses, "signal", 30, 3e-3, None, 3),
    "cries": Setting("infant cries, 5 reasons, Dirichlet 0.1, 10 clients", cries, "sound", 30, 1e-2),
    "cries by app": Setting("infant cries, 5 reasons, by app instance", cries_by_app, "sound", 30, 1e-2),
}
EVEN = IID(5)
"""Of the leakage measurement: five clients alike, so that nothing but the split differs."""
