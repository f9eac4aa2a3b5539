"""How tables are written: endings, packing, delimiters, decimal marks, encodings."""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedlit.data.base import arguments
from fedlit.data.base.listing import ending
from fedlit.errors import FedlitError

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
"""Endings of tables; all but the last may be packed (``.csv.gz``)."""
_OPEN: Mapping[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


@dataclass(frozen=True)
class TableFormat:
    """How a csv file is written.

    Args:
        delimiter: What separates columns; None: what a first line ``sep=;`` says, else tabs in ``.tsv`` files and
            commas in others.
        decimal: Decimal mark.
        encoding: Python's name of it; a byte order mark counts before it.

    Raises:
        FedlitError: One of them cannot be.
    """

    delimiter: str | None = None
    decimal: str = "."
    encoding: str = "utf-8"

    def __post_init__(self) -> None:
        for name, mark in (("delimiter", self.delimiter), ("decimal", self.decimal)):
            if mark is not None and len(mark) != 1:
                raise FedlitError(f"data.{name} is {mark!r}: give one character")
        if self.delimiter == self.decimal:
            raise FedlitError(f"data.delimiter and data.decimal are both {self.decimal!r}: give two characters")
        arguments.text_encoding(self.encoding)


def is_table(path: Path) -> bool:
    """Whether a file is named like a table."""
    return ending(path) in SUFFIXES


def is_csv(path: Path) -> bool:
    """Whether a file is named like a table that a :class:`TableFormat` describes."""
    return ending(path) in (".csv", ".tsv")


def content_of(path: Path, most: int = -1) -> bytes:
    """The first bytes of a file, or all of them, unpacked."""
    opener = _OPEN.get(path.suffix.lower())
    with opener(path, "rb") if opener else path.open("rb") as file:
        content: bytes = file.read(most)
    return content


def encoding_of(head: bytes, format: TableFormat) -> str:
    """Encoding of a file by its first bytes: that of a byte order mark, else the format's."""
    return next((name for mark, name in _MARKS.items() if head.startswith(mark)), format.encoding)


def usual_delimiter(path: Path) -> str:
    """What separates columns where nothing else says so."""
    return "\t" if ending(path) == ".tsv" else ","
