"""What the report says of the runs of Fed-MedLoRA: tables in markdown."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from studies.medlora.cells import INCOMPLETE

Runs = list[dict[str, Any]]
SCORES = {
    "entity_strict_f1": "mentions, strict", "entity_lenient_f1": "mentions, lenient",
    "relation_strict_f1": "relations, strict", "relation_lenient_f1": "relations, lenient",
}  # fmt: skip
METHODS = (
    ("zero-shot", "main", "zero-shot"),
    ("single site", "main", "single site"),
    ("FedSALoRA", "main", "FedSALoRA"),
    ("FedMedLoRA", "main", "FedMedLoRA"),
    ("FedMedLoRAPlus", "main", "FedMedLoRAPlus"),
    ("centralised", "main", "centralised"),
    ("encoder, single site", "bert", "single site"),
    ("encoder, FedAvg of all weights", "bert", "federated"),
    ("encoder, centralised", "bert", "centralised"),
)
COMPARED = (
    ("FedMedLoRA", "single site"), ("FedSALoRA", "single site"), ("FedMedLoRAPlus", "FedMedLoRA"),
    ("centralised", "FedMedLoRA"), ("encoder, FedAvg of all weights", "encoder, single site"),
    ("encoder, centralised", "encoder, FedAvg of all weights"), ("encoder, single site", "single site"),
    ("encoder, FedAvg of all weights", "FedMedLoRA"), ("encoder, centralised", "centralised"),
)  # fmt: skip
T_OF_THREE = 4.303
"""Student's t with two degrees of freedom, two-sided 95 %: for means over three seeds."""


def pick(runs: Runs, part: str, label: str) -> Runs:
    """The runs of one method, by seed."""
    return sorted((r for r in runs if (r["part"], r["label"]) == (part, label)), key=lambda r: r["seed"])


def shown(values: Sequence[float], digits: int = 1) -> str:
    """Mean and standard deviation over seeds."""
    if not values:
        return "-"
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{spread}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Markdown."""
    return ["| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *rows)]


def percent(runs: Runs, score: str) -> str:
    """A score of some runs, in per cent."""
    return shown([100 * run["test"].get(score, 0.0) for run in runs])


def main_table(runs: Runs) -> list[str]:
    """F1 of each method, and the interval of its first seed."""
    rows = []
    for title, part, label in METHODS:
        found = pick(runs, part, label)
        first = found[0]["test"] if found else {}
        name = "entity_strict_f1"
        bounds = f"{100 * first[f'{name}/low']:.0f} to {100 * first[f'{name}/high']:.0f}" if found else "-"
        failed = shown([100 * run["test"]["answers_unparsable"] for run in found], 0)
        rows.append([title, *(percent(found, score) for score in SCORES), bounds, failed, str(len(found))])
    head = ["method", *SCORES.values(), "interval of mentions, strict, seed 0", "unparsable answers, %", "seeds"]
    return table(head, rows)


def type_table(runs: Runs) -> list[str]:
    """Strict F1 by type."""
    names = ("entity_strict_f1/Chemical", "entity_strict_f1/Disease", "entity_strict_precision", "entity_strict_recall")
    rows = [[title, *(percent(pick(runs, part, label), name) for name in names)] for title, part, label in METHODS]
    return table(["method", "Chemical", "Disease", "precision", "recall"], rows)


def difference_table(runs: Runs) -> list[str]:
    """Strict F1 of mentions of one method less that of another, seed by seed, and what three seeds say of the mean."""
    by_title = {title: pick(runs, part, label) for title, part, label in METHODS}
    rows = []
    for one, other in COMPARED:
        both = zip(by_title[one], by_title[other], strict=True)
        found = [100 * (a["test"]["entity_strict_f1"] - b["test"]["entity_strict_f1"]) for a, b in both]
        if len(found) != 3:
            continue
        mean, reach = statistics.fmean(found), T_OF_THREE * statistics.stdev(found) / 3**0.5
        each = ", ".join(f"{value:+.1f}" for value in found)
        rows.append([f"{one} less {other}", f"{mean:+.1f}", each, f"{mean - reach:+.1f} to {mean + reach:+.1f}"])
    return table(["difference", "mean", "seeds 0, 1, 2", "95 % interval of the mean"], rows)


def traffic_table(runs: Runs) -> list[str]:
    """What crossed in a round, and the base it is compared with."""
    rows = []
    for title, part, label in METHODS:
        for run in pick(runs, part, label)[:1]:
            told = run["communication"]
            each = told["per_client_and_round"].get("up")
            if each is None:
                continue
            base = told["reference"]
            rows.append([
                title, f"{each['parameters']:,.0f}", f"{each['bytes'] / 1e6:.2f} MB",
                f"{base['bytes'] / 1e6:.0f} MB ({base['dtype']})", f"{100 * (1 - each['bytes'] / base['bytes']):.2f} %",
            ])  # fmt: skip
    return table(["method", "parameters up, a site and round", "bytes", "the full model as held", "less"], rows)


def incomplete_table(runs: Runs) -> list[str]:
    """By who annotated what."""
    found = {label: pick(runs, "incomplete", label) for label in INCOMPLETE}
    found["one of four mentions only"] = pick(runs, "main", "FedMedLoRA")[:1]
    order = [next(iter(INCOMPLETE)), "one of four mentions only", *list(INCOMPLETE)[1:]]
    return table(
        ["sites", *SCORES.values()], [[label, *(percent(found[label], score) for score in SCORES)] for label in order]
    )


def size_table(runs: Runs) -> list[str]:
    """Relations by number of training titles, pooled, every site with both tasks; below, an answer without a model."""

    def bounded(run: dict[str, Any], name: str) -> str:
        value, low, high = (100 * run["test"][f"{name}{end}"] for end in ("", "/low", "/high"))
        return f"{value:.1f} ({low:.0f} to {high:.0f})"

    rows = []
    found = [run for run in runs if run["part"] == "size" and "train" in run]
    for run in sorted(found, key=lambda r: (int(r["label"].split()[0]), r["seed"])):
        shares = [f"{100 * run['test'][f'relation_strict_{name}']:.1f}" for name in ("precision", "recall")]
        scores = [bounded(run, name) for name in ("relation_strict_f1", "entity_strict_f1")]
        rows.append([str(sum(run["train"])), str(run["seed"]), *shares, *scores, f"{run['seconds'] / 60:.0f}"])
    for run in pick(runs, "size", "every pair"):
        values = [f"{100 * run['test'][f'relation_strict_{name}']:.1f}" for name in ("precision", "recall", "f1")]
        rows.append(["none: every chemical with every disease", "-", *values, "-", "-"])
    head = ["training titles", "seed", "precision", "recall", "relations, strict F1", "mentions, strict F1"]
    return table([*head, "processor minutes"], rows)


def weights_table(runs: Runs) -> list[str]:
    """Shares by rule and size of the validation set: mean and deviation over draws, the first seed's and the next."""
    rows = []
    for run in sorted((r for r in runs if r["part"] == "influence"), key=lambda r: r["seed"]):
        groups: dict[tuple[str, int], Runs] = {}
        for row in run["rows"]:
            groups.setdefault((row["rule"], row.get("size", 0)), []).append(row)
        for (rule, size), found in groups.items():
            shares = [shown([100 * row["shares"][site] for row in found], 0) for site in run["sizes"]]
            scored = [row for row in found if "entity_strict_f1" in row]
            f1 = shown([100 * row["entity_strict_f1"] for row in scored])
            loss = shown([row["loss"] for row in found], 3)
            rows.append([str(run["seed"]), rule, str(size or "-"), str(len(found)), *shares, loss, f1])
    first = next((r for r in runs if r["part"] == "influence"), {"sizes": {}})
    head = ["seed", "rule", "records", "draws", *(f"share of {site}, %" for site in first["sizes"]), "test loss"]
    return table([*head, "mentions, strict F1"], rows)


def losses_table(runs: Runs) -> list[str]:
    """What the server sees of each site's model."""
    found = sorted((r for r in runs if r["part"] == "influence"), key=lambda r: r["seed"])
    sites = list(found[0]["sizes"]) if found else []
    rows = [[str(r["seed"]), *(f"{r['site_losses'][s]:.3f} ({r['sizes'][s]:.0f})" for s in sites)] for r in found]
    return table(["seed", *sites], rows)


def given_table(runs: Runs) -> list[str]:
    """The weights that FedMedLoRAPlus gave in the main comparison, by round."""
    rows = []
    for run in pick(runs, "main", "FedMedLoRAPlus"):
        for number in sorted({key.split("/")[0] for key in run["influence"]}, key=int):
            own = {k.split("/")[1]: v for k, v in run["influence"].items() if k.split("/")[0] == number}
            rows.append([str(run["seed"]), number, *(f"{100 * own[site]:.1f}" for site in sorted(own))])
    return table(["seed", "round", "client-1", "client-2", "client-3", "client-4 (mentions only)"], rows)


def write(done: dict[str, Any], path: Path) -> None:
    """Fill in what stands between ``<!-- name -->`` and ``<!-- /name -->``."""
    runs = list(done.values())
    text = path.read_text()
    for name, made in (
        ("main", main_table), ("differences", difference_table), ("types", type_table), ("size", size_table),
        ("traffic", traffic_table), ("given", given_table),
        ("losses", losses_table), ("weights", weights_table), ("incomplete", incomplete_table),
    ):  # fmt: skip
        before, found, rest = text.partition(f"<!-- {name} -->\n")
        if not found:
            continue
        after = rest[rest.index(f"<!-- /{name} -->") :]
        text = before + found + "\n".join(made(runs)) + "\n\n" + after
    path.write_text(text)
