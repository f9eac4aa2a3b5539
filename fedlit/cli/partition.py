"""Options of a partition where it is left to the data: completed by what the data take by themselves."""

from __future__ import annotations

import dataclasses
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from fedlit.errors import FedlitError

OPTION = "--data.partition"


def completed(args: Sequence[str], parse: Callable[[list[str]], Any]) -> list[str] | None:
    """Arguments with the partition that the data take by themselves, changed by those given; None where nothing fits.

    ``--data.partition.alpha 1`` alone changes the data's own partition; with ``--data.partition Dirichlet`` before it,
    what else that class needs is taken from there. What was taken is said.

    Args:
        args: Of the command line, which was refused.
        parse: Makes a command, with its ``datamodule``, of the arguments without these options.

    Raises:
        FedlitError: An option is no argument of the data's own partition; it is shown, and what to write.
    """
    given, others = parted(args)
    if not given:
        return None
    try:
        with warnings.catch_warnings(action="ignore"):  # Lightning's, that arguments are given twice
            data = parse(others).datamodule
    except FedlitError:
        return None
    if getattr(data, "partition", None) is not None or not hasattr(data, "usual_partition"):
        return None
    usual = data.usual_partition()
    values = {field.name: getattr(usual, field.name) for field in dataclasses.fields(usual)}
    named = next((value for name, value in given if not name), None)
    asked = [name for name, _ in given if name]
    if named is None:
        if unknown := [name for name in asked if name not in values]:
            raise FedlitError(
                f"data.partition is left to the data, which take {usual}, and that has no {unknown[0]!r}: name one "
                f"that has, such as {OPTION} Dirichlet {OPTION}.clients 20 {OPTION}.alpha 0.1"
            )
        named, taken = type(usual).__name__, {name: value for name, value in values.items() if name not in asked}
    else:
        needs = needed(named)
        taken = {name: values[name] for name in needs if values.get(name) is not None and name not in asked}
        if not taken or not {*needs} <= {*asked, *taken}:
            return None
    if not all(value is None or isinstance(value, str | int | float) for value in taken.values()):
        return None
    sys.stderr.write(f"fedlit: data.partition: {usual} as the data have it, but for {options(named, given)}\n")
    own = [f"{OPTION}={named}", *(f"{OPTION}.{k}={'null' if v is None else v}" for k, v in taken.items())]
    return [*others, *own, *(f"{OPTION}.{name}={value}" for name, value in given if name)]


def options(named: str, given: Sequence[tuple[str, str]]) -> str:
    """What is asked for, in words: ``Dirichlet(alpha=0.1)``."""
    return f"{named}({', '.join(f'{name}={value}' for name, value in given if name)})"


def parted(args: Sequence[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """Options of the partition, as name (empty for the class) and value, and all other arguments."""
    given: list[tuple[str, str]] = []
    others: list[str] = []
    rest = iter(args)
    for argument in rest:
        name, equals, value = argument.partition("=")
        if name == OPTION or name.startswith(f"{OPTION}."):
            given.append((name.removeprefix(OPTION).removeprefix("."), value if equals else next(rest, "")))
        else:
            others.append(argument)
    return given, others


def needed(name: str) -> list[str]:
    """Arguments without a default of the partition of this name; none where there is no such class."""
    from fedlit.data import Partition

    found = [cls for cls in Partition.__subclasses__() if name in (cls.__name__, f"{cls.__module__}.{cls.__name__}")]
    fields: Any = dataclasses.fields(found[0]) if found and dataclasses.is_dataclass(found[0]) else ()
    return [field.name for field in fields if field.default is field.default_factory is dataclasses.MISSING]
