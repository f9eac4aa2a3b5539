"""Progress of a sweep: bars in a terminal, a line for each cell elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from fedlit.sweep.cells import Outcome, log_file, rounds
from fedlit.sweep.plan import Cell


class SweepProgress:
    """Finished cells, running cells with their rounds, and the time that the rest will take.

    Args:
        total: Number of cells of the sweep.
        done: Number of cells that were finished before.
        jobs: Cells at a time.
        console: Console to print to.
    """

    def __init__(self, total: int, done: int, jobs: int, console: Console) -> None:
        self.total, self.done, self.jobs, self.console = total, done, jobs, console
        self._spent: list[float] = []
        self._tasks: dict[str, tuple[TaskID, Cell]] = {}
        self._seen = 0.0
        self._bars = Bars(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[info]}"),
            TimeElapsedColumn(), console=console, transient=True,
        ) if console.is_terminal else None  # fmt: skip

    def __enter__(self) -> SweepProgress:
        if self._bars:
            self._bars.start()
            self._whole = self._bars.add_task("cells", total=self.total, completed=self.done, info="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars:
            self._bars.stop()

    def start(self, cell: Cell) -> None:
        """Show that a cell has begun."""
        at = rounds(cell)
        if self._bars:
            total = cell.config["trainer"]["max_rounds"]
            self._tasks[str(cell.folder)] = (
                self._bars.add_task(cell.title, total=total, completed=at, info="rounds"),
                cell,
            )
        else:
            self._print(f"{cell.title}: " + (f"goes on after round {at}" if at else "starts"))

    def wait(self) -> None:
        """Update the bars, at most once a second, from the rounds on disk."""
        if self._bars and time.monotonic() - self._seen > 1:
            self._seen = time.monotonic()
            for task, cell in self._tasks.values():
                self._bars.update(task, completed=rounds(cell))

    def end(self, outcome: Outcome, figures: str) -> None:
        """Show that a cell has ended.

        Args:
            outcome: Its end.
            figures: Its main figures, as text.
        """
        self.done += 1
        self._spent.append(outcome.seconds)
        if self._bars:
            self._bars.remove_task(self._tasks.pop(str(outcome.cell.folder))[0])
            self._bars.update(self._whole, completed=self.done, info=self.left())
        what = figures if outcome.error is None else f"FAILED: {outcome.error} (log: {log_file(outcome.cell)})"
        left = "" if self._bars or self.done == self.total else f"; {self.left()}"
        self._print(f"[{self.done}/{self.total}] {outcome.cell.title}: {what}; {outcome.seconds:.0f} s{left}")

    def left(self) -> str:
        """Estimate of the remaining time, from the mean over the cells so far; empty before the first has ended."""
        if not self._spent:
            return ""
        seconds = sum(self._spent) / len(self._spent) * (self.total - self.done) / self.jobs
        return f"about {seconds:.0f} s left" if seconds < 100 else f"about {seconds / 60:.0f} min left"

    def _print(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True, markup=False)
