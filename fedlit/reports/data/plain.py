"""What would be read, as JSON."""

from __future__ import annotations

import json
import math
from typing import Any

from fedlit.data.base.overview import Cell, Overview


def as_json(overview: Overview) -> str:
    """Tables as lists of objects, one a row, keyed by column; no samples, and no charts, which repeat tables."""
    plain: dict[str, Any] = {
        "data": overview.data,
        "simulated": overview.simulated,
        "facts": dict(overview.facts),
        "totals": {name: _number(value) for name, value in overview.shown.totals.items()},
        "tables": {
            table.title: [dict(zip(table.columns, map(_number, row), strict=True)) for row in table.rows]
            for table in overview.shown.tables
        },
        "found": dict(overview.found),
        "left_out": [{"records": n, "reason": why, "which": which} for n, why, which in overview.left_out],
        "warnings": list(overview.warnings),
    }
    return json.dumps(plain, indent=2, ensure_ascii=False) + "\n"


def _number(cell: Cell) -> Cell:
    if isinstance(cell, float):
        return float(f"{cell:.6g}") if math.isfinite(cell) else None
    return cell
