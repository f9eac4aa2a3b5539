"""The course of a learning rate: over the steps of each round anew, or once over all rounds of a run."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from fedlit.errors import FedlitError

Schedule = Literal["linear", "cosine", "constant"]
Span = Literal["round", "run"]
Interval = Literal["step", "round"]


@dataclass(frozen=True)
class Course:
    """What a learning rate goes through; fields are the arguments of :class:`~fedlit.tasks.fine_tuned.FineTuned`.

    Over a run, step s of the S that a client takes in round t of R, all from 0, is at (t + s / S) / R of the course, or
    at t / R with the interval ``round``. That follows from the server's rounds, so clients that take other numbers of
    steps, or that took no part in a round, are all on one course.

    Raises:
        FedlitError: A setting is out of range, or two contradict each other.
    """

    schedule: Schedule
    warmup: float
    schedule_over: Span
    schedule_interval: Interval
    min_learning_rate: float

    def __post_init__(self) -> None:
        over, interval, least = self.schedule_over, self.schedule_interval, self.min_learning_rate
        if not 0 <= self.warmup < 1:
            raise FedlitError(f"model.warmup is {self.warmup}: give a share of the steps, below 1")
        if self.schedule not in ("linear", "cosine", "constant"):
            raise FedlitError(f"schedule {self.schedule!r}: give 'linear', 'cosine' or 'constant'")
        if over not in ("round", "run"):
            raise FedlitError(f"model.schedule_over is {over!r}: give 'round' or 'run'")
        if interval not in ("step", "round"):
            raise FedlitError(f"model.schedule_interval is {interval!r}: give 'step' or 'round'")
        if (over, interval) == ("round", "round"):
            raise FedlitError(
                "model.schedule_interval is 'round', and the schedule starts anew in each: set model.schedule_over to "
                "'run', or the interval to 'step'"
            )
        if not 0 <= least < math.inf:
            raise FedlitError(f"model.min_learning_rate is {least}: give a number from 0")

    def place(self, step: int, steps: int, index: int, rounds: int) -> tuple[int, int]:
        """Where on the course a step is: a whole number from 0, and what it is counted up to.

        Args:
            step: Index of the local step.
            steps: Local steps in the round.
            index: Of the round.
            rounds: Of the run.
        """
        if self.schedule_over == "round":
            return step, steps
        if self.schedule_interval == "round":
            return index, rounds
        return index * steps + step, rounds * steps

    def factor(self, place: int, length: int, least: float) -> float:
        """The learning rate at a place, by the peak rate.

        Args:
            place: See :meth:`place`.
            length: What it is counted up to.
            least: What the rate falls to, by the peak rate.
        """
        rising = math.ceil(self.warmup * length)
        if place < rising:
            return (place + 1) / (rising + 1)
        if self.schedule == "constant":
            return 1.0
        left = max(0.0, 1 - (place - rising) / max(1, length - rising))
        return least + (1 - least) * (left if self.schedule == "linear" else 0.5 * (1 - math.cos(math.pi * left)))

    def check(self, optimizer: torch.optim.Optimizer) -> None:
        """Refuse an optimizer whose learning rate is below the least one.

        Raises:
            FedlitError: That of one of its groups is.
        """
        lowest = min(float(group["lr"]) for group in optimizer.param_groups)
        if self.min_learning_rate > lowest:
            raise FedlitError(
                f"model.min_learning_rate is {self.min_learning_rate}, and the learning rate to begin with {lowest}: "
                "give at most that"
            )

    def scheduler(
        self, optimizer: torch.optim.Optimizer, steps: int, index: int, rounds: int
    ) -> torch.optim.lr_scheduler.LambdaLR:
        """The course of one client's round, to be stepped after each local step.

        Each group of parameters falls from its own rate to ``min_learning_rate``.

        Args:
            optimizer: As it was made.
            steps: Local steps in the round.
            index: Of the round.
            rounds: Of the run.

        Raises:
            FedlitError: See :meth:`check`.
        """
        self.check(optimizer)

        def course(peak: float) -> Callable[[int], float]:
            least = self.min_learning_rate / peak if peak else 0.0
            return lambda step: self.factor(*self.place(step, steps, index, rounds), least)

        return torch.optim.lr_scheduler.LambdaLR(optimizer, [course(float(g["lr"])) for g in optimizer.param_groups])
