"""Signal files made for tests, by hand where the reader has a library."""

from __future__ import annotations

import zlib

import numpy as np

from fedlit.data.files.wfdb import write_channels


def waves(channels: int, samples: int, rate: float, seed: int = 0) -> np.ndarray:
    """Sines of 1, 2, 3, ... Hz with a little noise, float32 (channels, samples)."""
    clock = np.arange(samples) / rate
    noise = np.random.default_rng(seed).normal(0, 0.05, (channels, samples))
    return (np.sin(2 * np.pi * np.arange(1, channels + 1)[:, None] * clock) + noise).astype(np.float32)


def write_wfdb(folder, name, comments=(), leads=("I", "II", "V1"), rate=200.0, seconds=4.0, flat=(), size=1.0):
    folder.mkdir(parents=True, exist_ok=True)
    made = size * waves(len(leads), round(rate * seconds), rate, seed=zlib.crc32(name.encode()))
    values = {lead: np.zeros_like(row) if lead in flat else row for lead, row in zip(leads, made, strict=True)}
    write_channels(folder, name, rate, values, dict.fromkeys(leads, "mV"), comments)


def write_set(path, signals, rate=500.0, names=None, layout="struct", fdt=False, **fields):
    """An EEGLAB file: ``layout`` struct (version 5, one EEG), flat (version 5, fields as variables) or hdf5 (7.3)."""
    from scipy.io import savemat

    path.parent.mkdir(parents=True, exist_ok=True)
    names = [f"E{i}" for i in range(len(signals))] if names is None else names
    all_fields = {"data": signals, "srate": rate, "nbchan": len(signals), "pnts": np.shape(signals)[1], "trials": 1}
    if fdt:
        signals.T.astype("<f4").tofile(path.with_suffix(".fdt"))
        all_fields["data"] = path.with_suffix(".fdt").name
    all_fields = {name: value for name, value in (all_fields | fields).items() if value is not None}
    if layout == "hdf5":
        return _write_hdf5(path, all_fields, names)
    chanlocs = np.array([(name, 0.5) for name in names], dtype=[("labels", object), ("radius", object)])
    all_fields["chanlocs"] = chanlocs
    savemat(path, {"EEG": all_fields} if layout == "struct" else all_fields)
    return path


def _write_hdf5(path, fields, names):
    import h5py

    with h5py.File(path, "w", userblock_size=512) as file:
        top, references = file.create_group("EEG"), file.create_group("#refs#")
        for name, value in fields.items():
            if isinstance(value, str):
                made = top.create_dataset(name, data=np.array([[ord(c)] for c in value], np.uint16))
                made.attrs["MATLAB_class"] = np.bytes_("char")
            else:
                top.create_dataset(name, data=np.atleast_2d(np.asarray(value)).T)
        labels = top.create_group("chanlocs").create_dataset("labels", (len(names), 1), dtype=h5py.ref_dtype)
        for i, name in enumerate(names):
            one = references.create_dataset(f"label{i}", data=np.array([[ord(c)] for c in name], np.uint16))
            one.attrs["MATLAB_class"] = np.bytes_("char")
            labels[i, 0] = one.ref
    head = b"MATLAB 7.3 MAT-file, made for a test".ljust(116) + bytes(8) + b"\x00\x02IM"
    with path.open("r+b") as file:
        file.write(head)
    return path
