"""Types of annotated documents checked against the schema of a task."""

from __future__ import annotations

from typing import Any

from fedlit.data.base.names import few
from fedlit.errors import FedlitError
from fedlit.instructions.schema import EntityType, RelationType, Schema


def take_schema(given: Schema, data: object, stand_in: bool) -> Schema:
    """Schema of a task on its data: the one given or, for a stand-in, that of the data.

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
    if stand_in:
        return schema_of(held)
    odd = [name for name in held["entities"] if name not in given.entity]
    if odd:
        raise FedlitError(
            f"the data hold mentions of {few(odd)}, which schema {given.name!r} lacks ({few(list(given.entity))}): "
            "name another schema in model.schema, or the types to keep in data.types"
        )
    for name, pairs in held.get("relations", {}).items():
        unknown = [pair for pair in pairs if not given.fits(name, *pair)]
        if unknown:
            raise FedlitError(
                f"the data hold relations {name!r} from {unknown[0][0]!r} to {unknown[0][1]!r}, which schema "
                f"{given.name!r} lacks: name another schema in model.schema, or the types to keep in data.types"
            )
    return given


def schema_of(held: dict[str, Any]) -> Schema:
    """Schema of a data module, with every type described by its name.

    Args:
        held: ``{"entities": [names], "relations": {name: [[head, tail], ...]}}``.
    """
    entities = tuple(EntityType(name, f"Mentions of the type {name}.") for name in held["entities"])
    relations = tuple(
        RelationType(
            name,
            tuple(dict.fromkeys(head for head, _ in pairs)),
            tuple(dict.fromkeys(tail for _, tail in pairs)),
            f"Links of the type {name}.",
        )
        for name, pairs in held.get("relations", {}).items()
    )
    return Schema("data", entities, relations)
