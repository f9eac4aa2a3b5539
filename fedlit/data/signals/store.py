"""Signals of all records in one file that is mapped into memory, and what is looked at on the way there."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from types import TracebackType

import numpy as np
import numpy.typing as npt

from fedlit.data.base.records import Record
from fedlit.data.signals import checks
from fedlit.data.signals.flat import flat_stretches
from fedlit.data.signals.resampling import resample
from fedlit.errors import FedlitError

NOTHING = np.empty(0, np.float32)
"""Stands for values that are in the store."""


class SignalStore:
    """Takes signals one by one, and gives them back as one array, without all of them in memory.

    They are written to a temporary file, which is then mapped: the system reads its pages when they are looked at, and
    drops them when memory is short. The file has no name (on Windows: is deleted when it is closed), so it goes with
    the last array that looks into it, or with the process, however that ends.

    It lies where ``tempfile`` puts files: in ``$TMPDIR``, or ``/tmp``. Where that folder is in memory itself
    (``tmpfs``), so are the signals, once; for signals larger than memory, let ``TMPDIR`` name a folder on a disk.

    A process that sets up a data module makes a file of its own, so the processes of a run on one machine write as many
    copies. Processes that are forked after the set-up look into the same file.
    """

    def __init__(self) -> None:
        self._samples = 0
        with _writing():
            self._file = tempfile.TemporaryFile(prefix="fedlit-signals-")  # noqa: SIM115

    def __enter__(self) -> SignalStore:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with suppress(OSError):  # what a full disk did not take
            self._file.close()

    def add(self, values: npt.ArrayLike) -> int:
        """Append a signal, as float32.

        Args:
            values: Shape ``(samples,)``.

        Returns:
            Where it starts in :meth:`mapped`.

        Raises:
            FedlitError: The disk is full.
        """
        signal = np.ascontiguousarray(values, np.float32)
        start = self._samples
        with _writing():
            self._file.write(signal.data)
        self._samples += signal.size
        return start

    def mapped(self) -> npt.NDArray[np.float32]:
        """All signals one after the other, read-only, shape ``(samples of all,)``. It stays when the store is closed.

        Raises:
            FedlitError: The disk is full, or the file cannot be mapped.
        """
        with _writing():
            self._file.flush()
            # As a plain array: a memmap's own indexing is slower, and pickles and copies as its class.
            return np.asarray(np.memmap(self._file, np.float32, "r", shape=(self._samples,)))


@dataclass(frozen=True)
class Taken:
    """What is kept of a record while others are read.

    Attributes:
        record: Without its values; at the rate of use.
        start: Where its values start in :meth:`SignalStore.mapped`.
        samples: How many they are.
        gaps: Runs of missing samples, and missing samples in all.
        flat: Stretches as long as a context, or longer, without movement, and samples in them.
        code: A number that looks like a code for missing samples, or None.
        problem: Why the record cannot be used, or an error that ends the set-up.
    """

    record: Record
    start: int = 0
    samples: int = 0
    gaps: tuple[int, int] = (0, 0)
    flat: tuple[int, int] = (0, 0)
    code: float | None = None
    problem: str | FedlitError | None = None


def take(record: Record, store: SignalStore, rate: float | None, context_length: int, prediction_length: int) -> Taken:
    """Look at a record, and put its signal away where nothing is wrong with it.

    What is wrong is not raised: the record with the first name is told, and that is known when all are read.

    Args:
        record: As it was read.
        store: Where its values go.
        rate: Hz that it is resampled to; None keeps its own.
        context_length: Samples of a window's context.
        prediction_length: Samples of its target.

    Raises:
        FedlitError: The disk is full.
    """
    if np.ndim(record.values) != 1:
        shape = np.shape(record.values)
        return passed_by(record, f"record {record.id!r} has values of shape {shape}: give one channel, (samples,)")
    reason, code = checks.fault(record, shortest=1), checks.missing_code(record)
    if reason is None and rate is not None:
        try:
            values = resample(record.values, record.rate, rate)
        except FedlitError as error:
            return passed_by(record, error.with_traceback(None))  # which would keep the signal in memory
        pauses = (record.pauses * (rate / record.rate)).astype(np.int64)
        record = replace(record, values=values, rate=float(rate), pauses=pauses)
    reason = reason or checks.fault(record, context_length + prediction_length)
    if reason is not None:
        return passed_by(record, f"record {record.id!r} {reason}")
    start = store.add(record.values)
    gaps, still = checks.gaps(record), flat_stretches(record.values, context_length)
    return Taken(replace(record, values=NOTHING), start, len(record.values), gaps, still, code)


@dataclass(frozen=True)
class Findings:
    """What was found in the records that are used, by record id.

    Attributes:
        gaps, flat: As ``partition.json`` lists them.
        codes: Numbers that look like codes for missing samples.
    """

    gaps: dict[str, dict[str, int]] = field(default_factory=dict)
    flat: dict[str, dict[str, int]] = field(default_factory=dict)
    codes: dict[str, float] = field(default_factory=dict)

    def add(self, taken: Taken) -> None:
        """What was found in one record."""
        name, (count, missing), (stretches, still) = taken.record.id, taken.gaps, taken.flat
        if taken.code is not None:
            self.codes[name] = taken.code
        if missing:
            self.gaps[name] = {"gaps": count, "samples": missing}
        if stretches:
            self.flat[name] = {"stretches": stretches, "samples": still}


def passed_by(record: Record, problem: str | FedlitError | None = None) -> Taken:
    """A record whose values are not kept."""
    return Taken(replace(record, values=NOTHING), problem=problem)


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        try:
            folder = tempfile.gettempdir()
        except OSError:  # none can be written to, which is then the reason as well
            folder = "temporary folder"
        mend = "free some space there, or set the environment variable TMPDIR to a folder with more"
        raise FedlitError(
            f"{folder}: the signals cannot be kept in a file ({error.strerror or error}): {mend}"
        ) from error
