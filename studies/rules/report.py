"""What is reported of the runs: table, checks of what each rule was made for, report and plot."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from studies.rules.problems import CLIENTS, LOCAL_STEPS, LR, PROBLEMS, ROUNDS
from studies.rules.table import RULES

TIE = 0.5
"""Points of accuracy that count as a tie whatever the spread: what 2000 test records can tell, roughly."""


class Score(NamedTuple):
    """Of one run, in per cent of test records: the mean over the clients that are judged, and the worst of them."""

    mean: float
    worst: float


class Check(NamedTuple):
    """A rule in the setting that it was made for."""

    label: str
    problem: str
    against: str
    difference: float
    spread: float
    verdict: str


def judge(values: Sequence[float], problem: str) -> Score:
    """The score of a run on a problem, from each client's value of the problem's metric."""
    judged = [values[i] for i in (PROBLEMS[problem].judged or range(len(values)))]
    return Score(round(statistics.fmean(judged), 4), min(judged))


def scored_on(data: str) -> list[str]:
    """The problems that score runs on one problem's data."""
    return [name for name, problem in PROBLEMS.items() if (problem.runs_of or name) == data]


def gather(cell: dict[str, Any] | None, problem: str) -> Score | None:
    """The score of a run, or None where there is none."""
    if cell is None or "error" in cell:
        return None
    return Score(*cell["scores"][scored_on(PROBLEMS[problem].runs_of or problem).index(problem)])


def key(label: str, problem: str, seed: int) -> str:
    """Of a run in the file."""
    return f"{label} | {PROBLEMS[problem].runs_of or problem} | {seed}"


def scores(cells: dict[str, Any], label: str, problem: str, seeds: Iterable[int]) -> list[Score | None]:
    """One for each seed that was run; None for a run that failed."""
    keys = [key(label, problem, seed) for seed in seeds]
    return [gather(cells[k], problem) for k in keys if k in cells]


def paired(cells: dict[str, Any], label: str, other: str, problem: str, seeds: Iterable[int]) -> list[float]:
    """Differences of the mean scores, seed by seed, where both have one."""
    pairs = [[gather(cells.get(key(x, problem, seed)), problem) for x in (label, other)] for seed in seeds]
    return [a.mean - b.mean for a, b in pairs if a and b]


def spread(values: Sequence[float]) -> float:
    """Sample standard deviation."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def check(cells: dict[str, Any], label: str, seeds: Sequence[int]) -> Check | None:
    """Whether a rule wins over, or ties with, the best of those that it is held against; None for a reference."""
    entry = RULES[label]
    problem = entry.made_for
    if problem is None:
        return None
    others = [x for x in entry.against if x != label and any(scores(cells, x, problem, seeds))]
    own = scores(cells, label, problem, seeds)
    if not others or not own or None in own:
        return Check(label, problem, "", float("nan"), float("nan"), "fails" if None in own else "not run")
    best = min(others, key=lambda x: statistics.fmean(paired(cells, label, x, problem, seeds)))
    found = paired(cells, label, best, problem, seeds)
    mean, width = statistics.fmean(found), max(spread(found), TIE)
    verdict = "wins" if mean > width else "loses" if mean < -width else "ties"
    return Check(label, problem, best, mean, spread(found), verdict)


def cell_text(found: Sequence[Score | None]) -> str:
    """Mean and spread over seeds, and the worst client."""
    got = [s for s in found if s is not None]
    if not got:
        return "fails" if found else "-"
    means = [s.mean for s in got]
    text = f"{statistics.fmean(means):.1f} ± {spread(means):.1f} ({statistics.fmean(s.worst for s in got):.0f})"
    return text + ("" if len(got) == len(found) else f" {len(found) - len(got)} failed")


def print_table(cells: dict[str, Any], labels: Sequence[str], problems: Sequence[str], seeds: Sequence[int]) -> None:
    """On the screen, with the checks."""
    print(f"SIMULATED DATA. Per cent right, mean ± spread over {len(seeds)} seeds (worst client)")
    print(" " * 34 + "".join(f"{p:>25}" for p in problems))
    for label in labels:
        print(f"{label:34}" + "".join(f"{cell_text(scores(cells, label, p, seeds)):>25}" for p in problems))
    for found in (check(cells, label, seeds) for label in labels):
        if found and found.problem in problems:
            told = f"{found.difference:+.1f} ± {found.spread:.1f} against {found.against}" if found.against else ""
            print(f"{found.label} {found.verdict} on {found.problem} {told}")


def refusals(cells: dict[str, Any], label: str, seeds: Iterable[int]) -> int:
    """How many updates were refused in all of a rule's runs."""
    return sum(cells.get(key(label, p, s), {}).get("refused", 0) for p in PROBLEMS for s in seeds)


def markdown(cells: dict[str, Any], seeds: Sequence[int]) -> list[str]:
    """The tables of the report."""
    out = ["## Scores", ""]
    out += ["| rule | " + " | ".join(PROBLEMS) + " |", "|---" * (len(PROBLEMS) + 1) + "|"]
    for label, entry in RULES.items():
        texts = {p: cell_text(scores(cells, label, p, seeds)) for p in PROBLEMS}
        row = [f"**{text}**" if p == entry.made_for else text for p, text in texts.items()]
        out.append(f"| {label} | " + " | ".join(row) + " |")
    out += ["", "## Each rule in the setting it was made for", ""]
    found = [c for label in RULES if (c := check(cells, label, seeds))]
    counts = ", ".join(f"{v}: {sum(c.verdict == v for c in found)}" for v in ("wins", "ties", "loses", "fails"))
    out += [
        f"{counts}.",
        "",
        "| rule | made for | why it should win or tie | against | difference | verdict | reason |",
    ]
    out += ["|---" * 7 + "|"]
    for c in found:
        e = RULES[c.label]
        number = f"{c.difference:+.1f} ± {c.spread:.1f}"
        finding = e.finding or ("**not known yet**" if c.verdict in ("loses", "fails") else "")
        out.append(f"| {c.label} | {c.problem} | {e.why} | {c.against} | {number} | {c.verdict} | {finding} |")
    out += ["", "## Hyperparameters", "", "| rule | settings | where from | tried | schedule | refused updates |"]
    out += ["|---" * 6 + "|"]
    for label, e in RULES.items():
        given = ", ".join(f"{k}={v}" for k, v in e.settings.items() if k != "ranks") or "defaults"
        tried = "; ".join(f"{k}: {', '.join(map(str, v))}" for k, v in e.grid.items())
        out.append(f"| {label} | {given} | {e.chosen} | {tried} | {e.schedule} | {refusals(cells, label, seeds)} |")
    reasons: dict[str, list[str]] = {}
    for label in RULES:
        for k in dict.fromkeys(key(label, p, seed) for p in PROBLEMS for seed in seeds):
            if "error" in cells.get(k, {}):
                reasons.setdefault(f"{label}, {k.split(' | ')[1]}", []).append(cells[k]["error"])
    if reasons:
        out += ["", "## Runs that failed", "", "| rule, problem | runs | the first one's error |", "|---|---|---|"]
        out += [f"| {name} | {len(errors)} | {errors[0][:240]} |" for name, errors in reasons.items()]
    return out


def write_report(cells: dict[str, Any], seeds: Sequence[int], path: Path) -> None:
    """The file and its plot beside it."""
    plot(cells, seeds, path.with_suffix(".png"))
    lines = [
        "# All rules on problems where theory says who wins",
        "",
        "**All data are simulated**: Gaussian mixtures, four classes of two modes each, in 12 dimensions. The network "
        "is a body of two layers, pretrained on other such classes, with PEFT's LoRA; LoRA, norms and head train. "
        "Figures say which rule does what it was made for, and nothing about medical data.",
        "",
        f"`python -m studies.rules.run --seeds {len(seeds)}` makes this page, the plot and `rules.json`.",
        "",
        f"{CLIENTS} clients, {ROUNDS} rounds of {LOCAL_STEPS} local steps under every rule (a ring has as many turns, "
        f"a one-shot merge all steps in its round), plain SGD with learning rate {LR}. A figure is the per cent of "
        "test records that clients name right with the model they serve (personal), over the judged clients, "
        f"mean ± standard deviation over {len(seeds)} seeds; in brackets the worst of these clients. **Bold**: the "
        "problem that a rule was made for, named in the source before the first run. A seed draws problem, adapter and "
        "batches. Hyperparameters were chosen on validation data of three other seeds, on the problem that the rule "
        "was made for; so elsewhere a rule may do better with others.",
        "",
        "A rule wins if its mean difference to the best of those named under `against`, paired by seed, is above the "
        f"spread of these differences, and above {TIE} points, which is about what the test data can tell; it loses if "
        "it is as far below, else it ties.",
        "",
        "![Difference to FedAvg; simulated data](rules.png)",
        "",
        "## Problems",
        "",
        "| problem | what is done | what theory says |",
        "|---|---|---|",
        *(f"| {name} | {p.title} | {p.theory} |" for name, p in PROBLEMS.items()),
        "",
        *markdown(cells, seeds),
    ]
    path.write_text("\n".join(lines) + "\n")


def plot(cells: dict[str, Any], seeds: Sequence[int], path: Path) -> None:
    """Each rule's difference to FedAvg on each problem; a frame marks what it was made for."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.patches
    import matplotlib.pyplot as plt
    import numpy as np
    from PIL import Image

    labels, problems = [x for x in RULES if x != "FedAvg"], list(PROBLEMS)
    values = np.full((len(labels), len(problems)), np.nan)
    figure, axes = plt.subplots(figsize=(10, 0.24 * len(labels) + 2.6))
    for i, label in enumerate(labels):
        for j, problem in enumerate(problems):
            found = paired(cells, label, "FedAvg", problem, seeds)
            if not found:
                axes.text(j, i, cell_text(scores(cells, label, problem, seeds)), ha="center", va="center", fontsize=7)
                continue
            values[i, j] = statistics.fmean(found)
            sure = abs(values[i, j]) > max(spread(found), TIE)
            text = f"{values[i, j]:+.1f}" + ("" if sure else " ~")
            colour = "white" if abs(values[i, j]) > 12 else "black"
            axes.text(j, i, text, ha="center", va="center", fontsize=7, color=colour)
        if (made := RULES[label].made_for) is not None:
            frame = (problems.index(made) - 0.5, i - 0.5)
            axes.add_patch(matplotlib.patches.Rectangle(frame, 1, 1, fill=False, edgecolor="black", linewidth=1.6))
    shown = axes.imshow(values, cmap="RdBu", norm=matplotlib.colors.SymLogNorm(1, vmin=-60, vmax=60), aspect="auto")
    axes.set_yticks(range(len(labels)), labels, fontsize=8)
    axes.set_xticks(range(len(problems)), problems, fontsize=8, rotation=30, ha="left")
    axes.xaxis.tick_top()
    bar = figure.colorbar(shown, ax=axes, fraction=0.03, pad=0.02, ticks=[-50, -10, -1, 0, 1, 10, 50], format="%d")
    bar.set_label("points of test accuracy above FedAvg (personal model)")
    axes.set_xlabel(
        f"SIMULATED data, mean of {len(seeds)} seeds. Frame: what the rule was made for. ~: within one spread",
        fontsize=9,
    )
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
    with Image.open(path) as drawn:
        drawn.convert("RGB").quantize(64).save(path, optimize=True)
