"""The tables at the end of a run: what each rule gives on average and to the worst-off, and to every client."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

from fedlit.evaluation import Row
from fedlit.run_folder import SUMMARY_ROWS, RunFolder

SHOWN_CLIENTS = 30


def headline(rows: Sequence[Row]) -> list[str]:
    """Names of the overall metrics, in order; those per kind or per step have a slash."""
    return list(dict.fromkeys(row[5] for row in rows if "/" not in row[5]))


def cells(rows: Sequence[Row], model: str = "personal") -> dict[tuple[str, str], float]:
    """``{(client or summary row, metric): value}`` of one model."""
    return {(row[3], row[5]): row[6] for row in rows if row[2] == model}


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"


def comparison(results: Mapping[str, Sequence[Row]], folder: RunFolder, labels: Sequence[str]) -> None:
    """Print the tables and write ``comparison.csv``.

    Args:
        results: Final rows on test data by rule, the run's own rule first.
        folder: The run folder.
        labels: What is simulated or a stand-in; said in every title.
    """
    console = Console()
    metrics = [m for m in headline(next(iter(results.values()), [])) if m in ("rmse", "mae", "smape")] or headline(
        next(iter(results.values()), [])
    )
    if not metrics:
        console.print(f"no client has test data, so there is nothing to compare\nrun folder: {folder.path}")
        return
    title = "Test data, the model each client serves (personal)\n" + "; ".join(labels)
    table = Table(Column("rule", no_wrap=True), title=title)
    for metric in metrics:
        table.add_column(f"{metric}\nmean", justify="right")
        table.add_column(f"{metric}\nworst\nclient", justify="right")
    ordered = [*list(results)[1:], next(iter(results))]
    for name in ordered:
        value = cells(results[name])
        nan = math.nan
        numbers = [_number(value.get((row, m), nan)) for m in metrics for row in ("mean", "worst")]
        table.add_row(name, *numbers)
    console.print(table)
    _by_client(results, ordered, metrics[0], folder, console, "; ".join(labels))
    console.print(f"run folder: {folder.path}", soft_wrap=True)


def _by_client(
    results: Mapping[str, Sequence[Row]],
    ordered: Sequence[str],
    metric: str,
    folder: RunFolder,
    console: Console,
    labels: str,
) -> None:
    values = {name: cells(rows) for name, rows in results.items()}
    clients = sorted({client for name in ordered for client, m in values[name] if client not in SUMMARY_ROWS})
    with open(folder.path / "comparison.csv", "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["client", "metric", *ordered])
        for client in [*clients, *SUMMARY_ROWS]:
            writer.writerows(
                [client, m, *(values[name].get((client, m), math.nan) for name in ordered)]
                for m in headline(results[ordered[-1]])
            )
    if len(ordered) < 2:
        return
    table = Table("client", *ordered, "best", title=f"{metric} of each client\n{labels}")
    for client in clients[:SHOWN_CLIENTS]:
        row = {name: values[name].get((client, metric), math.nan) for name in ordered}
        known = {name: v for name, v in row.items() if not math.isnan(v)}
        table.add_row(client, *(_number(v) for v in row.values()), min(known, key=lambda n: known[n]) if known else "-")
    console.print(table)
    if len(clients) > SHOWN_CLIENTS:
        console.print(f"{len(clients) - SHOWN_CLIENTS} more clients in {folder.path / 'comparison.csv'}")
    mine = values[ordered[-1]]
    for other in ordered[:-1]:
        better = sum(mine.get((c, metric), math.nan) < values[other].get((c, metric), math.nan) for c in clients)
        console.print(f"{ordered[-1]} beats {other} in {metric} at {better} of {len(clients)} clients")


def print_scores(rows: Sequence[Row], what: str, labels: Sequence[str], path: Path) -> None:
    """Summary figures of each model, for ``fedlit validate`` and ``fedlit test``."""
    console = Console()
    table = Table("model", "metric", *SUMMARY_ROWS, title=f"{what}\n{'; '.join(labels)}")
    for model in dict.fromkeys(row[2] for row in rows):
        value = cells(rows, model)
        for metric in headline(rows):
            table.add_row(model, metric, *(_number(value[name, metric]) for name in SUMMARY_ROWS))
    console.print(table)
    console.print(f"run folder: {path}", soft_wrap=True)
