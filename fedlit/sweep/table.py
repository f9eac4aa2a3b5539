"""The table of a sweep: a row for each run in ``sweep.csv``, mean and spread over seeds in ``sweep.md`` and shown."""

from __future__ import annotations

import csv
import io
import math
import os
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fedlit.errors import writing
from fedlit.runs.folder import SUMMARY_ROWS

State = Literal["finished", "failed", "not run"]
SHOWN_METRICS = 3
WIDE = 120
"""Width in characters of a terminal that shows all metrics."""


@dataclass(frozen=True)
class Result:
    """The result of one cell.

    Args:
        values: Varied settings as text, by key.
        seed: Seed of the run.
        state: ``finished`` if there are figures.
        run: Run folder of a finished cell.
        summary: Content of its ``summary.json``.
        error: Why the cell failed, and where its log is.
    """

    values: dict[str, str]
    seed: int
    state: State
    run: Path | None = None
    summary: Mapping[str, Any] | None = None
    error: str = ""

    def figure(self, metric: str, row: str = "mean", model: str = "personal") -> float:
        """A final figure on test data, or with the model ``external`` of the global one on external sites; NaN if
        there is none."""
        part, model = ("external", "global") if model == "external" else ("test", model)
        found = (self.summary or {}).get(part, {})
        return float(found.get(model, {}).get(metric, {}).get(row, math.nan))

    @property
    def has_external(self) -> bool:
        """Whether there are figures on external sites."""
        return bool((self.summary or {}).get("external"))

    @property
    def bytes(self) -> float:
        """Bytes sent by and to all clients; NaN unless finished."""
        return float(sum(self.summary["bytes"].values())) if self.summary else math.nan

    @property
    def labels(self) -> list[str]:
        """What figures are of: whether data are simulated, the backbone, and so on."""
        return list(self.summary["labels"]) if self.summary else []


@dataclass(frozen=True)
class Group:
    """The results of one combination of values, a result a seed."""

    values: dict[str, str]
    results: list[Result]

    @property
    def finished(self) -> list[Result]:
        """Results with figures."""
        return [result for result in self.results if result.state == "finished"]

    @property
    def title(self) -> str:
        """The values in one line."""
        return named(self.values) or "all"

    @property
    def seeds(self) -> str:
        """The number of seeds with figures, and why others have none."""
        done, failed = len(self.finished), sum(result.state == "failed" for result in self.results)
        if done == len(self.results):
            return str(done)
        left = len(self.results) - done - failed
        why = ", ".join(f"{n} {what}" for n, what in ((failed, "failed"), (left, "not run")) if n)
        return f"{done} of {len(self.results)} ({why})"

    def spread(self, metric: str, row: str = "mean", model: str = "personal") -> tuple[float, float]:
        """Mean and sample standard deviation over seeds; NaN without a seed, and the deviation with only one."""
        return mean_and_deviation([result.figure(metric, row, model) for result in self.finished])


def named(values: Mapping[str, str]) -> str:
    """``FedAvg, alpha=0.1``: classes by their name, other values with the last part of their key."""
    return ", ".join(v if v[:1].isupper() else f"{key.rsplit('.', 1)[-1]}={v}" for key, v in values.items())


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (n - 1); NaN if undefined."""
    if not values or not all(math.isfinite(value) for value in values):
        return (statistics.fmean(values) if values else math.nan), math.nan
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else math.nan


def groups(results: Sequence[Result]) -> list[Group]:
    """Results by combination of values, in order of first appearance."""
    out: dict[tuple[str, ...], list[Result]] = {}
    for result in results:
        out.setdefault(tuple(result.values.values()), []).append(result)
    return [Group(found[0].values, found) for found in out.values()]


def metrics_of(results: Sequence[Result], headline: Sequence[str] = ()) -> list[str]:
    """Names of overall metrics, those of the headline first; those per kind or step, with a slash, are left out."""
    found: dict[str, None] = {}
    for result in results:
        for model in ((result.summary or {}).get("test") or {}).values():
            found |= dict.fromkeys(name for name in model if "/" not in name)
    first = [name for name in headline if name in found]
    return first + [name for name in found if name not in first]


def common_labels(results: Sequence[Result]) -> tuple[list[str], bool]:
    """Labels that all finished runs have, and whether some have others."""
    each = [result.labels for result in results if result.state == "finished"]
    common = [label for label in (each[0] if each else []) if all(label in labels for labels in each)]
    return common, any(len(labels) > len(common) for labels in each)


def title(results: Sequence[Result]) -> list[str]:
    """Lines on what the figures are of."""
    common, differ = common_labels(results)
    external = "; external: the global model on sites that took no part"
    seeds = list(dict.fromkeys(result.seed for result in results))
    over = f"mean ± sample standard deviation over seeds {', '.join(map(str, seeds))}"
    lines = [
        "Test data after the last round; the model each client serves (personal); mean: all clients alike; worst: "
        f"the worst-off client{external if any(result.has_external for result in results) else ''}",
        over if len(seeds) > 1 else f"one seed: {seeds[0]}" if seeds else "no seed",
    ]
    said = [*common, *(["other labels differ between rows: see each row"] if differ else [])]
    return [*lines, "; ".join(said)] if said else lines


def number(mean: float, deviation: float = math.nan) -> str:
    """``0.8123 ± 0.0100``; a dash for NaN."""
    if math.isnan(mean):
        return "-"
    return f"{mean:.4f}" + ("" if math.isnan(deviation) else f" ± {deviation:.4f}")


def cells(results: Sequence[Result], headline: Sequence[str], narrow: bool = False) -> list[dict[str, str]]:
    """Rows of the table, as text by column.

    Args:
        results: Results of all cells.
        headline: Metrics to show; if there is none of them, the first that there are.
        narrow: Whether to show the first metric only.
    """
    found = metrics_of(results, headline)
    shown = ([name for name in headline if name in found] or found)[: 1 if narrow else SHOWN_METRICS]
    common, differ = common_labels(results)
    external = any(result.has_external for result in results)
    rows = []
    for group in groups(results):
        sent, _ = mean_and_deviation([result.bytes for result in group.finished])
        figures = {f"{m} {row}": number(*group.spread(m, row)) for m in shown for row in ("mean", "worst")}
        if external:
            figures |= {f"{m} external": number(*group.spread(m, "mean", "external")) for m in shown}
        more = dict.fromkeys(label for result in group.finished for label in result.labels if label not in common)
        rows.append({
            **group.values, **figures, "MB sent": "-" if math.isnan(sent) else f"{sent / 1e6:.4g}",
            "seeds": group.seeds, **({"labels": "; ".join(more)} if differ else {}),
        })  # fmt: skip
    return rows


def show(results: Sequence[Result], headline: Sequence[str], console: Console) -> None:
    """Print the table; in a terminal narrower than :data:`WIDE`, with the first metric only."""
    rows = cells(results, headline, narrow=console.width < WIDE)
    keys = results[0].values
    table = Table(title="\n".join(title(results)))
    for name in rows[0]:
        figure = name not in (*keys, "seeds", "labels")
        head = _short(name, keys) if name in keys else name.replace(" ", "\n")
        table.add_column(head, justify="right" if figure else "left", no_wrap=figure, overflow="fold")
    for row in rows:
        table.add_row(*(escape(text) for text in row.values()))
    console.print(table)


def _short(key: str, keys: Iterable[str]) -> str:
    """The last part of a key if no other key ends in it, else the whole key."""
    last = key.rsplit(".", 1)[-1]
    return last if sum(other.rsplit(".", 1)[-1] == last for other in keys) == 1 else key.replace(".", ".\n")


def write(results: Sequence[Result], headline: Sequence[str], folder: Path, name: str) -> None:
    """Write ``sweep.csv`` and ``sweep.md``, each whole or not at all.

    Raises:
        FedlitError: The disk is full, or the folder cannot be written.
    """
    _write(folder / "sweep.csv", table_of_runs(results, headline))
    rows = cells(results, headline)
    lines = [f"# {name}", "", *(f"{line}.  " for line in title(results)), ""]
    lines += [_line(rows[0]), _line(["---"] * len(rows[0])), *(_line(row.values()) for row in rows)]
    failed = [result for result in results if result.state == "failed"]
    if failed:
        lines += ["", "Failed:", ""]
        lines += [f"- {r.error}" for r in failed]
    lines += ["", "`sweep.csv` has a row for each run, all metrics, and the global models' figures.", ""]
    _write(folder / "sweep.md", "\n".join(lines))


def table_of_runs(results: Sequence[Result], headline: Sequence[str]) -> str:
    """``sweep.csv``: a row for each cell and seed, figures of the personal and the global models with all digits, and
    of the global ones on external sites, where there are any."""
    keys = list(results[0].values) if results else []
    models = ["personal", "global", *(["external"] if any(result.has_external for result in results) else [])]
    figures = [(model, m, row) for model in models for m in metrics_of(results, headline)
               for row in SUMMARY_ROWS]  # fmt: skip
    about = ["bytes_up", "bytes_down", "rounds", "seconds", "seconds_from_round", "clients", "data", "backbone",
             "labels", "run_folder", "error"]  # fmt: skip
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*keys, "seed", "state", *("/".join(figure) for figure in figures), *about])
    for result in results:
        writer.writerow([
            *result.values.values(), result.seed, result.state,
            *(_exact(result.figure(metric, row, model)) for model, metric, row in figures), *_about(result),
        ])  # fmt: skip
    return text.getvalue()


def _about(result: Result) -> list[Any]:
    summary = result.summary
    if summary is None:
        return [""] * 10 + [result.error]
    model = summary["model"]
    return [
        summary["bytes"].get("up", 0), summary["bytes"].get("down", 0), summary["rounds"], summary["seconds"],
        summary["seconds_from_round"], summary["clients"], "simulated" if summary["simulated_data"] else "real",
        model.get("source", model.get("backbone", model.get("class", ""))), "; ".join(result.labels), result.run, "",
    ]  # fmt: skip


def _exact(value: float) -> str:
    return "" if math.isnan(value) else repr(value)


def _line(row: Iterable[str]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in row) + " |"


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}")
    with writing(path):
        temporary.write_text(text)
        os.replace(temporary, path)
