"""Any folder of WFDB records to classify: by their headers, names, a table, or their rhythms."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from fedlit.data.base.partitions import Partition
from fedlit.data.classification.asked_channels import first_name, has_column
from fedlit.data.classification.recordings import RecordingClasses
from fedlit.data.classification.signals import SignalClasses, named_by
from fedlit.data.classification.stretches import Stretch
from fedlit.data.files.channels import Recording
from fedlit.data.files.wfdb import WFDBRecord, read_comments, write_channels
from fedlit.data.files.wfdb_rhythms import read_rhythms, write_rhythms
from fedlit.data.generated.heart import LEADS
from fedlit.data.generated.population import stand_in_channels
from fedlit.data.signals.wfdb_folder import CHALLENGE_PREFIX, record_headers
from fedlit.errors import FedlitError

_DIAGNOSES = re.compile(r"^Dx:(.*)$", re.IGNORECASE)
STAND_IN_CODES = ("426783006", "164889003", "59118001", "284470004")
"""SNOMED CT: sinus rhythm, atrial fibrillation, right bundle branch block, premature atrial contraction."""


class WFDBLabels(RecordingClasses):
    """WFDB records of a folder and all folders in it, with several leads, to classify.

    Labels are the codes of the header's ``#Dx:`` line (multi-label; the PhysioNet/CinC Challenges of 2020 and 2021), or
    one of: the part of a comment line of the header that ``comment_pattern`` finds; a column of ``table``; the rhythms
    that annotations mark; the part of the record's name that ``label_pattern`` finds. Records without a label are not
    known to be free of any class: they are left out and counted. Records whose codes are all of no class stay, with
    no label, where a record may have several.

    Gains that are wrong in a header (5 times in some of the Challenges') make no difference under ``scale`` ``record``
    or ``window``; with ``none`` a gain whose records differ from the others is named.

    Args:
        root: The folder.
        label_pattern: Regular expression whose group, searched in the record's name and then in its path below
            ``root``, is its one label (the Challenges' hospital systems: ``^([A-Za-z]+)``).
        classes: Diagnoses (or labels) that are classes, in order; None for those found. Other diagnoses do not count.
        min_count: Labels of fewer records (of rhythms: stretches) are no classes, where ``classes`` is not given.
        names: Label to the name of its class; codes of one name are one class (713427006 and 59118001 are both
            right bundle branch block). ``classes`` and ``min_count`` then go by these names.
        channels: In the order wanted, any case; None for the twelve leads. A list in the place of a name gives
            alternatives, ``[[MLII, II], V1]``, of which the first that a record has is read. A record without one of
            them is refused.
        site_pattern: Regular expression whose group, searched in the record's name and then in its path, is its site.
        subject_pattern: The same for the subject; None: each record is of another subject, which is said.
        rate: Hz.
        window_seconds: None for whole records, which must then be of one length.
        table: A table with columns of the record, and of its label, ``site`` or ``subject``, which count instead of
            the patterns. Without a header, of records and labels (``REFERENCE.csv``).
        record_column: Its column of records' names, or of their paths below ``root``.
        label_column: Its column of labels.
        label_separator: What separates several labels in a cell of it (multi-label); None: each record has one.
        comment_pattern: Regular expression whose group, searched in each comment line of the header, is the record's
            one label: ``Reason for admission: (.+)``.
        rhythms: Annotator (``atr``) whose rhythm changes (``(AFIB``) label what follows, up to the next. Each stretch
            of one rhythm is cut into windows for itself: none spans a change. What is before the first one has no
            label, and stretches shorter than a window are left out and counted.
        rest_label: With ``rhythms``, the label of what is before the first one; None: it is left out.
        kwargs: See :class:`fedlit.data.classification.signals.SignalClasses`.
    """

    added_arguments: ClassVar[Mapping[str, object]] = {
        "table": None,
        "record_column": "record",
        "label_column": "label",
        "label_separator": None,
        "comment_pattern": None,
        "rhythms": None,
        "rest_label": None,
    }

    def __init__(
        self,
        root: Path,
        label_pattern: str | None = None,
        classes: list[str] | None = None,
        min_count: int = 1,
        names: dict[str, str] | None = None,
        channels: list[str | list[str]] | None = None,
        site_pattern: str = CHALLENGE_PREFIX,
        subject_pattern: str | None = None,
        rate: float = 100.0,
        window_seconds: float | None = 10.0,
        table: Path | None = None,
        record_column: str = "record",
        label_column: str = "label",
        label_separator: str | None = None,
        comment_pattern: str | None = None,
        rhythms: str | None = None,
        rest_label: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.comment_pattern, self.rhythms = comment_pattern, rhythms
        named_by("comment_pattern", comment_pattern)
        self.multi_label = label_pattern is None and comment_pattern is None and rhythms is None
        if rhythms is not None and window_seconds is None:
            raise FedlitError("data.rhythms labels parts of recordings: set data.window_seconds")
        if label_pattern is not None and names:
            raise FedlitError("data.names is of diagnoses: leave it out, or data.label_pattern")
        if rest_label is not None and rhythms is None:
            raise FedlitError("data.rest_label is of rhythms: give data.rhythms, or leave it out")
        super().__init__(
            root,
            [*LEADS] if channels is None else channels,
            label_pattern,
            classes,
            min_count,
            names,
            site_pattern,
            subject_pattern,
            table,
            record_column,
            label_column,
            label_separator,
            rest_label,
            rate,
            window_seconds,
            **kwargs,
        )

    @property
    def sources(self) -> list[str]:
        """Arguments that are given and say where labels are."""
        own = [f"data.{name}" for name in ("comment_pattern", "rhythms") if getattr(self, name) is not None]
        return super().sources + own

    @property
    def by_stretches(self) -> bool:
        """Whether rhythms are the labels."""
        return self.rhythms is not None

    @property
    def label_noun(self) -> str:
        """What is a label, for warnings of records without one."""
        if self._by_table or self.label_pattern is not None:
            return super().label_noun
        if self.rhythms is not None:
            return "a stretch of one rhythm that is as long as a window"
        return (
            "a diagnosis in the header (Dx)" if self.comment_pattern is None else "a comment like data.comment_pattern"
        )

    @property
    def label_mend(self) -> str:
        """What to set where no record has a label."""
        return f"{super().label_mend}, data.comment_pattern to what comments of headers say, or data.rhythms to atr"

    def usual_partition(self) -> Partition:
        """By site; where labels are in the names too, by label, for the site may be the label."""
        if self.parity or self.label_pattern is None:
            return super().usual_partition()
        return SignalClasses.default_partition

    def files(self) -> list[Path]:
        """Headers that are no part of another's recording."""
        return record_headers(self)

    def opened(self, path: Path) -> Recording:
        """A record of one segment or several."""
        return WFDBRecord(path)

    def own_labels(self, path: Path) -> tuple[str, ...]:
        """The diagnoses, or what ``comment_pattern`` finds in the header."""
        comments = read_comments(path)
        if self.comment_pattern is not None:
            found = next((m for c in comments if (m := re.search(self.comment_pattern, c)) and m.group(1)), None)
            return (found.group(1).strip(),) if found else ()
        match = next((match for comment in comments if (match := _DIAGNOSES.match(comment))), None)
        codes = [code.strip() for code in match.group(1).split(",")] if match else []
        return tuple(code for code in codes if code and code.lower() not in ("unknown", "nan"))

    def marks(self, path: Path) -> tuple[list[Stretch], float]:
        """The rhythms, each up to the next."""
        seconds = WFDBRecord(path).seconds
        changes = read_rhythms(path, str(self.rhythms))
        ends = [*(start for start, _ in changes[1:]), seconds][: len(changes)]
        return [Stretch(start, end, name) for (start, name), end in zip(changes, ends, strict=True)], seconds

    def write_stand_in(self, folder: Path) -> None:
        """Twenty-four records or more at each of six sites, under the Challenges' names; patterns give way to those.

        Labels are where they are looked for: in names, comments, a table or annotations.
        """
        self.site_pattern, self.subject_pattern = CHALLENGE_PREFIX, None
        if self.label_pattern is not None:
            self.label_pattern, self.given_classes, self.class_names = CHALLENGE_PREFIX, None, None
        if self.comment_pattern is not None:
            self.comment_pattern = "^Label: (.+)"
        clients, size = self.stand_in_size()
        codes = list(self.names) or self.given_classes or list(STAND_IN_CODES)
        wanted = self.partition or self.usual_partition()
        size = max(
            144, clients * int(getattr(wanted, "min_records", 1)) + self.server_examples, size if self.parity else 0
        )
        rate, seconds = 100.0, 2 * (self.window_seconds or 5.0)
        self.min_count = 1
        rows = []
        for number in range(size):
            made = stand_in_channels(number, rate, seconds, ("ecg",))
            known = {name.lower(): made[name] for name in LEADS}
            values = {first_name(name): known.get(first_name(name).lower(), made["II"]) for name in self.channels}
            name = f"{('A', 'E', 'HR', 'JS', 'Q', 'S')[number % 6]}{number + 1:05d}"
            turn = number // 6
            own = list(dict.fromkeys([codes[turn % len(codes)], codes[turn // 4 % len(codes)]]))
            comments = [f"Dx: {','.join(own)}", f"Label: {own[0]}"]
            write_channels(folder, name, rate, values, dict.fromkeys(values, "mV"), comments)
            rows.append(f"{name},{(self.label_separator or '').join(own[: 2 if self.label_separator else 1])}")
            if self.rhythms is not None:
                write_rhythms(folder / name, self.rhythms, rate, [(0.0, own[0])])
        labels_in_table = self.table is not None and not self.sources and has_column(self.table, self.label_column)
        self.table = None
        if labels_in_table:
            self.table = folder / "labels.csv"
            lines = [f"{self.record_column},{self.label_column}", *rows]
            self.table.write_text("\n".join(lines) + "\n", encoding="utf-8")
