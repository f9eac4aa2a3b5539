"""Channels and columns that a reader of recordings is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fedlit.data.base.tables import read_table
from fedlit.errors import FedlitError


def first_name(asked: str | Sequence[str]) -> str:
    """The name of a channel, or the first of several."""
    return asked if isinstance(asked, str) else asked[0]


def named_channels(channels: Sequence[str | list[str]]) -> list[str]:
    """All names in a list of channels and alternatives.

    Raises:
        FedlitError: There is none, or one twice.
    """
    names = [name for asked in channels for name in ([asked] if isinstance(asked, str) else asked)]
    if not channels or not all(channels) or len({name.strip().lower() for name in names}) < len(names):
        raise FedlitError(f"data.channels is {', '.join(names) or 'empty'}: name each channel once, any case")
    return names


def has_column(table: Path, column: str) -> bool:
    """Whether a table has a column, or may have it, as it cannot be read."""
    try:
        return column in read_table(table).columns
    except FedlitError:
        return True
