"""Rhythms in WFDB annotations: changes that are marked by ``+`` with a note like ``(AFIB``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fedlit.data.base.records import BadRecord
from fedlit.data.files.wfdb_header import read_header
from fedlit.data.files.wfdb_samples import quiet


def read_rhythms(path: Path, annotator: str) -> list[tuple[float, str]]:
    """Start (s) and name of each rhythm, without the parenthesis, in order of time.

    Args:
        path: The record's header.
        annotator: Ending of the annotations beside it (``atr``).

    Raises:
        BadRecord: They are absent or cannot be read.
    """
    file = path.parent / f"{path.stem}.{annotator}"
    if not file.is_file():
        raise BadRecord(f"{file}: no such annotations: copy them beside the header, or mend data.rhythms")
    rate = read_header(path).rate
    try:
        with quiet():
            import wfdb

            found = wfdb.rdann(str(path.with_suffix("")), annotator)
        rate = float(found.fs or rate)
        notes = [note.strip().strip("\x00").strip() for note in found.aux_note]
        pairs = sorted(zip(np.asarray(found.sample, np.float64) / rate, notes, strict=True), key=lambda pair: pair[0])
    except Exception as error:  # wfdb raises many kinds on damaged files
        raise BadRecord(f"{file}: annotations cannot be read ({type(error).__name__}): copy the file again") from error
    return [(float(start), note[1:]) for start, note in pairs if note.startswith("(") and len(note) > 1]


def write_rhythms(path: Path, annotator: str, rate: float, changes: Sequence[tuple[float, str]]) -> None:
    """Write annotations of rhythms.

    Args:
        path: The record's, without ending.
        annotator: Ending of the annotations.
        rate: Of the record (Hz).
        changes: Start (s) and name of each rhythm.
    """
    with quiet():
        import wfdb

        samples = np.array([max(1, round(start * rate)) for start, _ in changes])
        notes = [f"({name}" for _, name in changes]
        symbols = ["+"] * len(changes)
        wfdb.wrann(path.name, annotator, samples, symbol=symbols, aux_note=notes, write_dir=str(path.parent))
