"""Constructor arguments: their names, and checks whose errors name an argument as a config file does."""

from __future__ import annotations

import codecs
import inspect
import math
from collections.abc import Sequence
from typing import get_args

from fedlit.errors import FedlitError


def one_of(name: str, value: object, choices: object) -> None:
    """Refuse a value that is none of the words of a ``Literal``."""
    words = get_args(choices)
    if value not in words:
        raise FedlitError(f"data.{name} is {value!r}: give one of {', '.join(words)}")


def above_zero(**values: float | None) -> None:
    """Refuse numbers that are not above 0 and finite; None is an argument that is not given."""
    for name, value in values.items():
        if value is not None and not 0 < value < math.inf:
            raise FedlitError(f"data.{name} is {value}: give a number above 0")


def held_by_server(name: str, value: int) -> None:
    """Refuse a negative number of records for the server."""
    if not value >= 0:
        raise FedlitError(f"data.{name} is {value}: give a number, 0 for none")


def shares(**values: float) -> None:
    """Refuse shares outside 0 to 1."""
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise FedlitError(f"data.{name} is {value}: give a share from 0 to 1")


def text_encoding(name: str) -> None:
    """Refuse an encoding of text that Python does not know."""
    try:
        "".encode(name)  # codecs that are none of text, such as rot13, are known too, and raise here
        codecs.getincrementaldecoder(name)
    except (LookupError, ValueError) as error:
        raise FedlitError(f"data.encoding {name!r} is unknown: give utf-8, cp1252, latin-1 or utf-16") from error


def constructor_arguments(cls: type, root: type) -> list[str]:
    """Names of what a class takes, those that ``**kwargs`` passes on to its bases included, its own first.

    Args:
        cls: The class.
        root: The last of its bases that counts.
    """
    return list(_parameters(cls, root))


def differ_from_default(instance: object, root: type, names: Sequence[str]) -> list[str]:
    """Those of some constructor arguments, kept under their names, that are not what their class gives by itself."""
    usual = _parameters(type(instance), root)
    return [name for name in names if getattr(instance, name) != usual[name].default]


def _parameters(cls: type, root: type) -> dict[str, inspect.Parameter]:
    bases = cls.__mro__[: cls.__mro__.index(root) + 1]
    signatures = [inspect.signature(vars(base)["__init__"]) for base in bases if "__init__" in vars(base)]
    found: dict[str, inspect.Parameter] = {}
    for signature in signatures:
        for parameter in list(signature.parameters.values())[1:]:
            if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                found.setdefault(parameter.name, parameter)
    return found
