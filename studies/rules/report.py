"""What is reported of the runs: table, verdicts, report and plot."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from studies.rules.problems import CLIENTS, LOCAL_STEPS, LR, PROBLEMS, ROUNDS
from studies.rules.references import ENTRIES
from studies.rules.scores import Score, key, paired, scores, spread
from studies.rules.table import RULES
from studies.rules.verdicts import Verdict
from studies.rules.verdicts_told import comparison_table, number, p_text, told


def cell_text(found: Sequence[Score | None]) -> str:
    """Mean and spread over seeds, and the worst client."""
    got = [s for s in found if s is not None]
    if not got:
        return "fails" if found else "-"
    means = [s.mean for s in got]
    text = f"{statistics.fmean(means):.1f} ± {spread(means):.1f} ({statistics.fmean(s.worst for s in got):.0f})"
    return text + ("" if len(got) == len(found) else f" {len(found) - len(got)} failed")


def print_table(
    cells: dict[str, Any],
    labels: Sequence[str],
    problems: Sequence[str],
    seeds: Sequence[int],
    found: Sequence[Verdict],
) -> None:
    """On the screen, with the verdicts."""
    print(f"SIMULATED DATA. Per cent right, mean ± spread over {len(seeds)} seeds (worst client)")
    print(" " * 34 + "".join(f"{p:>25}" for p in problems))
    for label in labels:
        print(f"{label:34}" + "".join(f"{cell_text(scores(cells, label, p, seeds)):>25}" for p in problems))
    for f in found:
        if f.rule in labels and f.problem in problems:
            apart = ", ".join(f"{number(c)} to {c.against}" for c in f.comparisons)
            print(f"{f.rule} {f.verdict} on {f.problem}, Holm's p {p_text(f.corrected)}: {apart}")


def refusals(cells: dict[str, Any], label: str, seeds: Iterable[int]) -> int:
    """How many updates were refused in all of a rule's runs."""
    return sum(cells.get(key(label, p, s), {}).get("refused", 0) for p in PROBLEMS for s in seeds)


def score_table(cells: dict[str, Any], seeds: Sequence[int]) -> list[str]:
    """Every rule on every problem."""
    out = ["## Scores", "", f"Mean ± standard deviation over {len(seeds)} seeds, in brackets the worst client.", ""]
    out += ["| rule | " + " | ".join(PROBLEMS) + " |", "|---" * (len(PROBLEMS) + 1) + "|"]
    for label, entry in RULES.items():
        texts = {p: cell_text(scores(cells, label, p, seeds)) for p in PROBLEMS}
        row = [f"**{text}**" if p == entry.made_for else text for p, text in texts.items()]
        out.append(f"| {label} | " + " | ".join(row) + " |")
    return [*out, ""]


def settings_table(cells: dict[str, Any], seeds: Sequence[int]) -> list[str]:
    """Hyperparameters, and the runs that failed."""
    out = ["## Hyperparameters", "", "| rule | settings | where from | tried | schedule | refused updates |"]
    out += ["|---" * 6 + "|"]
    for label, e in ENTRIES.items():
        given = ", ".join(f"{k}={v}" for k, v in e.settings.items() if k != "ranks") or "defaults"
        tried = "; ".join(f"{k}: {', '.join(map(str, v))}" for k, v in e.grid.items())
        out.append(f"| {label} | {given} | {e.chosen} | {tried} | {e.schedule} | {refusals(cells, label, seeds)} |")
    reasons: dict[str, list[str]] = {}
    for label in ENTRIES:
        for k in dict.fromkeys(key(label, p, seed) for p in PROBLEMS for seed in seeds):
            if "error" in cells.get(k, {}):
                reasons.setdefault(f"{label}, {k.split(' | ')[1]}", []).append(cells[k]["error"])
    if reasons:
        out += ["", "## Runs that failed", "", "| rule, problem | runs | the first one's error |", "|---|---|---|"]
        out += [f"| {name} | {len(errors)} | {errors[0][:240]} |" for name, errors in reasons.items()]
    return out


def write_report(
    cells: dict[str, Any], seeds: Sequence[int], paired_seeds: Sequence[int], found: Sequence[Verdict], path: Path
) -> None:
    """The file and its plot beside it."""
    plot(cells, seeds, path.with_suffix(".png"))
    lines = [
        "# All rules on problems where theory says who wins",
        "",
        "**All data are simulated**: Gaussian mixtures, four classes of two modes each, in 12 dimensions. The network "
        "is a body of two layers, pretrained on other such classes, with PEFT's LoRA; LoRA, norms and head train. "
        "Figures say which rule does what it was made for, and nothing about medical data.",
        "",
        f"`python -m studies.rules.run --seeds {len(seeds)} --paired-seeds {len(paired_seeds)}` makes this page, the "
        "plot and `rules.json`.",
        "",
        f"{CLIENTS} clients, {ROUNDS} rounds of {LOCAL_STEPS} local steps under every rule (a ring has as many turns, "
        f"a one-shot merge all steps in its round), plain SGD with learning rate {LR}. A figure is the per cent of "
        "test records that clients name right with the model they serve (personal), over the judged clients. **Bold**: "
        "the problem that a rule was made for, named in the source before the first run. A seed draws problem, adapter "
        "and batches. Hyperparameters were chosen on validation data of three other seeds, on the problem that the "
        "rule was made for; so elsewhere a rule may do better with others.",
        "",
        *told(cells, seeds, paired_seeds, found),
        "## Problems",
        "",
        "| problem | what is done | what theory says |",
        "|---|---|---|",
        *(f"| {name} | {p.title} | {p.theory} |" for name, p in PROBLEMS.items()),
        "",
        *score_table(cells, seeds),
        "![Difference to FedAvg; simulated data](rules.png)",
        "",
        *comparison_table(found),
        *settings_table(cells, paired_seeds),
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
            text = f"{values[i, j]:+.1f}"
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
        f"SIMULATED data, mean of {len(seeds)} seeds, differences not tested. Frame: what the rule was made for",
        fontsize=9,
    )
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
    with Image.open(path) as drawn:
        drawn.convert("RGB").quantize(64).save(path, optimize=True)
