"""Types of annotated documents checked against the schema of a task."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import yaml

from fedlit.data.base.names import few
from fedlit.errors import FedlitError
from fedlit.instructions.schema import EntityType, RelationType, Schema

OF_DATA = "data"
"""Name of the schema that is made of the types in the data."""
UNKNOWN = Schema(OF_DATA, (EntityType("Mention", "Not known before the data."),))
"""Stands for the schema of data that were not seen yet."""


def load_schema(name: str) -> Schema:
    """The schema of a file, one that ships, or :data:`UNKNOWN` for ``"data"``."""
    return UNKNOWN if name == OF_DATA else Schema.load(name)


def schema_file(schema: Schema) -> str:
    """A schema as a YAML file to edit."""
    body: str = yaml.safe_dump(schema.to_dict(), sort_keys=False, allow_unicode=True, width=1000)
    head = "# The types found in the data. Copy, describe or leave out, and set model.schema to the path of the copy.\n"
    return head + body


def take_schema(given: Schema, data: object, stand_in: bool) -> Schema:
    """Schema of a task on its data: the one given or, for a stand-in or :data:`UNKNOWN`, that of the data.

    Relations without a direction in the data have none in the schema.

    Args:
        given: Schema that the task was given.
        data: A data module after ``setup``, or facts about data, with a ``schema``.
        stand_in: Whether the documents are generated, with types of their own.

    Raises:
        FedlitError: The data hold no annotated documents, or types that the schema lacks.
    """
    held = getattr(data, "schema", None)
    if not isinstance(held, dict) or "entities" not in held:
        raise FedlitError(
            f"{type(data).__name__} holds no annotated documents: take data such as PubTatorFolder or BratFolder, or "
            "another task"
        )
    if stand_in or given == UNKNOWN:
        return schema_of(held)
    odd = [name for name in held["entities"] if name not in given.entity]
    if odd:
        raise FedlitError(
            f"the data hold mentions of {few(odd)}, which schema {given.name!r} lacks ({few(list(given.entity))}): "
            f"name another schema in model.schema, or the types to keep in data.types; model.schema {OF_DATA} takes "
            "those of the data, and writes them to the run folder as a file to edit"
        )
    for name, pairs in held.get("relations", {}).items():
        unknown = [pair for pair in pairs if not given.fits(name, *pair)]
        if unknown:
            raise FedlitError(
                f"the data hold relations {name!r} from {unknown[0][0]!r} to {unknown[0][1]!r}, which schema "
                f"{given.name!r} lacks: name another schema in model.schema ({OF_DATA}: that of the data), or the "
                f"types to keep in data.types"
            )
    _tell_of_idle_types(given, held, data)
    symmetric = [name for name in held.get("symmetric", ()) if not given.relation[name].symmetric]
    if not symmetric:
        return given
    links = (kind.both_ways() if kind.name in symmetric else kind for kind in given.relations)
    return replace(given, relations=tuple(links))


def _tell_of_idle_types(given: Schema, held: dict[str, Any], data: Any) -> None:
    """Warn of types that documents are asked for and none holds: each teaches that there is nothing of the kind."""
    asked: set[str] = set()
    for own in data.dataset(data.clients, "train").documents if hasattr(data, "dataset") else []:
        schema = given.of(own)
        if schema is not None and "entities" in own.annotated:
            asked |= {kind.name for kind in schema.main} - set(held["entities"])
        if schema is not None and "relations" in own.annotated:
            asked |= {kind.name for kind in schema.relations} - set(held.get("relations", {}))
    if asked:
        say = getattr(data, "say", warnings.warn)
        say(
            f"no document holds any {few(sorted(asked))}, which schema {given.name!r} asks for: it is taught that "
            f"there is none; if nobody looked for it: model.schema {OF_DATA}, or a schema without it"
        )


def schema_of(held: dict[str, Any]) -> Schema:
    """Schema of a data module, with every type described by its name.

    Args:
        held: ``{"entities": [names], "relations": {name: [[head, tail], ...]}}``, and ``symmetric``, names.

    Raises:
        FedlitError: A type has a name that a schema cannot have.
    """
    entities = tuple(EntityType(name, f"Mentions of the type {name}.") for name in held["entities"])
    kinds = [
        RelationType(
            name,
            tuple(dict.fromkeys(head for head, _ in pairs)),
            tuple(dict.fromkeys(tail for _, tail in pairs)),
            f"Links of the type {name}.",
        )
        for name, pairs in held.get("relations", {}).items()
    ]
    symmetric = held.get("symmetric", ())
    relations = tuple(kind.both_ways() if kind.name in symmetric else kind for kind in kinds)
    try:
        return Schema(OF_DATA, entities, relations)
    except FedlitError as error:
        raise FedlitError(
            f"{error}; the types of the data are renamed by data.rename {{types: {{OLD: NEW}}}}"
        ) from error
