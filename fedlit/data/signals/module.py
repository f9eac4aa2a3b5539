"""Data module of sampled signals: checks, one rate, partition, split, windows. Readers subclass it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from fedlit.data.base.batch import Batch, collate
from fedlit.data.base.module import asked
from fedlit.data.base.names import few
from fedlit.data.base.partitions import statistics
from fedlit.data.base.records import SPLITS, Record, natural
from fedlit.data.signals import checks, windows
from fedlit.data.signals.source import SignalSource
from fedlit.data.signals.splits import Part, Parts, held_back, split_as_published, split_clients
from fedlit.data.signals.store import SignalStore, Taken, passed_by, take
from fedlit.data.signals.windows import Run, Windows
from fedlit.errors import FedlitError

SERVER = ""
"""In the place of a client's name, among parts and runs."""
KEPT = 1000
"""Data sets that are kept ready, so that memory does not grow with the clients that were asked for."""


class SignalDataModule(SignalSource):
    """Data module of sampled signals; a reader adds ``read`` and ``write_stand_in``.

    Its arguments are those of :class:`fedlit.data.signals.source.SignalSource`.
    """

    parity_means: ClassVar[str] = "split and scaled as the paper's code, the scale has seen the targets"

    def setup(self, stage: str | None = None) -> None:
        """Read, check, resample, partition, split. A second call does nothing."""
        if self._ready:
            return
        self.seed = self.seed or 0
        self.records = self._usable(self.read())
        partition = self.partition or self.default_partition
        served, away = held_back(self.records, self.server_records, self.seed)
        theirs = [i for i in range(len(self.records)) if i not in away]
        dealt = partition.assign([self.records[i] for i in theirs], self.seed)
        self.assignment = {client: [theirs[i] for i in dealt[client]] for client in sorted(dealt)}
        held = {i for indices in self.assignment.values() for i in indices} | {*served}
        for i, record in enumerate(self.records):
            if i not in held:
                why = "of a subject whose records the server holds" if i in away else "left out by the partition"
                self._left_out[record.id] = why
        self._parts, self._rules = self._split()
        self._warn_of_shared_subjects()
        self._served = served
        self._parts[SERVER] = {"val": [Part(i, 0, len(self.records[i].values)) for i in served]}
        self._runs = {c: {s: self._cut(c, s) for s in parts} for c, parts in self._parts.items()}
        if served and not self._runs[SERVER]["val"]:
            raise FedlitError(self._no_windows(SERVER, "val").replace(f"client {SERVER!r}", "the server"))
        clients = {client: self._runs[client] for client in self.assignment}
        for client, runs in clients.items():
            for split in self._splits_wanted():
                if not runs[split]:
                    raise FedlitError(self._no_windows(client, split))
        self.clients = list(self.assignment)
        self._ready = True

    def dataset(self, clients: str | Sequence[str], split: str) -> Windows:
        """Windows of one client, or of several together."""
        self.setup()
        names = asked(clients, split, self._runs)
        key = (tuple(names), split)
        if key not in self._made:
            runs, picks, total = [], [], 0
            for name in names:
                count = sum(run.count for run in self._runs[name][split])
                picks.append(total + windows.evenly(count, self.eval_windows if split != "train" else None))
                runs += self._runs[name][split]
                total += count
            kept = np.concatenate(picks) if sum(map(len, picks)) < total else None
            if len(self._made) >= KEPT:
                del self._made[next(iter(self._made))]  # the oldest
            self._made[key] = Windows(self._flat, runs, self.context_length, self.prediction_length, self.scale, kept)
        return self._made[key]

    def server_dataset(self) -> Windows | None:
        """Windows of the server's own records; None where it has none."""
        self.setup()
        return self.dataset(SERVER, "val") if self._served else None

    def collate(self, items: Any) -> Batch:
        """A batch as it is, or single windows put together."""
        return collate(items)

    def describe(self) -> dict[str, Any]:
        """Contents of ``partition.json``: who holds which records, what was left out and why."""
        self.setup()
        return {
            "data": type(self).__name__,
            "root": None if self.root is None else str(self.root),
            "simulated": self.simulated,
            "stand_in": self.stand_in,
            "seed": self.seed,
            "partition": (self.partition or self.default_partition).config(),
            "parity": self.parity,
            "split": {"rule": self.split, "val_fraction": self.val_fraction, "test_fraction": self.test_fraction}
            if not self.parity
            else {"rule": "parity", "val_fraction": 0.0, "test_fraction": 0.4},
            "windows": {
                "context_length": self.context_length,
                "prediction_length": self.prediction_length,
                "stride": self._stride("train"),
                "eval_stride": self._stride("test"),
                "eval_windows": self.eval_windows,
                "scale": "extremes of the whole part or record" if self.parity else self.scale,
                "rate": self.rate,
            },
            "clients": {client: self._describe_client(client) for client in self.clients},
            "server": [self.records[i].id for i in self._served],
            "statistics": statistics(self.records, self.assignment),
            "gaps": self._gaps,
            "amplitude": {name: round(ratio, 3) for name, ratio in self._odd.items()},
            "excluded": [{"record": record, "reason": reason} for record, reason in sorted(self._left_out.items())],
            "warnings": list(self._warnings),
        }

    def _describe_client(self, client: str) -> dict[str, Any]:
        held = [self.records[i] for i in self.assignment[client]]
        return {
            "records": {s: [self.records[part.record].id for part in self._parts[client][s]] for s in SPLITS},
            "split": self._rules[client],
            "subjects": sorted({record.subject for record in held}, key=natural),
            "sites": sorted({record.site for record in held}, key=natural),
            "kinds": sorted({record.kind for record in held}),
            "rates": sorted({record.rate for record in held}),
            "seconds": round(sum(len(record.values) / record.rate for record in held), 3),
            "windows": {split: len(self.dataset(client, split)) for split in SPLITS},
            "windows_missing": self._missing_windows[client],
        }

    def _usable(self, read: Iterable[Record]) -> list[Record]:
        """Records that pass the checks, at the common rate, in natural order of their ids; their values are mapped."""
        with SignalStore() as store:
            usable = self._judge([self._take(record, store) for record in read])
            self._flat = store.mapped()
        self._base = [taken.start for taken in usable]
        records = [replace(t.record, values=self._flat[t.start : t.start + t.samples]) for t in usable]
        self._look_over(records)
        return records

    def _take(self, record: Record, store: SignalStore) -> Taken:
        if self.pattern_of(record.id) is not None:
            return passed_by(record)  # only its id counts: it must be unique
        return take(record, store, self.rate, self.context_length + self.prediction_length)

    def _judge(self, read: Sequence[Taken]) -> list[Taken]:
        """Those that can be used, in natural order of their ids.

        Raises:
            FedlitError: The first that is wrong, in that order, or two have the same id, or none is left.
        """
        usable = []
        twice = [name for name, count in Counter(taken.record.id for taken in read).items() if count > 1]
        if twice:
            mend = "ids come from file or row names: rename one, or set data.root to a folder without the other"
            raise FedlitError(f"two records are named {twice[0]!r}, ids must be unique: {mend}")
        for taken in sorted(read, key=lambda taken: natural(taken.record.id)):
            name = taken.record.id
            if self.excluded(name):
                continue
            if isinstance(taken.problem, FedlitError):
                raise taken.problem
            if taken.problem is not None:
                self.refuse(name, taken.problem)
                continue
            count, missing = taken.gaps
            if missing:
                self._gaps[name] = {"gaps": count, "samples": missing}
            usable.append(taken)
        if not usable:
            where = "" if self.root is None else f" in {self.root}"
            why = next((f", first {name!r}: {reason}" for name, reason in self._left_out.items()), "")
            raise FedlitError(f"no record left to use{where}: {len(self._left_out)} left out{why}")
        return usable

    def _look_over(self, usable: Sequence[Record]) -> None:
        """Warn of what is odd, but not wrong in itself."""
        if self._skipped:
            names = few(self._skipped)
            self.say(f"{len(self._skipped)} bad record(s) skipped, {len(usable)} kept: {names}; see partition.json")
        self.look_for_idle_patterns()
        self._odd = checks.amplitude_outliers(usable)
        if self._odd:
            named = [f"{name} ({ratio:.2g}x)" for name, ratio in self._odd.items()]
            self.say(
                f"{len(self._odd)} record(s) differ from the median amplitude of their kind by a factor of "
                f"{checks.AMPLITUDE_FACTOR:g} or more: {few(named)}: check the gain in the header"
            )
        for kind in sorted({record.kind for record in usable}):
            rates = sorted({record.rate for record in usable if record.kind == kind})
            if len(rates) > 1:
                hertz = ", ".join(f"{rate:g}" for rate in rates)
                self.say(f"{kind} records have different rates ({hertz} Hz): set data.rate to resample them to one")

    def _split(self) -> tuple[dict[str, Parts], dict[str, str]]:
        if self.parity:
            made = {
                client: split_as_published(self.records, indices, client, self.split, self.seed or 0)
                for client, indices in self.assignment.items()
            }
            return {c: parts for c, (parts, _) in made.items()}, {c: rule for c, (_, rule) in made.items()}
        shares = (self.val_fraction, self.test_fraction)
        parts = split_clients(self.records, self.assignment, self.split, *shares, self.seed or 0)
        return parts, dict.fromkeys(self.assignment, self.split)

    def _warn_of_shared_subjects(self) -> None:
        """Whole records of one subject for training and for test make errors look smaller than they are."""
        sides: dict[str, set[str]] = defaultdict(set)
        for client, parts in self._parts.items():
            if "time" not in self._rules[client]:
                for split in SPLITS:
                    for part in parts[split]:
                        sides[self.records[part.record].subject].add(split)
        shared = sorted(subject for subject, splits in sides.items() if len(splits) > 1)
        if shared:
            self.say(
                f"{len(shared)} subject(s) have records in several splits: {few(shared)}: "
                f"set data.split to subject for errors on subjects never seen"
            )

    def _splits_wanted(self) -> list[str]:
        if self.parity:
            return ["train", "test"]
        return [s for s, share in zip(SPLITS, (1, self.val_fraction, self.test_fraction), strict=True) if share]

    def _stride(self, split: str) -> int:
        given = self.stride if split == "train" else self.eval_stride
        return given or (1 if self.parity else self.prediction_length)

    def _cut(self, client: str, split: str) -> list[Run]:
        """Rows of windows of a client's parts."""
        runs = []
        for part in self._parts[client][split]:
            record = self.records[part.record]
            values = record.values[part.start : part.stop]
            lengths = (self.context_length, self.prediction_length)
            rows, missing = windows.cut(values, *lengths, self._stride(split), self.max_missing)
            self._missing_windows[client] += missing
            fixed = None
            if self.parity and rows:
                low, high = float(np.nanmin(values)), float(np.nanmax(values))
                fixed = (low, high - low)
            base = self._base[part.record]
            runs += [
                Run(client, record.id, record.kind, base, part.start + first, count, self._stride(split), fixed)
                for first, count in rows
            ]
        return runs

    def _no_windows(self, client: str, split: str) -> str:
        parts: list[Part] = self._parts[client][split]
        longest = max((part.stop - part.start for part in parts), default=0)
        need = self.context_length + self.prediction_length
        why = (
            f"{self._missing_windows[client]} windows have too many missing samples (data.max_missing)"
            if longest >= need
            else f"its longest {split} part has {longest} samples, context_length + prediction_length is {need}"
        )
        mend = "use longer records, a shorter context, or another data.split, or leave the client out by data.exclude"
        return f"client {client!r} has no {split} windows: {why}: {mend}"
