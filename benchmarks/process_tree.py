"""Runs a command, and measures the memory of all processes that it starts, however they detach (Linux)."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

MARK = "FEDLIT_BENCHMARK_RUN"


@dataclass(frozen=True)
class Done:
    """What a command did."""

    launched: float
    """Seconds since the epoch at which it was started."""
    peak: float | None
    """Bytes: the largest sum over its processes at one time of the proportional set size, which splits shared pages
    among those that share them; None where it was not measured."""
    returncode: int
    output: str
    """Standard output and error."""


def run(
    command: Sequence[str], environ: Mapping[str, str], log: Path, every: float | None = None, limit: float = 900.0
) -> Done:
    """Run a command to its end, then end what it left behind.

    Args:
        command: The program and its arguments.
        environ: Its whole environment; a mark is added, by which its processes are found.
        log: A file for its output.
        every: Seconds between two looks at memory; None: memory is not measured, and time not disturbed.
        limit: Seconds after which it is ended.
    """
    mark = f"{MARK}={uuid.uuid4().hex}"
    marked = {**environ, **dict([mark.split("=")])}
    with log.open("wb") as stream:
        launched = time.time()
        process = subprocess.Popen(command, env=marked, stdout=stream, stderr=subprocess.STDOUT)
    sampler = _Sampler(mark.encode(), every) if every else None
    if sampler:
        sampler.start()
    try:
        returncode = process.wait(timeout=limit)
    except subprocess.TimeoutExpired:
        returncode = -signal.SIGKILL
    finally:
        if sampler:
            sampler.stop()
        process.kill()
        process.wait()
        _end(mark.encode())
    output = log.read_text(errors="replace")
    return Done(launched, sampler.peak if sampler else None, returncode, output)


def marked_processes(mark: bytes, known: dict[int, bool] | None = None) -> list[int]:
    """Processes whose environment holds the mark; ``known`` spares reading those that were seen before."""
    known = {} if known is None else known
    pids = {int(entry) for entry in os.listdir("/proc") if entry.isdigit()}
    for pid in known.keys() - pids:
        del known[pid]
    for pid in pids - known.keys():
        try:
            environ = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:  # another user's, or gone
            environ = b""
        if mark in environ:
            known[pid] = True
        elif environ:  # before exec a process may show none, or its parent's
            known[pid] = False
    return [pid for pid in pids if known.get(pid)]


def proportional_set_size(pid: int) -> int:
    """Bytes of a process's memory, its share of shared pages with them; 0 if it is gone."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:"))


class _Sampler(threading.Thread):
    def __init__(self, mark: bytes, every: float) -> None:
        super().__init__(daemon=True)
        self.mark, self.every, self.peak = mark, every, 0.0
        self._over = threading.Event()

    def run(self) -> None:
        known: dict[int, bool] = {}
        while not self._over.wait(self.every):
            total = sum(map(proportional_set_size, marked_processes(self.mark, known)))
            self.peak = max(self.peak, float(total))

    def stop(self) -> None:
        self._over.set()
        self.join()


def _end(mark: bytes) -> None:
    """End the marked processes that are left, kindly first."""
    for number, patience in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
        until = time.monotonic() + patience
        for pid in marked_processes(mark):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue
        while time.monotonic() < until and marked_processes(mark):
            time.sleep(0.1)
