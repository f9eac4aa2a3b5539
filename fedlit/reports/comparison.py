"""The tables at the end of a run: what each rule gives on average and to the worst-off, and to every client."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from fedlit.errors import writing
from fedlit.federation.scores import Row, higher_is_better
from fedlit.reports.communication import lines
from fedlit.runs.folder import SUMMARY_ROWS, RunFolder

SHOWN_CLIENTS = 30


def headline(rows: Sequence[Row]) -> list[str]:
    """Names of the overall metrics, in order; those per kind or per step have a slash."""
    return list(dict.fromkeys(row[5] for row in rows if "/" not in row[5]))


def cells(rows: Sequence[Row], model: str = "personal") -> dict[tuple[str, str], float]:
    """``{(client or summary row, metric): value}`` of one model."""
    return {(row[3], row[5]): row[6] for row in rows if row[2] == model}


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"


def comparison(
    results: Mapping[str, Sequence[Row]], folder: RunFolder, labels: Sequence[str], test_metrics: Any
) -> None:
    """Print the tables and write ``comparison.csv``.

    Args:
        results: Final rows on test data by rule, the run's own rule first.
        folder: The run folder.
        labels: What is simulated or a stand-in; said in every title.
        test_metrics: The task's: which way they point, and in ``headline``, if they have it, which ones are shown, the
            primary one first.

    Raises:
        FedlitError: The disk is full or ``comparison.csv`` cannot be written.
    """
    console = Console()
    overall = headline(next(iter(results.values()), []))
    metrics = [m for m in getattr(test_metrics, "headline", ()) if m in overall] or overall
    if not metrics:
        console.print(f"no client has test data, so there is nothing to compare\nrun folder: {folder.path}")
        return
    title = "Test data after the last round; the model each client serves (personal); mean: all clients alike\n"
    title += "; ".join(labels)
    table = Table(Column("rule", no_wrap=True), title=title)
    shown = [(m, row) for m in metrics for row in ("mean", "worst")]
    if len(metrics) > 3:  # a terminal is no wider
        shown = [(m, row) for m, row in shown if row == "mean" or m == metrics[0]]
    for metric, row in shown:
        name = metric if len(metrics) <= 3 else metric.replace("_", " ")
        table.add_column(f"{name}\n{'mean' if row == 'mean' else 'worst client'}", justify="right")
    ordered = [*list(results)[1:], next(iter(results))]
    for name in ordered:
        value = cells(results[name])
        nan = math.nan
        numbers = [_number(value.get((row, m), nan)) for m, row in shown]
        table.add_row(name, *numbers)
    console.print(table)
    _write(results, ordered, folder)
    if len(ordered) > 1:
        upwards = higher_is_better(test_metrics, metrics[0])
        _by_client(results, ordered, metrics[0], upwards, folder, console, "; ".join(labels))
    for sent in lines(folder, ordered):
        console.print(sent, soft_wrap=True)
    console.print(f"run folder: {folder.path}", soft_wrap=True)


def _write(results: Mapping[str, Sequence[Row]], ordered: Sequence[str], folder: RunFolder) -> None:
    values = {name: cells(rows) for name, rows in results.items()}
    path = folder.path / "comparison.csv"
    with writing(path), open(path, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["client", "metric", *ordered])
        for client in [*_clients(values), *SUMMARY_ROWS]:
            writer.writerows(
                [client, m, *(values[name].get((client, m), math.nan) for name in ordered)]
                for m in headline(results[ordered[-1]])
            )


def _clients(values: Mapping[str, Mapping[tuple[str, str], float]]) -> list[str]:
    return sorted({client for by_client in values.values() for client, _ in by_client} - set(SUMMARY_ROWS))


def _by_client(
    results: Mapping[str, Sequence[Row]],
    ordered: Sequence[str],
    metric: str,
    higher_is_better: bool,
    folder: RunFolder,
    console: Console,
    labels: str,
) -> None:
    values = {name: cells(rows) for name, rows in results.items()}
    clients = _clients(values)
    sign = -1 if higher_is_better else 1
    table = Table("client", *ordered, "best", title=f"{metric} of each client on test data\n{labels}")
    for client in clients[:SHOWN_CLIENTS]:
        row = {name: values[name].get((client, metric), math.nan) for name in ordered}
        known = {name: sign * v for name, v in row.items() if not math.isnan(v)}
        best = " = ".join(name for name, v in known.items() if v == min(known.values()))
        table.add_row(client, *(_number(v) for v in row.values()), best or "-")
    console.print(table)
    if len(clients) > SHOWN_CLIENTS:
        console.print(f"{len(clients) - SHOWN_CLIENTS} more clients in {folder.path / 'comparison.csv'}")
    mine = values[ordered[-1]]
    for other in ordered[:-1]:
        gains = [sign * (values[other].get((c, metric), math.nan) - mine.get((c, metric), math.nan)) for c in clients]
        scored = [gain for gain in gains if not math.isnan(gain)]
        better = sum(gain > 0 for gain in scored)
        console.print(f"{ordered[-1]} beats {other} in {metric} at {better} of {len(scored)} clients")


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
