"""Entities and relations as text to generate: schemas, instructions, and the way back from what a model wrote."""

from fedlit.instructions.parsed import Counts, Parsed
from fedlit.instructions.parsing import parse
from fedlit.instructions.schema import EntityType, RelationType, Schema
from fedlit.instructions.templates import Instance, Template, prompt, target

__all__ = [
    "Counts",
    "EntityType",
    "Instance",
    "Parsed",
    "RelationType",
    "Schema",
    "Template",
    "parse",
    "prompt",
    "target",
]
