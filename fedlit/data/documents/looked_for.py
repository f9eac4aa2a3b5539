"""What was looked for in documents, by kind of annotation and by type: masks of clients, of sites, of the server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from fedlit.data.documents.documents import BOTH, Annotation, Document
from fedlit.errors import FedlitError

Kinds = list[Annotation] | dict[Annotation, list[str] | None]
"""Kinds of annotation, or each with its types; None for all of its types."""
SURPRISE = 3
"""Documents with a mention or relation that have to be expected for none to be taken for not looked for."""
FORM = "[entities, relations], or {entities: [Disease], relations: [CID]} where not all types were looked for"


@dataclass(frozen=True)
class LookedFor:
    """What somebody looked for.

    Attributes:
        annotated: Kinds of annotation.
        entity_types: Types of mention; None: all.
        relation_types: Types of relation; None: all between these mentions.
    """

    annotated: frozenset[Annotation] = BOTH
    entity_types: frozenset[str] | None = None
    relation_types: frozenset[str] | None = None

    @classmethod
    def read(cls, given: Any) -> LookedFor | None:
        """As an argument or a file says it (:data:`FORM`); None where it has another form."""
        if isinstance(given, list | tuple):
            named: dict[Any, Any] = dict.fromkeys(map(str, given))
        elif isinstance(given, Mapping):
            named = dict(given)
        else:
            return None
        lists = [types for types in named.values() if types is not None]
        good = all(isinstance(own, list) and own and all(isinstance(t, str) and t for t in own) for own in lists)
        if not good or not set(named) <= BOTH:
            return None
        types = {kind: None if own is None else frozenset(own) for kind, own in named.items()}
        return cls(frozenset(types), types.get("entities"), types.get("relations"))

    def plain(self) -> list[str] | dict[str, list[str] | None]:
        """As a file says it."""
        types = {"entities": self.entity_types, "relations": self.relation_types}
        if not any(types.values()):
            return sorted(self.annotated)
        named = {kind: types[kind] for kind in sorted(self.annotated)}
        return {kind: None if own is None else sorted(own) for kind, own in named.items()}


def looked_for_in(document: Document) -> LookedFor:
    """What was looked for in a document."""
    return LookedFor(document.annotated, document.entity_types, document.relation_types)


def masked(document: Document, mask: LookedFor) -> Document | None:
    """A document with what its client looked for; None where nothing that it was looked for is left.

    Without ``relations`` it has none. Without ``entities`` it keeps all its mentions, as input of a task that links
    them; ``annotated`` says that they are no target. Mentions of other types than the client's are taken out, and
    relations with them.
    """
    left = set(document.annotated & mask.annotated)
    entity_types = _common(document.entity_types, mask.entity_types)
    relation_types = _common(document.relation_types, mask.relation_types)
    if entity_types is not None and not entity_types:
        return None
    if relation_types is not None and not relation_types:
        left.discard("relations")
    if not left:
        return None
    entities = document.entities
    if mask.entity_types is not None:
        entities = tuple(entity for entity in entities if entity.type in mask.entity_types)
    there = {entity.id for entity in entities}
    relations = tuple(
        relation
        for relation in document.relations
        if "relations" in left
        and (relation_types is None or relation.type in relation_types)
        and {relation.head, relation.tail} <= there
    )
    return replace(
        document,
        entities=entities,
        relations=relations,
        annotated=frozenset(left),
        entity_types=entity_types,
        relation_types=relation_types if "relations" in left else None,
    )


def mask_of(client: str, annotated: Mapping[str, LookedFor]) -> tuple[str, LookedFor] | None:
    """The first pattern that names a client, and what it looked for; None where no pattern does."""
    named = (pattern for pattern in annotated if pattern == client or fnmatchcase(client, pattern))
    return next(((pattern, annotated[pattern]) for pattern in named), None)


def check_types(pattern: str, mask: LookedFor, schema: Mapping[str, Any]) -> None:
    """Refuse types that no document has, and relations whose ends were not looked for.

    Args:
        pattern: Which argument of ``data.annotated`` it is.
        mask: What it says.
        schema: Types of the documents, as ``data.schema``.

    Raises:
        FedlitError: With the mend.
    """
    here = f"data.annotated of {pattern!r}"
    links: Mapping[str, Sequence[Sequence[str]]] = schema["relations"]
    for kind, named, known in (
        ("mention", mask.entity_types, schema["entities"]),
        ("relation", mask.relation_types, list(links)),
    ):
        odd = sorted((named or frozenset()) - set(known))
        if odd:
            raise FedlitError(
                f"{here} names the type {odd[0]!r}, which no {kind} has; there are {', '.join(known) or 'none'}: mend "
                f"it, or add it to data.schema"
            )
    if mask.entity_types is None or "relations" not in mask.annotated:
        return
    wanted = sorted(mask.relation_types) if mask.relation_types is not None else list(links)
    outside = {name: [pair for pair in links[name] if not set(pair) <= mask.entity_types] for name in wanted}
    idle = [name for name in wanted if len(outside[name]) == len(links[name])]
    if idle and (mask.relation_types is not None or len(idle) == len(wanted)):
        lacking = sorted(set(outside[idle[0]][0]) - mask.entity_types) if outside[idle[0]] else []
        mend = f"add {', '.join(lacking)} to its entities, or leave" if lacking else "leave"
        raise FedlitError(
            f"{here}: relations {idle[0]!r} link mentions that it did not look for, so that none could be found: "
            f"{mend} {idle[0]} out"
        )


def without_any(documents: Sequence[Document]) -> dict[str, list[Annotation]]:
    """Sites, and what not one of their documents holds although it counts as looked for: mentions, or relations.

    Most files cannot say that something was looked for and not found. A set without a single one was hardly looked
    through for it: all readers whose format does not say what was looked for take it so. Where other sites do hold
    some, a set so small that none is no surprise (fewer than :data:`SURPRISE` expected by their share) was.
    """
    counts: dict[Annotation, dict[str, list[int]]] = {"entities": {}, "relations": {}}
    for own in documents:
        for kind, there in (("entities", own.entities), ("relations", own.relations)):
            if kind in own.annotated:
                both = counts[kind].setdefault(own.site, [0, 0])
                both[0] += 1
                both[1] += bool(there)
    found: dict[str, list[Annotation]] = {}
    for kind, sites in counts.items():
        holding = [both for both in sites.values() if both[1]]
        size, some = (sum(both[i] for both in holding) for i in (0, 1))
        for site, (documents_of_site, held) in sites.items():
            if not held and (not size or documents_of_site * some / size >= SURPRISE):
                found.setdefault(site, []).append(kind)
    return found


def server_mask(masks: Sequence[LookedFor], site: Sequence[Document]) -> LookedFor:
    """What was looked for in documents that the server holds of a site: what one of its clients looked for, and all
    types that its documents hold, which show that somebody did.

    Args:
        masks: Of the clients with documents of this site.
        site: All documents of the site, the server's too.
    """
    if not masks:
        return LookedFor()
    held: dict[Annotation, set[str]] = {
        "entities": {entity.type for own in site for entity in own.entities},
        "relations": {relation.type for own in site for relation in own.relations},
    }
    kinds = frozenset(kind for kind in BOTH if held[kind] or any(kind in mask.annotated for mask in masks))

    def types(kind: Annotation, named: Sequence[frozenset[str] | None]) -> frozenset[str] | None:
        if any(kind in mask.annotated and own is None for mask, own in zip(masks, named, strict=True)):
            return None
        own = frozenset(held[kind]).union(*(own for own in named if own is not None))
        return own if kind in kinds else None

    entities = types("entities", [mask.entity_types for mask in masks])
    return LookedFor(kinds, entities, types("relations", [mask.relation_types for mask in masks]))


def lacking_types(held: Mapping[str, Sequence[Document]], asked: Mapping[str, Mapping[str, Sequence[str]]]) -> Any:
    """Types that a client is asked for and holds none of, where another one does: client to names, in their order.

    Args:
        held: Documents of each client.
        asked: Types of mention (``entities``) and relation (``relations``) that each is asked for.
    """
    own = {
        client: {
            "entities": {entity.type for document in documents for entity in document.entities},
            "relations": {relation.type for document in documents for relation in document.relations},
        }
        for client, documents in held.items()
    }
    anywhere = {kind: set[str]().union(*(types[kind] for types in own.values())) for kind in sorted(BOTH)}
    found = {
        client: [name for kind in anywhere for name in types[kind] if name in anywhere[kind] - own[client][kind]]
        for client, types in asked.items()
    }
    return {client: names for client, names in found.items() if names}


def _common(first: frozenset[str] | None, second: frozenset[str] | None) -> frozenset[str] | None:
    if first is None or second is None:
        return first if second is None else second
    return first & second
