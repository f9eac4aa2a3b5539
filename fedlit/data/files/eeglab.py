"""Continuous recordings in EEGLAB's .set files, with the samples inside or in an .fdt file beside them.

A .set file is a MATLAB file with the fields of EEGLAB's dataset (data, srate, chanlocs, nbchan, pnts, trials) in a
structure ``EEG``, or, from newer versions, as variables of their own. ``data`` is channels x samples (uV), or the name
of the .fdt file: float32, little-endian, all channels of a sample together.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedlit.data.base.records import BadRecord

FIELDS = ("data", "srate", "chanlocs", "nbchan", "pnts", "trials")


@dataclass(frozen=True)
class Recording:
    """A continuous recording.

    Attributes:
        rate: Hz.
        names: Names of the channels.
        values: float32 (channels, samples), uV.
    """

    rate: float
    names: list[str]
    values: npt.NDArray[np.float32] = field(repr=False)


def read_set(path: Path) -> Recording:
    """A .set file of MATLAB version 5 (scipy) or 7.3 (HDF5), and its .fdt file.

    Raises:
        BadRecord: A file is absent, damaged or truncated, or lacks a field, samples or channel names; or the recording
            is cut into epochs.
    """
    if not path.is_file():
        raise BadRecord(f"{path}: is absent, or a link to a file that was not downloaded: download it")
    fields = _fields(path)
    rate = _number(path, fields, "srate")
    if fields.get("trials") is not None and _number(path, fields, "trials") > 1:
        raise BadRecord(f"{path}: holds {_number(path, fields, 'trials'):g} epochs: use the continuous recording")
    data = fields.get("data")
    if isinstance(data, str):
        counts = int(_number(path, fields, "nbchan")), int(_number(path, fields, "pnts"))
        values = _read_fdt(path, data, *counts)
    elif data is None or not np.size(data):
        raise BadRecord(f"{path}: holds no data, nor the name of an .fdt file: copy or save it again")
    else:
        values = np.atleast_2d(np.asarray(data, np.float32))
    if values.ndim != 2:
        raise BadRecord(f"{path}: data has {values.ndim} axes: use the continuous recording")
    names = fields.get("chanlocs") or []
    if len(names) != len(values):
        raise BadRecord(f"{path}: {len(names)} channel names in chanlocs for {len(values)} channels: mend chanlocs")
    return Recording(rate, names, np.ascontiguousarray(values))


def _number(path: Path, fields: dict[str, Any], name: str) -> float:
    value = fields.get(name)
    if value is None or isinstance(value, str) or np.size(value) != 1 or not float(np.ravel(value)[0]) > 0:
        raise BadRecord(
            f"{path}: {name} is {'absent' if value is None else value}, not a number above 0: save it again"
        )
    return float(np.ravel(value)[0])


def _read_fdt(path: Path, name: str, channels: int, samples: int) -> npt.NDArray[np.float32]:
    # Renamed pairs keep the old name inside.
    choices = [path.parent / name, path.with_suffix(".fdt")]
    file = next((choice for choice in choices if choice.is_file()), None)
    if file is None:
        raise BadRecord(f"{path}: its samples are in {name}, which is not beside it: copy that file too")
    size, needed = file.stat().st_size, 4 * channels * samples
    if size != needed:
        raise BadRecord(
            f"{file}: has {size} bytes, {channels} channels of {samples} samples have {needed}: copy the file again"
        )
    return np.fromfile(file, "<f4").reshape(samples, channels).T


def _fields(path: Path) -> dict[str, Any]:
    """Those of ``FIELDS`` that there are; ``chanlocs`` as a list of names, text as str."""
    from scipy.io import loadmat, whosmat

    try:
        try:
            there = [name for name, _, _ in whosmat(str(path))]
            wanted = ["EEG"] if "EEG" in there else [name for name in FIELDS if name in there]
            found = loadmat(str(path), squeeze_me=True, struct_as_record=False, variable_names=wanted)
            if "EEG" in wanted:
                found = vars(found["EEG"])
            out = {name: found[name] for name in FIELDS if name in found}
            if "chanlocs" in out:
                each = np.atleast_1d(out["chanlocs"])
                out["chanlocs"] = [str(channel.labels).strip() for channel in each if hasattr(channel, "labels")]
            return out
        except NotImplementedError:  # how scipy says version 7.3
            return _fields_of_hdf5(path)
    except BadRecord:
        raise
    except Exception as error:  # scipy and h5py raise many kinds on damaged files
        what = " ".join(str(error).split())[:160] or type(error).__name__
        raise BadRecord(f"{path}: cannot be read as a .set file of EEGLAB ({what}): copy the file again") from error


def _fields_of_hdf5(path: Path) -> dict[str, Any]:
    import h5py

    with h5py.File(path) as file:
        top = file.get("EEG", file)
        out: dict[str, Any] = {}
        for name in FIELDS:
            if name == "chanlocs" or name not in top or top[name].attrs.get("MATLAB_empty", 0):
                continue
            out[name] = _matlab(top[name])
        if "chanlocs" in top and "labels" in top["chanlocs"]:
            labels = top["chanlocs"]["labels"]
            several = h5py.check_ref_dtype(labels.dtype) is not None
            each = [file[reference] for reference in np.ravel(labels[()])] if several else [labels]
            out["chanlocs"] = [str(_matlab(label)).strip() for label in each]
        return out


def _matlab(dataset: Any) -> Any:
    """Text, or an array with MATLAB's order of axes, which HDF5 reverses."""
    values = np.asarray(dataset[()])
    if dataset.attrs.get("MATLAB_class") in (b"char", "char"):
        return "".join(chr(code) for code in values.ravel())
    return values.T
