"""Data module of sampled signals: one rate, checks, windows to forecast. Readers subclass it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, cast

import numpy as np
from torch.utils.data import Dataset

from fedlit.data.base import arguments
from fedlit.data.base.overview import Shown
from fedlit.data.base.partitions import Partition
from fedlit.data.base.reader import OnBadRecord, Reader
from fedlit.data.base.records import SPLITS, Record, natural
from fedlit.data.base.renaming import Rename
from fedlit.data.base.template import PartitionedDataModule
from fedlit.data.signals import checks
from fedlit.data.signals.cutting import WindowCutter
from fedlit.data.signals.overview import client_facts, signals_shown, window_curves
from fedlit.data.signals.protocol import PublishedSignals, SignalProtocol
from fedlit.data.signals.splits import Part, SplitRule, held_back
from fedlit.data.signals.store import Findings, SignalStore, Taken, passed_by, take
from fedlit.data.signals.training import AlteredWindows, TrainingWindows
from fedlit.data.signals.windows import Run, Scale, Windows, evenly
from fedlit.errors import FedlitError


class SignalDataModule(PartitionedDataModule[Record, Run, Windows]):
    """Forecasting windows from the signals of many clients; a reader adds ``read`` and ``write_stand_in``.

    Signals are kept in a temporary file and not in memory, see :class:`fedlit.data.signals.store.SignalStore`. Each
    process of a run has such a file, in ``$TMPDIR``; it takes 4 bytes a sample.

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
        train_windows: So many training windows per client, drawn once at random; None for all.
        windows_per_record: So many training windows of each record, drawn once at random; None for all.
        drop_observations: Whenever a window is trained on, samples of its context and target are missing, at a rate
            drawn from 0 to this one. Alters what clients train on, not a plain ``lightning.Trainer``'s batches.
        min_context: Whenever a window is trained on, its target starts at random after so many samples or more, and
            the context is padded in front as missing; None: after the whole context. As ``drop_observations`` else.
        scale: ``context`` maps each context's minimum and maximum to 0 and 1, and the target with it, so that errors
            are fractions of the context's range; ``standard`` its mean and deviation to 0 and 1; ``none`` leaves it.
        max_missing: Leave out windows with a larger share of the context missing. Windows with a missing target are
            always left out. Both are counted.
        exclude: Patterns (``HR0*``) of record ids to leave out.
        on_bad_record: ``error`` stops at a record that cannot be used, ``skip`` leaves it out and says so.
        server_records: Records that the server holds to validate models on, for rules that ask for it. Their subjects
            are drawn evenly over the sites, and no client has a record of one.
        parity: Split and scale as the code of arXiv 2502.09744 does: 60/40 without a validation part, each part or
            record mapped to [0, 1] by its own extremes (which looks into the targets), stride 1 unless given.
        seed: Seed of partition, split and shuffling; None: the run's seed, or 0 outside of a federated run.
        rename: Names in the data to other ones, as ``{labels: {asthma: Asthma, "?": null}, sites: {...}}``; see
            :class:`fedlit.data.base.reader.Reader`.
        external_sites: Sites that take no part, and are scored at the end; see there.
    """

    split: SplitRule
    scale: Scale
    split_choices: ClassVar[object] = SplitRule
    added_arguments: ClassVar[Mapping[str, object]] = {
        "train_windows": None, "windows_per_record": None, "drop_observations": 0.0, "min_context": None,
    }  # fmt: skip
    added_facts: ClassVar[Mapping[str, str | None]] = {"windows_flat": None, "channel_seconds": "seconds"}
    server_reason: ClassVar[str] = "of a subject whose records the server holds"

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
        on_bad_record: OnBadRecord = "error",
        server_records: int = 0,
        parity: bool = False,
        seed: int | None = None,
        rename: Rename | None = None,
        external_sites: list[str] | None = None,
        train_windows: int | None = None,
        windows_per_record: int | None = None,
        drop_observations: float = 0.0,
        min_context: int | None = None,
    ) -> None:
        super().__init__(partition, exclude, on_bad_record, seed, rename, external_sites)
        self.context_length, self.prediction_length, self.batch_size = context_length, prediction_length, batch_size
        self.split, self.val_fraction, self.test_fraction = split, val_fraction, test_fraction
        self.stride, self.eval_stride, self.eval_windows = stride, eval_stride, eval_windows
        self.rate, self.scale, self.max_missing = rate, scale, max_missing
        self.server_records, self.parity = server_records, parity
        self.train_windows, self.windows_per_record = train_windows, windows_per_record
        self.drop_observations, self.min_context = drop_observations, min_context
        self.check_arguments()
        arguments.one_of("scale", scale, Scale)
        arguments.above_zero(context_length=context_length, prediction_length=prediction_length, rate=rate)
        arguments.above_zero(stride=stride, eval_stride=eval_stride, eval_windows=eval_windows)
        arguments.shares(max_missing=max_missing)
        arguments.held_by_server("server_records", server_records)
        self.training.check(context_length)

    @abstractmethod
    def read(self) -> Iterable[Record]:
        """All records, each at its own rate. Readers ask :meth:`excluded` before, and :meth:`refuse` bad ones.

        A generator that reads one after the other needs memory for one; a list is taken as well.
        """

    @property
    def protocol(self) -> SignalProtocol:
        """How signals are split and scaled."""
        kind = PublishedSignals if self.parity else SignalProtocol
        return kind(self.split, self.val_fraction, self.test_fraction, self.scale)

    @property
    def training(self) -> TrainingWindows:
        """Which windows are trained on, and what of them is seen."""
        return TrainingWindows(self.train_windows, self.windows_per_record, self.drop_observations, self.min_context)

    def as_trained_on(self, dataset: Dataset[Any], seed: int) -> Dataset[Any]:
        if not self.training.alters:
            return dataset
        return AlteredWindows(cast(Windows, dataset), self.training, self.protocol.moving, seed)

    def shown(self, samples: int) -> Shown:
        counts = {client: self.example_counts(client) for client in self.clients}
        missing = {name: own["samples"] for name, own in self._found.gaps.items()}
        train = {client: parts["train"] for client, parts in self._parts.items()}
        curves = window_curves(self.records, train, self.context_length, self.prediction_length, samples)
        return signals_shown(self.records, self._sides, counts, missing, self.training.note)._replace(samples=curves)

    def stand_in_seconds(self, rate: float) -> float:
        """Length at which every part of a split holds a few windows, for recordings made at ``rate`` (Hz)."""
        samples = self.context_length + 4 * self.prediction_length
        return float(np.ceil(samples / self.protocol.smallest_part / (self.rate or rate) + 1))

    def _names_of(self, record: Record) -> dict[str, Iterable[str]]:
        return {"labels": [] if record.label is None else [record.label]}

    def _relabelled(self, record: Record) -> Record:
        given = self.rename.get("labels", {})
        return replace(record, label=given[record.label]) if record.label in given else record

    def _held_back(self, used: Sequence[Record]) -> tuple[list[int], set[int]]:
        return held_back(used, self.server_records, self.seed or 0)

    def _divided(self) -> dict[str, dict[str, list[Run]]]:
        self._sides, self._rules = self.protocol.split(self.records, self.assignment, self.seed or 0)
        for message in checks.say_shared_subjects(self.records, self._sides, self._rules):
            self.say(message)
        return {
            client: {
                split: self._cut(client, split, [(self.records[p.record], p) for p in own])
                for split, own in sides.items()
            }
            for client, sides in self._sides.items()
        }

    def _server_pieces(self, held: Sequence[Record]) -> list[Run]:
        whole = [(record, Part(i, 0, len(record.values))) for i, record in enumerate(held)]
        runs = self._cut("", "val", whole)
        if held and not runs:
            raise FedlitError(f"the server {self._cutter.nothing('', 'val', [part for _, part in whole])}")
        return runs

    def _external_pieces(self, site: str, held: Sequence[Record]) -> list[Run]:
        whole = [(record, Part(i, 0, len(record.values))) for i, record in enumerate(held)]
        if runs := self._cut(site, "test", whole):
            return runs
        raise FedlitError(f"external site {site!r} {self._cutter.nothing(site, 'test', [part for _, part in whole])}")

    def _dataset(self, held: Sequence[tuple[str, Sequence[Run]]], split: str) -> Windows:
        runs: list[Run] = []
        picks, total = [], 0
        for client, own in held:
            count, train = sum(run.count for run in own), split == "train"
            kept_of = self.training.picks(client, own, self.seed or 0) if train else evenly(count, self.eval_windows)
            picks.append(total + kept_of)
            runs += own
            total += count
        kept = np.concatenate(picks) if sum(map(len, picks)) < total else None
        return Windows(self._flat, runs, self.context_length, self.prediction_length, self.scale, kept)

    def _describe_use(self) -> dict[str, Any]:
        return {
            "parity": self.parity,
            "split": self.protocol.describe(),
            "windows": {
                "context_length": self.context_length,
                "prediction_length": self.prediction_length,
                "stride": self._stride("train"),
                "eval_stride": self._stride("test"),
                "eval_windows": self.eval_windows,
                **self.training.describe(),
                "scale": self.protocol.scale_name,
                "rate": self.rate,
            },
        }

    def _describe_findings(self) -> dict[str, Any]:
        left_out = {"windows_missing": self._cutter.missing[""], "windows_flat": self._cutter.flat[""]}
        return {
            **({"server_left_out": left_out} if self.server_records else {}),
            "gaps": self._found.gaps,
            "flat": self._found.flat,
            "amplitude": {name: round(ratio, 3) for name, ratio in self._odd.items()},
        }

    def _describe_client(self, client: str) -> dict[str, Any]:
        return {
            **client_facts(self.records, self.assignment[client], self._sides[client], self._rules[client]),
            "windows": {split: len(self.dataset(client, split)) for split in SPLITS},
            "windows_missing": self._cutter.missing[client],
            "windows_flat": self._cutter.flat[client],
        }

    def _usable(self, read: Iterable[Record]) -> list[Record]:
        """Records that pass the checks, at the common rate, in natural order of their ids; their values are mapped."""
        self._warn_of_idle()
        self._cutter = WindowCutter(self.context_length, self.prediction_length, self.max_missing, self.protocol)
        with SignalStore() as store:
            usable = self._judge([self._take(record, store) for record in read])
            self._flat = store.mapped()
        self._starts = {taken.record.id: taken.start for taken in usable}
        records = [replace(t.record, values=self._flat[t.start : t.start + t.samples]) for t in usable]
        self._warn_of_odd(records)
        return records

    def _take(self, record: Record, store: SignalStore) -> Taken:
        if self.pattern_of(record.id) is not None:
            return passed_by(record)  # only its id counts: it must be unique
        return take(record, store, self.rate, self.context_length, self.prediction_length)

    def _judge(self, read: Sequence[Taken]) -> list[Taken]:
        """Those that can be used, in natural order of their ids.

        Raises:
            FedlitError: The first that is wrong, in that order, or two have the same id, or none is left.
        """
        self._check_unique(taken.record.id for taken in read)
        usable = []
        for taken in sorted(read, key=lambda taken: natural(taken.record.id)):
            name = taken.record.id
            if self.excluded(name):
                continue
            if isinstance(taken.problem, FedlitError):
                raise taken.problem
            if taken.problem is not None:
                self.refuse(name, taken.problem)
                continue
            self._found.add(taken)
            usable.append(taken)
        self._demand_some(usable)
        return usable

    def _warn_of_idle(self) -> None:
        """Warn of arguments that have no effect beside others."""
        why, idle = self.protocol.idle
        given = [f"data.{name}" for name in arguments.differ_from_default(self, Reader, idle)]
        if given:
            self.say(f"{', '.join(given)}: no effect beside {why}: leave out one or the other")

    def _warn_of_odd(self, usable: Sequence[Record]) -> None:
        """Warn of what is odd, but not wrong in itself."""
        self._warn_of_left_out(len(usable))
        self._odd = checks.amplitude_outliers(usable)
        for message in checks.say_odd(self._odd, usable, self._found.codes):
            self.say(message)

    def _stride(self, split: str) -> int:
        given = self.stride if split == "train" else self.eval_stride
        return given or self.protocol.usual_stride(self.prediction_length)

    def _cut(self, client: str, split: str, parts: Sequence[tuple[Record, Part]]) -> list[Run]:
        """Rows of windows of parts of records."""
        stride = self._stride(split)
        runs = [self._cutter.cut(client, record, self._starts[record.id], part, stride) for record, part in parts]
        return [run for own in runs for run in own]

    def _look_over(self) -> None:
        for client, parts in self._parts.items():
            for split in self.protocol.needed:
                if not parts[split]:
                    why = self._cutter.nothing(client, split, self._sides[client][split])
                    raise FedlitError(f"client {client!r} {why}")

        kept = {c: sum(run.count for runs in parts.values() for run in runs) for c, parts in self._parts.items()}
        for message in checks.say_flat(self._cutter.flat, kept) if self.protocol.moving else ():
            self.say(message)
        for message in [] if self.stand_in else self.training.say_few({c: p["train"] for c, p in self._parts.items()}):
            self.say(message)

    def _forget(self) -> None:
        super()._forget()
        self._found = Findings()
