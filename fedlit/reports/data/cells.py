"""Cells of tables as text, and what is said above them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fedlit.data.base.overview import Cell, Overview, Table


def written(cell: Cell) -> str:
    """A cell: numbers to three digits, NaN as a hyphen, nothing for None."""
    if cell is None:
        return ""
    if isinstance(cell, float):
        if math.isnan(cell):
            return "-"
        return f"{cell:.0f}" if abs(cell) >= 100 else f"{cell:.3g}"
    return str(cell)


def numeric(table: Table) -> list[bool]:
    """Which columns hold numbers only."""
    return [all(isinstance(row[i], int | float | None) for row in table.rows) for i in range(len(table.columns))]


def clients_of(table: Table) -> list[str]:
    """Names in the first column, each once, in order."""
    return list(dict.fromkeys(str(row[0]) for row in table.rows))


def headline(overview: Overview) -> str:
    """What data they are, and whether they are real."""
    return f"{overview.data}, data: {'SIMULATED' if overview.simulated else 'real'}"


def totals(overview: Overview) -> str:
    """Counts over all clients, in a line."""
    return ", ".join(f"{written(value)} {name}" for name, value in overview.shown.totals.items())


def left_out_in_all(overview: Overview) -> int:
    """How many records were left out."""
    return sum(count for count, _, _ in overview.left_out)


def merged_column(cells: Sequence[str]) -> list[str]:
    """Cells of a column, a name that is repeated only where it begins."""
    return [cell if not i or cell != cells[i - 1] else "" for i, cell in enumerate(cells)]
