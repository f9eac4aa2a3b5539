"""What is reported of the runs: tables in markdown, and plots."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from studies.fhbench import cells
from studies.fhbench.cells import LAMBDAS, PENALTIES, main_rules, published
from studies.fhbench.naive import PREDICTORS
from studies.fhbench.settings import SETTINGS
from studies.fhbench.verdicts import against, told

Runs = list[dict[str, Any]]
SEEDS = 3
BACKBONES = {
    "image": "a ViT of 0.6 M parameters pretrained on procedural textures",
    "sound": "an AST of 0.6 M parameters pretrained on procedural sounds",
    "text": "all-MiniLM-L6-v2 (22.7 M, pretrained on sentences), cut at 32 tokens",
    "signal": "the built-in stand-in (Chronos-Bolt's encoder, pretrained on synthetic series)",
}


def primary(run: dict[str, Any], row: str = "mean") -> float:
    """The score by which a setting is judged, on test data, in per cent."""
    return 100.0 * float(run["test"]["personal"][run["primary"]][row])


def other(metric: str, row: str = "mean") -> Callable[[dict[str, Any]], float]:
    """Another score of the served models, in per cent."""
    return lambda run: 100.0 * float(run["test"]["personal"][metric][row])


def shown(values: Sequence[float], digits: int = 1) -> str:
    """Mean and standard deviation over seeds."""
    if not values:
        return "-"
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    fewer = "" if len(values) == SEEDS else f" ({len(values)} seed{'s' if len(values) > 1 else ''})"
    return f"{statistics.fmean(values):.{digits}f}{spread}{fewer}"


def pick(runs: Iterable[dict[str, Any]], part: str, setting: str, label: str) -> Runs:
    """The runs of one rule, by seed."""
    found = [r for r in runs if (r["part"], r["setting"], r["label"]) == (part, setting, label)]
    return sorted(found, key=lambda r: r["seed"])


def table(
    runs: Runs, rows: Sequence[tuple[str, str, str]], settings: Sequence[str], score: Callable[[Any], float]
) -> list[str]:
    """Markdown; a row is its title, part and label, and is left out where it was run on nothing."""
    lines = ["| rule | " + " | ".join(settings) + " |", "|---" * (1 + len(settings)) + "|"]
    for title, part, label in rows:
        found = [shown([score(run) for run in pick(runs, part, setting, label)]) for setting in settings]
        if any(cell != "-" for cell in found):
            lines.append("| " + " | ".join([title, *found]) + " |")
    return [*lines, ""]


def paired(runs: Runs, setting: str, one: tuple[str, str], two: tuple[str, str]) -> list[float]:
    """Differences of the primary score, seed by seed; a rule is its part and label."""
    first, second = ({r["seed"]: primary(r) for r in pick(runs, part, setting, label)} for part, label in (one, two))
    return [first[seed] - second[seed] for seed in sorted(first.keys() & second.keys())]


def sizes(runs: Runs) -> list[str]:
    """What each setting is."""
    lines = ["| data | what | clients | test examples | rounds | backbone | learning rates |", "|---" * 7 + "|"]
    for name, setting in SETTINGS.items():
        mine = pick(runs, "main", name, "FedAvg")
        tests = ", ".join(str(r["tests"]) for r in mine)
        clients = sorted({r["clients"] for r in mine})
        lines.append(
            f"| {name} | {setting.about} | {', '.join(map(str, clients))} | {tests} | {setting.rounds} | "
            f"{BACKBONES[setting.backbone]} | {', '.join(f'{k} {v:g}' for k, v in setting.rates.items())} |"
        )
    return [*lines, ""]


def traffic(runs: Runs) -> list[str]:
    """Bytes of a client in a round, from the ledgers."""
    rows = [(label, "main", label) for label in main_rules(2)] + [
        (f"EPFL, sketch {size}", "sketch", f"EPFL, sketch {size}") for size in (16, 64, 256)
    ]

    def each(direction: str) -> Callable[[Any], float]:
        return lambda r: r["bytes"][direction] / r["clients"] / SETTINGS[r["setting"]].rounds / 1000

    up = table(runs, rows, ["images"], each("up"))
    down = table(runs, rows, ["images"], each("down"))
    return ["Up, thousand bytes a client and round:", "", *up, "Down:", "", *down]


def ablations(runs: Runs) -> list[str]:
    """Psi, weights, what is shared, rank, sketch: scores, and differences to the main run on the same seeds."""
    rows = [(label, "ablation", label, "EPFL") for label, _, _ in cells.ablations("ablation")]
    finer = [(label, "sketch", label, "EPFL") for label, _, _ in cells.ablations("sketch")]
    for label in ("EPFL", "FedAvg", "local"):
        finer += [(f"{label}, rank {rank}", "rank", f"{label}, rank {rank}", label) for rank in (4, 16)]
    lines, tested = [], []
    for some, settings in ((rows, cells.ABLATED["ablation"]), (finer, ("images",))):
        lines += ["| rule | " + " | ".join(f"{s} | against rank 8, psi all, whole B" for s in settings) + " |"]
        lines += ["|---" * (1 + 2 * len(settings)) + "|"]
        for title, part, label, base in some:
            found = []
            for setting in settings:
                found.append(shown([primary(r) for r in pick(runs, part, setting, label)]))
                gaps = paired(runs, setting, (part, label), ("main", base))
                found.append(", ".join(f"{gap:+.1f}" for gap in gaps) or "-")
                tested += [gaps] if len(gaps) > 1 else []
            lines.append("| " + " | ".join([title, *found]) + " |")
        lines.append("")
    return [*lines, told(tested), ""] if tested else lines


def orthogonality(runs: Runs) -> list[str]:
    """Score and measured overlap against the penalty's weight."""
    lines = []
    for setting in cells.ABLATED["orthogonal"]:
        lines += [f"{setting}:", "", "| penalty | lam | score | overlap of rows of A | of updates BA | of B A x |"]
        lines += ["|---|---|---|---|---|---|"]
        labels = [("none", 0.0, "lam 0")]
        labels += [(penalty, lam, f"{penalty}, lam {lam:g}") for penalty in PENALTIES for lam in LAMBDAS]
        for penalty, lam, label in labels:
            mine = pick(runs, "orthogonal", setting, label)
            overlaps = [shown([r["overlap"][name] for r in mine], 4) for name in PENALTIES]
            lines.append(
                f"| {penalty} | {lam:g} | {shown([primary(r) for r in mine])} | " + " | ".join(overlaps) + " |"
            )
        lines.append("")
    return lines


def leakage(runs: Runs) -> list[str]:
    """The same data split by window and by recording."""
    lines = ["| data | rule | split by recording | split by window | difference | recordings on both sides |"]
    lines += ["|---" * 6 + "|"]
    tested = []
    for setting in ("hospitals", "diagnoses"):
        for rule in ("local", "FedAvg", "centralised"):
            names = [f"{rule}, split by {split}" for split in ("recording", "window")]
            apart, leaking = (pick(runs, "leakage", setting, name) for name in names)
            gap = paired(runs, setting, ("leakage", names[1]), ("leakage", names[0]))
            tested += [gap] if len(gap) > 1 else []
            counts = [", ".join(str(r["shared"]) for r in some) for some in (apart, leaking)]
            columns = [shown([primary(r) for r in some]) for some in (apart, leaking)]
            lines.append(f"| {setting} | {rule} | {' | '.join(columns)} | {shown(gap)} | {' and '.join(counts)} |")
    return [*lines, "", told(tested), ""] if tested else [*lines, ""]


def plots(runs: Runs, folder: Path) -> None:
    """``fhbench.png`` and ``fhbench_orthogonality.png``."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    labels = list(main_rules(2))
    figure, axes = plt.subplots(2, 3, figsize=(13, 8), constrained_layout=True)
    for axis, name in zip(axes.flat, SETTINGS, strict=True):
        for place, label in enumerate(labels):
            mine = pick(runs, "main", name, label)
            clients = [100 * value for r in mine for value in r["by_client"]]
            axis.scatter(clients, [place] * len(clients), s=9, color="0.75", zorder=1)
            means = [primary(r) for r in mine]
            colour = "#d55e00" if label == "EPFL" else "#0072b2"
            axis.scatter(means, [place] * len(means), s=36, marker="D", color=colour, zorder=2)
        axis.set_yticks(range(len(labels)), labels)
        axis.invert_yaxis()
        axis.set_title(f"{name}: {'micro F1' if name == 'diagnoses' else 'accuracy'}, %", fontsize=10)
    figure.suptitle("Test data, served models; grey: every client, diamonds: mean over clients of each seed")
    figure.savefig(folder / "fhbench.png", dpi=90)
    (name,) = cells.ABLATED["orthogonal"]
    figure, axis = plt.subplots(figsize=(6, 4), constrained_layout=True)
    for penalty, colour in zip(PENALTIES, ("#0072b2", "#d55e00", "#009e73"), strict=True):
        points = [("lam 0", 0.03), *((f"{penalty}, lam {lam:g}", lam) for lam in LAMBDAS)]
        found = [(lam, mine) for label, lam in points if (mine := pick(runs, "orthogonal", name, label))]
        overlaps = [statistics.fmean(r["overlap"][penalty] for r in mine) for _, mine in found]
        axis.plot([lam for lam, _ in found], overlaps, "o-", color=colour, label=f"{penalty}: its own overlap")
    axis.set(xscale="log", yscale="log", xlabel="penalty's weight (leftmost point: 0)", ylabel="mean squared cosine")
    axis.set_title(f"{name}: shared against personal adapters after the last round", fontsize=10)
    axis.legend(fontsize=8)
    figure.savefig(folder / "fhbench_orthogonality.png", dpi=90)


def write(done: dict[str, Any], path: Path) -> None:
    """The tables between the marks of the report; what stands around them is written by hand."""
    runs: Runs = list(done.values())
    rules = [(f"naive: {label}", "naive", label) for label in PREDICTORS]
    rules += [(label, "main", label) for label in main_rules(2)]
    rules += [(label, "published", label) for label in published(2)]
    for label in cells.SGD_RULES:
        rules += [
            (f"{label}, SGD", "sgd", f"{label}, SGD"),
            (f"{label}, SGD, cosine", "cosine", f"{label}, SGD, cosine"),
        ]
    others = [(title, (part, label)) for title, part, label in rules[: len(PREDICTORS) + len(main_rules(2))]]
    names = list(SETTINGS)
    single = [name for name in names if name != "diagnoses"]
    parts = {
        "sizes": sizes(runs),
        "mean": table(runs, rules, names, primary),
        "pooled": table(runs, rules, names, lambda r: primary(r, "weighted_mean")),
        "tests": against(
            partial(paired, runs), names, ("main", "EPFL"), [row for row in others if row[1] != ("main", "EPFL")]
        ),
        "worst": table(runs, rules, names, lambda r: primary(r, "worst")),
        "balanced": table(runs, rules, single, other("balanced_accuracy")),
        "traffic": traffic(runs),
        "ablations": ablations(runs),
        "orthogonality": orthogonality(runs),
        "leakage": leakage(runs),
    }
    text = path.read_text() if path.is_file() else "".join(f"<!-- {n} -->\n<!-- /{n} -->\n" for n in parts)
    for name, lines in parts.items():
        head, _, rest = text.partition(f"<!-- {name} -->\n")
        _, mark, tail = rest.partition(f"<!-- /{name} -->\n")
        if not mark:
            raise ValueError(f"{path} has no <!-- {name} --> with its <!-- /{name} -->: put both back")
        text = f"{head}<!-- {name} -->\n" + "\n".join(lines) + f"\n<!-- /{name} -->\n{tail}"
    path.write_text(text)
    plots(runs, path.parent)
