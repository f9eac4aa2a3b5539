"""Cells of a sweep as processes: which are finished, begun or failed, how they are started, and how they end."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedlit.cli.ranks import usual_ranks
from fedlit.errors import FedlitError, writing
from fedlit.sweep.plan import Cell, settings

GRACE = 10.0
"""Seconds between SIGTERM and SIGKILL of a cell."""
PRIVATE = "FEDLIT_FIT__"
"""Prefix of settings in the environment, which are not passed on: a cell's configuration holds them already."""


@dataclass(frozen=True)
class Outcome:
    """The end of a cell's process.

    Args:
        cell: The cell.
        seconds: Time that it ran.
        error: Why it failed; None if it is finished.
    """

    cell: Cell
    seconds: float
    error: str | None


def versions(cell: Cell) -> list[Path]:
    """Run folders of a cell, the newest first."""
    found = [p for p in cell.folder.glob("version_*") if p.name.removeprefix("version_").isdecimal()]
    return sorted(found, key=lambda path: int(path.name.removeprefix("version_")), reverse=True)


def summary(run: Path) -> dict[str, Any] | None:
    """``summary.json`` of a finished run, one that is whole and of the last committed round; else None."""
    from fedlit.runs.checkpoint import Checkpoints

    try:
        found = json.loads((run / "summary.json").read_text())
        committed = Checkpoints(run / "checkpoints").read()
        whole = found["test"] is not None and found["bytes"] is not None and found["rounds"] == committed.round
    except (OSError, ValueError, KeyError, TypeError):  # a FedlitError is a ValueError
        return None
    return found if whole else None


def finished(cell: Cell) -> Path | None:
    """The cell's newest finished run; None if there is none."""
    return next((run for run in versions(cell) if summary(run) is not None), None)


def begun(cell: Cell) -> Path | None:
    """The cell's newest run with a committed round; None if there is none."""
    return next((run for run in versions(cell) if (run / "checkpoints" / "last").is_symlink()), None)


def rounds(cell: Cell) -> int:
    """Number of committed rounds of the newest run."""
    if (run := begun(cell)) is not None:
        with suppress(OSError, ValueError):
            return int(os.readlink(run / "checkpoints" / "last").removeprefix("round-"))
    return 0


def check_same(cells: Sequence[Cell]) -> None:
    """Refuse to mix runs of one configuration with those of another.

    Raises:
        FedlitError: A cell has a run with other settings, which are named.
    """
    from fedlit import strict_yaml
    from fedlit.runs.fingerprint import differences

    for cell in cells:
        for run in versions(cell):
            with suppress(OSError):
                made = strict_yaml.load((run / "config.yaml").read_text())
                if wrong := differences(settings(made), settings(cell.config)):
                    raise FedlitError(
                        f"{run}: made with another configuration ({'; '.join(wrong)}): repeat the sweep with the "
                        "options it had, or give this one a --name of its own"
                    )


@contextmanager
def alone(folder: Path) -> Iterator[int]:
    """Lock a folder against a second sweep; cells inherit the lock, so that one left running is noticed.

    Yields:
        The file descriptor of the lock, which the cells must inherit.

    Raises:
        FedlitError: A sweep, or a cell that a sweep has left behind, runs there.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FedlitError(f"{folder}: this sweep is running already; wait for it, or give --name") from error
        except OSError as error:
            sys.stderr.write(f"fedlit: warning: {folder} cannot be locked ({error.strerror}): start no second sweep\n")
        yield descriptor
    finally:
        os.close(descriptor)


def run_all(
    cells: Sequence[Cell], jobs: int, lock: int, on_start: Callable[[Cell], None], on_wait: Callable[[], None]
) -> Iterator[Outcome]:
    """Run cells, a process each; none is left running, however the caller ends.

    Args:
        cells: The cells to run, in order.
        jobs: Cells at a time.
        lock: File descriptor, from :func:`alone`.
        on_start: Called with each cell before it starts.
        on_wait: Called several times a second.

    Yields:
        The outcome of each cell, in the order in which they end.
    """
    waiting = list(cells)
    running: dict[subprocess.Popen[bytes], tuple[Cell, float]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                cell = waiting.pop(0)
                on_start(cell)
                try:
                    running[_start(cell, lock, jobs)] = cell, time.monotonic()
                except OSError as error:
                    yield Outcome(cell, 0.0, f"could not be started ({error.strerror})")
            for process in [p for p in running if p.poll() is not None]:
                cell, began = running.pop(process)
                yield Outcome(cell, time.monotonic() - began, _complaint(cell, process.returncode))
            on_wait()
            if running:
                time.sleep(0.2)
    finally:
        _stop(list(running))


def log_file(cell: Cell) -> Path:
    """The file of what a cell prints, over all attempts."""
    return cell.folder / "log.txt"


def _start(cell: Cell, lock: int, jobs: int) -> subprocess.Popen[bytes]:
    import torch
    import yaml

    with writing(cell.folder):
        cell.folder.mkdir(parents=True, exist_ok=True)
        path = cell.folder / "cell.yaml"
        path.write_text(yaml.dump(cell.config, Dumper=_dumper(), sort_keys=False, allow_unicode=True))
    command = [sys.executable, "-m", "fedlit.cli", "fit", "--config", str(path)]
    if (run := begun(cell)) is not None:
        command += ["--ckpt_path", str(run)]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(PRIVATE)}
    if usual_ranks(cell.config["trainer"]) > 1:  # a cell by itself would take all threads
        environment["OMP_NUM_THREADS"] = str(max(1, torch.get_num_threads() // jobs))
    with open(log_file(cell), "ab") as log:
        log.write(f"\n== {time.strftime('%Y-%m-%d %H:%M:%S')} {' '.join(command)}\n".encode())
        log.flush()
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment,
            start_new_session=True, pass_fds=(lock,),
        )  # fmt: skip


def _dumper() -> type[Any]:
    """A YAML dumper that quotes texts which the strict reader would take for a number."""
    import yaml

    from fedlit.strict_yaml import StrictLoader

    class Dumper(yaml.SafeDumper):  # type: ignore[misc] # PyYAML has no types
        yaml_implicit_resolvers = StrictLoader.yaml_implicit_resolvers

    return Dumper


def _complaint(cell: Cell, code: int) -> str | None:
    if code == 0:
        return None if finished(cell) else "ended without a whole summary.json"
    if code < 0:
        name = signal.Signals(-code).name
        return f"killed by {name}" + (": out of memory?" if name == "SIGKILL" else "")
    lines = [line.strip() for line in _tail(log_file(cell)).splitlines() if line.strip()]
    ours = [line for line in lines if line.startswith("fedlit: error: ")]
    return (ours or lines or [f"exit code {code}"])[-1].removeprefix("fedlit: error: ")


def _tail(path: Path, size: int = 20_000) -> str:
    with open(path, "rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - size))
        return file.read().decode(errors="replace")


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """End processes and their children."""
    for process in processes:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
    until = time.monotonic() + GRACE
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.1, until - time.monotonic()))
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end a sweep as Ctrl-C does, and its cells with it."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    # nohup has SIGHUP ignored
    chosen = [s for s in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(s) is not signal.SIG_IGN]
    main = threading.current_thread() is threading.main_thread()
    before = {s: signal.signal(s, interrupt) for s in chosen} if main else {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
