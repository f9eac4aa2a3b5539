"""Scores of the runs, and their differences seed by seed."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from studies.rules.problems import PROBLEMS


class Score(NamedTuple):
    """Of one run, in per cent of test records: the mean over the clients that are judged, and the worst of them."""

    mean: float
    worst: float


def judge(values: Sequence[float], problem: str) -> Score:
    """The score of a run on a problem, from each client's value of the problem's metric."""
    judged = [values[i] for i in (PROBLEMS[problem].judged or range(len(values)))]
    return Score(round(statistics.fmean(judged), 4), min(judged))


def scored_on(data: str) -> list[str]:
    """The problems that score runs on one problem's data."""
    return [name for name, problem in PROBLEMS.items() if (problem.runs_of or name) == data]


def gather(cell: dict[str, Any] | None, problem: str) -> Score | None:
    """The score of a run, or None where there is none."""
    if cell is None or "error" in cell:
        return None
    return Score(*cell["scores"][scored_on(PROBLEMS[problem].runs_of or problem).index(problem)])


def key(label: str, problem: str, seed: int) -> str:
    """Of a run in the file."""
    return f"{label} | {PROBLEMS[problem].runs_of or problem} | {seed}"


def scores(cells: dict[str, Any], label: str, problem: str, seeds: Iterable[int]) -> list[Score | None]:
    """One for each seed that was run; None for a run that failed."""
    keys = [key(label, problem, seed) for seed in seeds]
    return [gather(cells[k], problem) for k in keys if k in cells]


def paired(cells: dict[str, Any], label: str, other: str, problem: str, seeds: Iterable[int]) -> list[float]:
    """Differences of the mean scores, seed by seed, where both have one."""
    pairs = [[gather(cells.get(key(x, problem, seed)), problem) for x in (label, other)] for seed in seeds]
    return [a.mean - b.mean for a, b in pairs if a and b]


def spread(values: Sequence[float]) -> float:
    """Sample standard deviation."""
    return statistics.stdev(values) if len(values) > 1 else 0.0
