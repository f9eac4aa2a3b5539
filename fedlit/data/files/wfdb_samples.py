"""Samples of WFDB signal files, as steps of the converter."""

from __future__ import annotations

import tempfile
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedlit.data.base.records import BadRecord
from fedlit.data.files.wfdb_header import Header


@contextmanager
def quiet() -> Iterator[None]:
    """Without wfdb's warnings about its own use of pandas."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def read_steps(header: Header, frames: int | None, places: Sequence[int]) -> dict[int, npt.NDArray[np.float64]]:
    """Steps of the converter by place in a header, each of shape ``(frames * each,)``, NaN = missing."""
    files = defaultdict(list)
    for place, signal in enumerate(header.signals):
        files[signal.file].append(place)
    out = {}
    for file, own in files.items():
        wanted = [place for place in places if place in own]
        if wanted:
            read = _of_file(header, header.path.parent / file, frames, own, [own.index(place) for place in wanted])
            for place, values in zip(wanted, read, strict=True):
                late = header.signals[place].skew * header.signals[place].each
                out[place] = np.append(values[late:], np.full(min(late, len(values)), np.nan)) if late else values
    return out


def _of_file(
    header: Header, file: Path, frames: int | None, places: Sequence[int], wanted: Sequence[int]
) -> list[npt.NDArray[np.float64]]:
    """Steps of some signals of one file, read by wfdb under a header of ours.

    wfdb itself drops what is not ASCII, takes the mean of several samples in a frame, takes 200 for a gain that it
    cannot read, and stops at dates that nobody needs. It sees none of that here: one file, gain 1, and no dates.
    """
    signals = [header.signals[place] for place in places]
    try:
        if len({signal.format for signal in signals}) > 1:
            raise ValueError(f"{file.name} is of several formats")
        if not file.is_file():
            raise ValueError(f"{file.name}: no such file")
        with tempfile.TemporaryDirectory(prefix="fedlit-wfdb-") as folder, quiet():
            import wfdb

            (Path(folder) / "signals").symlink_to(file.resolve())
            lines = [f"record {len(signals)} 1" + ("" if frames is None else f" {frames}")]
            lines += [
                f"signals {s.format}x{s.each}+{signals[0].offset} 1(0)/V 0 0 {int(float(s.first or 0))} 0 0 c"
                for s in signals
            ]
            (Path(folder) / "record.hea").write_text("\n".join(lines) + "\n", encoding="ascii")
            record = wfdb.rdrecord(str(Path(folder) / "record"), channels=list(wanted), smooth_frames=False)
        return [np.asarray(values, np.float64) for values in record.e_p_signal]
    except Exception as error:  # wfdb raises ValueError, IndexError, KeyError, TypeError and its own on damaged files
        what = f"signals cannot be read ({_line(error)})"
        raise BadRecord(f"{header.path}: {what}: mend the header, or copy the files again") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
