"""The folder a run leaves behind: a contract that tests and users read."""

from __future__ import annotations

import csv
import json
import math
import os
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fedlit.runs.checkpoint import Checkpoints
from fedlit.errors import FedlitError, writing

METRICS = ("round", "stage", "model", "client", "split", "metric", "value", "num_examples")
LEDGER = ("round", "client", "direction", "parameters", "bytes", "dtype")
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
        with writing(self.path), open(self.path, "a", newline="") as file:
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

    def read(self) -> list[dict[str, str]]:
        """All rows, as written."""
        if not self.path.exists():
            return []
        with open(self.path, newline="") as file:
            return list(csv.DictReader(file))


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
