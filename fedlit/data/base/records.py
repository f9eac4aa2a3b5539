"""A record: one signal of one subject, as a reader hands it over."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from fedlit.errors import FedlitError

Fold = Literal["train", "val", "test"]
SPLITS = ("train", "val", "test")
NO_LABEL = "none"
"""Stands for the class of an item without one."""


Value = str | np.ndarray
"""A text, or an image, a waveform or a signal."""


class BadRecord(FedlitError):
    """A record that cannot be used as it is. The message names the file or record, and the mend."""


class Item(Protocol):
    """What partitions look at: a :class:`Record`, or an :class:`fedlit.data.classification.examples.Example`."""

    @property
    def id(self) -> str: ...
    @property
    def subject(self) -> str: ...
    @property
    def site(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def label(self) -> str | None: ...


class Foldable(Item, Protocol):
    """An item with the part of the split that its source publishes."""

    @property
    def fold(self) -> Fold | None: ...


class Labelled(Foldable, Protocol):
    """An item to classify, with its classes."""

    @property
    def labels(self) -> Sequence[str]: ...


@dataclass(frozen=True)
class Record:
    """One channel of one recording.

    Attributes:
        id: Unique in a data set; partitions, exclusions and ``partition.json`` name the record by it.
        subject: Whom it was taken from. Splits by subject keep all records of a subject on one side.
        site: Where it was taken (hospital, device); ``"site-unknown"`` where the source does not say.
        kind: Physical quantity: ``"ecg"``, ``"icg"``, ``"bp"``, ...
        rate: Samples per second (Hz).
        values: float32, shape ``(samples,)``; NaN marks a missing sample.
        unit: Unit of ``values``.
        label: Class of the record, where the source has one.
        fold: Part of the split that the source itself publishes.
        recording: Name of the recording that the channel is of; empty where the record is the whole of it.
        part_of: Name of the record that this one is a stretch of; empty where it is none. A split in time cuts the
            stretches of a record, one after the other, as a whole.
        pauses: First sample, and sample after the last, of each stretch in which nothing was recorded, shape ``(pauses,
            2)``; their values are missing.
    """

    id: str
    subject: str
    site: str
    kind: str
    rate: float
    values: npt.NDArray[np.float32] = field(repr=False)
    unit: str = ""
    label: str | None = None
    fold: Fold | None = None
    recording: str = ""
    part_of: str = ""
    pauses: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty((0, 2), np.int64), repr=False)

    @property
    def seconds(self) -> float:
        """Length of what was recorded, without the pauses."""
        return float((len(self.values) - np.diff(self.pauses, axis=1).sum()) / self.rate)


def natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key under which ``"site-2"`` comes before ``"site-10"``."""
    parts = re.split(r"(\d+)", name)
    return tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part)


def safe_name(name: str) -> str:
    """A name that may be a file's: letters, digits, dot, underscore and hyphen."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "unnamed"
