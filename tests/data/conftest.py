"""Records made in memory, and the folder of real ones."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from from_memory import FromMemory

from fedlit.data import Record, SignalDataModule


class InMemory(FromMemory, SignalDataModule):
    """Records."""


@pytest.fixture(scope="session")
def in_memory() -> type[InMemory]:
    return InMemory


@pytest.fixture(scope="session")
def record() -> Callable[..., Record]:
    def make(name: str, samples: int = 600, values: np.ndarray | None = None, **kwargs) -> Record:
        if values is None:
            generator = np.random.default_rng(zlib.crc32(name.encode()))
            values = np.sin(np.arange(samples) / 7) + 0.1 * generator.standard_normal(samples)
        defaults = {"subject": name, "site": "a", "kind": "ecg", "rate": 100.0}
        return Record(name, values=values.astype(np.float32), **(defaults | kwargs))

    return make


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of real data sets; tests that ask for it are skipped where it is absent."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    folder = Path(os.environ.get("FEDLIT_SHARED_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}")
    return folder
