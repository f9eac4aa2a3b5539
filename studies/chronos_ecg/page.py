"""The JSON file and the tables of ``docs/results/2502.09744.md``, from the run folders of ``strategies.py`` alone."""

from __future__ import annotations

import csv
import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from studies.paired_tests import holm, paired_p

RULES = ("ZeroShot", "LocalOnly", "FedAvg", "FedProx", "FedLA")
NAIVE = ("naive: last value", "naive: context mean", "naive: last period")
METRICS = ("rmse", "mae", "smape")
TITLES = {
    1: "Strategy 1: ECG by patient (PTB-XL, 21 records of 10 s, 20 clients; temporal split)",
    2: "Strategy 2: ECG by hospital system (PhysioNet/CinC Challenge, 101 records, 6 clients; split by patient)",
    3: "Strategy 3: 19 ECG clients (PTB-XL) and one ICG client (BIOPAC, 60 s of one subject; temporal split)",
}
PAIRS = (
    ("FedAvg", "ZeroShot"), ("LocalOnly", "ZeroShot"), ("FedAvg", "LocalOnly"), ("FedLA", "FedAvg"),
    ("FedProx", "FedAvg"), ("FedAvg", "naive: context mean"), ("LocalOnly", "naive: context mean"),
)  # fmt: skip
"""Compared in root mean squared error; the first is asked to be lower."""

Runs = list[dict[str, Any]]


def collect(out: Path) -> dict[str, Any]:
    """What is in the run folders below ``out/steps-<n>/``: figures of every client by strategy, steps, seed and rule.

    The figures are of test data after the last round, of the model that each client serves.
    """
    runs: Runs = []
    about: dict[str, Any] = {}
    for folder in sorted(out.glob("steps-*/strategy*-seed*/version_*")):
        summary = folder / "baselines" / "FedLA" / "summary.json"  # the last that a run writes
        if not summary.exists():
            continue
        said = json.loads((folder / "summary.json").read_text())
        strategy, seed = folder.parent.name.removeprefix("strategy").split("-seed")
        rules = {rule: _of_rule(folder if rule == "FedAvg" else folder / "baselines" / rule) for rule in RULES}
        figures, naive = {rule: own for rule, (own, _) in rules.items()}, _figures(folder / "naive.csv")
        held = json.loads((folder / "partition.json").read_text())
        about = {
            "versions": said["versions"], "git_revision": said["git_revision"], "precision": said["precision"],
            "data": "real", "backbone": said["labels"][1].removeprefix("backbone: "),
        }  # fmt: skip
        runs.append(
            {
                "strategy": int(strategy),
                "steps": int(folder.parents[1].name.removeprefix("steps-")),
                "seed": int(seed),
                "rounds": said["rounds"],
                "windows": {client: facts["windows"] for client, facts in held["clients"].items()},
                "kinds": {client: "+".join(facts["kinds"]) for client, facts in held["clients"].items()},
                "seconds": {rule: seconds for rule, (_, seconds) in rules.items()},
                "rules": figures | {name: naive[name] for name in NAIVE},
            }
        )
    return {"header": {**about, "figures": "by rule, client and metric; test data, after the last round"}, "runs": runs}


def _of_rule(folder: Path) -> tuple[dict[str, dict[str, float]], float]:
    """Figures by client, and seconds."""
    return _figures(folder / "metrics.csv")["personal"], json.loads((folder / "summary.json").read_text())["seconds"]


def _figures(path: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Last test figures of each client, by model and client."""
    found: dict[str, dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    with path.open() as file:
        for row in csv.DictReader(file):
            of_client = row["client"] not in ("mean", "weighted_mean", "worst", "std")
            if row["split"] == "test" and row["metric"] in METRICS and of_client and row["stage"] != "after_local":
                found[row["model"]][row["client"]][row["metric"]] = float(row["value"])
    return found


def cell(values: Sequence[float]) -> str:
    """Mean and sample standard deviation over seeds."""
    return f"{statistics.fmean(values):.4f} ± {statistics.stdev(values):.4f}" if len(values) > 1 else f"{values[0]:.4f}"


def tables(runs: Runs) -> str:
    """A table for each strategy and number of steps."""
    lines: list[str] = []
    for (strategy, steps), own in _groups(runs):
        seeds = ", ".join(str(run["seed"]) for run in own)
        about = (
            f"Real data; backbone: built-in stand-in; {own[0]['rounds']} rounds of {steps} local steps; seeds {seeds}."
        )
        lines += [f"### {TITLES[strategy]}{'' if steps == 5 else f', {steps} local steps'}", "", about, ""]
        kinds = ("ecg", "icg") if strategy == 3 else ()
        columns = ["rmse mean", "rmse worst", "mae mean", "smape mean", *(f"rmse mean, {kind}" for kind in kinds)]
        lines += ["| rule | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
        for rule in (*NAIVE, *RULES):
            cells = [cell([statistics.fmean(_values(run, rule, "rmse")) for run in own])]
            cells.append(cell([max(_values(run, rule, "rmse")) for run in own]))
            cells += [
                cell([statistics.fmean(_values(run, rule, metric)) for run in own]) for metric in ("mae", "smape")
            ]
            cells += [cell([statistics.fmean(_values(run, rule, "rmse", kind)) for run in own]) for kind in kinds]
            lines.append("| " + " | ".join([rule, *cells]) + " |")
        lines.append("")
    return "\n".join(lines)


def comparisons(runs: Runs) -> str:
    """Pairs of rules: the change of the mean by seed, at how many clients the first is better, and corrected p.

    A pair is tested over clients: paired t test of each client's mean over seeds, Holm's correction over the table.
    """
    rows: list[list[str]] = []
    ps: list[float] = []
    for (strategy, steps), own in _groups(runs):
        for first, second in PAIRS:
            mine, theirs = _by_client(own, first), _by_client(own, second)
            change = [100 * (_mean(run, first, "rmse") / _mean(run, second, "rmse") - 1) for run in own]
            better = sum(mine[client] < theirs[client] for client in mine)
            ps.append(paired_p([mine[client] - theirs[client] for client in mine]))
            name = f"{strategy}" if steps == 5 else f"{strategy}, {steps} steps"
            by_seed = ", ".join(f"{value:+.2f}" for value in change)
            rows.append([name, f"{first} against {second}", f"{by_seed} %", f"{better} of {len(mine)}"])
    lines = ["| strategy | pair | rmse, by seed | better at clients | p, corrected |", "|---|---|---|---|---|"]
    for row, p in zip(rows, holm(ps), strict=True):
        lines.append("| " + " | ".join([*row, f"{p:.3f}" if p >= 0.001 else "< 0.001"]) + " |")
    return "\n".join(lines) + "\n"


def write(out: Path, page: Path) -> str:
    """The JSON file beside the page, and what stands between its markers ``tables`` and ``comparisons``.

    Returns:
        The tables.
    """
    found = collect(out)
    page.with_suffix(".json").write_text(as_json(found))
    made = {"tables": tables(found["runs"]), "comparisons": comparisons(found["runs"])}
    text = page.read_text()
    for name, part in made.items():
        before, rest = text.split(f"<!-- {name} -->\n")
        _, after = rest.split(f"<!-- end of {name} -->\n")
        text = f"{before}<!-- {name} -->\n{part}\n<!-- end of {name} -->\n{after}"
    page.write_text(text)
    return "\n".join(made.values())


def as_json(found: dict[str, Any]) -> str:
    """A run a line."""
    lines = ",\n".join(json.dumps(run, separators=(",", ":")) for run in found["runs"])
    return f'{{"header": {json.dumps(found["header"])},\n"runs": [\n{lines}\n]}}\n'


def _groups(runs: Runs) -> Iterable[tuple[tuple[int, int], Runs]]:
    groups: dict[tuple[int, int], Runs] = defaultdict(list)
    for run in sorted(runs, key=lambda run: (run["steps"], run["strategy"], run["seed"])):
        groups[run["strategy"], run["steps"]].append(run)
    return groups.items()


def _values(run: dict[str, Any], rule: str, metric: str, kind: str | None = None) -> list[float]:
    """Of each client, or of those with one kind of recording."""
    return [figures[metric] for client, figures in run["rules"][rule].items() if kind in (None, run["kinds"][client])]


def _mean(run: dict[str, Any], rule: str, metric: str, kind: str | None = None) -> float:
    return statistics.fmean(_values(run, rule, metric, kind))


def _by_client(runs: Runs, rule: str) -> dict[str, float]:
    """Mean of each client's error over seeds."""
    clients = runs[0]["rules"][rule]
    return {client: statistics.fmean(run["rules"][rule][client]["rmse"] for run in runs) for client in clients}
