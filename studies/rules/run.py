"""A controlled study of all rules on simulated problems where theory says who wins.

Run: python -m studies.rules.run [--problems NAME ...] [--rules NAME ...] [--seeds 5] [--paired-seeds 10] [--workers 2]

Ten clients fine-tune a small pretrained network (``problems.py``); under every rule a client takes the same number of
local steps on the same data. What each rule was made for, and with which hyperparameters it runs, is in ``table.py``;
whom it must beat there, in ``references.py``. ``--seeds`` are of all rules on all problems, ``--paired-seeds`` of these
comparisons. Finished runs are kept in ``--json`` and not run again unless data or settings changed; after a change in a
rule's code, its defaults among it, say ``--again``. The table goes to the screen, and to ``docs/results/rules.md`` with
a plot if all was asked for. ``--tune`` tries the grids of ``table.py`` on validation data of other seeds, and writes no
table.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import math
import multiprocessing
import os
import tempfile
import time
import warnings
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import torch

from fedlit.aggregators import Aggregator
from fedlit.trainer import FederatedTrainer
from studies.rules.adapted import Adapted, pretrained
from studies.rules.problems import LOCAL_STEPS, LR, PROBLEMS, ROUNDS, MixtureData
from studies.rules.references import ENTRIES
from studies.rules.report import print_table, write_report
from studies.rules.scores import gather, judge, scored_on
from studies.rules.table import RULES, Entry
from studies.rules.verdicts import PLANNED, Verdict, judged, paired_runs

JSON = Path(__file__).parents[2] / "docs" / "results" / "rules.json"
TUNING_SEEDS = (100, 101, 102)
"""Never among those that are reported."""


class Job(NamedTuple):
    """One run: a rule on a problem's data with a seed."""

    label: str
    problem: str
    seed: int
    changes: tuple[tuple[str, Any], ...] = ()
    rounds: int = ROUNDS

    @property
    def key(self) -> str:
        """Of the run among all."""
        return " | ".join([self.label, self.problem, str(self.seed), *(f"{k}={v}" for k, v in self.changes)])

    @property
    def entry(self) -> Entry:
        return ENTRIES[self.label]

    def rule(self) -> Aggregator:
        return self.entry.make(**dict(self.changes))


def work(entry: Entry, problem: str, n: int = ROUNDS) -> dict[str, Any]:
    """The trainer's rounds and local steps; their product is the same for each client under all schedules."""
    clients, epochs = len(PROBLEMS[problem].clients(0)), PROBLEMS[problem].local_epochs
    if entry.schedule == "short rounds":
        return {"max_rounds": n * LOCAL_STEPS // 2, "local_steps": 2}
    rounds, times = {"rounds": (n, 1), "ring": (n * clients, 1), "one shot": (1, n)}[entry.schedule]
    each: dict[str, Any] = {"local_steps": LOCAL_STEPS * times} if epochs is None else {"local_epochs": epochs * times}
    return {"max_rounds": rounds, **each}


def made_of(job: Job) -> str:
    """A digest of what a run's result depends on, but for the code: a new field of a rule does not change it."""
    data = MixtureData(job.problem, job.seed)
    data.setup()
    rule = (job.entry.rule, sorted({**job.entry.settings, **dict(job.changes)}.items()), job.entry.rank)
    digest = blake2b(repr((rule, work(job.entry, job.problem, job.rounds), LR)).encode(), digest_size=4)
    tensors = [t for _, part in sorted(data.parts.items()) for t in part.tensors]
    for t in [*tensors, *data.server.tensors, *pretrained().values()]:
        digest.update(t.numpy().tobytes())
    return digest.hexdigest()


def run(job: Job) -> tuple[Job, dict[str, Any]]:
    """Train and score one run: each client's scores, by the model that it serves."""
    torch.set_num_threads(1)
    settings = work(job.entry, job.problem, job.rounds)
    cell: dict[str, Any] = {"made_of": made_of(job)}
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None  # run folders are many, and thrown away
    with tempfile.TemporaryDirectory(dir=memory) as root, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = FederatedTrainer(
            job.rule(), **settings, check_val_every_n_rounds=settings["max_rounds"], evaluate_at=["after_aggregation"],
            default_root_dir=root, accelerator="cpu", enable_progress_bar=False, num_threads=1, seed=job.seed,
        )  # fmt: skip
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                data = MixtureData(job.problem, job.seed)
                folder = trainer.fit(Adapted(seed=job.seed, rank=job.entry.rank), data)
            rows = folder.metrics.read()
        except Exception as error:  # one that fails is a finding, shown in the table, and must not end the study
            return job, {**cell, "error": f"{type(error).__name__}: {error}"}
    values: dict[str, list[float]] = {}
    for row in rows:
        kept = "val" if job.changes else "test"  # tuning sees validation data only, the study test data only
        if row["model"] == "personal" and row["client"] in data.clients and row["split"] == kept:
            values.setdefault(row["metric"], []).append(round(float(row["value"]), 3))
    cell["refused"] = sum(row["metric"] == "refused" for row in rows)
    cell["scores"] = [judge(values[PROBLEMS[problem].metric], problem) for problem in scored_on(job.problem)]
    return job, cell


def run_all(jobs: Sequence[Job], cells: dict[str, Any], path: Path, workers: int, again: bool) -> None:
    """Run what is not in ``cells`` yet, and keep the file up to date."""
    jobs = list(dict.fromkeys(jobs))
    fresh = [j for j in jobs if again or "error" in cells.get(j.key, {"error": ""}) or stale(j, cells[j.key])]
    print(f"{len(jobs)} runs, {len(jobs) - len(fresh)} of them done before")
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        written = began = time.monotonic()
        for count, (job, cell) in enumerate(pool.imap_unordered(run, fresh), 1):
            cells[job.key] = cell
            if "error" in cell:
                print(f"failed: {job.key}: {cell['error']}", flush=True)
            if (now := time.monotonic()) > written + 10 or count == len(fresh):
                written = now
                write(cells, path)
                print(f"{count} of {len(fresh)} runs, {now - began:.0f} s", flush=True)


def stale(job: Job, cell: dict[str, Any]) -> bool:
    """Whether data or settings changed since."""
    return bool(cell["made_of"] != made_of(job))


def load(path: Path) -> dict[str, Any]:
    """Runs by key: ``made_of`` with ``refused`` and ``scores``, or with ``error``; none where there is no file."""
    if not path.exists():
        return {}
    cells = {}
    for label, problems in json.loads(path.read_text())["runs"].items():
        for problem, runs in problems.items():
            for rest, (made_of, refused, *found) in runs.items():
                told = {"error": found[0]} if refused is None else {"refused": refused, "scores": found}
                cells[f"{label} | {problem} | {rest}"] = {"made_of": made_of, **told}
    return cells


def write(cells: dict[str, Any], path: Path, verdicts: Sequence[Verdict] = ()) -> None:
    """All at once, so that a kill leaves the file whole; a rule's runs on a problem are a line, and so is a verdict."""
    rows: dict[str, dict[str, dict[str, Any]]] = {}
    for key in sorted(cells):
        (label, problem, rest), cell = key.split(" | ", 2), cells[key]
        found = [None, cell["error"]] if "error" in cell else [cell["refused"], *cell["scores"]]
        rows.setdefault(label, {}).setdefault(problem, {})[rest] = [cell["made_of"], *found]
    rules = []
    for label, problems in rows.items():
        lines = ",\n".join(
            f"{json.dumps(p)}: {json.dumps(runs, separators=(',', ':'))}" for p, runs in problems.items()
        )
        rules.append(f"{json.dumps(label)}: {{\n{lines}\n}}")
    told = ",\n".join(json.dumps(v._asdict(), separators=(",", ":")) for v in verdicts)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text('{"verdicts": [\n' + told + '\n],\n"runs": {\n' + ",\n".join(rules) + "\n}}\n")
    part.replace(path)


def tuning_jobs(labels: Iterable[str]) -> list[Job]:
    """Every combination of a rule's grid, on the problem that it was made for."""
    out = []
    for label in labels:
        grid, problem = RULES[label].grid, RULES[label].made_for
        if grid and problem is not None:
            data = PROBLEMS[problem].runs_of or problem
            for values in itertools.product(*grid.values()):
                changes = tuple(zip(grid, values, strict=True))
                out += [Job(label, data, seed, changes) for seed in TUNING_SEEDS]
    return out


def print_tuning(jobs: Sequence[Job], cells: dict[str, Any]) -> None:
    """The mean validation score of each combination; the best first."""
    for label, group in itertools.groupby(jobs, lambda j: j.label):
        problem = RULES[label].made_for or ""
        tried: dict[tuple[Any, ...], list[float]] = {}
        for job in group:
            score = gather(cells[job.key], problem)
            tried.setdefault(job.changes, []).append(-math.inf if score is None else score.mean)
        ranked = sorted(tried, key=lambda c: -sum(tried[c]))
        shown = ", ".join(f"{dict(c)}: {sum(tried[c]) / len(tried[c]):.1f}" for c in ranked)
        now = {k: getattr(RULES[label].make(), k) for k in RULES[label].grid}
        print(f"{label} on {problem}: {shown}" + ("" if now == dict(ranked[0]) else f"   (table has {now})"))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="+", choices=list(PROBLEMS), default=list(PROBLEMS), metavar="NAME")
    parser.add_argument("--rules", nargs="+", choices=list(RULES), default=list(RULES), metavar="NAME")
    parser.add_argument("--seeds", type=int, default=5, help="how many, of all rules on all problems")
    parser.add_argument("--paired-seeds", type=int, default=PLANNED, help="how many, of each rule and its references")
    parser.add_argument("--json", type=Path, help=f"where runs are kept (default: {JSON.name} beside the report)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="to see who is slow; give a --json of its own")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--again", action="store_true", help="run all that is asked for, done before or not")
    parser.add_argument("--tune", action="store_true", help="try the grids on validation data of other seeds")
    parser.add_argument("--report", type=Path, default=JSON.with_suffix(".md"), help="the report, with all rules")
    args = parser.parse_args()
    path: Path = args.json or (Path(tempfile.gettempdir()) / "rules_tuning.json" if args.tune else JSON)
    cells = load(path)
    if args.tune:
        jobs = tuning_jobs(args.rules)
        run_all(jobs, cells, path, args.workers, args.again)
        print_tuning(jobs, cells)
        return
    for label in args.rules:
        RULES[label].make()  # a rule that cannot be built is told of at once
    seeds, paired = range(args.seeds), range(args.paired_seeds)
    pairs = [(x, p) for x, p in paired_runs(args.rules) if p in {PROBLEMS[q].runs_of or q for q in args.problems}]
    data = dict.fromkeys(PROBLEMS[p].runs_of or p for p in args.problems)
    jobs = [Job(label, p, seed, (), args.rounds) for seed in paired for label, p in pairs]
    jobs += [Job(label, p, seed, (), args.rounds) for seed in seeds for p in data for label in args.rules]
    run_all(jobs, cells, path, args.workers, args.again)
    found = judged(cells, paired)
    print_table(cells, args.rules, args.problems, seeds, found)
    if set(args.rules) == set(RULES) and set(args.problems) == set(PROBLEMS) and args.rounds == ROUNDS:
        write(cells, path, found)
        write_report(cells, seeds, paired, found, args.report)


if __name__ == "__main__":
    main()
