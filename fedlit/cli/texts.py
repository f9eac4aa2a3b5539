"""Text where text is wanted: what a config file writes as a number may be a name, such as ``002``."""

from __future__ import annotations

from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

from fedlit.strict_yaml import Written, as_number, as_text

TEXTS = (str, Path)
"""What a name may be taken for."""


def use_written_texts() -> None:
    """Let jsonargparse take a number as its text where an argument is a text and nothing else.

    ``classes: [01, 02]`` of ``list[str]`` are then "01" and "02". An argument that may be a number stays one.
    """
    from jsonargparse import _typehints

    inner: Any = _typehints.adapt_typehints
    if getattr(inner, "texts", False):
        return

    def adapt(val: Any, typehint: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(val, int | float) and wants_text(typehint):
            val = as_text(val)
        found = inner(val, typehint, *args, **kwargs)
        return as_number(found) if isinstance(found, Written | list | dict) else found

    adapt.texts = True  # type: ignore[attr-defined]
    _typehints.adapt_typehints = adapt


def wants_text(typehint: Any) -> bool:
    """Whether an argument is text, or text among things that are no numbers."""
    if get_origin(typehint) in (Union, UnionType):
        kinds = get_args(typehint)
        return any(kind in TEXTS for kind in kinds) and not any(
            kind in (int, float, bool, complex, object, Any) for kind in kinds
        )
    return typehint in TEXTS
