"""What to look for in a text: types of entity and of relation, each with a description."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import yaml

from fedlit.data.documents.documents import Document, Relation
from fedlit.errors import FedlitError

SHIPPED = Path(__file__).parent / "schemas"
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
RESERVED = ("none", "relations")  # words of the list of relations


@dataclass(frozen=True)
class EntityType:
    """A kind of mention.

    Attributes:
        name: Letters, digits, ``_``, ``.`` and ``-``, a letter first.
        description: One line, shown to the model.
        modifier: Only there as the tail of the relation of the same name: what a note says of another mention.
    """

    name: str
    description: str
    modifier: bool = False


@dataclass(frozen=True)
class RelationType:
    """A kind of link, from a head to a tail.

    Attributes:
        name: As an entity type's.
        heads: Types of entity that it may go out from.
        tails: Types of entity that it may lead to.
        description: One line, shown to the model.
        symmetric: Whether it has no direction: from B to A is the same as from A to B. Heads and tails are then alike.
    """

    name: str
    heads: tuple[str, ...]
    tails: tuple[str, ...]
    description: str
    symmetric: bool = False

    def both_ways(self) -> RelationType:
        """The same type without a direction."""
        ends = tuple(dict.fromkeys((*self.heads, *self.tails)))
        return replace(self, heads=ends, tails=ends, symmetric=True)


@dataclass(frozen=True)
class Schema:
    """Types of entity and of relation, in the order in which instructions list them.

    In YAML::

        name: bc5cdr
        entities:
          Chemical: Drugs and other chemical substances.
          Disease: Diseases, symptoms and signs.
        relations:
          CID: {heads: [Chemical], tails: [Disease], description: The chemical brings the disease about.}

    (``symmetric: true`` beside them for a relation without a direction) and, for spans that only tell something of
    another mention, an entity type and a relation type of one name::

        modifiers:
          severity: {of: [problem], description: How strong the problem is.}

    Raises:
        FedlitError: A field that is missing, unknown, empty or of another kind, two names alike but for their case, a
            relation of an unknown entity type.
    """

    name: str
    entities: tuple[EntityType, ...]
    relations: tuple[RelationType, ...] = ()

    def __post_init__(self) -> None:
        if not self.main:
            raise FedlitError(f"schema {self.name!r}: entities is empty: name at least one type")
        known = {entity.name for entity in self.entities}
        named: tuple[tuple[str, Sequence[EntityType | RelationType]], ...]
        named = (("entities", self.entities), ("relations", self.relations))
        for field, types in named:
            folded: dict[str, str] = {}
            for kind in types:
                self._check_name(field, kind.name, kind.description)
                twin = folded.get(kind.name.lower())
                if twin is not None:
                    raise FedlitError(f"schema {self.name!r}: {field} holds {twin!r} and {kind.name!r}: rename one")
                folded[kind.name.lower()] = kind.name
        modifiers = [entity.name for entity in self.modifiers]
        for modifier in modifiers:
            if modifier not in self.relation or self.relation[modifier].tails != (modifier,):
                raise FedlitError(
                    f"schema {self.name!r}: the modifier {modifier!r} has no relation of its name to itself"
                )
        for relation in self.relations:
            own = relation.name in modifiers
            for field, ends in (("heads", relation.heads), ("tails", relation.tails)):
                path = f"modifiers.{relation.name}.of" if own else f"relations.{relation.name}.{field}"
                where = f"schema {self.name!r}: {path}"
                if not ends:
                    raise FedlitError(f"{where} is empty: name at least one of {sorted(known)}")
                for end in ends:
                    if end not in known:
                        raise FedlitError(f"{where} holds {end!r}, which is not among the entities {sorted(known)}")

    def _check_name(self, field: str, name: str, description: str) -> None:
        where = f"schema {self.name!r}: {field}.{name}"
        if not NAME.fullmatch(name) or name.lower() in RESERVED:
            raise FedlitError(f"{where} is no usable name: take a letter, then letters, digits, '_', '.' or '-'")
        if not description.strip() or "\n" in description:
            raise FedlitError(f"{where}.description is empty or of several lines: write one line")

    @cached_property
    def entity(self) -> Mapping[str, EntityType]:
        """Entity types by name."""
        return {entity.name: entity for entity in self.entities}

    @cached_property
    def relation(self) -> Mapping[str, RelationType]:
        """Relation types by name."""
        return {relation.name: relation for relation in self.relations}

    @property
    def main(self) -> tuple[EntityType, ...]:
        """Entity types that are no modifiers."""
        return tuple(entity for entity in self.entities if not entity.modifier)

    @property
    def modifiers(self) -> tuple[EntityType, ...]:
        """Entity types that are modifiers."""
        return tuple(entity for entity in self.entities if entity.modifier)

    def fits(self, relation: str, head: str, tail: str) -> bool:
        """Whether a relation of this type may link these types of entity."""
        known = self.relation.get(relation)
        return known is not None and head in known.heads and tail in known.tails

    def links_of(self, document: Document, focus: str) -> list[Relation]:
        """The relations that go out from a mention; those without a direction from either end."""
        out = []
        for own in document.relations:
            if own.head == focus:
                out.append(own)
            elif own.tail == focus and self.relation[own.type].symmetric:
                out.append(replace(own, head=own.tail, tail=own.head))
        return out

    def fault(self, document: Document) -> str | None:
        """Why a document's types are not of this schema, or None."""
        mentions = document.by_id()
        for entity in document.entities:
            if entity.type not in self.entity:
                return (
                    f"has a mention of the type {entity.type!r}, which schema {self.name!r} lacks "
                    f"({', '.join(self.entity)}): add it there, or leave such mentions out"
                )
        for relation in document.relations:
            head, tail = mentions[relation.head].type, mentions[relation.tail].type
            if not self.fits(relation.type, head, tail):
                return (
                    f"has a relation {relation.type!r} from {head!r} to {tail!r}, which schema {self.name!r} does not "
                    "know: add it there, or leave such relations out"
                )
        return None

    def of(self, document: Document) -> Schema | None:
        """The types that were looked for in a document; None where that is none of these.

        A relation's heads and tails are those that were looked for, and so is a modifier there only with its relation.
        """
        if document.entity_types is None and document.relation_types is None:
            return self
        return _of_types(self, document.entity_types, document.relation_types)

    @classmethod
    def load(cls, path: str | Path) -> Schema:
        """From a YAML file, or by the name of a shipped one: ``"bc5cdr"``, ``"clinical"``."""
        from fedlit.strict_yaml import load

        file = Path(path)
        if not file.exists() and file.name == str(path) and (SHIPPED / f"{path}.yaml").exists():
            file = SHIPPED / f"{path}.yaml"
        try:
            given = load(file.read_text(encoding="utf-8"))
        except OSError as error:
            shipped = sorted(file.stem for file in SHIPPED.glob("*.yaml"))
            raise FedlitError(f"schema {path} cannot be read ({error.strerror}); shipped are {shipped}") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise FedlitError(f"schema {path} is no YAML: {' '.join(str(error).split())}") from error
        return cls.from_dict(given, str(path))

    @classmethod
    def from_dict(cls, given: Any, where: str = "given") -> Schema:
        """From what :meth:`to_dict` gives; ``where`` names it in errors."""
        fields = _fields(
            given, f"schema {where}", {"name": str, "entities": dict}, {"relations": dict, "modifiers": dict}
        )
        entities, relations = [], []
        for name, text in fields["entities"].items():
            if not isinstance(text, str):
                raise FedlitError(f"schema {where}: entities.{name} is {text!r}, expected its description")
            entities.append(EntityType(str(name), text))
        for name, given in fields.get("relations", {}).items():
            wanted = {"heads": list, "tails": list, "description": str}
            given = _fields(given, f"schema {where}: relations.{name}", wanted, {"symmetric": bool})
            kind = RelationType(str(name), tuple(given["heads"]), tuple(given["tails"]), given["description"])
            relations.append(kind.both_ways() if given.get("symmetric") else kind)
        for name, given in fields.get("modifiers", {}).items():
            given = _fields(given, f"schema {where}: modifiers.{name}", {"of": list, "description": str})
            entities.append(EntityType(str(name), given["description"], modifier=True))
            relations.append(RelationType(str(name), tuple(given["of"]), (str(name),), given["description"]))
        return cls(fields["name"], tuple(entities), tuple(relations))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as in the YAML."""
        modifiers = {modifier.name for modifier in self.modifiers}
        return {
            "name": self.name,
            "entities": {entity.name: entity.description for entity in self.main},
            "relations": {
                relation.name: {
                    "heads": list(relation.heads),
                    "tails": list(relation.tails),
                    "description": relation.description,
                    **({"symmetric": True} if relation.symmetric else {}),
                }
                for relation in self.relations
                if relation.name not in modifiers
            },
            "modifiers": {
                name: {"of": list(self.relation[name].heads), "description": self.relation[name].description}
                for name in (modifier.name for modifier in self.modifiers)
            },
        }


@lru_cache(maxsize=256)
def _of_types(schema: Schema, entities: frozenset[str] | None, relations: frozenset[str] | None) -> Schema | None:
    known = {kind.name for kind in schema.entities if entities is None or kind.name in entities}
    left = []
    for kind in schema.relations:
        heads, tails = (tuple(end for end in ends if end in known) for ends in (kind.heads, kind.tails))
        if heads and tails and (relations is None or kind.name in relations):
            left.append(replace(kind, heads=heads, tails=tails))
    linked = {kind.name for kind in left}
    kept = tuple(kind for kind in schema.entities if kind.name in (linked if kind.modifier else known))
    return Schema(schema.name, kept, tuple(left)) if any(not kind.modifier for kind in kept) else None


def _fields(given: Any, where: str, wanted: Mapping[str, Any], optional: Mapping[str, Any] | None = None) -> Any:
    """``given``, when it is a mapping of the fields wanted."""
    kinds = {**wanted, **(optional or {})}
    if not isinstance(given, dict):
        raise FedlitError(f"{where} is {given!r}, expected the fields {list(kinds)}")
    for field in wanted:
        if field not in given:
            raise FedlitError(f"{where} lacks the field {field!r}")
    for field, value in given.items():
        if field not in kinds:
            raise FedlitError(f"{where} has an unknown field {field!r}; it may have {list(kinds)}")
        if not isinstance(value, kinds[field]) or (kinds[field] is list and not all(isinstance(v, str) for v in value)):
            raise FedlitError(f"{where}: {field} is {value!r}, expected {KINDS[kinds[field]]}")
    return given


KINDS: dict[Any, str] = {bool: "true or false", str: "text", dict: "a mapping of names", list: "a list of names"}
