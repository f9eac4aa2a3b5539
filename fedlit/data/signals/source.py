"""Arguments that all readers of signals share."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import get_args

import numpy as np

from fedlit.data.base.partitions import Partition
from fedlit.data.base.reader import OnBadRecord, Reader
from fedlit.data.base.records import Record
from fedlit.data.signals.splits import SplitRule
from fedlit.data.signals.windows import Scale, Windows
from fedlit.errors import FedlitError


class SignalSource(Reader):
    """Forecasting windows from the signals of many clients.

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
        seed: Of partition, split and shuffling; None: the run's seed, or 0 outside of a federated run.
    """

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
    ) -> None:
        super().__init__(partition, exclude, on_bad_record, seed)
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
        self.server_records = server_records
        self.parity = parity
        self._check_arguments()

    @abstractmethod
    def read(self) -> Iterable[Record]:
        """All records, each at its own rate. Readers ask :meth:`excluded` before, and :meth:`refuse` bad ones.

        A generator that reads one after the other needs memory for one; a list is taken as well.
        """

    @abstractmethod
    def write_stand_in(self, folder: Path) -> None:
        """Write a tiny data set in the official layout, long enough for this module's windows."""

    def stand_in_seconds(self, rate: float) -> float:
        """Length at which every part of a split holds a few windows, for recordings made at ``rate`` (Hz)."""
        smallest = 1.0
        if self.parity:
            smallest = 0.4
        elif self.split == "time":
            smallest = min(s for s in (self.val_fraction, self.test_fraction, 0.5) if s > 0)
        windows_long = self.context_length + 4 * self.prediction_length
        return float(np.ceil(windows_long / smallest / (self.rate or rate) + 1))

    def _forget(self) -> None:
        super()._forget()
        self._gaps: dict[str, dict[str, int]] = {}
        self._odd: dict[str, float] = {}
        self._made: dict[tuple[tuple[str, ...], str], Windows] = {}
        self._missing_windows: Counter[str] = Counter()

    def _check_arguments(self) -> None:
        for name, choices in (("split", SplitRule), ("scale", Scale), ("on_bad_record", OnBadRecord)):
            if getattr(self, name) not in get_args(choices):
                raise FedlitError(f"data.{name} is {getattr(self, name)!r}: give one of {', '.join(get_args(choices))}")
        counts = ("context_length", "prediction_length", "batch_size", "stride", "eval_stride", "eval_windows", "rate")
        for name in counts:
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise FedlitError(f"data.{name} is {value}: give a number above 0")
        for name in ("val_fraction", "test_fraction", "max_missing"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise FedlitError(f"data.{name} is {value}: give a share from 0 to 1")
        if not self.server_records >= 0:
            raise FedlitError(f"data.server_records is {self.server_records}: give a number of records, 0 for none")
        if self.val_fraction + self.test_fraction >= 1:
            raise FedlitError("data.val_fraction + data.test_fraction leave nothing to train on: lower them")
