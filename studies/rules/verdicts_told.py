"""Verdicts in words: how they were tested, what came out, and which former claims did not survive."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from studies.paired_tests import detectable
from studies.rules.former import FORMER
from studies.rules.references import AGAINST
from studies.rules.scores import paired
from studies.rules.table import RULES
from studies.rules.verdicts import LEVEL, PLANNED, POINTS, Comparison, Verdict


def number(c: Comparison) -> str:
    """Mean and spread of the differences."""
    return f"{c.difference:+.1f} ± {c.spread:.1f}"


def p_text(p: float | None) -> str:
    """Three decimals, or what is below in powers of ten."""
    return "" if p is None else f"{p:.3f}" if p >= 0.001 else f"{p:.0e}"


def told(
    cells: dict[str, Any], seeds: Sequence[int], paired_seeds: Sequence[int], found: Sequence[Verdict]
) -> list[str]:
    """How differences were tested, the verdicts, and the former ones that are withdrawn."""
    counts = ", ".join(f"{v}: {sum(f.verdict == v for f in found)}" for v in ("wins", "open", "loses", "fails"))
    lines = [
        "## Each rule in the setting it was made for",
        "",
        *_method(cells, seeds, paired_seeds, found),
        "",
        f"{counts}.",
        "",
        "| rule | made for | why it should win, or not lose | verdict | Holm's p | least ahead of | reason |",
        "|---" * 7 + "|",
    ]
    for f in found:
        entry = RULES[f.rule]
        least = min(f.comparisons, key=lambda c: c.difference, default=None)
        shown = f"{least.against}, {number(least)}" if least else ""
        reason = (entry.finding or "**not known yet**") if f.verdict in ("loses", "fails") else ""
        cells_of_row = [f.rule, f.problem, entry.why, f.verdict, p_text(f.corrected), shown, reason]
        lines.append(f"| {' | '.join(cells_of_row)} |")
    return [*lines, "", *withdrawn(found), ""]


def _method(
    cells: dict[str, Any], seeds: Sequence[int], paired_seeds: Sequence[int], found: Sequence[Verdict]
) -> list[str]:
    n, many = len(paired_seeds), sum(f.p is not None for f in found)
    strictest = LEVEL / max(many, 1)
    lines = [
        "Each rule is held against references that could win: itself without what makes it, and the simplest way to do "
        "the same. They are under *Comparisons*, with the reason for each. A rule **wins** if it is ahead of all of "
        f"them by more than {POINTS} points, which is about what the test data can tell, with p < {LEVEL}; it "
        "**loses** if it is as far behind any; else it is **open**: not told apart, which is not the same as equal. p "
        f"is that of paired t tests over {n} seeds: the largest over the references for a rule that is ahead of all, "
        "since it must beat each; otherwise the smallest of those that it is not ahead of, times their number. Holm's "
        f"correction is over all {many} verdicts of this page, for they are read together: the chance that any win or "
        f"loss named here is an accident is below {LEVEL}.",
        "",
        "References, test and family were written down before the runs that they were tested on. Of most rules the "
        f"first {len(seeds)} seeds were known from the former page, the others are new."
        + ("" if n >= PLANNED else f" {PLANNED} seeds were planned; time was up after {n}, before any was looked at."),
        "",
        f"What {n} seeds can find: with {n - 1} degrees of freedom and the strictest of Holm's levels, {LEVEL} / "
        f"{many}, a difference of {detectable(n, strictest):.1f} standard deviations of the differences is found with "
        f"a chance of .8 (five seeds, 4 degrees of freedom: {detectable(5, strictest):.1f}; uncorrected "
        f"{detectable(n, LEVEL):.1f} and {detectable(5, LEVEL):.1f}). Small and uneven gains stay open. A sign or "
        f"permutation test cannot go below 1/16 with five pairs and 1/{2 ** (n - 1)} with {n}, two-sided, which the "
        "correction leaves above .05 whatever the data; so the t test is used, which takes the differences for about "
        "normal.",
    ]
    fresh = [seed for seed in paired_seeds if seed not in seeds]
    sure = [f for f in found if f.verdict in ("wins", "loses")]
    if fresh and sure:
        same = sum(_again(cells, f, fresh) for f in sure)
        lines += [
            "",
            f"On the new seeds alone ({len(fresh)}), {same} of the {len(sure)} rules that win or lose do so by more "
            f"than {POINTS} points too.",
        ]
    return lines


def _again(cells: dict[str, Any], f: Verdict, seeds: Sequence[int]) -> bool:
    means = [statistics.fmean(paired(cells, f.rule, c.against, f.problem, seeds)) for c in f.comparisons]
    return min(means) > POINTS if f.verdict == "wins" else min(means) < -POINTS


def withdrawn(found: Sequence[Verdict]) -> list[str]:
    """The former verdicts that are not repeated, with what they fail on."""
    lines = [
        "### Claims of the former page that did not survive",
        "",
        "It had five seeds, called a win what was above one standard deviation of the differences, and compared with "
        "the better of FedAvg and local training in most places. Behind each reference: difference, and its p alone.",
        "",
        "| rule | former verdict | now | Holm's p | its former reference | least ahead of |",
        "|---|---|---|---|---|---|",
    ]
    kept = 0
    for f in found:
        before, other, size = FORMER.get(f.rule, ("ties", "", ""))
        if f.verdict == {"ties": "open"}.get(before, before):
            kept += 1
            continue
        claim = f"{before} against {other}, {size}" if other else before
        least = min(f.comparisons, key=lambda c: c.difference, default=None)
        old = [c for c in f.comparisons if c.against == other]
        shown = [f"{c.against} {number(c)} ({p_text(c.p)})" for c in (*old, *([least] if least else []))]
        first = shown.pop(0) if old else "none any more" if other else ""
        row = [f.rule, claim, f.verdict, p_text(f.corrected), first, *(shown or [""])]
        lines.append(f"| {' | '.join(row)} |")
    return [*lines, "", f"Verdicts that are what they were: {kept} (a former tie is open now)."]


def comparison_table(found: Sequence[Verdict]) -> list[str]:
    """Every rule against each of its references."""
    lines = [
        "## Comparisons",
        "",
        "Mean ± standard deviation of the differences, in points, and p of the paired t test, alone and uncorrected.",
        "",
        "| rule | problem | against | why this one | difference | p |",
        "|---" * 6 + "|",
    ]
    for f in found:
        for c in f.comparisons:
            why = AGAINST[f.rule][c.against]
            lines.append(f"| {f.rule} | {f.problem} | {c.against} | {why} | {number(c)} | {p_text(c.p)} |")
    return [*lines, ""]
