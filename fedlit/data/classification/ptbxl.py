"""Diagnoses of PTB-XL's records from their signals (Wagner et al. 2020, doi:10.1038/s41597-020-0495-6)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from fedlit.data.base import arguments
from fedlit.data.base.names import few
from fedlit.data.base.partitions import BySite, Partition
from fedlit.data.classification.examples import Example
from fedlit.data.classification.signals import SignalClasses, unique_names
from fedlit.data.files.wfdb import read_channels
from fedlit.data.generated.heart import LEADS
from fedlit.data.signals.ptbxl import (
    DATABASE,
    STATEMENTS,
    Entry,
    read_database,
    read_statements,
    reads_low,
    write_database,
)
from fedlit.errors import FedlitError

Labels = Literal["superclass", "superclasses", "statements"]
SUPERCLASSES = ("NORM", "MI", "STTC", "CD", "HYP")
"""Classes in the order of FHBench (arXiv 2504.10817)."""


class PTBXLClasses(SignalClasses):
    """PTB-XL's twelve-lead records by diagnosis, clients by site; the subject is the patient.

    Records of 10 s, at 100 Hz from ``records100``, at other rates resampled from ``records500``. What has no label is
    left out and counted.

    With ``parity``, as the code of FHBench prepares it, ``superclass`` is that of the likeliest of all statements, the
    first of equals; patients with a record whose likeliest statement is no diagnosis, or with records of different
    superclasses, are left out.

    Args:
        root: Folder with ``ptbxl_database.csv``, ``scp_statements.csv`` and the record folders.
        labels: ``superclass``: one of NORM, MI, STTC, CD, HYP, that of the likeliest diagnostic statement (the first of
            equals); ``superclasses``: all of them (multi-label), as in Strodthoff et al. 2020, arXiv 2004.13701;
            ``statements``: all statements of ``scp_statements.csv`` (multi-label), of diagnosis, form and rhythm.
        min_likelihood: Statements with a lower likelihood (0 to 100) do not count. 0 keeps all: the file writes 0 where
            the likelihood is not known, as of every rhythm.
        leads: Some of I, II, III, aVR, aVL, aVF, V1 to V6 (any case), in the order wanted; None for all twelve.
        rate: Hz.
        window_seconds: None for whole records; FHBench has 1.0.
        kwargs: See :class:`fedlit.data.classification.signals.SignalClasses`.
    """

    default_partition: ClassVar[Partition] = BySite(min_records=10)

    def __init__(
        self,
        root: Path,
        labels: Labels = "superclass",
        min_likelihood: float = 0.0,
        leads: list[str] | None = None,
        rate: float = 100.0,
        window_seconds: float | None = None,
        **kwargs: Any,
    ) -> None:
        self.root = Path(root)
        self.labels = labels
        self.min_likelihood = min_likelihood
        self.leads = unique_names("leads", leads, LEADS)
        arguments.one_of("labels", labels, Labels)
        if not 0 <= min_likelihood <= 100:
            raise FedlitError(f"data.min_likelihood is {min_likelihood}: give a likelihood from 0 to 100")
        self.multi_label = labels != "superclass"
        self.class_names: Sequence[str] | None = None if labels == "statements" else SUPERCLASSES
        super().__init__(rate=rate, window_seconds=window_seconds, **kwargs)

    def read(self) -> list[Example]:
        """One example per row of the database file that has a label."""
        folder = self.folder_to_read(f"{DATABASE} and records100 or records500")
        low = reads_low(self, folder, self.rate)
        superclass = read_statements(folder / STATEMENTS)
        if self.labels == "statements":
            self.class_names = list(superclass)
        entries = read_database(folder / DATABASE, folder / STATEMENTS)
        labels = {entry.id: self._labels_of(entry, superclass) for entry in entries}
        mixed = self._mixed(entries, labels) if self.parity and self.labels == "superclass" else set()
        self._say_unlisted(folder, [entry.low if low else entry.high for entry in entries])
        out, unlabelled, dropped = [], [], []
        for entry in entries:
            if self.excluded(entry.id):
                continue
            if entry.subject in mixed:
                self._left_out[entry.id] = "its patient has records of several superclasses, or of none"
                dropped.append(entry.id)
            elif not labels[entry.id]:
                self._left_out[entry.id] = "has no statement that counts"
                unlabelled.append(entry.id)
            else:
                values = self.values_of(entry.id, folder / (entry.low if low else entry.high))
                own = labels[entry.id]
                out.append(Example(entry.id, entry.subject, entry.site, "ecg", own, values, self.rate, entry.fold))
        if unlabelled:
            self.say(f"{len(unlabelled)} record(s) without a statement that counts are left out: {few(unlabelled)}")
        if dropped:
            self.say(
                f"parity: {len(mixed)} patient(s) with records of several superclasses, or of none, are left out with "
                f"{len(dropped)} record(s): {few(dropped)}"
            )
        return out

    def channel_unit(self, channel: str) -> str:
        return "mV"

    def read_signals(self, path: Path) -> tuple[Mapping[str, npt.NDArray[np.floating]], Mapping[str, float]]:
        """The leads of a record, mV."""
        read = read_channels(path, self.leads)
        return read.values, read.rates

    def _say_unlisted(self, folder: Path, listed: Sequence[str]) -> None:
        """Warn of records in the folders that are read, which the database file does not list."""
        known = {Path(name).as_posix() for name in listed}
        tops = sorted({Path(name).parts[0] for name in listed if name})
        there = [
            path.relative_to(folder).with_suffix("").as_posix()
            for top in tops
            for path in (folder / top).rglob("*.hea")
        ]
        more = sorted(name for name in there if name not in known and not Path(name).name.startswith("."))
        if more:
            self.say(f"{folder}: {len(more)} record(s) are not in {DATABASE}, and not read: {few(more)}")

    def _labels_of(self, entry: Entry, superclass: Mapping[str, str | None]) -> tuple[str, ...]:
        codes = {code: likelihood for code, likelihood in entry.codes.items() if likelihood >= self.min_likelihood}
        if self.labels == "statements":
            return tuple(codes)
        if self.labels == "superclass":
            known = [code for code in codes if self.parity or superclass.get(code)]
            likeliest = superclass.get(max(known, key=lambda code: codes[code])) if known else None
            return (likeliest,) if likeliest else ()
        found = {superclass.get(code) for code in codes}
        return tuple(name for name in SUPERCLASSES if name in found)

    @staticmethod
    def _mixed(entries: Sequence[Entry], labels: Mapping[str, tuple[str, ...]]) -> set[str]:
        """Patients whose records are not all of one superclass."""
        found = defaultdict(set)
        for entry in entries:
            found[entry.subject].add(labels[entry.id])
        return {subject for subject, own in found.items() if len(own) > 1 or () in own}

    def write_stand_in(self, folder: Path) -> None:
        """Twenty sites or more, one 10 s record a patient, all folds and superclasses at each."""
        clients, _ = self.stand_in_size()
        wanted = self.partition or self.usual_partition()
        each = max(16 if self.parity and not self._cuts else 5, int(getattr(wanted, "min_records", 1)))
        more = -(-self.server_examples // max(20, clients))
        seconds = max(10.0, 2 * (self.window_seconds or 0.0))
        write_database(folder, max(20, clients), each + more, 100.0 if self.rate == 100 else 500.0, seconds)
