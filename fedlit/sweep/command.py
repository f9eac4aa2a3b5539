"""Run a grid of settings and seeds, go on where it stopped, and write one table and plots.

Every cell is a run of ``fedlit fit``, with a process and a folder of its own. A cell that is finished is never run
again; one that was cut short goes on from its last round; one that fails is named, and the others go on.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fedlit.cli.arguments import Parser
from fedlit.cli.ranks import usual_ranks
from fedlit.errors import FedlitError
from fedlit.sweep.plan import Cell, Plan

if TYPE_CHECKING:
    from rich.console import Console
    from torchmetrics import Metric

    from fedlit.sweep.table import Result, State

HELP = """
One run for each combination of the values and each seed:

  fedlit sweep --config configs/ecg_fedavg.yaml --vary aggregator=FedAvg,FedProx,APFL,EPFL --seeds 3
  fedlit sweep --config configs/fhbench_med_abs.yaml --data.root FOLDER --seeds 3 \\
      --vary aggregator=FedAvg,EPFL --vary data.partition.alpha=0.1,1,10

Repeat the command after an interruption, or with more values or seeds: what is finished is not run again.

Values are written as in YAML and parted by commas; commas within brackets, braces or quotes part nothing:
  --vary aggregator='FedAvg,{class_path: FedProx, init_args: {mu: 0.1}}'   two rules, one with an argument
  --vary trainer.evaluate_at='[start],[start,after_local]'                 two lists
Keys are those of fedlit fit, and so is every other option, which holds for all cells: --trainer.max_rounds 20.

In <default_root_dir>/<name>: a folder for each cell (log.txt, cell.yaml, version_N as of fedlit fit), sweep.json,
sweep.csv (a row for each run), sweep.md (mean and spread over seeds) and, with matplotlib, sweep_*.png.
Baselines of the configuration are left out, since every cell would repeat them: vary aggregator over them instead.
"""


def main(args: Sequence[str]) -> None:
    """``fedlit sweep --config FILE --vary key=value,value ... [--seeds 3] [--jobs 1] [options of fedlit fit]``.

    Raises:
        FedlitError: An option is wrong, the folder has runs of another configuration, or cells failed.
    """
    parser = Parser(
        "sweep", (__doc__ or "").splitlines()[0], epilog=textwrap.dedent(HELP),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="fedlit sweep --config FILE --vary KEY=VALUE,VALUE ... [--seeds 3] [options of fedlit fit]",
    )  # fmt: skip
    parser.add_argument("--vary", action="append", default=[], metavar="KEY=VALUE,VALUE", help="may be given again")
    parser.add_argument("--seeds", default="1", metavar="N|S,S", help="how many (3: 0, 1, 2) or which: 5,7 (one: 5,)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="cells at a time (%(default)s)")
    parser.add_argument("--name", help="of the sweep's folder (that of the runs, with -sweep)")
    parser.add_argument("--metric", help="that plots show (the task's first)")
    given, options = parser.parse_known_args(list(args))
    if given.jobs < 1:
        raise FedlitError(f"--jobs is {given.jobs}: give at least 1")
    for option in options:
        key = option.partition("=")[0].removeprefix("--")
        if key in ("ckpt_path", "seed_everything"):
            from fedlit.sweep.grid import FIXED

            raise FedlitError(f"sweep: --{key}: {FIXED[key]}")
    sweep(given.vary, given.seeds, options, given.name, given.jobs, given.metric)


def sweep(
    vary: Sequence[str],
    seeds: str,
    options: Sequence[str],
    name: str | None = None,
    jobs: int = 1,
    metric: str | None = None,
) -> Path:
    """Run the cells that are not finished, and report on all of them.

    Args:
        vary: Texts ``key=value,value``, as ``--vary`` takes them.
        seeds: How many or which, as ``--seeds`` takes them.
        options: Options of ``fedlit fit`` for all cells.
        name: Of the sweep's folder; None: that of the runs, with ``-sweep``.
        jobs: Cells at a time.
        metric: That plots show; None: the task's first.

    Returns:
        The sweep's folder.

    Raises:
        FedlitError: As :func:`main`.
    """
    from rich.console import Console

    from fedlit.cli.app import with_packaged_configs
    from fedlit.sweep.cells import alone, check_same, ended_by_signals, finished
    from fedlit.sweep.grid import seeds as which
    from fedlit.sweep.grid import varied
    from fedlit.sweep.plan import plan
    from fedlit.sweep.table import metrics_of

    console = Console()
    planned = plan(varied(vary), which(seeds), with_packaged_configs(options), name)
    check_same(planned.cells)
    todo = [cell for cell in planned.cells if finished(cell) is None]
    known = metrics_of(results(planned.cells, {}), getattr(planned.metrics, "headline", ()))
    if metric is not None and known:
        _check_metric(metric, known)
    errors: dict[str, str] = {}
    _announce(planned, len(todo), jobs, console)
    with alone(planned.folder) as lock, ended_by_signals():
        _write_plan(planned, vary, seeds, options)
        try:
            _run(planned, todo, jobs, lock, errors, metric, console)
        except KeyboardInterrupt:
            _report(planned, errors, metric, console, brief=True)
            done = sum(finished(cell) is not None for cell in planned.cells)
            say(console, f"stopped: {done} of {len(planned.cells)} cells are finished; the same command goes on")
            raise SystemExit(130) from None
        _report(planned, errors, metric, console)
    say(console, f"sweep folder: {planned.folder}")
    if errors:
        first, *more = errors.values()
        others = f"; {len(more)} more in {planned.folder / 'sweep.md'}" if more else ""
        raise FedlitError(
            f"{len(errors)} of {len(planned.cells)} cells failed: {first}{others}. The same command tries them again"
        )
    return planned.folder


def say(console: Console, text: str) -> None:
    """Print a line without highlighting, wrapping or markup."""
    console.print(text, highlight=False, soft_wrap=True, markup=False)


def results(cells: Sequence[Cell], errors: dict[str, str]) -> list[Result]:
    """The result of each cell.

    Args:
        cells: In the order of the results.
        errors: Messages of cells that failed in this call, by their folder.
    """
    from fedlit.sweep.cells import finished, summary
    from fedlit.sweep.table import Result

    out = []
    for cell in cells:
        run, error = finished(cell), errors.get(str(cell.folder), "")
        state: State = "finished" if run else "failed" if error else "not run"
        out.append(Result(cell.values, cell.seed, state, run, summary(run) if run else None, error))
    return out


def headline(metrics: Metric, metric: str | None, found: Sequence[str]) -> list[str]:
    """Metrics to show, the primary one first.

    Args:
        metrics: The task's, which may name those to show in ``headline``.
        metric: The one that the user wants first.
        found: Names of all metrics, shown where the task names none.
    """
    names = list(getattr(metrics, "headline", ())) or list(found)
    return [metric, *(name for name in names if name != metric)] if metric else names


def _announce(planned: Plan, todo: int, jobs: int, console: Console) -> None:
    done = len(planned.cells) - todo
    say(console, f"{len(planned.cells)} cells, {done} finished before; sweep folder: {planned.folder}")
    if planned.dropped:
        names = ",".join(dict.fromkeys(planned.dropped))
        say(
            console,
            f"baselines are left out, since cells would repeat them: --vary aggregator={names} runs each once",
        )
    trainers = [cell.config["trainer"] for cell in planned.cells]
    if jobs > 1 and any(each["num_threads"] is None and usual_ranks(each) == 1 for each in trainers):
        say(console, "each of the jobs takes all cores: --trainer.num_threads 1 is faster, and keeps results the same")


def _check_metric(metric: str, found: Sequence[str]) -> None:
    if metric not in found:
        raise FedlitError(f"--metric {metric}: there is none; there are {', '.join(found)}")


def _write_plan(planned: Plan, vary: Sequence[str], seeds: str, options: Sequence[str]) -> None:
    from fedlit.runs.folder import RunFolder

    content = {
        "vary": list(vary),
        "seeds": seeds,
        "options": list(options),
        "cells": [
            {"folder": cell.folder.name, "values": cell.values, "seed": cell.seed, "settings_sha256": cell.sha256}
            for cell in planned.cells
        ],
    }
    RunFolder(planned.folder).write_json("sweep.json", content)


def _run(
    planned: Plan,
    todo: Sequence[Cell],
    jobs: int,
    lock: int,
    errors: dict[str, str],
    metric: str | None,
    console: Console,
) -> None:
    from fedlit.sweep.cells import log_file, run_all
    from fedlit.sweep.progress import SweepProgress
    from fedlit.sweep.table import metrics_of

    with SweepProgress(len(planned.cells), len(planned.cells) - len(todo), jobs, console) as progress:
        for outcome in run_all(todo, jobs, lock, progress.start, progress.wait):
            figures = "finished"
            if outcome.error is not None:
                cell = outcome.cell
                errors[str(cell.folder)] = f"{cell.title}: {outcome.error} (log: {log_file(cell)})"
            else:
                (result,) = results([outcome.cell], errors)
                found = metrics_of([result], headline(planned.metrics, None, []))
                if metric is not None and found:
                    _check_metric(metric, found)  # its names are not known before, and the others may take days
                first = next(iter(found), None)
                if first:
                    mean, worst = result.figure(first), result.figure(first, "worst")
                    figures = f"{first} {mean:.4f} (mean), {worst:.4f} (worst client)"
            progress.end(outcome, figures)


def _report(planned: Plan, errors: dict[str, str], metric: str | None, console: Console, brief: bool = False) -> None:
    from fedlit.federation.scores import higher_is_better
    from fedlit.sweep import plots as sweep_plots
    from fedlit.sweep import table as sweep_table

    found = results(planned.cells, errors)
    metrics = sweep_table.metrics_of(found)
    names = headline(planned.metrics, metric, metrics)
    sweep_table.write(found, names, planned.folder, planned.folder.name)
    if brief or not metrics:
        return
    sweep_table.show(found, names, console)
    if metric is not None:
        _check_metric(metric, metrics)
    first = next(name for name in [*names, *metrics] if name in metrics)
    paths = sweep_plots.draw(found, first, higher_is_better(planned.metrics, first), planned.folder)
    if paths is None:
        say(console, "no plots without matplotlib: pip install matplotlib, and repeat the command")
    else:
        say(console, f"plots: {', '.join(path.name for path in paths)}")
