"""The table of external sites, which took no part: what the global model of each rule is worth there."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from fedlit.errors import writing
from fedlit.federation.scores import Row
from fedlit.reports.comparison import cells, headline, number, print_table
from fedlit.runs.folder import SUMMARY_ROWS, RunFolder

EXTERNAL = "external.csv"


def external_table(
    results: Mapping[str, Sequence[Row]], folder: RunFolder, labels: Sequence[str], test_metrics: Any
) -> None:
    """Print the primary metrics at each external site, and write all of them to ``external.csv``.

    Args:
        results: Rows of external sites by rule; none of a rule without a global model.
        folder: The run folder.
        labels: What figures are of; said in the title.
        test_metrics: The task's, see :func:`fedlit.reports.comparison.comparison`.

    Raises:
        FedlitError: The disk is full, or the file cannot be written.
    """
    scored = {rule: cells(rows, "global") for rule, rows in results.items() if rows}
    console = Console()
    if without := [rule for rule, rows in results.items() if not rows]:
        console.print(f"external sites: {', '.join(without)} has no global model to score there", soft_wrap=True)
    if not scored:
        return
    overall = headline(next(rows for rows in results.values() if rows))
    sites = sorted({name for own in scored.values() for name, _ in own} - set(SUMMARY_ROWS))
    path = folder.path / EXTERNAL
    with writing(path), open(path, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["site", "metric", *scored])
        for site in (*sites, *SUMMARY_ROWS):
            writer.writerows([site, m, *(own.get((site, m), math.nan) for own in scored.values())] for m in overall)
    shown = [m for m in getattr(test_metrics, "headline", ()) if m in overall] or overall
    title = f"Global model on external sites, which took no part\n{'; '.join(labels)}"
    rows = [
        [f"{rule}, {site}", *(number(own.get((site, m), math.nan)) for m in shown)]
        for rule, own in scored.items()
        for site in sites
    ]
    print_table(console, title, ["rule and site", *(m.replace("_", " ") for m in shown)], rows)
