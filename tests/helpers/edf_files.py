"""EDF files made for tests; discontinuous ones by hand, from what edfio writes."""

from __future__ import annotations

import re

import edfio
import numpy as np

SECRET = "Janet Doe"
"""Name of a patient, which must be nowhere but in the file."""


def write(path, signals, annotations=(), blocks=1.0, day=None):
    """``signals``: name to (values, Hz, unit)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = [
        edfio.EdfSignal(np.asarray(values, float), rate, label=name, physical_dimension=unit)
        for name, (values, rate, unit) in signals.items()
    ]
    patient = edfio.Patient(name=SECRET.replace(" ", "_"), code="mrn-77")
    marks = [edfio.EdfAnnotation(start, duration, text) for start, duration, text in annotations]
    more = {} if day is None else {"starttime": day}
    size = {"data_record_duration": blocks} if made else {}
    edfio.Edf(made, patient=patient, annotations=marks or None, **size, **more).write(path)
    return path


def set_onsets(path, onsets, reserved=b"EDF+D"):
    """Give each block of an EDF+ file another start (s), of as many characters as before."""
    content = bytearray(path.read_bytes())
    content[192:197] = reserved
    head, count = int(content[184:192]), int(content[252:256])
    labels = [bytes(content[256 + 16 * i :][:16]).strip() for i in range(count)]
    lengths = [int(bytes(content[256 + 216 * count + 8 * i :][:8])) for i in range(count)]
    place = labels.index(b"EDF Annotations")
    for number, onset in enumerate(onsets):
        first = head + 2 * (number * sum(lengths) + sum(lengths[:place]))
        block = bytes(content[first : first + 2 * lengths[place]])
        new = re.sub(rb"^[+-]\d+(\.\d+)?", f"+{onset:g}".encode(), block)[: len(block)].ljust(len(block), b"\0")
        content[first : first + len(block)] = new
    path.write_bytes(content)
