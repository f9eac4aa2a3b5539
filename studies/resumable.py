"""Studies of many runs in processes, in one JSON file that grows run by run: what it holds is not repeated."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol, TypeVar

from benchmarks.workload import header


class Keyed(Protocol):
    """One run, which can be pickled."""

    @property
    def key(self) -> str:
        """Name in the JSON file."""


Cell = TypeVar("Cell", bound=Keyed)


def study(
    todo: Sequence[Cell],
    work: Callable[[Cell], dict[str, Any]],
    path: Path,
    jobs: int,
    about: dict[str, Any],
    shown: Callable[[dict[str, Any]], Any],
    stands: Callable[[Cell, dict[str, Any]], bool] = lambda cell, found: True,
) -> dict[str, Any]:
    """Run what the file lacks, and add it to the file run by run.

    Args:
        todo: Runs in the order of the file.
        work: What is done for each, with its ``seconds``; it can be pickled.
        path: Of the JSON file: ``header`` and ``runs`` by key.
        jobs: Runs at one time.
        about: Of the header, beside versions and machine.
        shown: What is printed of a run.
        stands: Whether what the file has of a run may stay.

    Returns:
        All runs of the file, by key.
    """
    done: dict[str, Any] = json.loads(path.read_text())["runs"] if path.is_file() else {}
    left = [cell for cell in todo if cell.key not in done or not stands(cell, done[cell.key])]
    os.environ["OMP_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        asked = {pool.submit(work, cell): cell.key for cell in left}
        for number, future in enumerate(as_completed(asked), 1):
            key = asked[future]
            done[key] = future.result()
            print(f"{number}/{len(left)} {key}: {shown(done[key])}, {done[key]['seconds']} s", flush=True)
            unfinished = path.with_suffix(".part")
            order = {cell.key: done[cell.key] for cell in todo if cell.key in done}
            unfinished.write_text(as_text({**header(), **about}, {**done, **order}))
            unfinished.replace(path)
    return done


def as_text(head: dict[str, Any], runs: dict[str, Any]) -> str:
    """The JSON file, a run a line."""
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(run, separators=(',', ':'))}" for key, run in runs.items())
    return f'{{"header": {json.dumps(head)},\n"runs": {{\n{lines}\n}}}}\n'
