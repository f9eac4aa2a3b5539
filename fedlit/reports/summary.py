"""``summary.json``: the final figures of a run, and all that is needed to judge them."""

from __future__ import annotations

import json
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from fedlit.federation.loop import FederatedLoop
from fedlit.reports.communication import communication
from fedlit.reports.labels import labels
from fedlit.runs.fingerprint import describe
from fedlit.runs.folder import RunFolder
from fedlit.runs.versions import versions
from fedlit.transports import ledger

PACKAGES = ("fedlit", "torch", "lightning", "peft", "transformers", "chronos-forecasting", "numpy")


class Stopwatch:
    """Seconds since it was made, or since the last lap."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def lap(self) -> float:
        """Seconds of the lap that ends now."""
        now = time.monotonic()
        self._last, spent = now, now - self._last
        return spent


def summarised_rounds(folder: RunFolder) -> int | None:
    """Rounds that the folder's summary is of, or None without one; a second one of them would have no true times."""
    path = folder.path / "summary.json"
    return json.loads(path.read_text())["rounds"] if path.exists() else None


def write_summary(
    loop: FederatedLoop, test: dict[str, Any], watch: Stopwatch, naive: dict[str, Any], external: dict[str, Any]
) -> None:
    """Write the file of a rule that has ended.

    ``seconds`` and peak memory are this process's, which began after ``seconds_from_round`` rounds; the peak is that of
    everything it did so far, rules before this one included.

    Args:
        loop: After its last round.
        test: Final scores, see :func:`fedlit.federation.scores.nested`.
        watch: Started when the rule was.
        naive: Scores of what needs no network, likewise; empty: nothing is said of any.
        external: Scores on external sites, likewise.
    """
    session, folder = loop.session, loop.folder
    settings, task, fabric = session.settings, session.task, session.fabric
    rows, crossed, device = folder.metrics.read(), folder.ledger.read(), fabric.device
    summary = {
        "aggregator": describe(loop.rule),
        "compression": describe(settings.compression),
        "rounds": loop.rounds_done,
        "seed": settings.seed,
        "test": test,
        **({"naive": naive} if naive else {}),
        **({"external": external} if external else {}),
        "labels": labels(session),
        **({"note": note} if (note := getattr(session.metrics("test"), "note", "")) else {}),
        "simulated_data": session.roster.simulated,
        "model": session.about_task() or {"class": type(task).__name__},
        "frozen_sha256": session.roster.frozen,
        "clients": len(session.roster.clients),
        "refused_replies": sum(row["metric"] == "refused" for row in rows),
        "missing_replies": sum(row["metric"] == "missing" for row in rows),
        "bytes": ledger.totals(crossed),
        "communication": communication(crossed, task),
        "seconds": round(watch.lap(), 3),
        "seconds_from_round": loop.first_round,
        "peak_memory_bytes": peak_memory(device),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu",
        "precision": settings.precision,
        "world_size": fabric.world_size,
        "num_threads": settings.num_threads,
        "clients_at_once": settings.clients_at_once,
        "compile": settings.compile,
        "versions": versions(PACKAGES),
        "git_revision": _revision(),
    }
    folder.write_json("summary.json", summary)


def peak_memory(device: torch.device) -> dict[str, int]:
    """Peak resident bytes of this process and, on a GPU, peak bytes allocated there."""
    unit = 1 if sys.platform == "darwin" else 1024
    out = {"host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    if device.type == "cuda":
        out["device"] = torch.cuda.max_memory_allocated(device)
    return out


def _revision() -> str | None:
    """The commit of the checkout that the package is imported from; None for an installed wheel."""
    package = Path(__file__).resolve().parent.parent
    if not (package.parent / ".git").exists():
        return None
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=package, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None
