"""The folder a run leaves behind: a contract that tests and users read."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
import statistics
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from fedlit.errors import FedlitError, writing
from fedlit.runs.checkpoint import Checkpoints

METRICS = ("round", "stage", "model", "client", "split", "metric", "value", "num_examples")
LEDGER = ("round", "client", "direction", "parameters", "bytes", "dtype")
STATES = ("round", "client", "name")
NAIVE = "naive.csv"
"""File of the scores of what needs no network, with the columns of ``metrics.csv``."""
SUMMARY_ROWS = ("mean", "weighted_mean", "worst", "std")


class Table:
    """A csv file that grows by whole rounds and can be cut back to a committed one.

    Args:
        path: The file.
        columns: Its header.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path, self.columns = path, tuple(columns)

    def append(self, rows: Iterable[Sequence[Any]]) -> None:
        """Write rows at the end; floats keep all their digits.

        Raises:
            FedlitError: The disk is full or the file cannot be written.
        """
        new = not self.size()
        with writing(self.path), open(self.path, "a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            if new:
                writer.writerow(self.columns)
            writer.writerows([repr(x) if isinstance(x, float) else x for x in row] for row in rows)
            file.flush()
            os.fsync(file.fileno())

    def size(self) -> int:
        """Bytes in the file."""
        return self.path.stat().st_size if self.path.exists() else 0

    def cut(self, size: int) -> None:
        """Drop what came after the first ``size`` bytes."""
        if self.size() > size:
            os.truncate(self.path, size)

    def read(self, size: int | None = None) -> list[dict[str, str]]:
        """All rows, as written, or those in the first ``size`` bytes."""
        if not self.path.exists():
            return []
        text = self.path.read_bytes()[:size].decode()
        return list(csv.DictReader(io.StringIO(text, newline="")))


class StateNames:
    """Which state of each client counts: as of the last committed round, of the best one, and of the one under way.

    States lie with their clients; here are their names, see :class:`fedlit.engine.client_state.ClientStates`. The table
    grows by the names that a round changed, so that a commit takes no longer where there are more clients.

    Args:
        table: Its rows count as far as the last committed round says.
    """

    def __init__(self, table: Table) -> None:
        self.table = table
        self.names: dict[str, str] = {}
        self.best: dict[str, str] = {}
        self._changed: dict[str, str] = {}
        self._digest = ""

    def restore(self, meta: Mapping[str, Any], best: Mapping[str, Any] | None = None) -> None:
        """Take the names of a committed round, and of the best one.

        Raises:
            FedlitError: The table is not what the round says.
        """
        self.names, self._changed = self._up_to(meta), {}
        self._digest = meta.get("states_sha256", "")
        self.best = {} if best is None else self._up_to(best)

    def _up_to(self, meta: Mapping[str, Any]) -> dict[str, str]:
        rows, found = self.table.read(meta.get("states_bytes", 0)), ""
        for done, some in groupby(rows, key=lambda row: row["round"]):
            found = _chained(found, [(int(done), row["client"], row["name"]) for row in some])
        if found != meta.get("states_sha256", ""):
            raise FedlitError(
                f"{self.table.path}: shorter than the committed round says, or altered: bring it back from a copy of "
                "the folder"
            )
        return {row["client"]: row["name"] for row in rows}

    def take(self, client: str, name: str) -> None:
        """The state that goes with a reply that was admitted."""
        self.names[client] = self._changed[client] = name

    def others(self, client: str) -> tuple[str, ...]:
        """States of a client that it must keep beside the one that it makes next."""
        return tuple(sorted({self.names.get(client, ""), self.best.get(client, "")} - {""}))

    def commit(self, done: int, best: bool, write: bool = True) -> dict[str, Any]:
        """Write what the round changed, where this rank ``write``s; what its ``meta.json`` says of it."""
        rows = [(done, client, name) for client, name in sorted(self._changed.items())]
        if rows:
            if write:
                self.table.append(rows)
            self._digest = _chained(self._digest, rows)
        self._changed = {}
        if best:
            self.best = dict(self.names)
        return {"states_bytes": self.table.size(), "states_sha256": self._digest}


def _chained(digest: str, rows: Sequence[tuple[int, str, str]]) -> str:
    """Digest of the rows of a round and, by their digest, of all before them."""
    return hashlib.sha256(f"{digest}{list(rows)}".encode()).hexdigest()


class RunFolder:
    """``<default_root_dir>/<name>/version_N``.

    Args:
        path: The folder; made if it is not there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metrics = Table(path / "metrics.csv", METRICS)
        self.ledger = Table(path / "ledger.csv", LEDGER)
        self.checkpoints = Checkpoints(path / "checkpoints")
        self.states = StateNames(Table(path / "checkpoints" / "states.csv", STATES))

    @property
    def client_states(self) -> Path:
        """Where clients that are simulated keep their states."""
        return self.path / "checkpoints" / "clients"

    def make(self) -> None:
        """Create the folder.

        Raises:
            FedlitError: It cannot be created.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FedlitError(f"{self.path}: the run folder could not be created ({error.strerror})") from error

    def write_json(self, name: str, content: Any) -> None:
        """Write a json file whole or not at all."""
        self.write_text(name, json.dumps(content, indent=1, default=str) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """Write a text file whole or not at all.

        Raises:
            FedlitError: The disk is full or the file cannot be written.
        """
        temporary = self.path / f".{name}"
        with writing(self.path / name):
            temporary.write_text(text)
            os.replace(temporary, self.path / name)


def next_version(root: Path, name: str) -> Path:
    """The path of a new run folder under ``root/name``."""
    return root / name / f"version_{1 + max(_versions(root / name), default=-1)}"


def last_version(root: Path, name: str) -> Path:
    """The newest run folder under ``root/name`` with a committed round.

    Raises:
        FedlitError: There is none.
    """
    for version in sorted(_versions(root / name), reverse=True):
        path = root / name / f"version_{version}"
        if Checkpoints(path / "checkpoints").exists():
            return path
    raise FedlitError(f"{root / name}: no run with a committed round to go on from; start one without --ckpt_path")


def _versions(folder: Path) -> list[int]:
    names = [p.name.removeprefix("version_") for p in folder.glob("version_*")]
    return [int(n) for n in names if n.isdigit()]


def summary_rows(values: Mapping[str, tuple[float, int]], higher_is_better: bool) -> dict[str, tuple[float, int]]:
    """Mean, mean weighted by examples, worst and population standard deviation over clients.

    Args:
        values: ``{client: (value, number of examples)}``; clients with a NaN value are left out.
        higher_is_better: Which end is the worst.

    Returns:
        ``{row name: (value, number of examples)}``; NaN where no client has a value, and for the deviation of
        infinite ones.
    """
    pairs = [(v, n) for v, n in values.values() if not math.isnan(v)]
    total = sum(n for _, n in pairs)
    if not pairs or not total:
        return {name: (math.nan, 0) for name in SUMMARY_ROWS}
    worst = (min if higher_is_better else max)(pairs)
    return {
        "mean": (statistics.fmean(v for v, _ in pairs), total),
        "weighted_mean": (sum(v * n for v, n in pairs) / total, total),
        "worst": worst,
        "std": (statistics.pstdev(v for v, _ in pairs) if all(math.isfinite(v) for v, _ in pairs) else math.nan, total),
    }
