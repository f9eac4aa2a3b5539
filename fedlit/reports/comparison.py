"""The tables at the end of a run: what each rule gives on average and to the worst-off, and to every client."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from fedlit.errors import writing
from fedlit.federation.scores import Row, higher_is_better
from fedlit.reports.communication import lines
from fedlit.reports.tables import NARROWEST, fitted
from fedlit.runs.folder import SUMMARY_ROWS, RunFolder

SHOWN_CLIENTS = 30
WIDTH = 8
"""Characters of a figure with its mark."""
Cells = Mapping[tuple[str, str], float]
"""``{(client or summary row, metric): value}``."""


def headline(rows: Sequence[Row]) -> list[str]:
    """Names of the overall metrics, in order; those per kind or per step have a slash."""
    return list(dict.fromkeys(row[5] for row in rows if "/" not in row[5]))


def cells(rows: Sequence[Row], model: str = "personal") -> dict[tuple[str, str], float]:
    """``{(client or summary row, metric): value}`` of one model."""
    return {(row[3], row[5]): row[6] for row in rows if row[2] == model}


def number(value: float) -> str:
    """A figure of a table; a dash for NaN."""
    return "-" if math.isnan(value) else f"{value:.4f}"


def comparison(
    results: Mapping[str, Sequence[Row]],
    folder: RunFolder,
    labels: Sequence[str],
    test_metrics: Any,
    naive: Sequence[Row] = (),
) -> None:
    """Print the tables and write ``comparison.csv``.

    Args:
        results: Final rows on test data by rule, the run's own rule first.
        folder: The run folder.
        labels: What is simulated or a stand-in; said in every title.
        test_metrics: The task's: which way they point, and in ``headline``, if they have it, which ones are shown, the
            primary one first; in ``note`` what the figures are of.
        naive: Rows of predictors without a network on the same data: they come first.

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
    floors: dict[str, Cells] = {name: cells(naive, name) for name in dict.fromkeys(row[2] for row in naive)}
    rules = [*list(results)[1:], next(iter(results))]
    values = floors | {name: cells(results[name]) for name in rules}
    rows = [[name, *(number(own.get((row, m), math.nan)) for m, row in shown)] for name, own in values.items()]
    print_table(console, title, ["rule", *headers], rows)
    _print_note(console, test_metrics)
    _write(values, overall, folder)
    upwards = higher_is_better(test_metrics, metrics[0])
    if len(values) > 1:
        widest = max(map(len, [*_clients(values), "client"]))
        room = (console.width - min(widest, NARROWEST) - 4) // (WIDTH + 3) - len(rules)
        shown_floors = floors if len(floors) <= room else _best_floor(floors, metrics[0], upwards)
        by_client = {name: values[name] for name in [*shown_floors, *rules]}
        _by_client(by_client, metrics[0], upwards, folder, console, "; ".join(labels))
    for name in [*floors, *rules[:-1]]:
        _print_wins(console, rules[-1], name, values, metrics[0], upwards)
    for sent in lines(folder, rules):
        console.print(sent, soft_wrap=True)
    console.print(f"run folder: {folder.path}", soft_wrap=True)


def print_table(console: Console, title: str, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table whose names stay apart however narrow the terminal is."""
    heads, short = fitted(headers, rows, console.width)
    names = max((len(line) for row in short for line in row[0].split("\n")), default=0)
    cells = [max((len(row[i]) for row in rows), default=0) for i in range(1, len(headers))]
    lines, words = (
        [max([n, *map(len, split(head))]) for n, head in zip(cells, heads[1:], strict=True)]
        for split in (str.splitlines, str.split)
    )
    widths = lines if names + sum(lines) + 3 * len(heads) + 1 <= console.width else words  # headers are broken
    numbers = [Column(escape(h), justify="right", width=n) for h, n in zip(heads[1:], widths, strict=True)]
    columns = [Column(escape(heads[0]), no_wrap=names <= console.width // 2, overflow="fold"), *numbers]
    table = Table(*columns, title=escape(title))
    for row in short:
        table.add_row(*map(escape, row))
    console.print(table)


def _print_note(console: Console, metrics: Any) -> None:
    if note := getattr(metrics, "note", ""):
        console.print(note, soft_wrap=True, highlight=False)


def _best_floor(floors: Mapping[str, Cells], metric: str, higher_is_better: bool) -> list[str]:
    """Name of the predictor without a network that is best on average; none without any."""
    sign = -1 if higher_is_better else 1
    means = {name: sign * own.get(("mean", metric), math.nan) for name, own in floors.items()}
    known = [name for name, mean in means.items() if not math.isnan(mean)]
    return [min(known, key=lambda name: means[name])] if known else []


def _write(values: Mapping[str, Cells], metrics: Sequence[str], folder: RunFolder) -> None:
    path = folder.path / "comparison.csv"
    with writing(path), open(path, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["client", "metric", *values])
        for client in [*_clients(values), *SUMMARY_ROWS]:
            writer.writerows([client, m, *(own.get((client, m), math.nan) for own in values.values())] for m in metrics)


def _clients(values: Mapping[str, Cells]) -> list[str]:
    return sorted({client for by_client in values.values() for client, _ in by_client} - set(SUMMARY_ROWS))


def _by_client(
    values: Mapping[str, Cells], metric: str, higher_is_better: bool, folder: RunFolder, console: Console, labels: str
) -> None:
    clients, sign = _clients(values), -1 if higher_is_better else 1
    rows = []
    for client in clients[:SHOWN_CLIENTS]:
        row = [own.get((client, metric), math.nan) for own in values.values()]
        least = min((sign * v for v in row if not math.isnan(v)), default=math.nan)
        rows.append([client, *(number(v) + (" *" if sign * v == least else "  ") for v in row)])
    title = f"{metric} of each client on test data; * the best of these, or equal to it\n{labels}"
    print_table(console, title, ["client", *values], rows)
    if len(clients) > SHOWN_CLIENTS:
        console.print(f"{len(clients) - SHOWN_CLIENTS} more clients in {folder.path / 'comparison.csv'}")


def _print_wins(
    console: Console, name: str, other: str, values: Mapping[str, Cells], metric: str, higher_is_better: bool
) -> None:
    """Say at how many clients a rule is better than another one."""
    sign, mine, theirs = -1 if higher_is_better else 1, values[name], values[other]
    gains = [sign * (theirs.get((c, metric), math.nan) - mine.get((c, metric), math.nan)) for c in _clients(values)]
    scored = [gain for gain in gains if not math.isnan(gain)]
    better = sum(gain > 0 for gain in scored)
    console.print(f"{name} beats {other} in {metric} at {better} of {len(scored)} clients", soft_wrap=True)


def print_scores(rows: Sequence[Row], what: str, labels: Sequence[str], path: Path, metrics: Any) -> None:
    """Summary figures of each model, for ``fedlit validate`` and ``fedlit test``."""
    console = Console()
    table = []
    for model in dict.fromkeys(row[2] for row in rows):
        value = cells(rows, model)
        for metric in headline(rows):
            if ("mean", metric) in value:
                table.append([f"{model} {metric}", *(number(value[name, metric]) for name in SUMMARY_ROWS)])
    print_table(console, f"{what}\n{'; '.join(labels)}", ["model and metric", *SUMMARY_ROWS], table)
    _print_note(console, metrics)
    console.print(f"run folder: {path}", soft_wrap=True)
