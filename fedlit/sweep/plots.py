"""Plots of a sweep, ``sweep_*.png``: against a varied number, against bytes sent, and of every client."""

from __future__ import annotations

import importlib.util
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedlit.errors import writing
from fedlit.runs.folder import SUMMARY_ROWS, RunFolder
from fedlit.sweep.table import Group, Result, common_labels, groups, mean_and_deviation, named

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
"""Colours of Okabe and Ito (2008), which colour-blind readers tell apart, without yellow, which is too pale."""
MARKERS = "osD^vPX*<>"
DASHES = ("-", "--", ":", "-.")
TICKS = 8
"""Most values that are written at an axis."""


def draw(results: Sequence[Result], metric: str, higher_is_better: bool, folder: Path) -> list[Path] | None:
    """Draw all plots that there are figures for.

    Args:
        results: Results of all cells.
        metric: Metric on test data, of the model that each client serves.
        higher_is_better: Direction of the metric, shown at its axis.
        folder: Folder of the sweep.

    Returns:
        The files; None if matplotlib is not installed.

    Raises:
        FedlitError: A file cannot be written.
    """
    if importlib.util.find_spec("matplotlib") is None:
        return None
    import matplotlib.style
    from matplotlib.figure import Figure  # no pyplot: no display, and no state

    found = [group for group in groups(results) if group.finished]
    name = f"{metric} ({'higher' if higher_is_better else 'lower'} is better)"
    figures: dict[str, Figure] = {}
    with matplotlib.style.context({"axes.grid": True, "grid.alpha": 0.3, "axes.axisbelow": True,
                                   "axes.spines.top": False, "axes.spines.right": False}):  # fmt: skip
        for key in numeric(found):
            figures[_file(key)] = _against(Figure, found, key, metric, name)
        figures["sweep_bytes.png"] = _bytes(Figure, found, metric, name)
        figures["sweep_clients.png"] = _clients(Figure, found, metric, name)
        paths = []
        for file, figure in figures.items():
            _caption(figure, results, bars=file != "sweep_clients.png")
            with writing(folder / file):
                figure.savefig(folder / file, dpi=150, bbox_inches="tight")
            paths.append(folder / file)
    return paths


def numeric(found: Sequence[Group]) -> list[str]:
    """Keys whose values are numbers and differ."""
    keys = found[0].values if found else {}
    columns = {key: [_value(group.values[key]) for group in found] for key in keys}
    return [key for key, values in columns.items() if all(map(math.isfinite, values)) and len(set(values)) > 1]


def _value(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _file(key: str) -> str:
    return f"sweep_{re.sub(r'[^A-Za-z0-9.-]+', '_', key)}.png"


def _look(position: int) -> dict[str, Any]:
    """A combination of colour, marker and dash for each line."""
    return {
        "color": COLOURS[position % len(COLOURS)],
        "marker": MARKERS[position % len(MARKERS)],
        "linestyle": DASHES[position // len(COLOURS) % len(DASHES)],
    }


def _families(found: Sequence[Group]) -> list[tuple[str, str, str]]:
    """Colour, marker and dash of each group: a colour for each value of the first key, the others for the rest."""
    firsts = list(dict.fromkeys(tuple(group.values.values())[:1] for group in found))
    rests = list(dict.fromkeys(tuple(group.values.values())[1:] for group in found))
    out = []
    for group in found:
        values = tuple(group.values.values())
        first, rest = firsts.index(values[:1]), rests.index(values[1:])
        out.append((COLOURS[first % len(COLOURS)], MARKERS[rest % len(MARKERS)], DASHES[(rest + 1) % len(DASHES)]))
    return out


def _apart(values: Sequence[float]) -> list[float]:
    """Those of some positive numbers whose labels have room on a logarithmic axis."""
    kept: list[float] = []
    for x in sorted(set(values)):
        if not kept or math.log(x / kept[-1]) >= 0.08 * math.log(max(values) / min(values)):
            kept.append(x)
    return kept


def _against(figure_of: type[Figure], found: Sequence[Group], key: str, metric: str, name: str) -> Figure:
    """Mean and worst client against a number, a line for each combination of the rest."""
    lines: dict[str, list[Group]] = {}
    for group in found:
        rest = named({other: value for other, value in group.values.items() if other != key})
        lines.setdefault(rest, []).append(group)
    xs = sorted({_value(group.values[key]) for group in found})
    figure = figure_of(figsize=(10, 4.2), layout="constrained")
    axes = figure.subplots(1, 2)
    for axis, row, what in ((axes[0], "mean", "mean over clients"), (axes[1], "worst", "worst client")):
        for position, (rest, line) in enumerate(lines.items()):
            line = sorted(line, key=lambda group: _value(group.values[key]))
            x = [_value(group.values[key]) for group in line]
            y, deviation = zip(*(group.spread(metric, row) for group in line), strict=True)
            bars = [0.0 if math.isnan(d) else d for d in deviation]
            axis.errorbar(x, y, bars, label=rest, capsize=3, markersize=5, **_look(position))
        if xs[0] > 0 and xs[-1] >= 10 * xs[0]:
            axis.set_xscale("log")
            axis.minorticks_off()
        if len(xs) <= TICKS:
            axis.set_xticks(xs, [f"{x:g}" for x in xs])
        axis.set(xlabel=key, ylabel=name, title=what)
    if len(lines) > 1 or "" not in lines:
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize=8)
    return figure


def _bytes(figure_of: type[Figure], found: Sequence[Group], metric: str, name: str) -> Figure:
    """Mean over clients against all bytes sent, a point for each combination; a line where nothing is sent."""
    figure = figure_of(figsize=(7.5, max(4.5, 0.19 * len(found))), layout="constrained")
    axis = figure.subplots()
    sent = [mean_and_deviation([result.bytes for result in group.finished])[0] / 1e6 for group in found]
    if any(sent):
        axis.set_xscale("log")
        if len(ticks := _apart([x for x in sent if x > 0])) <= TICKS:
            axis.minorticks_off()
            axis.set_xticks(ticks, [f"{x:.3g}" for x in ticks])
    for group, x, (colour, marker, dash) in zip(found, sent, _families(found), strict=True):
        y, deviation = group.spread(metric)
        if x > 0:
            bars = 0.0 if math.isnan(deviation) else deviation
            axis.errorbar(
                x, y, bars, label=group.title, capsize=3, markersize=7, color=colour, marker=marker, linestyle="none",
                alpha=0.85,
            )  # fmt: skip
        else:
            axis.axhline(y, color=colour, linestyle=dash, label=f"{group.title} (sends nothing)")
    axis.set(xlabel="MB sent in training, up and down, all clients", ylabel=name, title="mean over clients")
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    return figure


def _clients(figure_of: type[Figure], found: Sequence[Group], metric: str, name: str) -> Figure:
    """Every client of every seed, a row for each combination."""
    figure = figure_of(figsize=(8, 1.2 + 0.42 * len(found)), layout="constrained")
    axis = figure.subplots()
    for position, (group, (colour, _, _)) in enumerate(zip(found, _families(found), strict=True)):
        values = [value for result in group.finished for value in of_clients(result, metric) if math.isfinite(value)]
        if not values:
            continue
        axis.boxplot(values, positions=[position], orientation="horizontal", widths=0.55, showfliers=False,
                     medianprops={"color": "black", "linewidth": 1.6}, boxprops={"color": "0.5"},
                     whiskerprops={"color": "0.5"}, capprops={"color": "0.5"})  # fmt: skip
        shift = [position + 0.36 * (i * 0.618034 % 1 - 0.5) for i in range(len(values))]
        axis.scatter(values, shift, s=14, color=colour, alpha=0.65, linewidths=0, zorder=3)
    axis.set_yticks(range(len(found)), [group.title for group in found])
    axis.set_ylim(len(found) - 0.5, -0.5)
    axis.set(xlabel=name, title="each point a client of one seed; box: quartiles, line: median")
    return figure


def of_clients(result: Result, metric: str) -> list[float]:
    """Final figures of a run's clients, of the model that each serves; none unless finished."""
    if result.run is None or result.summary is None:
        return []
    done = str(result.summary["rounds"])
    return [
        float(row["value"])
        for row in RunFolder(result.run).metrics.read()
        if (row["round"], row["model"], row["split"], row["metric"]) == (done, "personal", "test", metric)
        and row["client"] not in SUMMARY_ROWS
    ]


def _caption(figure: Figure, results: Sequence[Result], bars: bool) -> None:
    """Write below a figure what it is of."""
    common, differ = common_labels(results)
    seeds = sorted({result.seed for result in results if result.state == "finished"})
    over = f"{'seeds' if len(seeds) > 1 else 'one seed:'} {', '.join(map(str, seeds))}"
    spread = f"bars: sample standard deviation over {over}" if bars and len(seeds) > 1 else over
    said = ["test data after the last round, model each client serves", spread, *common]
    figure.supxlabel("; ".join([*said, *(["other labels differ"] if differ else [])]), fontsize=7, color="0.35")
