"""What a data module tells of what it has read, for ``fedlit data``: tables, charts, and samples where they are wanted.

Reports draw these and know no kind of data; a kind of data makes these and knows no report.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fedlit.data.base.names import few

Cell = str | int | float | None
"""A cell of a table; None where there is nothing to say."""
SHOWN_ELSEWHERE = frozenset(
    ("data", "root", "simulated", "stand_in", "seed", "partition", "split", "windows", "parity", "fraction", "signals")
    + ("clients", "server", "statistics", "excluded", "warnings", "classes", "multi_label", "schema", "types")
)
"""Sections of ``describe()`` that are no findings."""
CLIENT_SHOWN_ELSEWHERE = frozenset(
    ("records", "subjects", "kinds", "rates", "seconds", "channel_seconds", "windows", "examples", "class_counts")
    + ("documents", "annotated", "type_counts", "looked_for", "types", "split")
)
"""The same for what it says of one client."""


@dataclass(frozen=True)
class Table:
    """Figures by client.

    Attributes:
        title: What they are of.
        columns: Names; the first column is the client's.
        rows: Cells; rows of one client follow one another.
        note: What a reader must know of them.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class Bars:
    """Counts of classes or types, by client and split.

    Attributes:
        title: What they are of.
        names: Classes, in order.
        rows: Client, split, and the count of each class, in the order of ``names``.
    """

    title: str
    names: tuple[str, ...]
    rows: tuple[tuple[str, str, tuple[int, ...]], ...]


@dataclass(frozen=True)
class Lengths:
    """How long things are, as a histogram for each client.

    Attributes:
        title: What they are of.
        unit: ``"s"``, ``"characters"``.
        values: Lengths by client.
    """

    title: str
    unit: str
    values: Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Curve:
    """A stretch of signal: a sample of the data.

    Attributes:
        client: Who holds it.
        caption: Which record it is of.
        values: Shape ``(channels, samples)``, NaN = missing.
        rate: Samples per second (Hz).
        unit: Of the values.
        target: Sample at which what is forecast begins; None: nothing is.
    """

    client: str
    caption: str
    values: npt.NDArray[np.float32] = field(repr=False)
    rate: float
    unit: str = ""
    target: int | None = None


@dataclass(frozen=True)
class Thumbnail:
    """An image: a sample of the data.

    Attributes:
        client: Who holds it.
        caption: Which record it is, and its label.
        pixels: uint8, shape ``(height, width, 3)``.
    """

    client: str
    caption: str
    pixels: npt.NDArray[np.uint8] = field(repr=False)


class Shown(NamedTuple):
    """What one kind of data shows.

    Attributes:
        totals: Counts over all clients, by what they count.
        tables: By client.
        charts: By client.
        samples: Of the data themselves.
    """

    totals: Mapping[str, Cell] = {}
    tables: Sequence[Table] = ()
    charts: Sequence[Bars | Lengths] = ()
    samples: Sequence[Curve | Thumbnail] = ()


@dataclass(frozen=True)
class Overview:
    """What would be read.

    Attributes:
        data: Class of the data module.
        simulated: Whether the data are simulated or a stand-in.
        facts: What was asked for: folder, partition, split, windows.
        shown: Tables, charts and samples.
        found: What was found in the data, by what it is.
        left_out: Number of records, why, and some of their ids.
        warnings: In the order of their coming.
    """

    data: str
    simulated: bool
    facts: Mapping[str, str]
    shown: Shown
    found: Mapping[str, str]
    left_out: Sequence[tuple[int, str, str]]
    warnings: Sequence[str]


def overview_of(data: str, said: Mapping[str, Any], shown: Shown) -> Overview:
    """An overview from a data module's ``describe()`` and what its kind shows.

    Sections of ``describe()`` that are not known here are findings, and shown as they are.
    """
    asked = ("root", "stand_in", "partition", "parity", "split", "fraction", "windows", "signals", "server")
    facts = {name.replace("_", " "): told(_scalars(said[name])) for name in asked if said.get(name)}
    facts["seed"] = str(said.get("seed") or 0)
    sections = {name: value for name, value in said.items() if name not in SHOWN_ELSEWHERE}
    sections |= {name: value for name, value in said.get("signals", {}).items() if isinstance(value, Mapping)}
    found = {name.replace("_", " "): told(value) for name, value in sections.items()}
    rows = [
        (client, name.replace("_", " "), told(value))
        for client, own in said.get("clients", {}).items()
        for name, value in own.items()
        if name not in CLIENT_SHOWN_ELSEWHERE and told(value) and not (name == "sites" and len(value) == 1)
    ]
    extra = [Table("Found at clients", ("client", "what", "found"), tuple(rows))] if rows else []
    return Overview(
        data,
        bool(said.get("simulated")),
        facts,
        shown._replace(tables=[*shown.tables, *extra]),
        {name: text for name, text in found.items() if text},
        by_reason(said.get("excluded", [])),
        list(said.get("warnings", [])),
    )


def told(value: Any, most: int = 8) -> str:
    """A value of ``describe()`` in a few words; empty where there is nothing: None, False, 0, or an empty section."""
    if isinstance(value, Mapping):
        full = {name: value[name] for name in value if _says(value[name])}
        if all(own is True for own in full.values()):
            return ""  # how something was done that did not occur
        if all(isinstance(own, str | int | float) for own in full.values()):
            return few([f"{name.replace('_', ' ')} {own}" for name, own in full.items()], most)
        if len(full) <= most:
            return "; ".join(f"{name}: {told(own, most) or own}" for name, own in full.items())
        return f"{len(full)}: {few(list(full), most)}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        names = [str(own) for own in value]
        return f"{len(names)}: {few(names, most)}" if len(names) > 1 else "".join(names)
    if value is True:
        return "yes"
    return str(value) if _says(value) else ""


def by_reason(excluded: Sequence[Mapping[str, str]]) -> list[tuple[int, str, str]]:
    """Records that were left out, by reason, most first: how many, the reason of the first of them, and their ids.

    Reasons that differ in the record's name, or in numbers, are one.
    """
    found: dict[str, list[Mapping[str, str]]] = defaultdict(list)
    for own in excluded:
        found[re.sub(r"\d+(\.\d+)?", "0", own["reason"].replace(own["record"], ""))].append(own)
    return sorted(
        ((len(own), own[0]["reason"], few([one["record"] for one in own], 4)) for own in found.values()),
        key=lambda row: (-row[0], row[1]),
    )


def evenly_spaced(count: int, most: int) -> list[int]:
    """At most ``most`` of ``range(count)``, evenly spaced."""
    most = min(count, most)
    return [(2 * k + 1) * count // (2 * most) for k in range(most)]


def _scalars(section: Any) -> Any:
    """A section without those within it, which are findings."""
    if not isinstance(section, Mapping) or "class" in section:
        return section
    return {name: value for name, value in section.items() if not isinstance(value, Mapping)}


def _says(value: Any) -> bool:
    return not (value is None or value is False or value == 0 or value in ("", [], {}, ()))
