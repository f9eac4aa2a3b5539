"""Virtual environments for ``benchmarks/peers.py``: one for each framework, with fedlit beside it to build the work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

SAME = ("torch", "numpy", "transformers", "peft", "chronos-forecasting", "lightning")
"""What every environment has in this one's version, so that all programs compute with the same code."""


class Unavailable(Exception):
    """A framework cannot be installed or run here; the message says why."""


def default_folder() -> Path:
    """Where environments are kept if nobody says."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fedlit" / "peers"


def environment(requirement: str, folder: Path, index: str | None = None, limit: float = 1800.0) -> Path:
    """The Python of an environment with ``requirement`` and this checkout, made if it is not there.

    Args:
        requirement: As for pip.
        folder: Of the environment.
        index: A further package index.
        limit: Seconds that the installation may take.

    Raises:
        Unavailable: With pip's reason.
    """
    checkout = Path(__file__).resolve().parent.parent
    pins = [f"{name}=={metadata.version(name)}" for name in SAME]
    wanted = {"requirement": requirement, "pins": pins, "checkout": str(checkout)}
    python, stamp, constraints = folder / "bin" / "python", folder / "ready.json", folder / "constraints.txt"
    if stamp.is_file() and json.loads(stamp.read_text()) == wanted:
        return python
    if not python.exists():
        _call([sys.executable, "-m", "venv", str(folder)], limit)
    constraints.write_text("\n".join(pins) + "\n")
    more = ["--extra-index-url", index] if index else []
    print(f"installing {requirement} into {folder}", flush=True)
    command = [str(python), "-m", "pip", "install", "-q", *more, "-c", str(constraints), "-e", str(checkout)]
    _call([*command, requirement], limit)
    stamp.write_text(json.dumps(wanted))
    return python


def versions(python: Path, names: Sequence[str]) -> dict[str, str]:
    """Versions of packages in an environment."""
    script = "import sys, importlib.metadata as m; print(*[m.version(name) for name in sys.argv[1:]])"
    done = subprocess.run([str(python), "-c", script, *names], capture_output=True, text=True, check=True)
    return dict(zip(names, done.stdout.split(), strict=True))


def _call(command: list[str], limit: float) -> None:
    what = " ".join(command[-1:])
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        raise Unavailable(f"installing {what} took more than {limit:.0f} s") from None
    if done.returncode:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR")] or lines[-3:]
        raise Unavailable(f"installing {what} failed: {' '.join(errors)[:600]}")
