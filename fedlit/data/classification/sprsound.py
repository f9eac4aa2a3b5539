"""SPRSound, the paediatric respiratory sound database of Shanghai Jiao Tong University."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fedlit.data.base import arguments
from fedlit.data.base.records import BadRecord, Fold
from fedlit.data.classification.examples import Example
from fedlit.data.classification.sounds import SoundReader, span_fault
from fedlit.data.files.sounds import read_header
from fedlit.data.generated.examples import stand_in_sound, write_sound
from fedlit.errors import FedlitError

Level = Literal["event", "record"]
TestPart = Literal["both", "inter", "intra"]
EVENTS = ("Normal", "Fine Crackle", "Wheeze", "Coarse Crackle", "Wheeze+Crackle", "Rhonchi", "Stridor")
"""Classes in the order of FHBench's code."""
RECORDS = ("Normal", "CAS", "DAS", "CAS & DAS", "Poor Quality")
CLASSES: dict[str, Sequence[str]] = {"event": EVENTS, "record": RECORDS}
NAME = re.compile(r"(?P<patient>[^_]+)_(?P<age>[^_]+)_(?P<sex>[^_]+)_(?P<location>[^_]+)_(?P<number>[^_]+)")
LOCATIONS = tuple(f"p{number}" for number in range(1, 9))
PART = re.compile(r"(?P<name>(?P<fold>train|test)\d{4})_(json|wav)")
LAYOUT = "train2022_wav, train2022_json, test2022_wav and test2022_json"
INNER = {"inter": "inter_test_json", "intra": "intra_test_json"}
"""Folders of the two parts of the test set."""
STAND_IN_EVENTS = 7


class SPRSound(SoundReader):
    """SPRSound 2022: respiratory events of children (Zhang et al. 2022, doi:10.1109/TBCAS.2022.3204910).

    9,089 events of seven kinds in 2,496 recordings of 288 patients, all of one hospital and one kind of stethoscope:
    clients are made by label. Recordings without an event have no example. The subject is the patient, the site the
    place on the chest (``p1`` to ``p8``), so that ``BySite`` gives clients by place. The folder (train or test) is the
    ``fold``; patients of the intra part of the test set are also in the training set. An event may reach 50 ms beyond
    the end of its recording.

    Args:
        root: ``BioCAS2022``, or the folder around it. Annotations are taken from ``<part>_json`` and recordings from
            ``<part>_wav``, or, without such folders, from beside the annotation; there is no ``fold`` then.
        level: An example is an ``event``, or a whole ``record`` with its label (Normal, CAS, DAS, CAS & DAS, Poor
            Quality).
        test_part: Take ``both`` parts of the test set, only ``inter`` (new patients), or only ``intra``.
        kwargs: See :class:`fedlit.data.classification.sounds.SoundReader`.
    """

    def __init__(self, root: Path, level: Level = "event", test_part: TestPart = "both", **kwargs: Any) -> None:
        arguments.one_of("level", level, Level)
        arguments.one_of("test_part", test_part, TestPart)
        self.root = Path(root)
        self.level = level
        self.test_part = test_part
        self.class_names = CLASSES[level]
        super().__init__(**kwargs)

    def read(self) -> list[Example]:
        """One example per event, named by its recording and place in it, or per recording."""
        folder = self.folder_to_read(LAYOUT)
        inner = folder / "BioCAS2022"
        files = [
            path
            for path in self.files_to_read(LAYOUT)
            if not path.name.startswith(".") and (inner in path.parents or not inner.is_dir())
        ]
        sounds = {path.with_suffix(""): path for path in files if path.suffix.lower() == ".wav"}
        notes = [path for path in files if path.suffix == ".json"]
        if not sounds or not notes:
            lacking = ".wav" if not sounds else ".json"
            raise FedlitError(f"{folder}: holds no {lacking} file: set data.root to the folder with {LAYOUT}")
        if self.test_part != "both" and not any(path.parent.name in INNER.values() for path in notes):
            self.say(f"data.test_part {self.test_part} has no effect: there is no folder {' or '.join(INNER.values())}")
        out: list[Example] = []
        annotated = set()
        for path in notes:
            fold, sound = _place(path)
            annotated.add(sound)
            other = [folder for part, folder in INNER.items() if self.test_part not in ("both", part)]
            if path.parent.name not in other and not self.excluded(path.stem):
                out += self._recording(path, sounds.get(sound, sound.with_name(f"{sound.name}.wav")), fold)
        for name, path in sounds.items():
            if name not in annotated and not self.excluded(path.stem):
                self.refuse(path.stem, f"{path}: has no annotation {path.stem}.json: copy it to its _json folder")
        if self._without_event:
            self.say(f"{self._without_event} recording(s) without an event have no example; see partition.json")
        return out

    def _recording(self, notes: Path, sound: Path, fold: Fold | None) -> list[Example]:
        stem = notes.stem
        try:
            match = NAME.fullmatch(stem)
            if match is None:
                raise BadRecord(f"{notes}: is not named like 65101170_0.4_1_p2_3246.json: rename it, or move it away")
            written = _annotation(notes)
            seconds = read_header(sound).seconds
            label = _record_label(notes, written) if self.level == "record" else ""
        except BadRecord as error:
            self.refuse(stem, str(error))
            return []
        site = match["location"] if match["location"] in LOCATIONS else "site-unknown"
        if self.level == "record":
            values = self.part(sound)
            return [Example(stem, match["patient"], site, "audio", (label,), values, self.rate, fold)]
        if not written["event_annotation"]:
            self._left_out[stem] = "has no event"
            self._without_event += 1
        out = []
        for number, event in enumerate(written["event_annotation"], 1):
            name = f"{stem}-{number:02d}"
            if self.excluded(name):
                continue
            try:
                start, stop, label = _event(event, seconds)
            except BadRecord as error:
                self.refuse(name, f"{notes}: event {number} {error}")
                continue
            values = self.part(sound, start, stop)
            out.append(Example(name, match["patient"], site, "audio", (label,), values, self.rate, fold))
        return out

    def _forget(self) -> None:
        super()._forget()
        self._without_event = 0

    def write_stand_in(self, folder: Path) -> None:
        """Recordings of seven events of 1 s, one of each kind, each of another patient; a third for test."""
        _, size = self.stand_in_size(96 if self.split == "fold" else 24)
        events = STAND_IN_EVENTS if self.level == "event" else 1
        for number in range(-(-size // events)):
            of_record = number % len(RECORDS)
            stem = f"{40_000_001 + number}_{number % 17 + 1}.0_{number % 2}_p{number % 4 + 1}_{number + 1}"
            test = number // 4 % 3 == 2
            part = "test2022" if test else "train2022"
            inner = ("inter_test_json", "intra_test_json")[number % 2] if test else ""
            kinds = range(events) if self.level == "event" else [of_record]
            sounds = [stand_in_sound(events * number + k, kind) for k, kind in enumerate(kinds)]
            write_sound(folder / "BioCAS2022" / f"{part}_wav" / f"{stem}.wav", np.concatenate(sounds))
            listed = [
                {"start": str(1000 * k), "end": str(1000 * (k + 1)), "type": EVENTS[kind]}
                for k, kind in enumerate(kinds)
            ]
            path = folder / "BioCAS2022" / f"{part}_json" / inner / f"{stem}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            written = {"record_annotation": RECORDS[of_record], "event_annotation": listed}
            path.write_text(json.dumps(written), encoding="utf-8")


def _place(notes: Path) -> tuple[Fold | None, Path]:
    """Fold of an annotation, and where its recording belongs, without suffix."""
    for folder in notes.parents:
        match = PART.fullmatch(folder.name)
        if match is not None and folder.name.endswith("_json"):
            return (
                "train" if match["fold"] == "train" else "test"
            ), folder.parent / f"{match['name']}_wav" / notes.stem
    return None, notes.with_suffix("")


def _annotation(path: Path) -> dict[str, Any]:
    """What an annotation file holds, its events in a list."""
    try:
        written = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        what = getattr(error, "strerror", None) or error
        raise BadRecord(f"{path}: cannot be read as JSON ({what}): copy it again") from error
    if not isinstance(written, dict) or not isinstance(written.get("event_annotation"), list):
        raise BadRecord(f"{path}: has no list event_annotation: copy it again, or leave it out")
    return written


def _record_label(path: Path, written: dict[str, Any]) -> str:
    """The recording's label: the files write ``record_annotation``, their first description another name."""
    label = written.get("record_annotation", written.get("recording_annotation"))
    if not isinstance(label, str) or label not in RECORDS:
        raise BadRecord(f"{path}: has {label!r} as record_annotation: give one of {', '.join(RECORDS)}")
    return label


def _event(event: Any, seconds: float) -> tuple[float, float, str]:
    """Start and end (s), and the kind; times are milliseconds, as numbers or text."""
    try:
        start, stop, label = float(event["start"]) / 1000, float(event["end"]) / 1000, event["type"]
    except (KeyError, TypeError, ValueError) as error:
        raise BadRecord("lacks a start, end or type, or has no number as a time: give both in ms, and type") from error
    if label not in EVENTS:
        raise BadRecord(f"has the type {label!r}: give one of {', '.join(EVENTS)}")
    fault = span_fault(start, stop, seconds)
    if fault is not None:
        raise BadRecord(fault)
    return start, stop, label
