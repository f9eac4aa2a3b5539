"""Token-per-line files with BIO or BIOES tags (CoNLL): NCBI disease, BC2GM and the like. They hold no relations."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from fedlit.data.base.records import BadRecord
from fedlit.data.documents.documents import Annotation, Document, Entity
from fedlit.data.documents.formats import Piece, document, written_error

Unit = Literal["marked", "sentence", "file"]
"""What is a document: what a ``-DOCSTART-`` or ``###id`` line begins, a sentence, or the whole file."""
ONLY_ENTITIES: frozenset[Annotation] = frozenset({"entities"})
_TAG = re.compile(r"([BIESLUM])(?:-(.+))?")
_LAST = "SUEL"
_MARK = re.compile(r"-DOCSTART-(?:\s+\(?([^\s()]+)\)?)?(?:\s.*)?|###(\S+)\s*")


@dataclass(frozen=True)
class _Token:
    line: int
    text: str
    tag: str


@dataclass
class _Block:
    line: int
    id: str
    sentences: list[list[_Token]] = field(default_factory=lambda: [[]])


def conll_pieces(
    content: str,
    name: str,
    stem: str,
    unit: Unit = "marked",
    tag_column: int = -1,
    default_type: str | None = None,
    raw: str | None = None,
) -> list[Piece]:
    """The documents of a file.

    Args:
        content: Content of the file: on each line a token and, in columns separated by tabs or blanks, its tag; an
            empty line after a sentence; a ``-DOCSTART-``, ``-DOCSTART- (id)`` or ``###id`` line before a document.
        name: Name of the file, for errors.
        stem: Documents without an id are named ``stem-1``, ``stem-2``, ...; the one of ``unit`` ``file`` is ``stem``.
        unit: What is a document.
        tag_column: Column of the tag, from 0, or from -1 backwards; the token is in the first.
        default_type: Type of tags that name none (``B``, ``I``).
        raw: The text that the tokens are of; None: tokens are joined by blanks, sentences by line breaks.

    Raises:
        BadRecord: A line lacks columns, there is no mark where there should be, or one raw text for several documents.
    """
    blocks = _blocks(content, name, tag_column, unit == "marked")
    if unit == "sentence":
        blocks = [_Block(own[0].line, "", [own]) for block in blocks for own in block.sentences if own]
    elif unit == "file":
        blocks = [_Block(1, stem, [own for block in blocks for own in block.sentences])]
    if raw is not None and len(blocks) != 1:
        raise BadRecord(f"{name}: holds {len(blocks)} documents and there is one raw text: give each document a file")
    out = []
    for place, block in enumerate(blocks, 1):
        id = block.id or f"{stem}-{place}"

        def parse(id: str = id, block: _Block = block) -> Document:
            return _parsed(id, block, name, default_type, raw)

        out.append(Piece(id, f"{name}: line {block.line}", parse))
    return out


def parse_conll(content: str, name: str = "text", stem: str = "document", **options: object) -> list[Document]:
    """All documents of a file; arguments as of :func:`conll_pieces`.

    ``I`` or ``E`` that continues nothing begins a mention, as in the scorer of CoNLL 2000. A mention ends with its
    sentence. Mentions are ``T1``, ``T2``, ...; relations were not looked for.

    Raises:
        BadRecord: Naming file, line and mend.
    """
    return [piece.parse() for piece in conll_pieces(content, name, stem, **options)]  # type: ignore[arg-type]


def write_conll(documents: Iterable[Document]) -> str:
    """Contents of a file with BIO tags and ``-DOCSTART- (id)`` lines: a line of text is a sentence, a word a token.

    Raises:
        BadRecord: A mention begins or ends within a word, spans lines, has fragments, or overlaps another.
    """
    out: list[str] = []
    for own in documents:
        if not re.fullmatch(r"[^\s()]+", own.id):
            raise written_error(own, "CoNLL", "its id has blanks or parentheses in it: rename it")
        out += [f"-DOCSTART- ({own.id})\tO", ""]
        words = [(m.start(), m.end()) for m in re.finditer(r"\S+", own.text)]
        tags = ["O"] * len(words)
        starts, stops = {a: i for i, (a, _) in enumerate(words)}, {b: i for i, (_, b) in enumerate(words)}
        for e in own.entities:
            if e.fragments or e.start not in starts or e.stop not in stops or "\n" in own.text[e.start : e.stop]:
                raise written_error(own, "CoNLL", f"the mention {e.id!r} is not made of whole words of one line")
            covered = range(starts[e.start], stops[e.stop] + 1)
            if any(tags[i] != "O" for i in covered):
                raise written_error(own, "CoNLL", f"the mention {e.id!r} overlaps another: write brat or JSONL")
            for i in covered:
                tags[i] = f"{'B' if i == covered[0] else 'I'}-{e.type}"
        last = 0
        for (start, stop), tag in zip(words, tags, strict=True):
            out += [""] * ("\n" in own.text[last:start])
            out.append(f"{own.text[start:stop]}\t{tag}")
            last = stop
        out.append("")
    return "\n".join(out) + "\n"


def _blocks(content: str, name: str, tag_column: int, marked: bool) -> list[_Block]:
    blocks: list[_Block] = []
    columns = 0
    for place, written in enumerate(content.split("\n"), 1):
        line = written.removesuffix("\r")
        mark = _MARK.fullmatch(line)
        if mark:
            id = mark[2] or mark[1] or ""
            blocks.append(_Block(place, "" if mark[1] in ("O", "-X-") else id))
            continue
        if not line.strip():
            if blocks and blocks[-1].sentences[-1]:
                blocks[-1].sentences.append([])
            continue
        if not blocks:
            if marked:
                raise BadRecord(
                    f"{name}: line {place} comes before any -DOCSTART- or ### line: add one before each document, or "
                    f"set data.unit to sentence or file"
                )
            blocks.append(_Block(place, ""))
        cells = line.split("\t") if "\t" in line else line.split()
        columns = columns or len(cells)
        if len(cells) != columns or len(cells) < 2 or not cells[0].strip():
            least = f"{columns} as the first" if columns > 1 else "2 or more (token, ..., tag)"
            raise BadRecord(f"{name}: line {place} has {len(cells)} column(s) or no token, not {least}: mend the line")
        if not -columns <= tag_column < columns:
            raise BadRecord(
                f"{name}: line {place} has {columns} columns and no column {tag_column}: mend data.tag_column"
            )
        blocks[-1].sentences[-1].append(_Token(place, cells[0], cells[tag_column].strip()))
    return blocks


def _parsed(id: str, block: _Block, name: str, default_type: str | None, raw: str | None) -> Document:
    sentences = [own for own in block.sentences if own]
    where = f"{name}: line {block.line}"
    joined = "\n".join(" ".join(token.text for token in own) for own in sentences)
    text = joined if raw is None else raw
    entities: list[Entity] = []
    at = 0
    for sentence in sentences:
        open_type: str | None = None
        for token in sentence:
            start = text.find(token.text, at)
            if start < 0 or text[at:start].strip():
                found = f", it is at {start}" if start >= 0 else ""
                raise BadRecord(
                    f"{name}: line {token.line}: the token of {len(token.text)} character(s) is not what follows in "
                    f"the raw text from character {at} on{found}: mend either"
                )
            at = start + len(token.text)
            prefix, type = _tag(token, name, default_type)
            if type is None:
                open_type = None
                continue
            if prefix in "IELM" and open_type == type:
                last = entities.pop()
                entities.append(Entity(last.id, type, last.start, at))
            else:
                entities.append(Entity(f"T{len(entities) + 1}", type, start, at))
            open_type = None if prefix in _LAST else type
    return document(where, id, text, entities, annotated=ONLY_ENTITIES)


def _tag(token: _Token, name: str, default_type: str | None) -> tuple[str, str | None]:
    """Prefix and type of a tag; no type for ``O``."""
    if token.tag == "O":
        return "O", None
    found = _TAG.fullmatch(token.tag)
    if found is None:
        raise BadRecord(
            f"{name}: line {token.line} has a tag of {len(token.tag)} character(s) that is none: give O, or B-, I-, "
            f"E-, S- (L-, U-) and a type, or mend data.tag_column"
        )
    type = found[2] or default_type
    if type is None:
        raise BadRecord(f"{name}: line {token.line} has a tag without a type: set data.default_type")
    return found[1], type
