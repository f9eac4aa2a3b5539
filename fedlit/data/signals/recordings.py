"""Recordings in files: their ids, sites, subjects and labels, by a table or by patterns, and what is said of them."""

from __future__ import annotations

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedlit.data.base.listing import folder_proposal, inside, record_names
from fedlit.data.base.names import NameRule, few
from fedlit.data.base.table_faults import no_column
from fedlit.data.base.tables import as_text, by_name, read_table
from fedlit.data.base.template import PartitionedDataModule
from fedlit.data.files.channels import Recording
from fedlit.data.signals import checks
from fedlit.errors import FedlitError

UNKNOWN_SITE = "site-unknown"
ENDINGS = (".hea", ".mat", ".dat", ".edf", ".bdf")
"""Endings of recordings, which tables may write or leave out."""


class RecordingReader:
    """What a reader of a folder of recordings says of a file format."""

    @abstractmethod
    def files(self) -> list[Path]:
        """The recordings in ``root``.

        Raises:
            FedlitError: There is none.
        """

    @abstractmethod
    def opened(self, path: Path) -> Recording:
        """A recording.

        Raises:
            BadRecord: It cannot be read.
        """


class Recordings:
    """Who and where each recording is of, and what was met in them.

    Args:
        reader: Whose warnings these are.
        paths: Files of the recordings.
        root: Folder that they are in.
        site_pattern: Regular expression whose group, searched in the record's name and then in its path, is its site.
        subject_pattern: The same for the subject; None: each recording is of another subject, which is said.
        table: A table with a row a recording, whose columns count instead of the patterns.
        record_column: Its column of names, or of paths below ``root``.
        columns: Its other columns, of which one must be there.

    Raises:
        FedlitError: The table cannot be used.
    """

    def __init__(
        self,
        reader: PartitionedDataModule[Any, Any, Any],
        paths: Sequence[Path],
        root: Path,
        site_pattern: str | None,
        subject_pattern: str | None,
        table: Path | None = None,
        record_column: str = "record",
        columns: Sequence[str] = ("site", "subject", "label"),
    ) -> None:
        self.reader, self.root, self.table = reader, root, table
        self.names = record_names(paths, root)
        self._site = None if site_pattern is None else NameRule("data.site_pattern", site_pattern)
        self._subject = None if subject_pattern is None else NameRule("data.subject_pattern", subject_pattern)
        self._rows: dict[str, Mapping[str, str]] = {}
        self.columns: set[str] = set()
        if table is not None:
            known = {name: path for path in paths for name in (self.names[path], inside(path, root))}
            self._rows = table_rows(table, record_column, columns, known)
            self.columns = set(next(iter(self._rows.values())))
            absent = [name for path, name in self.names.items() if not self.row(path)]
            if absent:
                reader.say(f"{table}: {len(absent)} of {len(self.names)} records have no row: {few(absent)}")
        self.proposal = folder_proposal(list(paths), root)
        # Ids in order, each once: a recording may be read several times.
        self._notes: dict[str, dict[str, None]] = defaultdict(dict)
        self._units: dict[str, dict[str, dict[str, None]]] = defaultdict(lambda: defaultdict(dict))
        self._used: dict[str, dict[str, dict[str, None]]] = defaultdict(lambda: defaultdict(dict))

    def row(self, path: Path) -> Mapping[str, str]:
        """The table's row of a recording; empty without one."""
        return self._rows.get(self.names[path]) or self._rows.get(inside(path, self.root)) or {}

    def site(self, path: Path) -> str:
        """Where a recording was made.

        Raises:
            BadRecord: The pattern is not in its name, nor in its path.
        """
        given = self.row(path).get("site")
        return given or (UNKNOWN_SITE if self._site is None else self._of(self._site, path))

    def subject(self, path: Path) -> str:
        """Whom a recording is of.

        Raises:
            BadRecord: The pattern is not in its name, nor in its path.
        """
        given = self.row(path).get("subject")
        return given or (self.names[path] if self._subject is None else self._of(self._subject, path))

    def say_what_subjects_are(self) -> None:
        """Warn where recordings count as a subject each, with a proposal where folders tell more."""
        untold = [path for path in self.names if not self.row(path).get("subject")]
        if untold and self._subject is None:
            mend = "data.subject_pattern, or a column subject in data.table ('(.+)'"
            self.reader.say_subjects_are_unknown(len(untold), mend)
            if self.proposal and not self.reader.stand_in:
                self.reader.say(self.proposal)

    def note(self, record_id: str, notes: Sequence[str]) -> None:
        """Keep what is unusual in a file."""
        for note in notes:
            self._notes[note][record_id] = None

    def unit(self, record_id: str, kind: str, unit: str) -> None:
        """Keep the unit of a signal."""
        self._units[kind][unit][record_id] = None

    def unit_of(self, kind: str) -> str:
        """The unit of a signal, or several, as :meth:`unit` was told; empty where it is none."""
        return " or ".join(unit for unit in self._units.get(kind, ()) if unit)

    def use(self, record_id: str, asked: str, used: str) -> None:
        """Keep which of several channels was read."""
        self._used[asked][used][record_id] = None

    def channels_used(self) -> dict[str, Any]:
        """Which of several channels was read, for ``partition.json``; empty where there was no choice."""
        used = {key: {name: list(ids) for name, ids in sorted(own.items())} for key, own in self._used.items()}
        return {"channels_used": used} if used else {}

    def say_notes(self) -> None:
        """Warn, once each, of what was noted, and of kinds with several units."""
        for note, names in self._notes.items():
            self.reader.say(f"{len(names)} file(s) have {note}: {few(list(names))}")
        for kind, units in self._units.items():
            if len(units) > 1:
                named = [f"{unit or 'none'} ({few(list(names), 3)})" for unit, names in units.items()]
                self.reader.say(f"{kind} records have several units, and values of each: {'; '.join(named)}: mend them")

    def say_odd_gains(self, noun: str, sizes: Mapping[float, Mapping[str, float]], mend: str) -> None:
        """Warn of gains whose records are larger or smaller than those of the commonest one.

        Args:
            noun: What the records are called.
            sizes: Amplitudes by gain and record.
            mend: What to do.
        """
        for gain, ratio in checks.gain_ratios({gain: list(own.values()) for gain, own in sizes.items()}).items():
            self.reader.say(
                f"{noun} with gain {gain:g} in the header have {ratio:.2g} times the median amplitude of those with "
                f"the commonest gain: {mend}: {few(list(sizes[gain]), most=16)}"
            )

    def _of(self, rule: NameRule, path: Path) -> str:
        try:
            return rule.of(self.names[path], inside(path, self.root))
        except FedlitError as error:
            if self.proposal:
                raise type(error)(f"{error}; {self.proposal}") from error
            raise


def table_rows(
    path: Path, record_column: str, columns: Sequence[str], known: Mapping[str, object]
) -> dict[str, Mapping[str, str]]:
    """Rows of a table by recording, without the recordings' endings.

    A table of two columns without a header, whose first row is a recording's (``REFERENCE.csv`` of the PhysioNet/CinC
    Challenges), is of records and labels.

    Raises:
        FedlitError: It cannot be read, or lacks the columns, or has two rows of one recording.
    """
    table = read_table(path)
    there = [str(name) for name in table.columns]
    cells = [[cell.strip() for cell in as_text(table[name])] for name in there]
    rows = [list(own) for own in zip(*cells, strict=True) if any(own)]
    if record_column not in there and len(there) == 2 and _bare(there[0]) in known:
        rows, there = [there, *rows], [record_column, columns[-1]]
    if record_column not in there:
        raise FedlitError(no_column(path, record_column, there, "name the column so"))
    if not set(columns) & set(there):
        last = f"{', '.join(columns[:-1])} or {columns[-1]}" if len(columns) > 1 else columns[0]
        raise FedlitError(no_column(path, columns[0], there, f"name a column {last}"))
    named = (dict(zip(there, own, strict=True)) for own in rows)
    return by_name(path, record_column, ((_bare(row[record_column]), row) for row in named))


def _bare(name: str) -> str:
    text = name.strip().replace("\\", "/").removeprefix("./")
    return next((text[: -len(end)] for end in ENDINGS if text.lower().endswith(end)), text)
