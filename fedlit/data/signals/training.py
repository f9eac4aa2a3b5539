"""What training takes of a client's windows: some drawn once, and of each, at every step, what is left of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedlit import seeds
from fedlit.data.base import arguments
from fedlit.data.base.batch import AlteredExamples, Batch
from fedlit.data.base.names import few
from fedlit.data.signals.flat import STEEP, is_flat
from fedlit.data.signals.windows import Run, Values, Windows
from fedlit.errors import FedlitError


@dataclass(frozen=True)
class TrainingWindows:
    """Which windows are trained on, and what of them is seen.

    As the training of Chronos (arXiv 2403.07815, its ``train.py``) and the code of arXiv 2502.09744 have it: series of
    ``context_length + prediction_length`` samples are drawn and written once; whenever one is trained on, observations
    are dropped from all of it, and the target starts at a random place in it.

    Args:
        per_client: So many windows of each client, drawn once; None for all.
        per_record: So many of each record.
        drop_observations: Upper end of the uniform distribution from which the share of dropped samples is drawn.
        min_context: Samples before the target are a random number from this one to the whole context, and missing
            before; None: always the whole context.
    """

    per_client: int | None = None
    per_record: int | None = None
    drop_observations: float = 0.0
    min_context: int | None = None

    def check(self, context_length: int) -> None:
        """Refuse what cannot be.

        Raises:
            FedlitError: With the argument of the data module.
        """
        arguments.above_zero(
            train_windows=self.per_client, windows_per_record=self.per_record, min_context=self.min_context
        )
        arguments.shares(drop_observations=self.drop_observations)
        if self.per_client is not None and self.per_record is not None:
            raise FedlitError(
                f"data.train_windows is {self.per_client} and data.windows_per_record {self.per_record}: give one"
            )
        if self.min_context is not None and self.min_context > context_length:
            raise FedlitError(
                f"data.min_context is {self.min_context}, longer than data.context_length: give 1 to {context_length}"
            )

    @property
    def alters(self) -> bool:
        """Whether training sees windows otherwise than they are."""
        return self.drop_observations > 0 or self.min_context is not None

    def picks(self, client: str, runs: Sequence[Run], seed: int) -> npt.NDArray[np.int64]:
        """Indices of the windows that a client trains on, ascending: all, or drawn for this client, or this record.

        Args:
            client: Its name.
            runs: Its windows.
            seed: Of the data.
        """
        total = sum(run.count for run in runs)
        if self.per_client is not None:
            return _drawn(np.arange(total), self.per_client, seed, "train windows", client)
        if self.per_record is None:
            return np.arange(total)
        held = np.repeat(np.arange(len(runs)), [run.count for run in runs])
        records = np.array([run.record for run in runs])[held]
        each = [np.flatnonzero(records == name) for name in dict.fromkeys(run.record for run in runs)]
        most = self.per_record
        drawn = [_drawn(own, most, seed, "windows of a record", runs[held[own[0]]].record) for own in each]
        return np.sort(np.concatenate(drawn)) if drawn else np.arange(0)

    def say_few(self, windows: dict[str, list[Run]]) -> list[str]:
        """A warning of clients, or records, with fewer windows than are asked for, or none.

        Args:
            windows: Training windows, by client.
        """
        if self.per_client is not None:
            name, most, what = "train_windows", self.per_client, "client"
            counts = {client: sum(run.count for run in runs) for client, runs in windows.items()}
        elif self.per_record is not None:
            name, most, what, counts = "windows_per_record", self.per_record, "record", {}
            for run in (run for runs in windows.values() for run in runs):
                counts[run.record] = counts.get(run.record, 0) + run.count
        else:
            return []
        short = [f"{of} ({count})" for of, count in counts.items() if count < most]
        if not short:
            return []
        return [
            f"data.{name} is {most}, and {len(short)} {what}(s) have fewer windows, which are all used: {few(short)}: "
            f"lower data.{name} or data.stride"
        ]

    def altered(
        self, values: Values, start: npt.NDArray[np.int64], context: int, moving: bool, draws: np.random.Generator
    ) -> tuple[Values, npt.NDArray[np.int64]]:
        """Windows as training sees them.

        A window stays whole where it would be left without an observation in its context or its target, or, if
        ``moving``, with a context from which no scale can be taken (see :mod:`fedlit.data.signals.flat`).

        Args:
            values: Shape ``(B, context + horizon)``, in original units, NaN = missing.
            start: Shape ``(B,)``: sample of the record at which the context starts.
            context: Samples of a context.
            moving: Whether each context sets the scale.
            draws: The only source of what is random.

        Returns:
            New values, and starts, which are before the first sample where the context is padded.
        """
        count, length = values.shape
        seen: Values = values
        back: npt.NDArray[np.int64] = np.zeros(count, np.int64)
        if self.drop_observations > 0:
            rate = draws.uniform(0.0, self.drop_observations, (count, 1))
            seen = np.where(draws.random(values.shape) < rate, np.float32(np.nan), values)
        if self.min_context is not None:
            back = np.asarray(context - draws.integers(self.min_context, context + 1, count), np.int64)
            places = np.arange(length) - back[:, None]
            shifted = np.take_along_axis(seen, np.maximum(places, 0), 1)
            seen = np.where(places < 0, np.float32(np.nan), shifted)
        low, high = np.fmin.reduce(seen[:, :context], 1), np.fmax.reduce(seen[:, :context], 1)
        lowest, highest = np.fmin.reduce(seen[:, context:], 1), np.fmax.reduce(seen[:, context:], 1)
        useless = np.isnan(low) | np.isnan(lowest)
        if moving:
            reach = high - low
            useless |= is_flat(low, reach) | (np.maximum(highest - high, low - lowest) > STEEP * reach)
        return np.where(useless[:, None], values, seen), start - np.where(useless, 0, back)

    @property
    def note(self) -> str:
        """What a reader of counts must know; empty where all windows are trained on as they are."""
        said = []
        if self.per_client or self.per_record:
            whose = f"{self.per_client} a client" if self.per_client else f"{self.per_record} a record"
            said.append(f"train windows are at most {whose}, drawn once")
        if self.drop_observations:
            said.append(f"up to {100 * self.drop_observations:g} % of each one's samples are dropped in training")
        if self.min_context is not None:
            said.append(f"contexts have {self.min_context} samples or more there")
        return ", ".join(said)

    def describe(self) -> dict[str, Any]:
        """Those that are given, by the names of the data module's arguments."""
        given = {
            "train_windows": self.per_client,
            "windows_per_record": self.per_record,
            "drop_observations": self.drop_observations or None,
            "min_context": self.min_context,
        }
        return {name: value for name, value in given.items() if value is not None}


class AlteredWindows(AlteredExamples):
    """Windows as one client's training in one round sees them.

    Args:
        windows: As they are.
        training: How they are altered.
        moving: Whether each context sets the scale.
        seed: All that is random depends on this, and on the number of the batch.
    """

    def __init__(self, windows: Windows, training: TrainingWindows, moving: bool, seed: int) -> None:
        self.windows, self.training, self.moving, self.seed = windows, training, moving, seed

    def __len__(self) -> int:
        return len(self.windows)

    def batch(self, indices: Sequence[int], number: int) -> Batch:
        run, start = self.windows.where(indices)
        draws = seeds.numpy_generator(self.seed, "altered windows", number)
        values = self.windows.values(run, start)
        values, start = self.training.altered(values, start, self.windows.context_length, self.moving, draws)
        return self.windows.scaled(values, run, start)


def _drawn(indices: npt.NDArray[np.int64], most: int, seed: int, purpose: str, name: str) -> npt.NDArray[np.int64]:
    if len(indices) <= most:
        return indices
    chosen = seeds.numpy_generator(seed, purpose, name).choice(len(indices), most, replace=False, shuffle=False)
    return indices[np.sort(chosen)]
