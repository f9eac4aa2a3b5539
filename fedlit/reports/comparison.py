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
from fedlit.reports.tables import fitted
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
    results: Mapping[str, Sequence[Row]],
    folder: RunFolder,
    labels: Sequence[str],
    test_metrics: Any,
    naive: Mapping[str, Sequence[Row]] | None = None,
) -> None:
    """Print the tables and write ``comparison.csv``.

    Args:
        results: Final rows on test data by rule, the run's own rule first.
        folder: The run folder.
        labels: What is simulated or a stand-in; said in every title.
        test_metrics: The task's: which way they point, and in ``headline``, if they have it, which ones are shown, the
            primary one first; in ``note`` what the figures are of.
        naive: Rows of predictors without a network, by name: they come first.

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
    shown = [(m, row) for m in metrics for row in ("mean", "worst")]
    if len(metrics) > 3:  # a terminal is no wider
        shown = [(m, row) for m, row in shown if row == "mean" or m == metrics[0]]
    spaced = [(m if len(metrics) <= 3 else m.replace("_", " "), row) for m, row in shown]
    headers = [f"{m}\n{'mean' if row == 'mean' else 'worst client'}" for m, row in spaced]
    floors = {f"naive: {name}": rows for name, rows in (naive or {}).items()}
    everything = {**floors, **results}
    ordered = [*floors, *list(results)[1:], next(iter(results))]
    rows = []
    for name in ordered:
        value = cells(everything[name])
        rows.append([name, *(_number(value.get((row, m), math.nan)) for m, row in shown)])
    _print(console, title, ["rule", *headers], rows)
    if note := getattr(test_metrics, "note", ""):
        console.print(note, soft_wrap=True)
    _write(everything, ordered, folder)
    upwards = higher_is_better(test_metrics, metrics[0])
    compared = _with_best_floor(ordered, floors, metrics[0], upwards)
    if len(compared) > 1:
        _by_client(everything, compared, metrics[0], upwards, folder, console, "; ".join(labels))
    for sent in lines(folder, ordered[len(floors) :]):
        console.print(sent, soft_wrap=True)
    console.print(f"run folder: {folder.path}", soft_wrap=True)


def _print(console: Console, title: str, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table whose names stay apart however narrow the terminal is."""
    heads, short = fitted(headers, rows, console.width)
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(1, len(headers))]
    numbers = [Column(h, justify="right", min_width=n) for h, n in zip(heads[1:], widths, strict=True)]
    columns = [Column(heads[0], no_wrap=True), *numbers]
    table = Table(*columns, title=title)
    for row in short:
        table.add_row(*row)
    console.print(table)


def _with_best_floor(
    ordered: Sequence[str], floors: Mapping[str, Sequence[Row]], metric: str, higher_is_better: bool
) -> list[str]:
    """Names of rules, and before them that of the best predictor without a network: the one that is to be beaten."""
    sign = -1 if higher_is_better else 1
    means = {name: sign * cells(rows).get(("mean", metric), math.nan) for name, rows in floors.items()}
    known = [name for name, mean in means.items() if not math.isnan(mean)]
    return [*([min(known, key=lambda name: means[name])] if known else []), *ordered[len(floors) :]]


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
    rows = []
    for client in clients[:SHOWN_CLIENTS]:
        row = {name: values[name].get((client, metric), math.nan) for name in ordered}
        known = {name: sign * v for name, v in row.items() if not math.isnan(v)}
        least = min(known.values(), default=math.nan)
        rows.append([client, *(_number(v) + (" *" if sign * v == least else "  ") for v in row.values())])
    title = f"{metric} of each client on test data; * the best, or equal to it\n{labels}"
    _print(console, title, ["client", *ordered], rows)
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
    table = []
    for model in dict.fromkeys(row[2] for row in rows):
        value = cells(rows, model)
        for metric in headline(rows):
            table.append([f"{model} {metric}", *(_number(value[name, metric]) for name in SUMMARY_ROWS)])
    _print(console, f"{what}\n{'; '.join(labels)}", ["model and metric", *SUMMARY_ROWS], table)
    console.print(f"run folder: {path}", soft_wrap=True)
