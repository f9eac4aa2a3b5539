"""A framework that is measured: how its script is run, and what was found."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Program:
    """A framework, how it is run, and what was measured of it."""

    name: str
    script: str
    requirement: str | None = None
    packages: tuple[str, ...] = ()
    python: Path = Path(sys.executable)
    launcher: Callable[[int], list[str]] = lambda processes: []
    variants: tuple[int, ...] = (1,)
    """Numbers of processes that are tried."""
    skipped: str | None = None
    """Why it is not measured."""
    tried: dict[int, dict[int, dict[str, float]]] = field(default_factory=dict)
    """For each batch size and number of processes, what its trial gave."""
    chosen: dict[int, int] = field(default_factory=dict)
    """For each batch size, the number of processes that was the faster."""
    seconds: dict[int, list[float]] = field(default_factory=dict)
    startup: dict[int, list[float]] = field(default_factory=dict)
    peak: dict[int, float] = field(default_factory=dict)


def torchrun(processes: int) -> list[str]:
    """What goes before the script for several processes."""
    if processes == 1:
        return []
    return ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
