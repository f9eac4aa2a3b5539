"""Channels of a recording, whatever the file: what is read of them, and which one is meant by a name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from fedlit.data.base.names import few
from fedlit.data.base.records import BadRecord

MILLIVOLTS = {"mv": 1.0, "v": 1e3, "uv": 1e-3, "\u00b5v": 1e-3, "\u03bcv": 1e-3, "nv": 1e-6}
"""Factor to mV, by the unit in lower case: headers in use write ``mV``, ``mv``, ``uV`` and both micro signs."""


@dataclass(frozen=True)
class Channels:
    """Channels of one recording.

    Attributes:
        rates: Channel name as asked for, to its samples per second (Hz).
        values: Channel name to float32 of shape ``(samples,)``, NaN = missing.
        units: Channel name to unit; voltages are in mV.
        gains: Channel name to steps of the converter per unit of the header; of the first segment that has it.
        comments: Lines of the header that begin with ``#``.
        notes: What is unusual in the file, and how it was read.
    """

    rates: dict[str, float]
    values: dict[str, npt.NDArray[np.float32]]
    units: dict[str, str]
    gains: dict[str, float]
    comments: list[str]
    notes: list[str]


class Recording(Protocol):
    """A file of channels that is open."""

    def find(self, wanted: str | Sequence[str]) -> str:
        """The channel to read: the name, or the first of several that is there."""

    def read(self, names: Sequence[str]) -> Channels:
        """Samples of some channels, as :meth:`find` names them."""


def chosen(path: Path, wanted: str | Sequence[str], there: Sequence[str], has: Callable[[str], bool]) -> str:
    """The name, or the first of several, that a file has.

    Args:
        path: The file, for errors.
        wanted: A name, or alternatives.
        there: Names of all channels, for errors.
        has: Whether a name is there.

    Raises:
        BadRecord: None is.
    """
    alternatives = [wanted] if isinstance(wanted, str) else list(wanted)
    found = next((name for name in alternatives if has(name)), None)
    if found is None:
        asked = " or ".join(map(repr, alternatives))
        raise BadRecord(f"{path}: no channel {asked}, there are {few(there, 40) or 'none'}: name one of them")
    return found


def place_of(path: Path, wanted: str, names: Sequence[str]) -> int | None:
    """Place of a channel among names that a file gives; case and white space at the ends do not matter.

    Args:
        path: The file, for errors.
        wanted: A name; ``ECG#2`` is the second of those named ``ECG``.
        names: Of all channels.

    Raises:
        BadRecord: Several are named so.
    """
    keys = [name.strip().lower() for name in names]
    key = wanted.strip().lower()
    same = [place for place, name in enumerate(keys) if name == key]
    if len(same) > 1:
        there = " and ".join(f"{names[place].strip()!r} (channel {place + 1})" for place in same)
        ways = " or ".join(f"{wanted.strip()}#{turn}" for turn in range(1, len(same) + 1))
        raise BadRecord(f"{path}: {len(same)} channels are named {wanted!r}: {there}: ask for {ways}")
    if same:
        return same[0]
    bare, _, turn = key.rpartition("#")
    same = [place for place, name in enumerate(keys) if bare and name == bare]
    return same[int(turn) - 1] if turn.isdecimal() and 0 < int(turn) <= len(same) else None


def demand_distinct(path: Path, places: dict[str, int]) -> None:
    """Refuse two names of one channel.

    Args:
        path: The file, for errors.
        places: Name to place in the file.

    Raises:
        BadRecord: Two have the same.
    """
    for place in places.values():
        same = [name for name, own in places.items() if own == place]
        if len(same) > 1:
            raise BadRecord(f"{path}: {' and '.join(same)} are one channel: name it once")
