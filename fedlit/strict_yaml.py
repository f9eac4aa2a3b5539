"""YAML without surprises: 1.2 scalars, keys as they are written, and one that is given twice is an error."""

from __future__ import annotations

import re
from typing import Any

import yaml
from jsonargparse import _loaders_dumpers, set_loader


class StrictLoader(yaml.SafeLoader):  # type: ignore[misc] # PyYAML has no types
    """SafeLoader in which ``3e-4`` is a number, ``no`` and ``12:30`` are text, and keys are text and unique.

    So the key ``002`` is not the key ``2``.
    """

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if isinstance(key_node, yaml.ScalarNode):
                key_node.tag = "tag:yaml.org,2002:str"
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


class Written:
    """A number that knows how it was written, for where text is wanted: ``002`` may be the name of a channel."""

    text: str


class WrittenInt(Written, int):
    """A whole number, such as ``002`` or ``0x1F``."""


class WrittenFloat(Written, float):
    """Another number, such as ``1e3`` or ``1.50``."""


class ConfigLoader(StrictLoader):
    """As :class:`StrictLoader`; numbers whose text another way of writing would lose are :class:`Written`."""


def _written(kind: Any, construct: Any) -> Any:
    def construct_written(loader: ConfigLoader, node: yaml.ScalarNode) -> Any:
        value, text = construct(loader, node), loader.construct_scalar(node)
        if repr(value) == text:
            return value
        number = kind(value)
        number.text = text
        return number

    return construct_written


ConfigLoader.add_constructor("tag:yaml.org,2002:int", _written(WrittenInt, _integer))
ConfigLoader.add_constructor(
    "tag:yaml.org,2002:float", _written(WrittenFloat, yaml.constructor.SafeConstructor.construct_yaml_float)
)


def _represent(dumper: Any, number: Any) -> Any:
    kind = "int" if isinstance(number, int) else "float"
    return dumper.represent_scalar(f"tag:yaml.org,2002:{kind}", number.text)


for _kind in (WrittenInt, WrittenFloat):
    yaml.SafeDumper.add_representer(_kind, _represent)


def load(text: str) -> Any:
    """The value of a YAML document."""
    return yaml.load(text, Loader=StrictLoader)  # noqa: S506 - a SafeLoader


def load_config(text: str) -> Any:
    """The same; numbers that text could be meant by are :class:`Written`."""
    return yaml.load(text, Loader=ConfigLoader)  # noqa: S506 - a SafeLoader


def as_text(value: Any) -> Any:
    """A number as it was written; anything else as it is."""
    if isinstance(value, Written):
        return value.text
    return repr(value) if type(value) in (int, float) else value


def as_number(value: Any) -> Any:
    """The value with plain numbers for :class:`Written` ones, also within lists and mappings."""
    if isinstance(value, Written):
        return int(value) if isinstance(value, int) else float(value)  # type: ignore[arg-type]
    if type(value) is list:
        return [as_number(each) for each in value]
    if type(value) is dict:
        return {key: as_number(each) for key, each in value.items()}
    return value


def use_strict_yaml() -> None:
    """Have jsonargparse read YAML, files and values alike, by :func:`load_config`."""
    set_loader("yaml", load_config, exceptions=(yaml.YAMLError,))
    # What reads a text that is given where a number or a bool is expected.
    _loaders_dumpers.yaml_default_loader = StrictLoader  # type: ignore[assignment]
