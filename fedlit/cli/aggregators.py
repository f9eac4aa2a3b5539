"""List the rules: paper, what goes up and comes down, what stays at the client, whether sealed updates will do.

The table is found by running each rule, see :mod:`fedlit.cli.probe`.
"""

from __future__ import annotations

import dataclasses
import re
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

import fedlit.aggregators
from fedlit.aggregators import Aggregator
from fedlit.cli.arguments import Parser
from fedlit.cli.probe import MODEL, WHOLE, example, observe, turns
from fedlit.errors import FedlitError

WIDTHS = {"rule": 21, "family": 20, "paper": 10, "up": 31, "down": 32, "stays": 28, "sealed": 6}
HEADINGS = {
    "rule": "rule", "family": "family", "paper": "paper", "up": "goes up", "down": "comes down",
    "stays": "stays at the client", "sealed": "sealed",
}  # fmt: skip
LEGEND = (
    f"`{MODEL}` is all that trains: on a network with LoRA, a normalisation and a head, {WHOLE}. `(own)` is another "
    "value for each client; a slash means in turn; `base` is added to the frozen weights. Sealed: works where the "
    "server sees sums of updates only, as with secure aggregation. A star: shown with FedAvg in place of its parts."
)
MARKERS = "<!-- fedlit aggregators -->", "<!-- end -->"


@dataclasses.dataclass(frozen=True)
class Line:
    """A row of the table: a rule, and what :func:`~fedlit.cli.probe.observe` saw of it."""

    rule: str
    family: str
    paper: str
    up: str
    down: str
    stays: str
    sealed: str


def rules() -> dict[str, type[Aggregator]]:
    """The exported rules by name, without base classes, which are not dataclasses."""
    found = {name: getattr(fedlit.aggregators, name) for name in fedlit.aggregators.__all__}
    return {
        name: cls
        for name, cls in found.items()
        if isinstance(cls, type) and issubclass(cls, Aggregator) and "__dataclass_params__" in vars(cls)
    }


def lines(family: str | None = None) -> list[Line]:
    """A line for each rule, sorted by family and name.

    Args:
        family: Only the rules of this one.

    Raises:
        FedlitError: There is no such family.
    """
    families = {name: str(sys.modules[cls.__module__].FAMILY) for name, cls in rules().items()}
    if family is not None and family not in families.values():
        near = get_close_matches(family, families.values(), n=1)
        raise FedlitError(
            f"there is no family {family!r}" + (f"; did you mean {near[0]!r}?" if near else "")
            + f"; there are: {', '.join(sorted(set(families.values())))}"
        )  # fmt: skip
    chosen = sorted((f, name) for name, f in families.items() if family in (None, f))
    return [line(rules()[name], f) for f, name in chosen]


def line(cls: type[Aggregator], family: str) -> Line:
    """The line of one rule."""
    rule, made_up = example(cls)
    paper = re.search(r"arXiv:(\d{4}\.\d{4,5})", vars(cls).get("__doc__") or "")
    seen = observe(rule)
    return Line(
        cls.__name__ + (" *" if made_up else ""),
        family,
        paper[1] if paper else "-",
        turns(seen.up),
        turns(seen.down),
        turns(seen.kept),
        "yes" if seen.sealed else "no",
    )


def plain(table: Sequence[Line]) -> str:
    """The table in columns, for a terminal."""

    def shown(cells: Mapping[str, str]) -> Iterable[str]:
        wrapped = {k: textwrap.wrap(v, WIDTHS[k], break_on_hyphens=False) or [""] for k, v in cells.items()}
        for i in range(max(len(part) for part in wrapped.values())):
            row = (f"{part[i] if i < len(part) else '':{WIDTHS[k]}}" for k, part in wrapped.items())
            yield "  ".join(row).rstrip()

    rows = [HEADINGS, *(dataclasses.asdict(line) for line in table)]
    return "\n".join([text for row in rows for text in shown(row)] + ["", *textwrap.wrap(LEGEND.replace("`", ""), 150)])


def markdown(table: Sequence[Line]) -> str:
    """The table in markdown, for the documentation."""
    out = ["| " + " | ".join(HEADINGS.values()) + " |", "|" + "---|" * len(HEADINGS)]
    for line in table:
        paper = line.paper if line.paper == "-" else f"[{line.paper}](https://arxiv.org/abs/{line.paper})"
        name, _, star = line.rule.partition(" ")
        cells = {**dataclasses.asdict(line), "rule": f"`{name}`" + (rf" \{star}" if star else ""), "paper": paper}
        out.append("| " + " | ".join(cells.values()) + " |")
    return "\n".join([*out, "", *textwrap.wrap(LEGEND, 120)])


def put_into(document: Path, text: str) -> None:
    """Replace the text between the two markers of a document.

    Raises:
        FedlitError: The document lacks a marker.
    """
    before, start, rest = document.read_text().partition(MARKERS[0])
    _, end, after = rest.partition(MARKERS[1])
    if not (start and end):
        raise FedlitError(f"{document} has no lines {MARKERS[0]} and {MARKERS[1]} for the table to stand between")
    document.write_text(f"{before}{start}\n\n{text}\n\n{end}{after}")


def main(args: Sequence[str]) -> None:
    """``fedlit aggregators``."""
    parser = Parser("aggregators", (__doc__ or "").splitlines()[0])
    parser.add_argument("--markdown", action="store_true", help="as docs/aggregators.md has it")
    parser.add_argument("--into", type=Path, metavar="FILE", help="write that between the markers of this document")
    parser.add_argument("--family", help="only the rules of this family")
    given = parser.parse_args(args)
    table = lines(given.family)
    if given.into is None:
        print((markdown if given.markdown else plain)(table))
    else:
        put_into(given.into, markdown(table))
