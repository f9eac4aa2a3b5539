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

_BY_SIGNAL = ("8", "508", "516", "524")
"""Formats of differences, and packed ones: samples do not simply follow each other."""
_MISSING = {
    "80": -(2**7), "310": -(2**9), "311": -(2**9), "212": -(2**11), "16": -(2**15), "61": -(2**15), "160": -(2**15),
    "24": -(2**23), "32": -(2**31),
}  # fmt: skip
"""Step that marks a missing sample, by format; source: the manual page ``signal(5)`` of the WFDB Applications Guide."""


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
    cannot read, and stops at dates that nobody needs. It sees none of that here: one file, gain 1, and no dates. Nor
    does it see several signals where samples simply follow each other: it takes a millisecond for each line.
    """
    signals = [header.signals[place] for place in places]
    form = signals[0].format
    try:
        if len({signal.format for signal in signals}) > 1:
            raise ValueError(f"{file.name} is of several formats")
        if not file.is_file():
            raise ValueError(f"{file.name}: no such file")
        if form in _BY_SIGNAL:
            lines = [(signal.each, int(float(signal.first or 0))) for signal in signals]
            read = _read_lines(file, form, signals[0].offset, frames, lines, list(wanted), 64)
            return [np.asarray(own, np.float64) for own in read]
        ends = np.cumsum([0, *(signal.each for signal in signals)])
        bits = 32 if form in ("24", "32") else 16
        flat = _read_lines(file, form, signals[0].offset, frames, [(int(ends[-1]), 0)], [0], bits)[0]
        whole = flat.reshape(-1, int(ends[-1]))
        found = [whole[:, ends[place] : ends[place + 1]].reshape(-1) for place in wanted]
        return [np.where(own == _MISSING[form], np.nan, own.astype(np.float64)) for own in found]
    except Exception as error:  # wfdb raises ValueError, IndexError, KeyError, TypeError and its own on damaged files
        what = f"signals cannot be read ({_line(error)})"
        raise BadRecord(f"{header.path}: {what}: mend the header, or copy the files again") from error


def _read_lines(
    file: Path,
    form: str,
    offset: int,
    frames: int | None,
    lines: Sequence[tuple[int, int]],
    wanted: Sequence[int],
    bits: int,
) -> list[npt.NDArray[np.number]]:
    """Signals of a file: physical values for 64 bits, which are steps at gain 1, else steps as integers.

    Args:
        file: Of the samples.
        form: Their format.
        offset: Bytes before them.
        frames: None where the file's size tells.
        lines: Samples in a frame, and first value, of each signal in the file.
        wanted: Which of them to give.
        bits: Of the numbers.
    """
    with tempfile.TemporaryDirectory(prefix="fedlit-wfdb-") as folder, quiet():
        import wfdb

        (Path(folder) / "signals").symlink_to(file.resolve())
        text = [f"record {len(lines)} 1" + ("" if frames is None else f" {frames}")]
        text += [f"signals {form}x{each}+{offset} 1(0)/V 0 0 {first} 0 0 c" for each, first in lines]
        (Path(folder) / "record.hea").write_text("\n".join(text) + "\n", encoding="ascii")
        path, channels = str(Path(folder) / "record"), list(wanted)
        record = wfdb.rdrecord(path, channels=channels, physical=bits == 64, smooth_frames=False, return_res=bits)
    return list(record.e_p_signal if bits == 64 else record.e_d_signal)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
