"""How long the command takes to start: ``fedlit --help``, and ``fedlit fit`` up to its first optimizer step.

Run: python benchmarks/startup.py [--json FILE] [--repeats 10]

Every figure is of a process of its own, from its launch to its end, with compiled modules and files in the system's
cache; the kinds of process take turns. The fit is that of configs/ecg_fedprox.yaml without its baselines, on
simulated ECG and the built-in backbone; it ends at its first step, after the evaluation of the untrained model. What
it may take is given in seconds beyond the imports of torch, transformers and chronos, which are timed beside it.
Processor seconds are those of the process and leave out waiting for other work of the machine. Ratios are medians
over the turns, with the 10th and 90th percentile. Where imports take their time is measured by ``-X importtime``,
in processes of their own, for that itself takes time.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from workload import header, report

CONFIG = Path(__file__).parent.parent / "configs" / "ecg_fedprox.yaml"
HELP_LIMIT, FIT_LIMIT = 1.5, 2.0
"""Seconds: of the help; of a fit up to its first step, beyond the imports."""
FIRST_STEP = """
import os, sys
from fedlit import cli

def stop(*_):
    sys.stderr.flush()
    os._exit(0)

def parsed(*given, parsed=cli.parsed):
    command = parsed(*given)
    from torch.optim.optimizer import register_optimizer_step_post_hook
    register_optimizer_step_post_hook(stop)
    return command

cli.parsed = parsed
cli.main()
sys.exit("no optimizer step was taken")
"""
"""Runs the command and leaves at the first step of an optimizer; nothing is imported sooner for it."""
IMPORTS = "import os, sys, torch, transformers, chronos; sys.stderr.flush(); os._exit(0)"


def commands(folder: str) -> dict[str, list[str]]:
    """What is timed, as arguments of the interpreter; runs go to ``folder``."""
    settings = {"max_rounds": 1, "local_steps": 1, "baselines": "[]", "default_root_dir": folder}
    arguments = [f"--trainer.{name}={value}" for name, value in settings.items()]
    return {
        "nothing": ["-c", "pass"],
        "help": ["-m", "fedlit.cli", "--help"],
        "imports": ["-c", IMPORTS],
        "first step": ["-c", FIRST_STEP, "fit", f"--config={CONFIG}", *arguments],
    }


def timed(arguments: Sequence[str]) -> tuple[float, float]:
    """Seconds by the clock and of the processor that one process takes."""
    began = time.perf_counter()
    with subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        said = process.stderr.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - began
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)}\n{said.decode()}")
    return seconds, used.ru_utime + used.ru_stime


def row(case: str, setting: str, baseline: str, values: Any, divisor: Any) -> dict[str, Any]:
    """One row: seconds of the repeats, and their ratio to those of the baseline (or to one limit)."""
    ratios = np.asarray(values) / np.asarray(divisor)
    return {
        "case": case,
        "setting": setting,
        "baseline": baseline,
        "ratio": float(np.median(ratios)),
        "ratio_low": float(np.quantile(ratios, 0.1)),
        "ratio_high": float(np.quantile(ratios, 0.9)),
        "seconds": float(np.median(values)),
        "seconds_low": float(np.quantile(values, 0.1)),
        "seconds_high": float(np.quantile(values, 0.9)),
    }


def times(repeats: int) -> list[dict[str, Any]]:
    """Rows of the help and of the fit, by the clock and of the processor."""
    with tempfile.TemporaryDirectory() as folder:
        kinds = commands(folder)
        taken: dict[str, list[tuple[float, float]]] = {kind: [] for kind in kinds}
        for turn in range(repeats + 1):  # the first turn fills the caches
            for kind in kinds if turn % 2 else reversed(kinds):
                taken[kind].append(timed(kinds[kind]))
    rows = []
    for place, clock in enumerate(("seconds", "processor seconds")):
        nothing, helped, imports, fit = (np.array([pair[place] for pair in taken[kind][1:]]) for kind in kinds)
        turns = f"{repeats} turns"
        rows += [
            row(f"help, {clock}", f"fedlit --help, {turns}", f"limit of {HELP_LIMIT} s", helped, HELP_LIMIT),
            row(f"help, {clock}", f"fedlit --help, {turns}", "python -c pass", helped, nothing),
            row(
                f"fit to its first step, {clock} beyond the imports", f"{CONFIG.name}, {turns}",
                f"limit of {FIT_LIMIT} s", fit - imports, FIT_LIMIT,
            ),
            row(
                f"fit to its first step, {clock}", f"{CONFIG.name}, {turns}",
                "imports of torch, transformers and chronos", fit, imports,
            ),
        ]  # fmt: skip
    return rows


def import_seconds(arguments: Sequence[str]) -> dict[str, float]:
    """Each module that a process imports, and the seconds that are its own, without those of what it imports."""
    done = subprocess.run([sys.executable, "-X", "importtime", *arguments], capture_output=True, text=True, check=True)
    lines = re.findall(r"^import time:\s*(\d+) \|\s*\d+ \|\s*(\S+)$", done.stderr, re.MULTILINE)
    return {module: int(microseconds) / 1e6 for microseconds, module in lines}


def total(seconds: Mapping[str, float], package: str) -> float:
    """Seconds of a module, or of a package and all that is in it."""
    return sum(s for module, s in seconds.items() if module == package or module.startswith(f"{package}."))


def shares(repeats: int, most: int) -> list[dict[str, Any]]:
    """Rows of the packages that a fit imports beyond torch, transformers and chronos, and of fedlit's own modules."""
    with tempfile.TemporaryDirectory() as folder:
        kinds = commands(folder)
        ours = [import_seconds(kinds["first step"]) for _ in range(repeats)]
        bare = set(import_seconds(kinds["imports"]))
    everything = [sum(one.values()) for one in ours]
    setting = f"{CONFIG.name} to its first step, {repeats} processes under -X importtime"
    names = {"packages beyond the imports": {module.split(".")[0] for module in ours[0] if module not in bare}}
    names["modules of fedlit"] = {module for module in ours[0] if module.startswith("fedlit.")}
    rows = []
    for case, modules in names.items():
        found = []
        for module in modules:
            if case.startswith("packages"):
                values = [total({m: s for m, s in one.items() if m not in bare}, module) for one in ours]
            else:
                values = [one[module] for one in ours]
            found.append(row(f"{case}: {module}", setting, "seconds of all imports", values, everything))
        rows += sorted(found, key=lambda one: -one["seconds"])[:most]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", help="file to write the rows to")
    parser.add_argument("--repeats", type=int, default=10, help="timed processes of each kind (10)")
    parser.add_argument("--modules", type=int, default=10, help="how many modules and packages to list (10)")
    args = parser.parse_args()
    timings, imported = times(args.repeats), shares(max(1, args.repeats // 3), args.modules)
    report(timings, None)
    for one in timings:
        if one["baseline"].startswith("limit"):
            said = f"{one['seconds']:.2f} s ({one['seconds_low']:.2f} to {one['seconds_high']:.2f})"
            print(f"{one['case']}: {said}, {'within' if one['ratio'] <= 1 else 'ABOVE'} the {one['baseline']}")
    print(f"imports of {imported[0]['setting']}:")
    for one in imported:
        print(f"  {one['seconds']:.3f} s, {one['ratio']:.1%} of all imports | {one['case']}")
    if args.json:
        packages = {name: version(name) for name in ("transformers", "chronos-forecasting", "peft", "jsonargparse")}
        about = {**header(), **packages, "data": "simulated ECG"}
        Path(args.json).write_text(json.dumps({"header": about, "rows": timings + imported}, indent=1) + "\n")


if __name__ == "__main__":
    main()
