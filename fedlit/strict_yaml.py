"""YAML without surprises: 1.2 scalars, and a key given twice is an error."""

from __future__ import annotations

import re
from typing import Any

import yaml
from jsonargparse import _loaders_dumpers, set_loader


class StrictLoader(yaml.SafeLoader):  # type: ignore[misc] # PyYAML has no types
    """SafeLoader in which ``3e-4`` is a number, ``no`` and ``12:30`` are text, and keys are unique."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if repr(key) in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice", key_node.start_mark
                )
            seen.add(repr(key))
        return super().construct_mapping(node, deep)


SCALARS = {
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    "float": (
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
    "null": (r"~|null|Null|NULL|", "~nN"),
}
StrictLoader.yaml_implicit_resolvers = {}
for _tag, (_pattern, _first) in SCALARS.items():
    StrictLoader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), [*_first, ""] if _tag == "null" else list(_first)
    )


def _integer(loader: StrictLoader, node: yaml.ScalarNode) -> int:
    """YAML 1.2: a leading zero means nothing, octal is ``0o17``."""
    text = loader.construct_scalar(node)
    return int(text, 0) if text[:2] in ("0o", "0x") else int(text)


StrictLoader.add_constructor("tag:yaml.org,2002:int", _integer)


def load(text: str) -> Any:
    """The value of a YAML document."""
    return yaml.load(text, Loader=StrictLoader)  # noqa: S506 - a SafeLoader


def use_strict_yaml() -> None:
    """Have jsonargparse read YAML, files and values alike, by :func:`load`."""
    set_loader("yaml", load, exceptions=(yaml.YAMLError,))
    # What reads a text that is given where a number or a bool is expected.
    _loaders_dumpers.yaml_default_loader = StrictLoader  # type: ignore[assignment]
