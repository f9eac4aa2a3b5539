"""The respiratory sound database of ICBHI 2017."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from fedlit.data.base.names import few
from fedlit.data.base.partitions import BySite, Partition
from fedlit.data.base.records import BadRecord, Fold
from fedlit.data.classification.examples import Example
from fedlit.data.classification.sounds import SoundReader, span_fault
from fedlit.data.files.sounds import read_header
from fedlit.data.generated.examples import stand_in_sound, write_sound
from fedlit.errors import FedlitError

CYCLES = ("normal", "crackle", "wheeze", "both")
"""Classes in the order of the columns: 0 + crackle + 2 * wheeze."""
DEVICES = ("AKGC417L", "LittC2SE", "Litt3200", "Meditron")
SPLIT_FILE = "ICBHI_challenge_train_test.txt"
NAME = re.compile(r"(?P<patient>\d+)_[^_]+_[^_]+_(sc|mc)_(?P<device>[^_]+)")
LAYOUT = "the recordings (101_1b1_Al_sc_Meditron.wav) and their .txt files"
STAND_IN_CYCLES = 4


class ICBHI(SoundReader):
    """ICBHI 2017: respiratory cycles with crackles, wheezes, both or neither (Rocha et al. 2019).

    6,898 cycles of 126 patients; an example is a cycle. The subject is the patient, the site the recording device:
    clients are the four devices unless ``partition`` says otherwise. Where the folder holds the challenge's
    ``ICBHI_challenge_train_test.txt``, its 60/40 split of recordings is the ``fold``: two patients are on both sides of
    it, which ``describe()["leaks"]`` counts. That list names one recording with another device than the file: what
    precedes the device counts where it is unique, which is said. A cycle may reach 50 ms beyond its recording's end.

    Args:
        root: Folder with the recordings and their annotations, in any folders in it.
        kwargs: See :class:`fedlit.data.classification.sounds.SoundReader`.
    """

    class_names = CYCLES
    default_partition: ClassVar[Partition] = BySite()

    def __init__(self, root: Path, **kwargs: Any) -> None:
        self.root = Path(root)
        self._near: dict[str, list[str]] = {}
        super().__init__(**kwargs)

    def read(self) -> list[Example]:
        """One example per cycle, named by its recording and line."""
        files = [path for path in self.files_to_read(LAYOUT) if not path.name.startswith(".")]
        sounds = [path for path in files if path.suffix.lower() == ".wav"]
        if not sounds:
            raise FedlitError(f"{self.root}: holds no .wav file: set data.root to the folder with {LAYOUT}")
        listed = _folds(path for path in files if path.name.lower() == SPLIT_FILE.lower())
        folds = self._matched(listed, [path.stem for path in sounds])
        out: list[Example] = []
        for path in sounds:
            if not self.excluded(path.stem):
                out += self._recording(path, folds.get(path.stem))
        there = {path.with_suffix("") for path in sounds}
        for path in files:
            alone = path.suffix == ".txt" and NAME.fullmatch(path.stem) and path.with_suffix("") not in there
            if alone and not self.excluded(path.stem):
                self.refuse(path.stem, f"{path}: has no .wav file beside it: copy the recording there")
        return out

    def _matched(self, listed: dict[str, Fold], there: Sequence[str]) -> dict[str, Fold]:
        """Fold of each recording; one that the list names with another device is found by what precedes the device."""
        alone: dict[str, list[str]] = defaultdict(list)
        for name in listed.keys() - set(there):
            alone[name.rpartition("_")[0]].append(name)
        out, said = dict(listed), []
        self._near = {}
        for name in sorted(set(there) - listed.keys()) if listed else []:
            before = name.rpartition("_")[0]
            near = sorted(alone.get(before, ()))
            twins = [other for other in there if other.rpartition("_")[0] == before and other not in listed]
            if len(near) == len(twins) == 1:
                out[name] = listed[near[0]]
                del alone[before]
                said.append(f"{name} as {near[0]}")
            else:
                self._near[name] = near or sorted(get_close_matches(name, listed, 2))
        if said:
            self.say(f"{SPLIT_FILE} lists {len(said)} recording(s) with another device: {few(said)}")
        if absent := sorted(name for names in alone.values() for name in names):
            self.say(f"{SPLIT_FILE} lists {len(absent)} recording(s) that are not there: {few(absent)}")
        return out

    def mend_of_fold(self, example: Example) -> str:
        """What the list has in the place of a recording."""
        stem = example.id.rpartition("-")[0]
        if stem not in self._near:
            return super().mend_of_fold(example)
        near = ", ".join(self._near[stem])
        return f"{SPLIT_FILE} has no {stem}{f', but {near}' if near else ''}: mend the list, or leave the recording out"

    def _recording(self, path: Path, fold: Fold | None) -> list[Example]:
        notes = path.with_suffix(".txt")
        try:
            match = NAME.fullmatch(path.stem)
            if match is None:
                raise BadRecord(f"{path}: is not named like 101_1b1_Al_sc_Meditron.wav: rename it, or move it away")
            seconds = read_header(path).seconds
            lines = _lines(notes)
        except BadRecord as error:
            self.refuse(path.stem, str(error))
            return []
        out = []
        for number, line in enumerate(lines, 1):
            name = f"{path.stem}-{number:02d}"
            if self.excluded(name):
                continue
            try:
                start, stop, label = _cycle(line, seconds)
            except BadRecord as error:
                self.refuse(name, f"{notes}: line {number} {error}")
                continue
            values = self.part(path, start, stop)
            patient, site = match["patient"], match["device"]
            out.append(Example(name, patient, site, "audio", (label,), values, self.rate, fold))
        return out

    def write_stand_in(self, folder: Path) -> None:
        """Recordings of four cycles of 1 s, one of each class, each of another patient; and the split file."""
        _, size = self.stand_in_size(96 if self.split == "fold" else 24)
        split = []
        for number in range(-(-size // STAND_IN_CYCLES)):
            device = DEVICES[number % len(DEVICES)]
            stem = f"{101 + number}_1b1_{('Al', 'Ar', 'Tc')[number % 3]}_sc_{device}"
            cycles = [stand_in_sound(STAND_IN_CYCLES * number + k, k) for k in range(STAND_IN_CYCLES)]
            path = folder / "ICBHI_final_database" / f"{stem}.wav"
            write_sound(path, np.concatenate(cycles))
            lines = [f"{k:.3f}\t{k + 1:.3f}\t{k % 2}\t{k // 2}\n" for k in range(STAND_IN_CYCLES)]
            path.with_suffix(".txt").write_text("".join(lines), encoding="utf-8")
            split.append(f"{stem}\t{'test' if number // len(DEVICES) % 3 == 2 else 'train'}\n")
        (folder / SPLIT_FILE).write_text("".join(split), encoding="utf-8")


def _lines(path: Path) -> list[str]:
    """Lines of an annotation."""
    try:
        lines = [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        what = getattr(error, "strerror", None) or error
        raise BadRecord(f"{path}: {what}: copy the recording's annotation there") from error
    if not lines:
        raise BadRecord(f"{path}: lists no cycle: copy it again, or leave the recording out")
    return lines


def _cycle(line: str, seconds: float) -> tuple[float, float, str]:
    """Start and end (s), and the class, out of ``start end crackle wheeze``."""
    cells = line.split()
    if len(cells) != 4 or cells[2] not in ("0", "1") or cells[3] not in ("0", "1"):
        what = f"has {len(cells)} field(s)" if len(cells) != 4 else "has no 0 or 1 as crackle or wheeze"
        raise BadRecord(f"{what}: give start, end (s), crackle, wheeze (0 or 1), with tabs between")
    try:
        start, stop = float(cells[0]), float(cells[1])
    except ValueError as error:
        raise BadRecord("has a start or end that is no number: give both in seconds") from error
    fault = span_fault(start, stop, seconds)
    if fault is not None:
        raise BadRecord(fault)
    return start, stop, CYCLES[int(cells[2]) + 2 * int(cells[3])]


def _folds(paths: Iterable[Path]) -> dict[str, Fold]:
    """Fold of each recording that the challenge's split names."""
    names: dict[str, Fold] = {"train": "train", "test": "test"}
    out: dict[str, Fold] = {}
    for path in paths:
        for number, line in enumerate(_lines(path), 1):
            cells = line.split()
            if len(cells) != 2 or cells[1] not in names:
                what = f"{path}: line {number} has {len(cells)} field(s), or another word than train or test"
                raise FedlitError(f"{what}: give a recording's name, a tab, train or test")
            out[cells[0].removesuffix(".wav")] = names[cells[1]]
    return out
