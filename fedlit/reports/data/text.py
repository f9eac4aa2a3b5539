"""What would be read, on a terminal or in a pipe."""

from __future__ import annotations

import re

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Column
from rich.table import Table as Drawn
from rich.text import Text

from fedlit.data.base.overview import Overview, Table
from fedlit.reports.data.cells import (
    clients_of,
    headline,
    left_out_in_all,
    merged_column,
    numeric,
    totals,
    written,
)
from fedlit.reports.tables import apart

SHOWN_CLIENTS = 30
NAME = 24
"""Characters of a name in a table; longer ones are cut so that they stay apart."""

_NOT_PRINTED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def print_overview(overview: Overview, console: Console) -> None:
    """Print it: names and reasons are text and never markup."""
    console.print(_text(headline(overview), style="bold"))
    for name, text in overview.facts.items():
        console.print(_text(f"{name}: {text}"))
    console.print(_text(f"in all: {totals(overview)}"))
    for table in overview.shown.tables:
        _print_table(table, console)
    if overview.found:
        console.print(_drawn("Found", ["what", "found"], [list(pair) for pair in overview.found.items()]))
    if overview.left_out:
        rows = [[str(count), reason, names] for count, reason, names in overview.left_out]
        title = f"Left out: {left_out_in_all(overview)}"
        console.print(_drawn(title, ["records", "why (of the first)", "which"], rows, [True, False, False]))
    else:
        console.print(_text("\nLeft out: nothing", "bold"))
    console.print(_text(f"\nWarnings: {len(overview.warnings) or 'none'}", "bold"))
    for warning in overview.warnings:
        console.print(_text(f"- {warning}"))


def _text(text: str, style: str = "") -> Text:
    """Text that no name can turn into commands of a terminal: control characters and halves of pairs are replaced."""
    return Text(_NOT_PRINTED.sub("\ufffd", text), style)


def _print_table(table: Table, console: Console) -> None:
    clients = clients_of(table)
    last = set(clients[SHOWN_CLIENTS:])
    rows = [[written(cell) for cell in row] for row in table.rows if str(row[0]) not in last]
    console.print(_drawn(table.title, list(table.columns), rows, numeric(table)))
    if last:
        console.print(_text(f"{len(last)} more clients: --html or --json has them all"))
    if table.note:
        console.print(_text(table.note, style="dim"))


def _drawn(title: str, columns: list[str], rows: list[list[str]], numbers: list[bool] | None = None) -> Drawn:
    """A table; where the first column holds no numbers, a name stands only where its rows begin."""
    right = numbers or [False] * len(columns)
    heads = [
        Column(name, justify="right" if number else "left", no_wrap=number, overflow="fold")
        for name, number in zip(columns, right, strict=True)
    ]
    drawn = Drawn(
        *heads,
        title=_text(f"\n{title}", "bold"),
        title_justify="left",
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
    )
    short = apart([row[0] for row in rows], NAME)
    names = [row[0] for row in rows] if right[0] else merged_column([short[row[0]] for row in rows])
    grouped = not all(names)
    for i, row in enumerate(rows):
        last = grouped and i + 1 < len(rows) and bool(names[i + 1])
        drawn.add_row(*(_text(cell) for cell in (names[i], *row[1:])), end_section=last)
    return drawn
