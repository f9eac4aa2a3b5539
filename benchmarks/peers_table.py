"""Rows and the printed table of ``benchmarks/peers.py``."""

from __future__ import annotations

from statistics import median
from typing import Any

from peers_program import Program
from peers_work import Work
from rich.console import Console
from rich.table import Table
from roofline import line

CASES = ("seconds a round", "start-up", "peak memory")


def figures(program: Program, case: str, size: int) -> list[float]:
    """Of each turn: seconds, or for memory the one peak in bytes; none where it was not measured."""
    if case == "peak memory":
        return [program.peak[size]] if size in program.peak else []
    return (program.seconds if case == "seconds a round" else program.startup).get(size, [])


def table_rows(
    programs: list[Program], work: Work, batches: list[int], facts: dict[str, Any], shape: str
) -> list[dict[str, Any]]:
    """A row for each batch size, case and peer; ``ratio`` is None, and ``skipped`` says why, where there is none."""
    ours, *peers = programs
    rows: list[dict[str, Any]] = []
    for size in batches:
        for case in CASES:
            for peer in peers:
                mine, theirs = figures(ours, case, size), figures(peer, case, size)
                whole = bool(theirs) and len(theirs) == len(mine)
                ratios = [a / b for a, b in zip(mine, theirs, strict=True)] if whole else []
                processes = peer.chosen.get(size)
                setting = (
                    f"batch {size}, {work.clients} clients, {work.steps} steps, {shape}, LoRA r 8 on q and v, float32, "
                    f"{work.threads} threads in all, {len(mine)} turns; {peer.name} in {processes} process(es)"
                )
                row = {
                    "case": case,
                    "setting": setting,
                    "baseline": peer.name,
                    "batch_size": size,
                    "ratio": median(ratios) if ratios else None,
                    "ratio_low": min(ratios, default=None),
                    "ratio_high": max(ratios, default=None),
                    "unit": "bytes" if case == "peak memory" else "seconds",
                    "fedlit": mine,
                    "peer": theirs,
                    "processes": ours.chosen.get(size),
                    "peer_processes": processes,
                    "weight_difference": facts["weight_differences"].get(peer.name),
                }
                if not whole:
                    row["skipped"] = peer.skipped or "not all turns were run"
                rows.append(row)
    return rows


def show(
    programs: list[Program], batches: list[int], rows: list[dict[str, Any]], facts: dict[str, Any], steps: int
) -> None:
    """Print one table, and below it what share of the machine's matmul peak each program's local steps are.

    Args:
        programs: fedlit first.
        batches: Batch sizes.
        rows: As :func:`table_rows` gives them.
        facts: Floating-point operations of a step, and the peak.
        steps: Local steps in a round, of all clients.
    """
    table = Table(title="fedlit and its peers, simulated data", show_lines=False)
    for column in ("batch", "program", *CASES, *(f"fedlit / it: {case}" for case in CASES)):
        table.add_column(column, justify="left" if column == "program" else "right")
    found = {(row["batch_size"], row["baseline"], row["case"]): row for row in rows}
    feet, skipped = [], {}
    for size in batches:
        for program in programs:
            processes = program.chosen.get(size, 1)
            name = f"{program.name}, {processes} processes" if processes > 1 else program.name
            absolute = [_span(figures(program, case, size), case) for case in CASES]
            peer = [found.get((size, program.name, case)) for case in CASES]
            table.add_row(str(size), name, *absolute, *(_ratio(row) for row in peer))
            seconds = figures(program, CASES[0], size)
            if seconds:
                flops = facts["flops of a local step"][str(size)] * steps
                feet.append(line(flops, median(seconds), facts["matmul peak"], f"batch {size}, {name}"))
            if program.skipped:
                skipped[program.name] = program.skipped
    console = Console(width=170)
    console.print(table)
    for foot in feet:
        console.print(foot, highlight=False)
    for peer_name, reason in skipped.items():
        console.print(f"{peer_name} was skipped: {reason}", highlight=False, markup=False)


def _span(values: list[float], case: str) -> str:
    if not values:
        return "skipped"
    if case == "peak memory":
        return f"{values[0] / 2**20:.0f} MiB"
    return f"{median(values):.2f} s ({min(values):.2f} to {max(values):.2f})"


def _ratio(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    if row["ratio"] is None:
        return "skipped"
    spread = "" if row["case"] == "peak memory" else f" ({row['ratio_low']:.2f} to {row['ratio_high']:.2f})"
    return f"{row['ratio']:.2f}{spread}"
