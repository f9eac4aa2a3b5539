"""Progress of a run: bars in a terminal, plain lines where output goes to a file."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from fedlit.callbacks import Callback, CallbackHost


class Progress(Callback):
    """Rounds, clients, loss, bytes and time left.

    Args:
        console: Where to show it; standard output by default.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()
        self._bars: Bars | None = None
        self._tasks: tuple[TaskID, TaskID] | None = None

    def on_run_start(self, trainer: CallbackHost, name: str, rounds: int, first_round: int) -> None:
        self._name, self._rounds, self._began, self._first = name, rounds, time.monotonic(), first_round
        self._bytes = 0.0
        if not trainer.is_global_zero or not rounds:
            return
        if first_round:
            self.console.print(f"{name}: going on after round {first_round} of {rounds}")
        if self.console.is_terminal:
            self._bars = Bars(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[info]}"),
                TimeRemainingColumn(),
                console=self.console,
            )
            self._bars.start()
            whole = self._bars.add_task(name, total=rounds, completed=first_round, info="")
            self._tasks = whole, self._bars.add_task("clients", total=1, info="")

    def on_round_start(self, trainer: CallbackHost, round: int, clients: Sequence[str]) -> None:  # noqa: A002
        if self._bars and self._tasks:
            self._bars.reset(self._tasks[1], total=len(clients), info="")

    def on_client_end(self, trainer: CallbackHost, round: int, client: str, metrics: dict[str, float]) -> None:  # noqa: A002
        if self._bars and self._tasks:
            self._bars.update(self._tasks[1], advance=1, info=f"{client} loss {metrics['train_loss']:.4g}")

    def on_client_refused(self, trainer: CallbackHost, round: int, client: str, reason: str) -> None:  # noqa: A002
        if trainer.is_global_zero:
            self.console.print(
                f"round {round + 1}: {client} refused ({reason}); the round goes on without it", soft_wrap=True
            )

    def on_client_missing(self, trainer: CallbackHost, round: int, client: str) -> None:  # noqa: A002
        if trainer.is_global_zero:
            self.console.print(
                f"round {round + 1}: {client} did not answer; the round goes on without it", soft_wrap=True
            )

    def on_round_end(self, trainer: CallbackHost, round: int, values: dict[str, float]) -> None:  # noqa: A002
        if not trainer.is_global_zero:
            return
        self._bytes += values["train/bytes"]
        info = f"loss {values['train/loss']:.4g}  sent {self._bytes / 1e6:.1f} MB"
        if self._bars and self._tasks:
            self._bars.update(self._tasks[0], completed=round + 1, info=info)
            return
        spent = time.monotonic() - self._began
        left = spent / (round + 1 - self._first) * (self._rounds - round - 1)
        self.console.print(
            f"{self._name}: round {round + 1}/{self._rounds}  {info}  {spent:.0f} s, about {left:.0f} s left",
            highlight=False,
            soft_wrap=True,
        )

    def on_run_end(self, trainer: CallbackHost, name: str) -> None:
        self._stop()

    def on_exception(self, *args: Any) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._bars:
            self._bars.stop()
            self._bars = self._tasks = None
