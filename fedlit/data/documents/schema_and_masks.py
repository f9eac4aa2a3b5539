"""What the server holds, which types there are and how often: pure functions of annotated documents."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fedlit import seeds
from fedlit.data.base.records import natural
from fedlit.data.documents.documents import Document
from fedlit.errors import FedlitError


@dataclass(frozen=True)
class DocumentTypes:
    """Types that documents hold.

    Attributes:
        entities: Names, sorted unless given.
        relations: Name to the pairs of types (head, tail) that it links.
        symmetric: Those without a direction.
    """

    entities: tuple[str, ...]
    relations: Mapping[str, tuple[tuple[str, str], ...]]
    symmetric: tuple[str, ...] = ()

    def plain(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {
            "entities": list(self.entities),
            "relations": {name: [list(pair) for pair in pairs] for name, pairs in self.relations.items()},
        } | ({"symmetric": list(self.symmetric)} if self.symmetric else {})

    def looked_for(self, documents: Iterable[Document]) -> dict[str, list[str]]:
        """The types of mention and of relation that were looked for in one document at least."""
        entities: set[str] = set()
        relations: set[str] = set()
        for own in documents:
            known = own.entity_types if own.entity_types is not None else set(self.entities)
            if "entities" in own.annotated:
                entities |= known
            if "relations" in own.annotated:
                named = own.relation_types if own.relation_types is not None else set(self.relations)
                relations |= {n for n in named if any(set(pair) <= known for pair in self.relations.get(n, ()))}
        return {
            "entities": [name for name in self.entities if name in entities],
            "relations": [name for name in self.relations if name in relations],
        }

    def fault(self, document: Document) -> str | None:
        """Why a document does not keep to these types, or None."""
        types = {entity.id: entity.type for entity in document.entities}
        for entity in document.entities:
            if entity.type not in self.entities:
                return f"has a mention of the type {entity.type!r}, data.schema has {_listed(self.entities)}"
        for relation in document.relations:
            pair = (types[relation.head], types[relation.tail])
            if relation.type not in self.relations:
                return f"has a relation of the type {relation.type!r}, data.schema has {_listed(self.relations)}"
            known = self.relations[relation.type]
            if pair not in known and not (relation.type in self.symmetric and pair[::-1] in known):
                return f"has a {relation.type!r} from {pair[0]!r} to {pair[1]!r}, data.schema does not allow it"
        return None


def types_in(documents: Sequence[Document]) -> DocumentTypes:
    """The types that occur."""
    pairs: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for own in documents:
        types = {entity.id: entity.type for entity in own.entities}
        for relation in own.relations:
            pairs[relation.type].add((types[relation.head], types[relation.tail]))
    entities = sorted({entity.type for own in documents for entity in own.entities})
    symmetric = sorted({relation.type for own in documents for relation in own.relations if relation.symmetric})
    links = {name: tuple(sorted(pairs[name])) for name in sorted(pairs)}
    return DocumentTypes(tuple(entities), links, tuple(symmetric))


def types_given(schema: Mapping[str, Any]) -> DocumentTypes:
    """Types out of the argument ``data.schema``.

    Raises:
        FedlitError: It has another form.
    """
    form = "{entities: [Chemical, Disease], relations: {CID: [[Chemical, Disease]]}}"
    entities, relations = schema.get("entities"), schema.get("relations") or {}
    symmetric = schema.get("symmetric") or []
    good = (
        set(schema) <= {"entities", "relations", "symmetric"}
        and isinstance(symmetric, list | tuple)
        and isinstance(entities, list | tuple)
        and all(isinstance(name, str) and name for name in entities)
        and isinstance(relations, Mapping)
        and all(
            isinstance(pairs, list | tuple) and all(isinstance(p, list | tuple) and len(p) == 2 for p in pairs)
            for pairs in relations.values()
        )
    )
    if not good or not entities:
        raise FedlitError(f"data.schema is {dict(schema)!r}: give it as {form}")
    for name, pairs in relations.items():
        odd = [end for pair in pairs for end in pair if end not in entities]
        if odd:
            raise FedlitError(f"data.schema: {name!r} links {odd[0]!r}, which is not among its entities: add it")
    odd = [name for name in symmetric if name not in relations]
    if odd:
        raise FedlitError(f"data.schema: symmetric names {odd[0]!r}, which is not among its relations: add it")
    links = {n: tuple((a, b) for a, b in pairs) for n, pairs in relations.items()}
    return DocumentTypes(tuple(entities), links, tuple(symmetric))


def kept_types(there: DocumentTypes, names: Sequence[str]) -> DocumentTypes:
    """Those of the types that are named.

    Raises:
        FedlitError: A name is of none of them, or none is of a mention.
    """
    known = [*there.entities, *there.relations]
    odd = next((name for name in names if name not in known), None)
    if odd is not None:
        raise FedlitError(f"data.types: no mention or relation is of the type {odd!r}; there are {', '.join(known)}")
    entities = tuple(name for name in there.entities if name in names)
    if not entities:
        raise FedlitError(f"data.types names no type of mention: add one of {', '.join(there.entities)}")
    return DocumentTypes(entities, {name: pairs for name, pairs in there.relations.items() if name in names})


def of_types(document: Document, types: Sequence[str]) -> Document:
    """Only mentions and relations of these types; a relation goes with its ends."""
    entities = tuple(entity for entity in document.entities if entity.type in types)
    there = {entity.id for entity in entities}
    relations = tuple(r for r in document.relations if r.type in types and r.head in there and r.tail in there)
    return replace(document, entities=entities, relations=relations)


def searched_for(document: Document, types: DocumentTypes) -> Document:
    """A document in which nothing but these types was looked for.

    A kind of annotation of which no type is left, or no relation between what is left, was not looked for.
    """
    entities = frozenset(types.entities)
    if document.entity_types is not None:
        entities &= document.entity_types
    relations = frozenset(name for name, pairs in types.relations.items() if any(set(p) <= entities for p in pairs))
    if document.relation_types is not None:
        relations &= document.relation_types
    left = {"entities": entities, "relations": relations}
    kinds = frozenset(kind for kind in document.annotated if left[kind])
    return replace(document, annotated=kinds, entity_types=entities, relation_types=relations)


def with_types(document: Document, given: Mapping[str, str | None]) -> Document:
    """A document whose types have other names; what is of a type that becomes None is dropped, relations of it too."""
    if not given:
        return document
    named = [(own, given.get(own.type, own.type)) for own in document.entities]
    entities = tuple(replace(own, type=name) for own, name in named if name is not None)
    dropped = {own.id for own, name in named if name is None}
    linked = [(r, given.get(r.type, r.type)) for r in document.relations if not {r.head, r.tail} & dropped]
    relations = tuple(replace(r, type=name) for r, name in linked if name is not None)
    return replace(
        document,
        entities=entities,
        relations=tuple(dict.fromkeys(relations)),
        entity_types=_named(document.entity_types, given),
        relation_types=_named(document.relation_types, given),
    )


def held_by_server(
    documents: Sequence[Document], units: Sequence[str], count: int, by_fold: bool, seed: int
) -> tuple[list[int], set[int]]:
    """Which documents the server holds, evenly of each site, and which no client may have: all of the same units.

    Units are drawn at random from the site that has given fewest documents so far; those of the source's training fold
    only, where the split is the source's.

    Raises:
        FedlitError: There are too few, or nothing would be left for clients.
    """
    if not count:
        return [], set()
    members: dict[str, list[int]] = defaultdict(list)
    for i, unit in enumerate(units):
        members[unit].append(i)
    pool: dict[str, list[str]] = defaultdict(list)
    for unit, own in members.items():
        if not by_fold or all(documents[i].fold == "train" for i in own):
            pool[documents[own[0]].site].append(unit)
    for site, names in pool.items():
        order = seeds.numpy_generator(seed, "server documents", site).permutation(len(names))
        pool[site] = [names[k] for k in order]
    given: Counter[str] = Counter()
    chosen: list[int] = []
    while len(chosen) < count and any(pool.values()):
        site = min((site for site in pool if pool[site]), key=lambda name: (given[name], natural(name)))
        own = members[pool[site].pop()]
        given[site] += len(own)
        chosen += own
    if len(chosen) < count or len(chosen) == len(documents):
        raise FedlitError(f"data.server_examples is {count} of {len(documents)}: too many, lower it")
    return sorted(chosen[:count]), set(chosen)


def type_counts(documents: Sequence[Document]) -> dict[str, dict[str, int]]:
    """Mentions and relations by type."""
    entities = Counter(entity.type for own in documents for entity in own.entities)
    relations = Counter(relation.type for own in documents for relation in own.relations)
    return {"entities": dict(sorted(entities.items())), "relations": dict(sorted(relations.items()))}


def annotation_counts(documents: Sequence[Document]) -> dict[str, int]:
    """Documents in which mentions, and in which relations were looked for."""
    return {what: sum(what in own.annotated for own in documents) for what in ("entities", "relations")}


def _named(types: frozenset[str] | None, given: Mapping[str, str | None]) -> frozenset[str] | None:
    return None if types is None else frozenset(new for old in types if (new := given.get(old, old)) is not None)


def _listed(names: Sequence[str] | Mapping[str, Any]) -> str:
    return ", ".join(names) or "none"
