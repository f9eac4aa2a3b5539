"""Whether each rule wins in the setting that it was made for: paired tests by seed, corrected over all of the page."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from studies.paired_tests import holm, paired_p
from studies.rules.problems import PROBLEMS
from studies.rules.references import AGAINST
from studies.rules.scores import paired, scores, spread
from studies.rules.table import RULES

PLANNED = 10
"""Seeds of the comparisons."""
LEVEL = 0.05
POINTS = 0.5
"""Of accuracy; a difference below says nothing, however sure: what 2000 test records can tell, roughly."""


class Comparison(NamedTuple):
    """A rule less one of its references, on the same seeds: mean and spread of the differences, p of the t test."""

    against: str
    difference: float
    spread: float
    p: float


class Verdict(NamedTuple):
    """Of a rule in the setting that it was made for.

    ``verdict`` is ``wins`` over all of its references, ``loses`` to one at least, ``open``, or ``fails`` where a run
    did. ``p`` is alone, ``corrected`` with all others; None where it fails.
    """

    rule: str
    problem: str
    verdict: str
    p: float | None
    corrected: float | None
    comparisons: tuple[Comparison, ...]


def paired_runs(labels: Iterable[str]) -> list[tuple[str, str]]:
    """Which runs the verdicts of these rules rest on: labels with the problem whose data they are of."""
    own = [(label, entry.made_for) for label in labels if (entry := RULES[label]).made_for]
    pairs = [(x, PROBLEMS[p].runs_of or p) for label, p in own for x in (label, *AGAINST[label])]
    return list(dict.fromkeys(pairs))


def judged(cells: dict[str, Any], seeds: Sequence[int]) -> list[Verdict]:
    """A verdict of every rule, p corrected by Holm over all.

    Rules that lack a seed, or whose references do, are left out. A rule that is ahead of all of its references has the
    largest p among them, as it must beat each (an intersection-union test, which needs no correction within); one that
    is not has the smallest p among those that it is not ahead of, times the number of all.
    """
    rows: list[tuple[str, str, list[Comparison]]] = []
    for label, entry in RULES.items():
        if (problem := entry.made_for) is None:
            continue
        runs = [scores(cells, x, problem, seeds) for x in (label, *AGAINST[label])]
        if all(len(some) == len(seeds) for some in runs):
            failed = any(None in some for some in runs)
            rows.append((label, problem, [] if failed else _compared(cells, label, problem, seeds)))
    ps = [_p(found) for *_, found in rows if found]
    corrected = iter(zip(ps, holm(ps), strict=True))
    out = []
    for label, problem, found in rows:
        if found:
            p, over_all = next(corrected)
            out.append(Verdict(label, problem, _said(found, over_all), p, over_all, tuple(found)))
        else:
            out.append(Verdict(label, problem, "fails", None, None, ()))
    return out


def _compared(cells: dict[str, Any], label: str, problem: str, seeds: Sequence[int]) -> list[Comparison]:
    apart = {other: paired(cells, label, other, problem, seeds) for other in AGAINST[label]}
    return [
        Comparison(other, round(statistics.fmean(d), 4), round(spread(d), 4), paired_p(d)) for other, d in apart.items()
    ]


def _p(found: Sequence[Comparison]) -> float:
    behind = [c.p for c in found if c.difference <= 0]
    return min(1.0, len(found) * min(behind)) if behind else max(c.p for c in found)


def _said(found: Sequence[Comparison], corrected: float) -> str:
    if corrected < LEVEL and min(c.difference for c in found) > POINTS:
        return "wins"
    surest = min((c for c in found if c.difference <= 0), key=lambda c: c.p, default=None)
    return "loses" if surest and corrected < LEVEL and surest.difference < -POINTS else "open"
