"""Any folder of WFDB records to classify: by the diagnoses in their headers, or by a part of their names."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fedlit.data.base.names import few
from fedlit.data.base.partitions import BySite, Partition
from fedlit.data.base.records import BadRecord, natural
from fedlit.data.classification.examples import Example
from fedlit.data.classification.signals import SignalClasses, named_by, unique_names
from fedlit.data.files.wfdb import read_channels, read_comments, write_channels
from fedlit.data.generated.heart import LEADS
from fedlit.data.generated.population import stand_in_channels
from fedlit.data.signals import checks
from fedlit.data.signals.wfdb_folder import CHALLENGE_PREFIX
from fedlit.errors import FedlitError

_DIAGNOSES = re.compile(r"^Dx:(.*)$", re.IGNORECASE)
STAND_IN_CODES = ("426783006", "164889003", "59118001", "284470004")
"""SNOMED CT: sinus rhythm, atrial fibrillation, right bundle branch block, premature atrial contraction."""


class WFDBLabels(SignalClasses):
    """WFDB records of a folder and all folders in it, with several leads, to classify.

    Labels are the codes of the header's ``#Dx:`` line (multi-label; the PhysioNet/CinC Challenges of 2020 and 2021), or
    the part of the record's name that ``label_pattern`` finds. Records with an empty ``Dx`` line, or without one, are
    not known to be free of any class: they are left out and counted. Records whose codes are all of no class stay, with
    no label.

    Gains that are wrong in a header (5 times in some of the Challenges') make no difference under ``scale`` ``record``
    or ``window``; with ``none`` a gain whose records differ from the others is named.

    Args:
        root: The folder.
        label_pattern: Regular expression whose group, searched in the record's name, is its one label (the Challenges'
            hospital systems: ``^([A-Za-z]+)``); None for the diagnoses.
        classes: Diagnoses (or labels) that are classes, in order; None for those found. Other diagnoses do not count.
        min_count: Diagnoses in fewer records are no classes, where ``classes`` is not given.
        names: Diagnosis to the name of its class; codes of one name are one class (713427006 and 59118001 are both
            right bundle branch block). ``classes`` and ``min_count`` then go by these names.
        channels: In the order wanted, any case; None for the twelve leads. A record without one of them is refused.
        site_pattern: Regular expression whose group, searched in the record's name, is its site.
        subject_pattern: The same for the subject; None: each record is of another subject, which is said.
        rate: Hz.
        window_seconds: None for whole records, which must then be of one length.
        kwargs: See :class:`fedlit.data.classification.signals.SignalClasses`.
    """

    default_partition: ClassVar[Partition] = BySite(min_records=3)
    held_as: ClassVar[Mapping[str, str]] = {"classes": "given_classes"}

    def __init__(
        self,
        root: Path,
        label_pattern: str | None = None,
        classes: list[str] | None = None,
        min_count: int = 1,
        names: dict[str, str] | None = None,
        channels: list[str] | None = None,
        site_pattern: str = CHALLENGE_PREFIX,
        subject_pattern: str | None = None,
        rate: float = 100.0,
        window_seconds: float | None = 10.0,
        **kwargs: Any,
    ) -> None:
        self.root = Path(root)
        self.label_pattern = label_pattern
        self.given_classes = None if classes is None else list(classes)
        self.min_count = min_count
        self.names = {str(code): name for code, name in (names or {}).items()}
        self.channels = unique_names("channels", channels, LEADS)
        self.site_pattern = site_pattern
        self.subject_pattern = subject_pattern
        for argument in ("label_pattern", "site_pattern", "subject_pattern"):
            named_by(argument, getattr(self, argument))
        if min_count < 1:
            raise FedlitError(f"data.min_count is {min_count}: give 1 or more")
        if label_pattern is not None and names:
            raise FedlitError("data.names is of diagnoses: leave it out, or data.label_pattern")
        self.multi_label = label_pattern is None
        super().__init__(rate=rate, window_seconds=window_seconds, **kwargs)
        self.class_names = self.given_classes

    def usual_partition(self) -> Partition:
        """By site; where labels are in the names too, by label, for the site may be the label."""
        if self.parity or self.multi_label:
            return super().usual_partition()
        return SignalClasses.default_partition

    def read(self) -> list[Example]:
        """One example per WFDB record that has a label."""
        headers = [path for path in self.files_to_read("WFDB records (.hea)") if path.suffix == ".hea"]
        if not headers:
            raise FedlitError(f"{self.root}: no .hea file in it: set data.root to the folder with WFDB records")
        site, subject = named_by("site_pattern", self.site_pattern), named_by("subject_pattern", self.subject_pattern)
        label = named_by("label_pattern", self.label_pattern)
        assert site is not None  # checked by its type
        out, unlabelled = [], []
        for header in headers:
            name = header.stem
            if self.excluded(name):
                continue
            try:
                where, who = site.of(name), name if subject is None else subject.of(name)
                own = self._diagnoses(read_comments(header)) if label is None else (label.of(name),)
            except BadRecord as error:
                self.refuse(name, str(error))
                continue
            if own is None:
                self._left_out[name] = "has no diagnosis in its header"
                unlabelled.append(name)
                continue
            out.append(Example(name, who, where, "ecg", own, self.values_of(name, header), self.rate))
        if unlabelled:
            self.say(
                f"{len(unlabelled)} record(s) without a diagnosis in the header (Dx) are left out: {few(unlabelled)}"
            )
        if subject is None:
            self.say_subjects_are_unknown(len(out), "data.subject_pattern ('(.+)'")
        return self._of_classes(out) if label is None else out

    def read_signals(self, path: Path) -> tuple[Mapping[str, npt.NDArray[np.floating]], Mapping[str, float]]:
        """The channels of a record; voltages in mV."""
        read = read_channels(path, self.channels)
        if self.scale == "none":
            first = read.values[self.channels[0]]
            low, high = np.nanpercentile(first, [1, 99])
            self._amplitudes[read.gains[self.channels[0]]][path.stem] = float(high - low)
        return read.values, read.rates

    def _diagnoses(self, comments: Sequence[str]) -> tuple[str, ...] | None:
        """Names of the diagnoses, each once; None where the header has none."""
        found = next((match for comment in comments if (match := _DIAGNOSES.match(comment))), None)
        codes = [code.strip() for code in found.group(1).split(",")] if found else []
        codes = [code for code in codes if code and code.lower() not in ("unknown", "nan")]
        return tuple(dict.fromkeys(self.names.get(code, code) for code in codes)) or None

    def _of_classes(self, read: Sequence[Example]) -> list[Example]:
        """The records with those of their labels that are classes; sets the classes where they are not given."""
        count = Counter(name for example in read for name in example.labels)
        if self.given_classes is None:
            self.class_names = sorted((name for name, n in count.items() if n >= self.min_count), key=natural)
            if not self.class_names and count:
                most = max(count.values())
                raise FedlitError(
                    f"no diagnosis is in data.min_count = {self.min_count} records, at most {most}: lower it"
                )
        kept = set(self.class_names or ())
        absent = [name for name in self.class_names or () if not count[name]]
        if absent:
            self.say(f"data.classes: no record has {few(absent)}; there are {few(sorted(count))}")
        other = {name: n for name, n in count.items() if name not in kept}
        if other:
            self.say(f"{len(other)} diagnoses ({sum(other.values())} times) are no classes: {few(sorted(other))}")
        return [replace(e, labels=tuple(name for name in e.labels if name in kept)) for e in read]

    def _look_over(self) -> None:
        super()._look_over()
        sizes = {gain: list(own.values()) for gain, own in self._amplitudes.items()}
        for gain, ratio in checks.gain_ratios(sizes).items():
            named = few(list(self._amplitudes[gain]), most=16)
            self.say(
                f"records with gain {gain:g} in the header have {ratio:.2g} times the median amplitude of those with "
                f"the commonest gain: check it, or set data.scale to record: {named}"
            )

    def _forget(self) -> None:
        super()._forget()
        self._amplitudes: dict[float, dict[str, float]] = defaultdict(dict)

    def write_stand_in(self, folder: Path) -> None:
        """Twenty-four records or more at each of six sites, under the Challenges' names; patterns give way to those."""
        self.site_pattern, self.subject_pattern = CHALLENGE_PREFIX, None
        if self.label_pattern is not None:
            self.label_pattern, self.given_classes, self.class_names = CHALLENGE_PREFIX, None, None
        clients, size = self.stand_in_size()
        codes = list(self.names) or self.given_classes or list(STAND_IN_CODES)
        wanted = self.partition or self.usual_partition()
        size = max(
            144, clients * int(getattr(wanted, "min_records", 1)) + self.server_examples, size if self.parity else 0
        )
        rate, seconds = 100.0, 2 * (self.window_seconds or 5.0)
        self.min_count = 1
        for number in range(size):
            made = stand_in_channels(number, rate, seconds, ("ecg",))
            known = {name.lower(): made[name] for name in LEADS}
            values = {name: known.get(name.lower(), made["II"]) for name in self.channels}
            prefix = ("A", "E", "HR", "JS", "Q", "S")[number % 6]
            turn = number // 6
            dx = ",".join(dict.fromkeys([codes[turn % len(codes)], codes[turn // 4 % len(codes)]]))
            write_channels(
                folder, f"{prefix}{number + 1:05d}", rate, values, dict.fromkeys(values, "mV"), [f"Dx: {dx}"]
            )
