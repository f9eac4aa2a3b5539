"""The ``fedlit`` command."""

from fedlit.cli.app import build, main

__all__ = ["build", "main"]
