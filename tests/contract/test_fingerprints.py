"""Every argument of a rule and of a compression is in the fingerprint of a run."""

from __future__ import annotations

import copy
import dataclasses
import inspect
from typing import Any

import pytest
from table import TABLE

import fedlit.compression as compression
from fedlit.compression import Transform
from fedlit.runs.fingerprint import describe

TRANSFORMS = [
    cls
    for cls in map(vars(compression).get, compression.__all__)
    if isinstance(cls, type) and issubclass(cls, Transform) and cls is not Transform
]


def is_told(value: Any) -> bool:
    """Whether a description holds all of a value, and not only the name of its type."""
    if isinstance(value, list | tuple | dict):
        return all(map(is_told, value.values() if isinstance(value, dict) else value))
    if dataclasses.is_dataclass(value):
        return all(is_told(getattr(value, field.name)) for field in dataclasses.fields(value))
    return value is None or isinstance(value, str | int | float | bool)


@pytest.mark.parametrize("made", [*(row.rule for row in TABLE.values()), *(cls() for cls in TRANSFORMS)], ids=repr)
def test_every_argument_is_described(made):
    described = describe(made)
    assert list(described) == ["class", *inspect.signature(type(made)).parameters]
    assert is_told(made)
    for name in described.keys() - {"class"}:
        other = copy.copy(made)
        object.__setattr__(other, name, "another value")
        changed = describe(other)
        assert {key for key in described if changed[key] != described[key]} == {name}
