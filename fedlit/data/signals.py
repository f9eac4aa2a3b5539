"""Data module of sampled signals: checks, one rate, partition, split, windows. Readers subclass it."""

from __future__ import annotations

import fnmatch
import inspect
import warnings
from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from fedlit.data import checks, windows
from fedlit.data.module import FederatedDataModule
from fedlit.data.partitions import BySite, FileList, Partition, statistics
from fedlit.data.records import BadRecord, Record, natural
from fedlit.data.resampling import resample
from fedlit.data.splits import SPLITS, Part, Parts, SplitRule, split_as_published, split_clients
from fedlit.data.windows import Batch, Run, Scale, Windows
from fedlit.errors import FedlitError


class SignalDataModule(FederatedDataModule):
    """Forecasting windows from the signals of many clients.

    Args:
        partition: Who holds which records; None for the reader's natural one.
        context_length: Samples that a forecast sees.
        prediction_length: Samples that it forecasts.
        batch_size: Windows in a batch.
        rate: Resample every record to this rate (Hz); None keeps each record's own.
        split: ``subject`` (default) and ``record`` deal out whole subjects or records; ``time`` cuts each record into
            train, val, test, in this order; ``fold`` follows the source.
        val_fraction: Share for validation; 0 for none.
        test_fraction: Share for test.
        stride: Samples between training windows; None for ``prediction_length``.
        eval_stride: The same for validation and test.
        eval_windows: At most so many validation and as many test windows per client, evenly spaced; None for all.
        scale: ``context`` maps each context's minimum and maximum to 0 and 1, and the target with it, so that errors
            are fractions of the context's range; ``standard`` its mean and deviation to 0 and 1; ``none`` leaves it.
        max_missing: Leave out windows with a larger share of the context missing. Windows with a missing target are
            always left out. Both are counted.
        exclude: Patterns (``HR0*``) of record ids to leave out.
        on_bad_record: ``error`` stops at a record that cannot be used, ``skip`` leaves it out and says so.
        parity: Split and scale as the code of arXiv 2502.09744 does: 60/40 without a validation part, each part or
            record mapped to [0, 1] by its own extremes (which looks into the targets), stride 1 unless given.
        seed: Of partition, split and shuffling.
    """

    default_partition: ClassVar[Partition] = BySite()
    root: Path | None = None

    def __init__(
        self,
        partition: Partition | None = None,
        context_length: int = 256,
        prediction_length: int = 64,
        batch_size: int = 32,
        rate: float | None = None,
        split: SplitRule = "subject",
        val_fraction: float = 0.15,
        test_fraction: float = 0.25,
        stride: int | None = None,
        eval_stride: int | None = None,
        eval_windows: int | None = None,
        scale: Scale = "context",
        max_missing: float = 0.5,
        exclude: list[str] | None = None,
        on_bad_record: Literal["error", "skip"] = "error",
        parity: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.partition = partition
        self.context_length = context_length
        self.prediction_length = prediction_length
        self.batch_size = batch_size
        self.rate = rate
        self.split = split
        self.val_fraction = val_fraction
        self.test_fraction = test_fraction
        self.stride = stride
        self.eval_stride = eval_stride
        self.eval_windows = eval_windows
        self.scale = scale
        self.max_missing = max_missing
        self.exclude = list(exclude or [])
        self.on_bad_record = on_bad_record
        self.parity = parity
        self.seed = seed
        self.stand_in = False
        self._ready = False
        self._warnings: list[str] = []
        self._check_arguments()
        self._forget()

    @abstractmethod
    def read(self) -> list[Record]:
        """All records, each at its own rate. Readers ask :meth:`excluded` before, and :meth:`refuse` bad ones."""

    @abstractmethod
    def write_stand_in(self, folder: Path) -> None:
        """Write a tiny data set in the official layout, long enough for this module's windows."""

    def use_stand_in(self, folder: Path) -> None:
        """Read generated files, in the official layout, in the place of the data."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.write_stand_in(folder)
        self.root = folder
        self.exclude = []
        if isinstance(self.partition, FileList):
            self.say(f"stand-in: {self.partition.path} does not name its records; the default partition is used")
            self.partition = None
        self.simulated = self.stand_in = True
        self._forget()

    def stand_in_seconds(self, rate: float) -> float:
        """Length at which every part of a split holds a few windows, for recordings made at ``rate`` (Hz)."""
        smallest = 1.0
        if self.parity:
            smallest = 0.4
        elif self.split == "time":
            smallest = min(s for s in (self.val_fraction, self.test_fraction, 0.5) if s > 0)
        windows_long = self.context_length + 4 * self.prediction_length
        return float(np.ceil(windows_long / smallest / (self.rate or rate) + 1))

    def folder_to_read(self, layout: str) -> Path:
        """``root``, which must be a folder that can be listed; ``layout`` says what belongs in it."""
        if self.root is None:
            raise FedlitError(f"data.root is not set: give the folder with {layout}")
        try:
            if next(Path(self.root).iterdir(), None) is None:
                raise FedlitError(f"{self.root}: folder is empty: set data.root to the folder with {layout}")
        except OSError as error:
            raise FedlitError(f"{self.root}: {error.strerror}: set data.root to the folder with {layout}") from error
        return Path(self.root)

    def excluded(self, record_id: str) -> bool:
        """Whether ``exclude`` names the record; it is noted."""
        pattern = next((p for p in self.exclude if fnmatch.fnmatchcase(record_id, p)), None)
        if pattern is not None:
            self._left_out.setdefault(record_id, f"excluded by {pattern!r}")
        return pattern is not None

    def refuse(self, record_id: str, reason: str) -> None:
        """Leave a record out, or stop, as ``on_bad_record`` says.

        Raises:
            BadRecord: Unless ``on_bad_record`` is ``"skip"``.
        """
        if self.on_bad_record == "error":
            raise BadRecord(f"{reason}. Or leave it out: data.exclude [{record_id}], or data.on_bad_record skip")
        self._left_out[record_id] = reason
        self._skipped += 1

    def say(self, message: str) -> None:
        """A warning that also goes into :meth:`describe`."""
        if message not in self._warnings:
            self._warnings.append(message)
            warnings.warn(message, UserWarning, stacklevel=3)

    def setup(self, stage: str | None = None) -> None:
        """Read, check, resample, partition, split. A second call does nothing."""
        if self._ready:
            return
        self.records = self._usable(self.read())
        partition = self.partition or self.default_partition
        self.assignment = dict(sorted(partition.assign(self.records, self.seed).items()))
        held = {i for indices in self.assignment.values() for i in indices}
        for i, record in enumerate(self.records):
            if i not in held:
                self._left_out[record.id] = "left out by the partition"
        self._flat, self._base = self._lay_out(self.records)
        self._parts, self._rules = self._split()
        self._runs = {c: {s: self._cut(c, s) for s in SPLITS} for c in self.assignment}
        for client, runs in self._runs.items():
            for split in self._splits_wanted():
                if not runs[split]:
                    raise FedlitError(self._no_windows(client, split))
        self.clients = list(self.assignment)
        self._ready = True

    def dataset(self, clients: str | Sequence[str], split: str) -> Windows:
        """Windows of one client, or of several together."""
        self.setup()
        names = [clients] if isinstance(clients, str) else list(clients)
        for name in names:
            if name not in self._runs:
                raise FedlitError(f"no client {name!r}: there are {checks.few(self.clients)}")
        if split not in SPLITS:
            raise FedlitError(f"no split {split!r}: there are {', '.join(SPLITS)}")
        key = (tuple(names), split)
        if key not in self._made:
            runs, picks, total = [], [], 0
            for name in names:
                count = sum(run.count for run in self._runs[name][split])
                picks.append(total + windows.evenly(count, self.eval_windows if split != "train" else None))
                runs += self._runs[name][split]
                total += count
            kept = np.concatenate(picks) if sum(map(len, picks)) < total else None
            self._made[key] = Windows(self._flat, runs, self.context_length, self.prediction_length, self.scale, kept)
        return self._made[key]

    def collate(self, items: Any) -> Batch:
        """A batch as it is, or single windows put together."""
        return windows.collate(items)

    def config(self) -> dict[str, Any]:
        """Class name and constructor arguments, as JSON can hold them."""
        out: dict[str, Any] = {"class": type(self).__name__}
        for cls in type(self).__mro__:
            if "__init__" not in vars(cls) or not issubclass(cls, SignalDataModule):
                continue
            for name, parameter in inspect.signature(cls.__init__).parameters.items():
                if name == "self" or parameter.kind is parameter.VAR_KEYWORD:
                    continue
                value = getattr(self, name)
                value = value.config() if isinstance(value, Partition) else value
                out.setdefault(name, str(value) if isinstance(value, Path) else value)
        return out

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
            "statistics": statistics(self.records, self.assignment),
            "gaps": self._gaps,
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

    def _forget(self) -> None:
        self._ready = False
        self._left_out: dict[str, str] = {}
        self._skipped = 0
        self._gaps: dict[str, dict[str, int]] = {}
        self._made: dict[tuple[tuple[str, ...], str], Windows] = {}
        self._missing_windows: Counter[str] = Counter()

    def _check_arguments(self) -> None:
        counts = ("context_length", "prediction_length", "batch_size", "stride", "eval_stride", "eval_windows", "rate")
        for name in counts:
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise FedlitError(f"data.{name} is {value}: give a number above 0")
        for name in ("val_fraction", "test_fraction", "max_missing"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise FedlitError(f"data.{name} is {value}: give a share from 0 to 1")
        if self.val_fraction + self.test_fraction >= 1:
            raise FedlitError("data.val_fraction + data.test_fraction leave nothing to train on: lower them")

    def _usable(self, read: Sequence[Record]) -> list[Record]:
        """Records that pass the checks, at the common rate, in natural order of their ids."""
        usable = []
        twice = [name for name, count in Counter(record.id for record in read).items() if count > 1]
        if twice:
            raise FedlitError(f"two records are named {twice[0]!r}: record ids must be unique")
        for record in sorted(read, key=lambda record: natural(record.id)):
            if self.excluded(record.id):
                continue
            reason = checks.fault(record, shortest=1)
            if reason is None and self.rate is not None:
                values = resample(record.values, record.rate, self.rate)
                record = replace(record, values=values, rate=float(self.rate))
            reason = reason or checks.fault(record, self.context_length + self.prediction_length)
            if reason is not None:
                self.refuse(record.id, f"record {record.id!r} {reason}")
                continue
            count, missing = checks.gaps(record)
            if missing:
                self._gaps[record.id] = {"gaps": count, "samples": missing}
            usable.append(record)
        if not usable:
            raise FedlitError(f"no record left to use in {self.root}: {len(self._left_out)} excluded or refused")
        self._look_over(usable)
        return usable

    def _look_over(self, usable: Sequence[Record]) -> None:
        """Warn of what is odd, but not wrong in itself."""
        if self._skipped:
            self.say(f"{self._skipped} bad record(s) skipped, {len(usable)} kept: reasons in partition.json")
        idle = [
            p for p in self.exclude if not any(p == r.split("'")[1] for r in self._left_out.values() if "by '" in r)
        ]
        if idle:
            self.say(f"data.exclude: no record is named like {checks.few(idle)}")
        odd = checks.amplitude_outliers(usable)
        if odd:
            named = [f"{name} ({ratio:.2g}x)" for name, ratio in odd.items()]
            self.say(
                f"{len(odd)} record(s) differ from the median amplitude of their kind by a factor of "
                f"{checks.AMPLITUDE_FACTOR:g} or more: {checks.few(named)}: check the gain in the header"
            )
        for kind in sorted({record.kind for record in usable}):
            rates = sorted({record.rate for record in usable if record.kind == kind})
            if len(rates) > 1:
                hertz = ", ".join(f"{rate:g}" for rate in rates)
                self.say(f"{kind} records have different rates ({hertz} Hz): set data.rate to resample them to one")

    @staticmethod
    def _lay_out(records: list[Record]) -> tuple[npt.NDArray[np.float32], list[int]]:
        """All signals in one array; the records become views of it, so nothing is held twice."""
        ends = np.cumsum([len(record.values) for record in records])
        flat = np.empty(int(ends[-1]), np.float32)
        base = [int(end) - len(record.values) for end, record in zip(ends, records, strict=True)]
        for i, (start, end) in enumerate(zip(base, ends, strict=True)):
            flat[start:end] = records[i].values
            records[i] = replace(records[i], values=flat[start:end])
        return flat, base

    def _split(self) -> tuple[dict[str, Parts], dict[str, str]]:
        if self.parity:
            made = {
                client: split_as_published(self.records, indices, client, self.split, self.seed)
                for client, indices in self.assignment.items()
            }
            return {c: parts for c, (parts, _) in made.items()}, {c: rule for c, (_, rule) in made.items()}
        shares = (self.val_fraction, self.test_fraction)
        parts = split_clients(self.records, self.assignment, self.split, *shares, self.seed)
        return parts, dict.fromkeys(self.assignment, self.split)

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
