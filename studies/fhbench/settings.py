"""The data, partitions and backbones of the study: small real sets of four modalities."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fedlit.aggregators import Aggregator
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
from fedlit.data.classification.examples import Example

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


class EarlyWindows(WFDBLabels):
    """Windows that are cut before the split, each a subject of its own: the leak, and nothing else of ``parity``."""

    def read(self) -> list[Example]:
        windows = [window for record in WFDBLabels.read(self) for window in WFDBLabels.cut(self, record)]
        return [replace(window, subject=window.id) for window in windows]

    def cut(self, example: Example) -> list[Example]:
        return [example]


@dataclass(frozen=True)
class Setting:
    """One data set under one partition.

    Attributes:
        about: What it is, for the table.
        make: Data module from the folder of data, seed and further arguments.
        backbone: Which of ``Backbones``.
        rounds: Communication rounds of one local epoch.
        rates: Learning rates by name of the rule, with ``SGD`` before it where it takes SGD, chosen by ``run.py
            --choose`` on validation data of seed 100; rules without one have FedAvg's.
        max_length: Tokens of a text.
        channels: Of a signal.
    """

    about: str
    make: Callable[..., ClassificationDataModule]
    backbone: str
    rounds: int
    rates: dict[str, float]
    max_length: int | None = None
    channels: int | None = None

    def rate(self, rule: Aggregator, sgd: bool) -> float:
        """The learning rate of a rule: its own, or that of the class it comes from, or FedAvg's."""
        start = "SGD " if sgd else ""
        named = [start + cls.__name__ for cls in type(rule).__mro__]
        return next((self.rates[name] for name in named if name in self.rates), self.rates[start + "FedAvg"])

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


def hospitals(
    root: Path, seed: int, partition: Partition | None = None, early: bool = False, **more: Any
) -> WFDBLabels:
    """Windows of three leads of 100 ECGs; the class is the hospital system that recorded them."""
    return (EarlyWindows if early else WFDBLabels)(
        root / "ecg_cinc_multisite" / "records", label_pattern="^([A-Z]+)", classes=HOSPITALS, exclude=["S*"],
        channels=["II", "V1", "V5"], rate=RATE, window_seconds=SECONDS, max_windows=WINDOWS, batch_size=16, seed=seed,
        partition=partition or Dirichlet(10, 0.1, min_records=5), **SHARES | more,
    )  # fmt: skip


def diagnoses(
    root: Path, seed: int, partition: Partition | None = None, early: bool = False, **more: Any
) -> WFDBLabels:
    """Windows of the ECGs with a diagnosis, five of them as labels; clients are hospital systems."""
    return (EarlyWindows if early else WFDBLabels)(
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


RATES: dict[str, dict[str, float]] = {
    "images": {"FedAvg": 0.01, "LocalOnly": 0.003, "Centralized": 0.001, "EPFL": 0.01, "SGD FedAvg": 0.3},
    "texts": {"FedAvg": 0.01, "LocalOnly": 0.003, "Centralized": 0.001, "EPFL": 0.003, "SGD FedAvg": 1},
    "hospitals": {"FedAvg": 0.001},
    "diagnoses": {"FedAvg": 0.003, "LocalOnly": 0.001, "Centralized": 0.001, "EPFL": 0.001, "SGD FedAvg": 1},
    "cries": {"FedAvg": 0.01},
    "cries by app": {"FedAvg": 0.01},
}
SGD_TOO = ("images", "diagnoses")
"""Where FHBench's optimizer is run beside AdamW."""
SETTINGS: dict[str, Setting] = {
    name: Setting(about, make, backbone, rounds, RATES[name], max_length, channels)
    for name, about, make, backbone, rounds, max_length, channels in (
        ("images", "PathMNIST subset, 9 tissues, Dirichlet 0.1", images, "image", 30, None, None),
        ("texts", "Medical Abstracts, 5 conditions, Dirichlet 0.1", texts, "text", 10, 32, None),
        ("hospitals", "ECG, 5 hospital systems as classes, Dirichlet 0.1", hospitals, "signal", 30, None, 3),
        ("diagnoses", "ECG, 5 diagnoses (multi-label), clients are hospital systems", diagnoses, "signal", 30, None, 3),
        ("cries", "infant cries, 5 reasons, Dirichlet 0.1", cries, "sound", 30, None, None),
        ("cries by app", "infant cries, 5 reasons, clients are app instances", cries_by_app, "sound", 30, None, None),
    )
}
EVEN = IID(5)
"""Of the leakage measurement: five clients alike, so that nothing but the split differs."""
