"""Parser of the subcommands that are not methods of the trainer."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from fedlit.errors import FedlitError


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, as all errors of the command are.

    Args:
        name: Of the subcommand.
        about: First line of its help.
        settings: Passed to :class:`argparse.ArgumentParser`.
    """

    def __init__(self, name: str, about: str, **settings: Any) -> None:
        super().__init__(prog=f"fedlit {name}", description=about, allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        raise FedlitError(f"{self.prog}: {message}; see {self.prog} --help")
