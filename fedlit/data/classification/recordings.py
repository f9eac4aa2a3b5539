"""Recordings of a folder to classify: labels by name, by a table, by stretches of time, or as the file gives them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fedlit.data.base.listing import inside
from fedlit.data.base.names import NameRule, few
from fedlit.data.base.partitions import BySite, Partition
from fedlit.data.base.records import BadRecord, natural
from fedlit.data.base.renaming import renamed
from fedlit.data.classification.asked_channels import first_name, named_channels
from fedlit.data.classification.examples import Example
from fedlit.data.classification.signals import SignalClasses, named_by
from fedlit.data.classification.stretches import Stretch, Unmarked, unambiguous
from fedlit.data.classification.windows import Signals
from fedlit.data.signals.recordings import RecordingReader, Recordings
from fedlit.errors import FedlitError


class RecordingClasses(SignalClasses, RecordingReader):
    """Recordings of a folder and all folders in it, with several channels, to classify.

    A reader adds ``files``, ``opened``, and ``own_labels`` or ``marks``.

    Args:
        root: The folder.
        channels: In the order wanted, any case; alternatives in a list, of which the first that is there counts.
        label_pattern: Regular expression whose group, searched in the record's name and then in its path, is its label.
        classes: Labels that are classes, in order; None for those found.
        min_count: Labels of fewer records are no classes, where ``classes`` is not given.
        names: Label to the name of its class.
        site_pattern: Regular expression for the site; None: unknown.
        subject_pattern: The same for the subject; None: each record is of another subject, which is said.
        table: A table with columns of the record and of its label, ``site`` or ``subject``.
        record_column: Its column of records' names, or of their paths below ``root``.
        label_column: Its column of labels.
        label_separator: What separates several labels in a cell of it; None: each record has one.
        rest_label: Label of the parts of a recording that nothing marks; None: they have none and are left out.
        rate: Hz.
        window_seconds: None for whole records, which must then be of one length.
        kwargs: See :class:`fedlit.data.classification.signals.SignalClasses`.
    """

    kind: str = "ecg"
    default_partition: ClassVar[Partition] = BySite(min_records=3)
    held_as: ClassVar[Mapping[str, str]] = {"classes": "given_classes"}

    def __init__(
        self,
        root: Path,
        channels: list[str | list[str]],
        label_pattern: str | None = None,
        classes: list[str] | None = None,
        min_count: int = 1,
        names: dict[str, str] | None = None,
        site_pattern: str | None = None,
        subject_pattern: str | None = None,
        table: Path | None = None,
        record_column: str = "record",
        label_column: str = "label",
        label_separator: str | None = None,
        rest_label: str | None = None,
        rate: float = 100.0,
        window_seconds: float | None = None,
        **kwargs: Any,
    ) -> None:
        self.root = Path(root)
        self.channels = list(channels)
        self.label_pattern = label_pattern
        self.given_classes = None if classes is None else list(classes)
        self.min_count = min_count
        self.names = {str(label): name for label, name in (names or {}).items()}
        self.site_pattern, self.subject_pattern = site_pattern, subject_pattern
        self.table = None if table is None else Path(table)
        self.record_column, self.label_column, self.label_separator = record_column, label_column, label_separator
        named_channels(self.channels)
        for argument in ("label_pattern", "site_pattern", "subject_pattern"):
            named_by(argument, getattr(self, argument))
        if min_count < 1:
            raise FedlitError(f"data.min_count is {min_count}: give 1 or more")
        self.rest_label = rest_label
        if len(self.sources) > 1:
            raise FedlitError(f"{' and '.join(self.sources)} both say where labels are: give one")
        idle = {"record_column": "record", "label_column": "label", "label_separator": None}
        for argument, usual in idle.items():
            if table is None and getattr(self, argument) != usual:
                raise FedlitError(f"data.{argument} is of a table: give data.table, or leave it out")
        super().__init__(rate=rate, window_seconds=window_seconds, **kwargs)
        self.class_names = self.given_classes

    def own_labels(self, path: Path) -> tuple[str, ...]:
        """Labels that the file itself gives to the whole of it; empty without one.

        Raises:
            BadRecord: It cannot be read.
        """
        return ()

    def marks(self, path: Path) -> tuple[list[Stretch], float]:
        """Stretches of the recording with a label, and its length (s), where ``by_stretches``.

        Raises:
            BadRecord: They cannot be read.
        """
        raise NotImplementedError

    @property
    def sources(self) -> list[str]:
        """Arguments that are given and say where labels are."""
        return [] if self.label_pattern is None else ["data.label_pattern"]

    @property
    def by_stretches(self) -> bool:
        """Whether labels are of parts of a recording."""
        return False

    @property
    def _by_marks(self) -> bool:
        return self.by_stretches and not self._by_table

    @property
    def label_noun(self) -> str:
        """What is a label, for warnings of records without one."""
        return f"a label in {self.table}" if self._by_table else "a part of its name that data.label_pattern finds"

    @property
    def label_mend(self) -> str:
        """What to set where no record has a label."""
        return "set data.label_pattern to a part of the names, or data.table to a table of records and labels"

    def read(self) -> list[Example]:
        """One example per recording that has a label, or per stretch with one."""
        assert self.root is not None
        where = (self.files(), self.root, self.site_pattern, self.subject_pattern)
        columns = ("site", "subject", self.label_column)
        self._recordings = Recordings(self, *where, self.table, self.record_column, columns)
        self._by_table = self.label_column in self._recordings.columns
        if self._by_table and self.sources:
            raise FedlitError(f"{self.table} has labels, and {self.sources[0]} is given: leave one out")
        if self._by_table and self.rest_label is not None:
            raise FedlitError(f"{self.table} has labels, and data.rest_label is given: leave one out")
        if self.table is not None and self._by_table:
            self.multi_label = self.label_separator is not None
        out = []
        for path, name in self._recordings.names.items():
            if self.excluded(name):
                continue
            try:
                site, subject = self._recordings.site(path), self._recordings.subject(path)
                parts = self._parts_of(name, path)
            except BadRecord as error:
                self.refuse(name, str(error))
                continue
            out += [Example(i, subject, site, self.kind, own, values, self.rate) for i, own, values in parts]
            if not parts:
                self._left_out[name] = f"is without {self.label_noun}"
                self._bare.append(name)
        if self._bare and not out:
            raise FedlitError(f"{self.root}: no record has {self.label_noun}: {self.label_mend}")
        if self._bare:
            self.say(f"{len(self._bare)} record(s) without {self.label_noun} are left out: {few(self._bare)}")
        if (left_out := self._unmarked.told()) is not None:
            self.say(left_out)
        self._recordings.say_what_subjects_are()
        return self._of_classes(out)

    def channel_unit(self, channel: str) -> str:
        """Unit of a channel that was read, under any of the names that were asked for."""
        asked = (own for own in self.channels if channel.lower() in [name.lower() for name in named_channels([own])])
        return self._recordings.unit_of(next(map(first_name, asked), channel))

    def read_signals(self, path: Path) -> tuple[Mapping[str, npt.NDArray[np.floating]], Mapping[str, float]]:
        """The channels of a record; voltages in mV."""
        recording, name = self.opened(path), self._recordings.names[path]
        chosen = [recording.find(asked) for asked in self.channels]
        read = recording.read(chosen)
        self._recordings.note(name, read.notes)
        for asked, used in zip(self.channels, chosen, strict=True):
            self._recordings.unit(name, first_name(asked), read.units[used])
            if not isinstance(asked, str):
                self._recordings.use(name, first_name(asked), used)
        if self.scale == "none":
            low, high = np.nanpercentile(read.values[chosen[0]], [1, 99])
            self._amplitudes[read.gains[chosen[0]]][name] = float(high - low)
        return read.values, read.rates

    def _parts_of(self, name: str, path: Path) -> list[tuple[str, tuple[str, ...], Callable[[], Signals]]]:
        """Id, labels and values of what a recording is to classify: the whole, or stretches; none without a label."""
        if self._by_marks:
            return self._stretches(name, path)
        if self._by_table:
            cell = self._recordings.row(path).get(self.label_column, "")
            separated = [cell] if self.label_separator is None else cell.split(self.label_separator)
            labels = tuple(one.strip() for one in separated)
        elif self.label_pattern is not None:
            rule = NameRule("data.label_pattern", self.label_pattern)
            labels = (rule.of(name, inside(path, self._recordings.root)),)
        else:
            labels = self.own_labels(path)
        named = tuple(dict.fromkeys(self.names.get(one, one) for one in labels if one))
        return [(name, named, self.values_of(name, path))] if named else []

    def _stretches(self, name: str, path: Path) -> list[tuple[str, tuple[str, ...], Callable[[], Signals]]]:
        marks, seconds = self.marks(path)
        marks = [replace(mark, label=self.names.get(mark.label, mark.label)) for mark in marks]
        found, doubled = unambiguous(marks, seconds, self.rest_label)
        kept = self._unmarked.kept(found, seconds, doubled, float(self.window_seconds or 0.0))
        return [
            (f"{name}/{number}", (one.label,), partial(self._stretch, name, path, one))
            for number, one in enumerate(kept)
        ]

    def _stretch(self, name: str, path: Path, part: Stretch) -> Signals:
        """Samples of a stretch, of the whole recording's scale."""
        whole = self._values(name, path)
        return whole[:, round(part.start * self.rate) : round(part.stop * self.rate)].copy()

    def _check_windows(self, path: Path, values: Signals) -> None:
        if not self._by_marks:  # else windows are those of stretches, and are looked at when these are cut
            super()._check_windows(path, values)

    def _of_classes(self, read: Sequence[Example]) -> list[Example]:
        """The records with those of their labels that are classes; sets the classes where they are not given."""
        change = self.rename.get("labels", {})
        count = Counter(name for example in read for name in renamed(example.labels, change))
        noun = "diagnosis" if self.multi_label else "label"
        kept = set(self.given_classes or (name for name, n in count.items() if n >= self.min_count))
        if self.given_classes is None:
            self.class_names = sorted(kept, key=natural) if self.multi_label else None
            if not kept and count:
                most = max(count.values())
                raise FedlitError(
                    f"no {noun} is in data.min_count = {self.min_count} records, at most {most}: lower it"
                )
        absent = [name for name in self.given_classes or () if not count[name]]
        if absent:
            self.say(f"data.classes: no record has {few(absent)}; there are {few(sorted(count))}")
        other = {name: n for name, n in count.items() if name not in kept}
        if other:
            nouns = "diagnoses" if self.multi_label else "labels"
            self.say(f"{len(other)} {nouns} ({sum(other.values())} times) are no classes: {few(sorted(other))}")
        out = []
        for example in read:
            labels = tuple(name for name in example.labels if kept.issuperset(renamed((name,), change)))
            if labels or self.multi_label:
                out.append(replace(example, labels=labels))
            else:
                self._left_out[example.id] = f"has the label {example.label!r}, which is no class"
        return out

    @property
    def names_are_given(self) -> bool:
        """Whether the user lists the classes."""
        return self.given_classes is not None

    def _describe_findings(self) -> dict[str, Any]:
        marked = {"stretches_left_out": self._unmarked.counts()} if self._by_marks else {}
        return super()._describe_findings() | self._recordings.channels_used() | marked

    def _look_over(self) -> None:
        super()._look_over()
        self._recordings.say_notes()
        self._recordings.say_odd_gains("records", self._amplitudes, "check it, or set data.scale to record")

    def _forget(self) -> None:
        super()._forget()
        self._amplitudes: dict[float, dict[str, float]] = defaultdict(dict)
        self._bare: list[str] = []
        self._unmarked = Unmarked()
        self._by_table = False
