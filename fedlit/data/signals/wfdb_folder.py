"""Any folder of WFDB records, the PhysioNet/CinC Challenges' ``.mat``/``.hea`` pairs among them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from fedlit.data.base.names import NameRule, few
from fedlit.data.base.partitions import BySite, Partition
from fedlit.data.base.records import BadRecord, Record
from fedlit.data.base.tables import no_column, read_rows
from fedlit.data.files.wfdb import read_channels, write_channels
from fedlit.data.generated.population import stand_in_channels
from fedlit.data.signals import checks
from fedlit.data.signals.module import SignalDataModule
from fedlit.errors import FedlitError

CHALLENGE_PREFIX = r"^([A-Za-z]+)"
"""The Challenges' sites: A, Q, I, S, HR, E, JS."""
_DIAGNOSIS = re.compile(r"^\s*Dx:\s*(\S+)", re.IGNORECASE)


class WFDBFolder(SignalDataModule):
    """WFDB records of a folder and all folders in it.

    The label of a record is the first code of the header's ``#Dx:`` line, where there is one.

    Args:
        root: The folder.
        channels: Channel name (case does not matter) to kind; None for ``{"II": "ecg"}``. With several, each channel
            is a record of its own, named ``<record>-<channel>``.
        site_pattern: Regular expression whose group, searched in the record's name, is its site.
        subject_pattern: The same for the subject; None: each WFDB record is of another subject, which is said.
        table: A csv file with a column ``record`` and ``site``, ``subject`` or ``label`` columns, which then count
            instead of the patterns.
        kwargs: See :class:`fedlit.data.signals.module.SignalDataModule`.
    """

    default_partition: ClassVar[Partition] = BySite()

    def __init__(
        self,
        root: Path,
        channels: dict[str, str] | None = None,
        site_pattern: str = CHALLENGE_PREFIX,
        subject_pattern: str | None = None,
        table: Path | None = None,
        **kwargs: Any,
    ) -> None:
        self.root = Path(root)
        self.channels = dict(channels or {"II": "ecg"})
        self.site_pattern = site_pattern
        self.subject_pattern = subject_pattern
        self.table = None if table is None else Path(table)
        if len({channel.lower() for channel in self.channels}) < len(self.channels):
            raise FedlitError(f"data.channels names a channel twice: {', '.join(self.channels)}: case does not matter")
        NameRule("data.site_pattern", site_pattern)
        NameRule("data.subject_pattern", subject_pattern)
        super().__init__(**kwargs)

    def read(self) -> Iterable[Record]:
        """One record per WFDB record and channel."""
        headers = [path for path in self.files_to_read("WFDB records (.hea)") if path.suffix == ".hea"]
        if not headers:
            raise FedlitError(f"{self.root}: no .hea file in it: set data.root to the folder with WFDB records")
        site, subject = NameRule("data.site_pattern", self.site_pattern), None
        if self.subject_pattern is not None:
            subject = NameRule("data.subject_pattern", self.subject_pattern)
        rows = self._rows([header.stem for header in headers])
        # Of each kind, by gain: which records, and how large their signals are.
        names: dict[str, dict[float, list[str]]] = defaultdict(lambda: defaultdict(list))
        sizes: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
        for header in headers:
            name = header.stem
            row = rows.get(name, {})
            ids = {channel: f"{name}-{channel}" if len(self.channels) > 1 else name for channel in self.channels}
            ids = {channel: record_id for channel, record_id in ids.items() if not self.excluded(record_id)}
            if not ids:
                continue
            try:
                read = read_channels(header, list(ids))
                where = row.get("site") or site.of(name)
                who = row.get("subject") or (name if subject is None else subject.of(name))
            except BadRecord as error:
                for record_id in ids.values():
                    self.refuse(record_id, str(error))
                continue
            label = row.get("label") or diagnosis(read.comments)
            for c, i in ids.items():
                kind = self.channels[c]
                record = Record(i, who, where, kind, read.rate, read.values[c], read.units[c], label)
                if checks.fault(record, shortest=1) is None:
                    names[kind][read.gains[c]].append(i)
                    sizes[kind][read.gains[c]].append(checks.amplitude(record))
                yield record
        for kind, amplitudes in sizes.items():
            for gain, ratio in checks.gain_ratios(amplitudes).items():
                self.say(
                    f"{kind} records with gain {gain:g} in the header have {ratio:.2g} times the median amplitude of "
                    f"those with the commonest gain: check it: {few(names[kind][gain], most=16)}"
                )

    def _rows(self, names: Sequence[str]) -> Mapping[str, Mapping[str, str]]:
        """Rows of the table by record; says where the table, or the arguments, leave something open."""
        rows: Mapping[str, Mapping[str, str]] = {}
        if self.table is not None:
            rows = read_rows(self.table, "record")
            there = list(next(iter(rows.values())))
            if not {"site", "subject", "label"} & set(there):
                raise FedlitError(no_column(self.table, "site", there, "name a column site, subject or label"))
            absent = [name for name in names if name not in rows]
            if absent:
                self.say(f"{self.table}: {len(absent)} of {len(names)} records have no row: {few(absent)}")
        untold = [name for name in names if not rows.get(name, {}).get("subject")]
        if untold and self.subject_pattern is None:
            self.say_subjects_are_unknown(
                len(untold), "data.subject_pattern, or a column subject in data.table ('(.+)'"
            )
        return rows

    def write_stand_in(self, folder: Path) -> None:
        """Four subjects at each of six sites, under the Challenges' names; patterns and table give way to those."""
        self.site_pattern, self.subject_pattern, self.table = CHALLENGE_PREFIX, None, None
        rate = 100.0
        seconds = self.stand_in_seconds(rate)
        for number in range(24):
            made = stand_in_channels(number, rate, seconds, ("ecg", "icg"))
            known = {name.lower(): name for name in made}
            values = {c: made[known.get(c.lower(), "ICG" if k == "icg" else "II")] for c, k in self.channels.items()}
            units = {c: "Ohm/s" if k == "icg" else "mV" for c, k in self.channels.items()}
            prefix = ("A", "E", "HR", "JS", "Q", "S")[number % 6]
            write_channels(folder, f"{prefix}{number + 1:04d}", rate, values, units, ["Dx: 426783006"])


def diagnosis(comments: Sequence[str]) -> str | None:
    """First diagnosis code of a Challenge header's comments (SNOMED CT)."""
    for comment in comments:
        found = _DIAGNOSIS.match(comment)
        if found:
            return found.group(1).split(",")[0]
    return None
