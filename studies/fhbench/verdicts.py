"""What three seeds carry: paired t tests of rules on the same seeds, corrected together by Holm's method."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from studies.paired_tests import holm, paired_p

LEVEL = 0.05
Row = tuple[str, str]
"""Part and label of a rule in the file of runs."""
Differences = Callable[[str, Row, Row], list[float]]
"""Of two rules' scores on one setting, seed by seed."""


def against(
    differences: Differences, settings: Sequence[str], rule: Row, others: Sequence[tuple[str, Row]]
) -> list[str]:
    """A table of a rule's score minus each other's, mean over seeds, and what is left of it after the correction.

    Args:
        differences: See :data:`Differences`; empty where either was not run.
        settings: Columns.
        rule: The rule.
        others: Title, part and label of each row.
    """
    found = {(title, s): differences(s, rule, row) for title, row in others for s in settings}
    tested = {place: values for place, values in found.items() if len(values) > 1}
    corrected = dict(zip(tested, holm([paired_p(values) for values in tested.values()]), strict=True))
    lines = [f"| {rule[1]} minus | " + " | ".join(settings) + " |", "|---" * (1 + len(settings)) + "|"]
    for title, _ in others:
        cells = []
        for setting in settings:
            values, p = found[title, setting], corrected.get((title, setting), 1.0)
            cells.append(f"{statistics.fmean(values):+.1f}{' *' if p < LEVEL else ''}" if values else "-")
        lines.append("| " + " | ".join([title, *cells]) + " |")
    return [*lines, "", f"\\* {told(list(tested.values()))}", ""]


def told(families: Sequence[Sequence[float]]) -> str:
    """In words, how many differences of a family are told from 0.

    Args:
        families: Differences by seed of each comparison, at least two each.
    """
    plain = [paired_p(values) for values in families]
    corrected = holm(plain)
    count, before, kept = len(plain), sum(p < LEVEL for p in plain), sum(p < LEVEL for p in corrected)
    alike = sum(min(values) > 0 or max(values) < 0 for values in families)
    return (
        f"p < .05 after Holm's correction over these {count} paired t tests: {kept} of them (before it {before}; "
        f"of one sign in all seeds: {alike}); smallest corrected p: {min(corrected):.2g}."
    )
