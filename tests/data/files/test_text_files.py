"""Text files of every origin: marks, encodings, what cannot be read."""

from __future__ import annotations

import codecs

import pytest

from fedlit.data.base.records import BadRecord
from fedlit.data.files.text import Text, read_text


@pytest.mark.parametrize(
    ("content", "encoding", "read"),
    [
        ("Fieber 🫀\r\n".encode(), "utf-8", Text("Fieber 🫀\r\n")),
        ("Fieber".encode("utf-8-sig"), "utf-8", Text("Fieber", True)),
        ("Fieber".encode("utf-8-sig"), "latin-1", Text("Fieber", True)),
        ("Fieber 🫀".encode("utf-16"), "utf-8", Text("Fieber 🫀", True)),
        (codecs.BOM_UTF16_BE + "Fieber".encode("utf-16-be"), "utf-8", Text("Fieber", True)),
        ("Fieber".encode("utf-16-le"), "utf-16-le", Text("Fieber")),
        ("Übelkeit".encode("latin-1"), "latin-1", Text("Übelkeit")),
        ("Übelkeit – ja".encode("cp1252"), "cp1252", Text("Übelkeit – ja")),
        (b"", "utf-8", Text("")),
    ],
)
def test_what_is_read(tmp_path, content, encoding, read):
    (tmp_path / "n.txt").write_bytes(content)
    assert read_text(tmp_path / "n.txt", encoding) == read


def test_marks_within_joined_files():
    assert Text("a\n\ufeffb\ufeff").lines == "a\nb\ufeff"


@pytest.mark.parametrize(
    ("content", "encoding", "message"),
    [
        ("Übelkeit".encode("latin-1"), "utf-8", r"n.txt: is not UTF-8 \(byte 0\): convert it, or set data.encoding to"),
        (codecs.BOM_UTF8 + b"ab\xff", "utf-8", r"is not UTF-8 \(byte 5\)"),
        ("Fieber".encode("utf-16-le"), "utf-8", "is UTF-16 without a byte order mark: .* data.encoding utf-16-le"),
        ("Fieber".encode("utf-16-be"), "utf-8", "is UTF-16 without a byte order mark: .* data.encoding utf-16-be"),
        (b"a\xed\xa0\xbd", "utf-8", r"is not UTF-8 \(byte 1\)"),  # half an emoji, as some programs write it
    ],
)
def test_what_cannot_be_read(tmp_path, content, encoding, message):
    (tmp_path / "n.txt").write_bytes(content)
    with pytest.raises(BadRecord, match=message):
        read_text(tmp_path / "n.txt", encoding)
    with pytest.raises(BadRecord, match="absent.txt: No such file or directory: make the file readable"):
        read_text(tmp_path / "absent.txt")
