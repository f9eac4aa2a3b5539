"""How many mentions and relations of a document were found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from fedlit.data.documents.documents import Document, Entity
from fedlit.instructions.markup import Parts, parts

Ends = Literal["mention", "concept"]
Span = tuple[str, Parts]
"""Type and place of a mention."""
Link = tuple[str, Span, Span]
"""Type, head and tail of a relation."""


class Matches(NamedTuple):
    """Counts of one type in one document: annotated; predicted and right, for strict and for lenient scores."""

    gold: int
    guessed: int
    strict: int
    guessed_lenient: int
    lenient: int


def span(entity: Entity) -> Span:
    """Type and place of a mention, by which it is compared."""
    return entity.type, parts(entity)


def shared(first: Parts, second: Parts) -> int:
    """Characters that two places have in common."""
    return sum(max(0, min(b, d) - max(a, c)) for a, b in first for c, d in second)


def overlap(first: Span, second: Span) -> bool:
    """Whether two mentions are of one type and share a character."""
    return first[0] == second[0] and shared(first[1], second[1]) > 0


def match_entities(gold: Document, guess: Document, type: str) -> Matches:
    """Matches of one type of mention. Mentions of equal type and place count once."""
    first, second = (
        {span(entity) for entity in document.entities if entity.type == type} for document in (gold, guess)
    )
    ones, twos = sorted(first), sorted(second)
    lenient = pairs([[j for j, other in enumerate(twos) if overlap(wanted, other)] for wanted in ones], len(twos))
    return Matches(len(first), len(second), len(first & second), len(second), lenient)


def match_relations(
    gold: Document, guess: Document, type: str, ends: Ends = "mention", symmetric: bool = False
) -> Matches:
    """Matches of one type of relation; see :func:`fedlit.metrics.spans.counts.count_spans` for ``ends``."""
    first, second = (_links(document, type, symmetric) for document in (gold, guess))
    if ends == "mention":
        ones, twos = sorted(first), sorted(second)
        left, right = ({end for link in links for end in link[1:]} for links in (first, second))
        near = {(a, b) for a in left for b in right if overlap(a, b)}

        def close(a: Span, b: Span, c: Span, d: Span) -> bool:
            crossed = symmetric and (a, d) in near and (b, c) in near
            return crossed or ((a, c) in near and (b, d) in near)

        linked = [[j for j, (_, c, d) in enumerate(twos) if close(a, b, c, d)] for _, a, b in ones]
        return Matches(len(first), len(second), len(first & second), len(second), pairs(linked, len(twos)))
    concepts: dict[Span, tuple[str, str]] = {}
    for entity in gold.entities:
        if entity.concept is not None:
            concepts.setdefault(span(entity), (entity.type, entity.concept))

    def strict(end: Span) -> object:
        return concepts.get(end, end)

    def lenient(end: Span) -> object:
        best = max(
            concepts, key=lambda known: (known == end, overlap(known, end), shared(known[1], end[1])), default=end
        )
        return concepts[best] if best in concepts and overlap(best, end) else end

    def pair(one: object, two: object) -> tuple[object, ...]:
        return tuple(sorted((one, two), key=repr)) if symmetric else (one, two)

    wanted = {pair(strict(a), strict(b)) for _, a, b in first}
    found = {pair(strict(a), strict(b)) for _, a, b in second}
    loosely = {pair(lenient(a), lenient(b)) for _, a, b in second}
    return Matches(len(wanted), len(found), len(wanted & found), len(loosely), len(wanted & loosely))


def _links(document: Document, type: str, symmetric: bool) -> set[Link]:
    """Relations of a type; those without a direction from the lower span to the higher one."""
    mentions = document.by_id()
    ends = [(span(mentions[r.head]), span(mentions[r.tail])) for r in document.relations if r.type == type]
    return {(type, *sorted(pair)) if symmetric else (type, *pair) for pair in ends}  # type: ignore[misc]


def pairs(edges: Sequence[Sequence[int]], width: int) -> int:
    """Size of a maximum matching of a bipartite graph.

    Args:
        edges: Neighbours on the right of each node on the left.
        width: Number of nodes on the right.
    """
    right = [j for row in edges for j in row]
    if len(set(right)) == len(right) or all(len(row) < 2 for row in edges):
        return min(sum(1 for row in edges if row), len(set(right)))
    import numpy as np
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_bipartite_matching

    left = np.repeat(np.arange(len(edges)), [len(row) for row in edges])
    graph = csr_array((np.ones(len(right), dtype=np.int8), (left, right)), shape=(len(edges), width))
    return int((maximum_bipartite_matching(graph, perm_type="column") >= 0).sum())
