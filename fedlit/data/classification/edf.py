"""EDF and EDF+ recordings to classify: by their annotations (sleep stages, events), names, or a table."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import Any, ClassVar

from fedlit.data.base.listing import inside, stem
from fedlit.data.base.names import NameRule, few
from fedlit.data.base.partitions import BySite, Partition
from fedlit.data.base.records import BadRecord
from fedlit.data.classification.asked_channels import first_name, has_column
from fedlit.data.classification.recordings import RecordingClasses
from fedlit.data.classification.signals import named_by
from fedlit.data.classification.stretches import Stretch
from fedlit.data.files.channels import Recording
from fedlit.data.files.edf import EDFRecord, has_signals, write_edf
from fedlit.data.generated.population import stand_in_channels
from fedlit.data.signals.edf_folder import edf_files
from fedlit.errors import FedlitError


class EDFClasses(RecordingClasses):
    """EDF recordings of a folder and all folders in it, to classify. Needs ``fedlit[edf]``.

    Labels are annotations that last (sleep stages, seizures): each stretch with one label is cut into windows for
    itself, so that none spans a change; what has several labels at once, or is shorter than a window, is left out and
    counted. Or they are in a ``table``, or in names (``label_pattern``), one a recording.

    Args:
        root: The folder.
        channels: In the order wanted, any case (``["EEG Fpz-Cz", "EOG horizontal"]``). A list in the place of a name
            gives alternatives, ``[["EEG C4-A1", "EEG C4-M1"]]``, of which the first that a recording has is read. A
            recording without one of them is refused.
        annotation_pattern: Regular expression whose group, searched in an annotation's text, is its label; annotations
            without it are no labels: ``"Sleep stage ([W1234R])"``.
        pair_pattern: Regular expression whose group, searched in files' names, is the same in a file of annotations
            alone (``SC4001EC-Hypnogram.edf``) and its recording (``SC4001E0-PSG.edf``): ``"^(S[CT][0-9]{4})"``.
        rest_label: Label of what no annotation marks (``background``, where seizures are marked); None: it is left out.
        label_pattern: Regular expression whose group, searched in the record's name and then in its path below
            ``root``, is the label of the whole recording.
        window_seconds: None for whole records, which must then be of one length.
        kind: Of the signals, for partitions.
        kwargs: See :class:`fedlit.data.classification.recordings.RecordingClasses`; labels of one of its ``names`` are
            one class (sleep stages 3 and 4).
    """

    default_partition: ClassVar[Partition] = BySite()

    def __init__(
        self,
        root: Path,
        channels: list[str | list[str]],
        annotation_pattern: str = "(.+)",
        pair_pattern: str | None = None,
        rest_label: str | None = None,
        label_pattern: str | None = None,
        window_seconds: float | None = 30.0,
        kind: str = "eeg",
        **kwargs: Any,
    ) -> None:
        self.annotation_pattern, self.pair_pattern, self.kind = annotation_pattern, pair_pattern, kind
        named_by("annotation_pattern", annotation_pattern)
        named_by("pair_pattern", pair_pattern)
        if rest_label is not None and label_pattern is not None:
            raise FedlitError("data.rest_label is of annotations, data.label_pattern of names: leave one out")
        super().__init__(root, channels, label_pattern, rest_label=rest_label, window_seconds=window_seconds, **kwargs)

    @property
    def by_stretches(self) -> bool:
        """Whether annotations are the labels."""
        return self.label_pattern is None

    @property
    def label_noun(self) -> str:
        """What is a label, for warnings of records without one."""
        if self._by_table or not self.by_stretches:
            return super().label_noun
        return "an annotation like data.annotation_pattern that is as long as a window"

    @property
    def label_mend(self) -> str:
        """What to set where no record has a label."""
        files = "" if self.pair_pattern else "data.pair_pattern where annotations are in files of their own; or "
        return f"mend data.annotation_pattern, or set {files}{super().label_mend.removeprefix('set ')}"

    def files(self) -> list[Path]:
        """Files that hold signals; those of annotations alone are kept beside them."""
        files = edf_files(self)
        recordings = [path for path in files if has_signals(path)]
        self._paired: dict[str, list[Path]] = defaultdict(list)
        lone = [path for path in files if path not in set(recordings)]
        if lone and self.pair_pattern is None:
            self.say(
                f"{len(lone)} file(s) hold annotations and no signals, and are not used "
                f"({few([path.name for path in lone])}): set data.pair_pattern to what they share with their recordings"
            )
        elif self.pair_pattern is not None:
            rule = NameRule("data.pair_pattern", self.pair_pattern)
            for path in lone:
                self._paired[rule.of(stem(path), inside(path, self._folder))].append(path)
        return recordings

    def opened(self, path: Path) -> Recording:
        """A recording."""
        return EDFRecord(path)

    def marks(self, path: Path) -> tuple[list[Stretch], float]:
        """Annotations that last, of the recording's file or of the one that goes with it."""
        if self.window_seconds is None:
            raise FedlitError("data.window_seconds is None, but annotations label parts of recordings: set it")
        recording = EDFRecord(path)
        source = recording
        if self.pair_pattern is not None:
            key = NameRule("data.pair_pattern", self.pair_pattern).of(stem(path), inside(path, self._folder))
            if len(self._paired[key]) != 1:
                what = f"{len(self._paired[key])} files of annotations go with it by data.pair_pattern"
                raise BadRecord(f"{path}: {what} ({key!r}): there must be one")
            source = EDFRecord(self._paired[key][0])
        late = source.starts_after(recording)
        out = []
        for start, duration, text in source.annotations():
            match = re.search(self.annotation_pattern, text)
            if match is not None and match.group(1) and duration > 0:
                out.append(Stretch(start + late, start + late + duration, match.group(1).strip()))
        return out, recording.seconds

    @property
    def _folder(self) -> Path:
        assert self.root is not None
        return self.root

    def write_stand_in(self, folder: Path) -> None:
        """Four subjects or more at each of six sites, a file each with all labels; patterns give way to names."""
        self.site_pattern, self.subject_pattern, self.pair_pattern = "^([a-f])", None, None
        if self.label_pattern is not None:
            self.label_pattern, self.given_classes, self.class_names = "-(x|y)-", None, None
        self.annotation_pattern = "(.+)"
        labels = list(self.names) or self.given_classes or ["x", "y"]
        clients, size = self.stand_in_size()
        wanted = self.partition or self.usual_partition()
        least = clients * int(getattr(wanted, "min_records", 1)) + self.server_examples
        whole = self.label_pattern is not None or self.table is not None
        size = max(144 if whole else 24, least, size if self.parity else 0)
        length = float(self.window_seconds or 5.0)
        rate, turns = 100.0, 1 if whole else len(labels)
        self.min_count = 1
        rows = []
        for number in range(size):
            label = labels[number // 6 % len(labels)]
            name = f"{'abcdef'[number % 6]}{number + 1:05d}-{'xy'[number // 6 % 2]}-1"
            made = stand_in_channels(number, rate, float(round(2 * length * turns + 1)), ("ecg",))["II"]
            values = {first_name(asked): made for asked in self.channels}
            marks = [(2 * length * turn, 2 * length, own) for turn, own in enumerate(labels[:turns])]
            write_edf(folder / f"{name}.edf", rate, values, dict.fromkeys(values, "mV"), [] if whole else marks)
            rows.append(f"{name},{label}")
        if self.table is not None:
            in_table = self.label_pattern is None and has_column(self.table, self.label_column)
            self.table = folder / "labels.csv" if in_table else None
        if self.table is not None:
            lines = [f"{self.record_column},{self.label_column}", *rows]
            self.table.write_text("\n".join(lines) + "\n", encoding="utf-8")
