"""Tests of differences between two rules on the same seeds, and their correction where there are many."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

from scipy import optimize, stats


def paired_p(differences: Sequence[float]) -> float:
    """Two-sided p of a paired t test: that the mean of the differences is 0.

    A sign test or a permutation of signs is not used: of n pairs its p is ``2^(1 - n)`` at least, 1/16 of five pairs
    and 1/512 of ten, which no correction over some dozens of comparisons leaves below .05. The price is the
    assumption that differences of means over clients and records are about normal.

    Args:
        differences: One a seed, at least two. All 0, as of two rules that are the same: 1.
    """
    if len(differences) < 2:
        raise ValueError(f"a paired t test needs two differences, here {len(differences)}")
    if not any(differences):
        return 1.0
    spread = math.fsum((d - math.fsum(differences) / len(differences)) ** 2 for d in differences)
    return float(stats.ttest_1samp(differences, 0.0).pvalue) if spread else 0.0


def holm(ps: Sequence[float]) -> list[float]:
    """Corrected p of each, for a chance of at most .05 that any below .05 is a false one (Holm 1979).

    With the p in ascending order, ``max over j <= i of (m - j + 1) p_j``, at most 1. Holds however the tests depend.
    """
    corrected, largest = [1.0] * len(ps), 0.0
    for rank, i in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        corrected[i] = largest = max(largest, min(1.0, (len(ps) - rank) * ps[i]))
    return corrected


def detectable(pairs: int, level: float, power: float = 0.8) -> float:
    """The mean difference, in standard deviations of the differences, that :func:`paired_p` finds with this power.

    Args:
        pairs: How many, at least two.
        level: Of the test, two-sided.
        power: Chance that p is below the level.
    """
    critical, scale = float(stats.t.isf(level / 2, pairs - 1)), pairs**0.5
    # The chance of the wrong sign, which counts as found too, is nothing beside a power of some size.
    found = functools.partial(stats.nct.sf, critical, pairs - 1)
    return float(optimize.brentq(lambda effect: found(effect * scale) - power, 0.0, 3 * critical / scale))
