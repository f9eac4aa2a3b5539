"""A folder of recordings with named channels, each channel a record."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from fedlit.data.base.names import NameRule
from fedlit.data.base.records import BadRecord, Record
from fedlit.data.files.channels import Channels
from fedlit.data.signals import checks
from fedlit.data.signals.module import SignalDataModule
from fedlit.data.signals.recordings import RecordingReader, Recordings
from fedlit.errors import FedlitError


class ChannelFolder(SignalDataModule, RecordingReader):
    """Recordings of a folder and all folders in it. A reader adds ``files`` and ``opened``.

    Args:
        root: The folder.
        channels: Channel to kind, ``{II: ecg}``; or kind to channels, ``{ecg: [MLII, II, MCL1]}``, of which the first
            that a recording has is read.
        site_pattern: Regular expression whose group, searched in the record's name and then in its path below ``root``,
            is its site.
        subject_pattern: The same for the subject; None: each recording is of another subject, which is said.
        table: A table with a column ``record`` and ``site``, ``subject`` or ``label`` columns, which then count instead
            of the patterns.
        kwargs: See :class:`fedlit.data.signals.module.SignalDataModule`.
    """

    def __init__(
        self,
        root: Path,
        channels: dict[str, str | list[str]],
        site_pattern: str | None,
        subject_pattern: str | None,
        table: Path | None,
        **kwargs: Any,
    ) -> None:
        self.root = Path(root)
        self.channels = dict(channels)
        self.site_pattern = site_pattern
        self.subject_pattern = subject_pattern
        self.table = None if table is None else Path(table)
        asked = [name for _, names, _ in self.wanted for name in names]
        if not asked or not all(names for _, names, _ in self.wanted):
            raise FedlitError("data.channels is empty: name the channels to read and their kinds, {II: ecg}")
        if len({name.strip().lower() for name in asked}) < len(asked):
            raise FedlitError(f"data.channels names a channel twice: {', '.join(asked)}: case does not matter")
        NameRule("data.site_pattern", site_pattern)
        NameRule("data.subject_pattern", subject_pattern)
        super().__init__(**kwargs)

    def label_of(self, read: Channels) -> str | None:
        """The label that the file itself gives."""
        return None

    @property
    def wanted(self) -> list[tuple[str, list[str], str]]:
        """What is read of each recording: key in ``channels``, names of which the first that is there counts, kind."""
        return [(k, [k], v) if isinstance(v, str) else (k, list(v), k) for k, v in self.channels.items()]

    def read(self) -> Iterable[Record]:
        """One record per recording and channel."""
        assert self.root is not None
        files = self.files()
        self._recordings = Recordings(self, files, self.root, self.site_pattern, self.subject_pattern, self.table)
        self._recordings.say_what_subjects_are()
        # Of each kind, by gain: which records, and how large their signals are.
        self._sizes: dict[str, dict[float, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
        for path in files:
            yield from self._records(path, self._recordings)
        self._recordings.say_notes()
        for kind, by_gain in self._sizes.items():
            self._recordings.say_odd_gains(f"{kind} records", by_gain, "check it")

    def _records(self, path: Path, recordings: Recordings) -> Iterator[Record]:
        name = recordings.names[path]
        ids = {key: f"{name}-{key}" if len(self.channels) > 1 else name for key in self.channels}
        wanted = [(key, names, kind) for key, names, kind in self.wanted if not self.excluded(ids[key])]
        if not wanted:
            return
        try:
            where, who = recordings.site(path), recordings.subject(path)
            recording = self.opened(path)
        except BadRecord as error:
            for key, _, _ in wanted:
                self.refuse(ids[key], str(error))
            return
        found: dict[str, str] = {}
        for key, names, _ in wanted:
            try:
                found[key] = recording.find(names)
            except BadRecord as error:
                self.refuse(ids[key], str(error))
        if not found:
            return
        try:
            read = recording.read(list(found.values()))
        except BadRecord as error:
            for key in found:
                self.refuse(ids[key], str(error))
            return
        recordings.note(name, read.notes)
        label = recordings.row(path).get("label") or self.label_of(read)
        for key, names, kind in wanted:
            if key in found:
                c, i = found[key], ids[key]
                if len(names) > 1:
                    recordings.use(i, key, c)
                recordings.unit(i, kind, read.units[c])
                record = Record(
                    i, who, where, kind, read.rates[c], read.values[c], read.units[c], label, recording=name
                )
                if checks.fault(record, shortest=1) is None:
                    self._sizes[kind][read.gains[c]][i] = checks.amplitude(record)
                yield record

    def _describe_findings(self) -> dict[str, Any]:
        return super()._describe_findings() | self._recordings.channels_used()
