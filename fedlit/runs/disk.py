"""Writes that last: what they wrote is on the disk when they return."""

from __future__ import annotations

import os
from pathlib import Path


def write_synced(path: Path, blob: bytes) -> None:
    """Write a file; that the folder holds it lasts only after :func:`sync` of the folder.

    Raises:
        OSError: The disk is full or the file cannot be written.
    """
    with open(path, "wb") as file:
        file.write(blob)
        file.flush()
        os.fsync(file.fileno())


def sync(folder: Path) -> None:
    """Make what was created, renamed or removed in a folder last."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
