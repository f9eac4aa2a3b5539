"""What annotated documents show of themselves: mentions and relations by type, what was looked for, lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fedlit.data.base.overview import Bars, Cell, Lengths, Shown, Table
from fedlit.data.base.records import SPLITS
from fedlit.data.documents.documents import Document
from fedlit.data.documents.schema_and_masks import type_counts

LookedForTypes = Mapping[str, Sequence[str]]
Sides = Mapping[str, Mapping[str, Sequence[Document]]]


def documents_shown(documents: Sides, looked_for: Mapping[str, Mapping[str, LookedForTypes]]) -> Shown:
    """Tables and charts; no text of any document.

    Args:
        documents: By client and split, with what their client looked for.
        looked_for: Types that were looked for, by client, split, and ``entities`` or ``relations``.
    """
    counts = {client: {split: type_counts(sides[split]) for split in SPLITS} for client, sides in documents.items()}
    every = [own for sides in documents.values() for held in sides.values() for own in held]
    rows: list[tuple[Cell, ...]] = []
    for client, sides in documents.items():
        for split in SPLITS:
            held = sides[split]
            mentions, relations = (sum(counts[client][split][what].values()) for what in ("entities", "relations"))
            median = int(np.median([len(own.text) for own in held])) if held else None
            rows.append((client, split, len(held), len({own.subject for own in held}), mentions, relations, median))
    columns = ("client", "split", "documents", "subjects", "mentions", "relations", "characters")
    tables = [
        Table("Who holds what", columns, tuple(rows), "characters: median of a document"),
        Table("Types looked for", ("client", "split", "mentions", "relations"), _types_asked(documents, looked_for)),
    ]
    charts: list[Bars | Lengths] = []
    for what, title in (("entities", "Mentions by type"), ("relations", "Relations by type")):
        names = sorted({name for own in counts.values() for split in own.values() for name in split[what]})
        if not names:
            continue
        by_type = tuple(
            (c, s, _counted(own[s][what], looked_for[c][s][what])) for c, own in counts.items() for s in own
        )
        tables.append(Table(title, ("client", "split", "of each type"), by_type))
        bars = tuple((c, s, tuple(own[s][what].get(n, 0) for n in names)) for c, own in counts.items() for s in own)
        charts.append(Bars(title, tuple(names), bars))
    lengths = {
        client: [len(own.text) for held in sides.values() for own in held] for client, sides in documents.items()
    }
    charts.append(Lengths("Lengths of documents", "characters", lengths))
    totals: dict[str, Cell] = {
        "clients": len(documents),
        "documents": len(every),
        "subjects": len({own.subject for own in every}),
        "mentions": sum(len(own.entities) for own in every),
        "relations": sum(len(own.relations) for own in every),
    }
    return Shown(totals, tables, charts)


def _types_asked(
    documents: Sides, looked_for: Mapping[str, Mapping[str, LookedForTypes]]
) -> tuple[tuple[Cell, ...], ...]:
    """Client, its splits in which the same was looked for, and the types of mention and relation."""
    rows = []
    for client, own in looked_for.items():
        same: dict[tuple[str, str], list[str]] = {}
        for split in SPLITS:
            if documents[client][split]:
                types = own[split]
                names = ", ".join(types["entities"]) or "none", ", ".join(types["relations"]) or "none"
                same.setdefault(names, []).append(split)
        rows += [(client, ", ".join(splits), *names) for names, splits in same.items()]
    return tuple(rows)


def _counted(counts: Mapping[str, int], looked_for: Sequence[str]) -> str:
    if not looked_for:
        return "not looked for"
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"
