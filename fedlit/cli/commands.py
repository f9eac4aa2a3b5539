"""The subcommands of ``fedlit`` and the help that lists them, read from the sources without heavy imports."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fedlit
from fedlit.cli.suggestions import suggestion
from fedlit.errors import FedlitError

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

RUNS = {name: ("fedlit.trainer", "FederatedTrainer", name) for name in ("fit", "validate", "test", "predict", "data")}
"""Subcommands that are methods of the trainer: module, class, method."""
OTHERS = {
    "aggregators": "fedlit.cli.aggregators",
    "backbones": "fedlit.cli.backbones",
    "merge": "fedlit.cli.merge",
    "sweep": "fedlit.sweep.command",
}
"""Subcommands of their own: modules with a ``main(args)``."""
PARSER: dict[str, Any] = {"default_env": True, "env_prefix": "FEDLIT", "allow_abbrev": False}
"""Settings of the parser of the whole command."""


@cache
def subcommands() -> dict[str, str]:
    """Each subcommand, and the first line of its docstring."""
    return {name: first_line(*where) for name, where in RUNS.items()} | {
        name: first_line(module) for name, module in OTHERS.items()
    }


def first_line(module: str, *within: str) -> str:
    """First line of a docstring, from the source.

    Args:
        module: Its full name.
        within: Names of the class and of the method in it; none: the module's own docstring.
    """
    spec = find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    node: ast.Module | ast.ClassDef | ast.FunctionDef = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    for name in within:
        node = next(n for n in node.body if isinstance(n, (ast.ClassDef, ast.FunctionDef)) and n.name == name)
    return (ast.get_docstring(node) or "").splitlines()[0]


def add_config(parser: ArgumentParser) -> None:
    """``--config FILE``, of the command and of each of :data:`RUNS`."""
    from jsonargparse import ActionConfigFile  # type: ignore[attr-defined]

    parser.add_argument(
        "-c", "--config", action=ActionConfigFile, help="Path to a configuration file in json or yaml format."
    )


def overview() -> ArgumentParser:
    """A parser for the help of the whole command; its subcommands have no options."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(description=fedlit.__doc__, **PARSER)
    add_config(parser)
    listed = parser.add_subcommands()
    for name, about in subcommands().items():
        listed.add_subcommand(name, ArgumentParser(description=about), help=about)
    return parser


def answer_early(given: Sequence[str], environment: Sequence[str]) -> None:
    """Print the help or refuse an unknown subcommand, before anything heavy is imported.

    Args:
        given: Arguments of the command line.
        environment: Names of environment variables, which may set the subcommand.

    Raises:
        SystemExit: The help was printed.
        FedlitError: No subcommand is given, or an unknown one.
    """
    if not given and not {"FEDLIT_SUBCOMMAND", "FEDLIT_CONFIG"} & set(environment):
        raise FedlitError(f"give a subcommand: {', '.join(subcommands())}; `fedlit --help` says what each is for")
    if given and given[0] in ("-h", "--help"):
        overview().parse_args(["--help"])
    if given and not given[0].startswith("-") and given[0] not in subcommands():
        near = suggestion(repr(given[0]), list(subcommands())) or f": {', '.join(subcommands())}"
        raise FedlitError(f"there is no subcommand {given[0]!r}{near}")
