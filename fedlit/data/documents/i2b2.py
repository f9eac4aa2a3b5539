"""i2b2 2010: notes of one sentence a line with concepts, assertions and relations (Uzuner et al. 2011).

doi:10.1136/amiajnl-2011-000203. Lines count from 1, tokens (what stands between blanks) from 0; a span names its
first and last token.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial

from fedlit.data.base.records import BadRecord
from fedlit.data.documents.documents import BOTH, Annotation, Document, Entity, Relation
from fedlit.data.documents.formats import check_mention, document, written_error

_SPAN = r'c="(.*)" (\d+):(\d+) (\d+):(\d+)'
_CONCEPT = re.compile(_SPAN + r'\|\|t="([^"]+)"\s*')
_ASSERTION = re.compile(_SPAN + r'\|\|t="([^"]+)"\|\|a="([^"]+)"\s*')
_RELATION = re.compile(_SPAN + r'\|\|r="([^"]+)"\|\|' + _SPAN + r"\s*")
_FORMS = {
    _CONCEPT: 'c="text" line:token line:token||t="type"',
    _ASSERTION: 'c="text" line:token line:token||t="type"||a="assertion"',
    _RELATION: 'c="text" line:token line:token||r="type"||c="text" line:token line:token',
}
ONLY_ENTITIES: frozenset[Annotation] = frozenset({"entities"})
Span = tuple[int, int]


def parse_i2b2(
    text: str,
    con: str,
    rel: str | None = None,
    ast: str | None = None,
    id: str = "note",
    name: str = "note",
) -> Document:
    """A document.

    Mentions are ``T1``, ``T2``, ... in the order of the ``.con`` file.

    Args:
        text: Contents of the ``.txt`` file.
        con: Content of the ``.con`` file.
        rel: Content of the ``.rel`` file; None: relations were not looked for.
        ast: Content of the ``.ast`` file, to make ``problem-absent`` out of ``problem``; None: types as they are.
        id: Id of the document.
        name: Path of the files without what follows the last dot, for errors.

    Raises:
        BadRecord: Naming file, line and mend.
    """
    tokens = _tokens(text)
    mentions: dict[tuple[Span, str], Entity] = {}
    for here, cells in _lines(con, f"{name}.con", _CONCEPT):
        span = _span(here, cells, 1, text, tokens)
        mentions.setdefault((span, cells[6]), Entity(f"T{len(mentions) + 1}", cells[6], *span))
    if ast is not None:
        for here, cells in _lines(ast, f"{name}.ast", _ASSERTION):
            key = (_span(here, cells, 1, text, tokens), cells[6])
            if key not in mentions:
                where = _shown(tokens, *key[0])
                raise BadRecord(f"{here} asserts a mention at {where}, which the .con file lacks: mend either")
            mentions[key] = replace(mentions[key], type=f"{cells[6]}-{cells[7]}")
    by_span = {span: entity.id for (span, _), entity in reversed(mentions.items())}
    relations = []
    for here, cells in _lines(rel or "", f"{name}.rel", _RELATION):
        spans = [_span(here, cells, first, text, tokens) for first in (1, 7)]
        for span in spans:
            if span not in by_span:
                where = _shown(tokens, *span)
                raise BadRecord(f"{here} relates a mention at {where}, which the .con file lacks: mend either")
        relations.append(Relation(cells[6], by_span[spans[0]], by_span[spans[1]]))
    looked = BOTH if rel is not None else ONLY_ENTITIES
    return document(f"{name}.txt", id, text, mentions.values(), relations, annotated=looked)


def write_i2b2(own: Document) -> dict[str, str]:
    """Contents of the files by suffix: ``.txt``, ``.con`` and, where relations were looked for, ``.rel``.

    Raises:
        BadRecord: A mention has fragments, or begins or ends within a word.
    """
    places = {}
    for line, words in enumerate(_tokens(own.text), 1):
        for token, (start, stop) in enumerate(words):
            places["start", start] = places["stop", stop] = f"{line}:{token}"
    spans = {}
    for e in own.entities:
        if e.fragments or ("start", e.start) not in places or ("stop", e.stop) not in places:
            raise written_error(own, "i2b2", f"the mention {e.id!r} is not made of whole words: write brat or JSONL")
        mention = " ".join(own.text[e.start : e.stop].split()).lower()
        spans[e.id] = f'c="{mention}" {places["start", e.start]} {places["stop", e.stop]}'
    out = {".txt": own.text, ".con": "".join(f'{spans[e.id]}||t="{e.type}"\n' for e in own.entities)}
    if "relations" in own.annotated:
        out[".rel"] = "".join(f'{spans[r.head]}||r="{r.type}"||{spans[r.tail]}\n' for r in own.relations)
    return out


def _tokens(text: str) -> list[list[Span]]:
    """Start and stop of each token of each line."""
    out, at = [], 0
    for line in text.split("\n"):
        out.append([(at + m.start(), at + m.end()) for m in re.finditer(r"\S+", line)])
        at += len(line) + 1
    return out


def _lines(content: str, name: str, pattern: re.Pattern[str]) -> list[tuple[str, re.Match[str]]]:
    out = []
    for place, line in enumerate(content.split("\n"), 1):
        if not line.strip():
            continue
        cells = pattern.fullmatch(line.strip())
        if cells is None:
            fields = line.count("||") + 1
            raise BadRecord(f"{name}: line {place}, {fields} field(s) between ||, is not {_FORMS[pattern]}: mend it")
        out.append((f"{name}: line {place}", cells))
    return out


def _span(here: str, cells: re.Match[str], first: int, text: str, tokens: list[list[Span]]) -> Span:
    """Characters of the span whose text is group ``first``, checked against the note; case does not count."""
    ends = []
    for line, token in ((first + 1, first + 2), (first + 3, first + 4)):
        row, column = int(cells[line]), int(cells[token])
        if not 1 <= row <= len(tokens) or column >= len(tokens[row - 1]):
            raise BadRecord(
                f"{here} names line {row}, token {column}, which the note lacks (lines from 1, tokens from 0): mend it"
            )
        ends.append(tokens[row - 1][column])
    span = (ends[0][0], ends[1][1])
    check_mention(here, text, [span], cells[first], fold_case=True, shown=partial(_shown, tokens))
    return span


def _shown(tokens: list[list[Span]], start: int, stop: int) -> str:
    """A span as lines and tokens."""
    every = [(f"{line}:{place}", *own) for line, words in enumerate(tokens, 1) for place, own in enumerate(words)]
    first = next((name for name, a, _ in every if a == start), None)
    last = next((name for name, _, b in every if b == stop), None)
    return f"{first} to {last}" if first and last else f"characters {start} to {stop}, within a token"
