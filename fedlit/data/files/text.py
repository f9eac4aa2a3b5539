"""Text files: their encoding, and the byte order marks that programs on Windows put before and into them."""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from pathlib import Path

from fedlit.data.base.records import BadRecord

MARK = "\ufeff"
_MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}


@dataclass(frozen=True)
class Text:
    """Contents of a text file.

    Attributes:
        content: Without a byte order mark; line breaks as they are, since offsets count them.
        marked: Whether there was one.
    """

    content: str
    marked: bool = False

    @property
    def lines(self) -> str:
        """For formats of lines: also without the marks that begin a line where files were joined."""
        return self.content.replace(f"\n{MARK}", "\n")


def read_text(path: Path, encoding: str = "utf-8") -> Text:
    """Contents of a text file; a byte order mark counts before ``encoding``.

    Raises:
        BadRecord: It cannot be read, or is in another encoding.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadRecord(f"{path}: {error.strerror}: make the file readable") from error
    mark = next((mark for mark in _MARKS if content.startswith(mark)), b"")
    name = _MARKS.get(mark, encoding)
    try:
        text = content[len(mark) :].decode(name)
    except UnicodeDecodeError as error:
        where = f"byte {error.start + len(mark)}"
        raise BadRecord(
            f"{path}: is not {name.upper()} ({where}): convert it, or set data.encoding to what it was saved in, "
            f"perhaps cp1252 or latin-1"
        ) from error
    if not mark and text.count("\0") > len(text) // 4:
        little = content[1::2].count(0) > content[::2].count(0)
        name = "utf-16-le" if little else "utf-16-be"
        raise BadRecord(f"{path}: is UTF-16 without a byte order mark: convert it, or set data.encoding {name}")
    return Text(text.removeprefix(MARK), bool(mark) or text.startswith(MARK))
