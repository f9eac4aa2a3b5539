"""The folder of real data."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """Tests that ask for it are skipped where it is absent."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    folder = Path(os.environ.get("FEDLIT_SHARED_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}")
    return folder
