"""PubTator files (BC5CDR, NCBI disease): title, abstract, mentions with concepts, relations between concepts.

A relation of the format links two concepts in the whole document. Here it links one mention of each, the first in the
text that stands for this concept alone, or the first composite one where there is none: then each pair of concepts is
one relation (two, where composite mentions stand for both), and a prediction between any mentions of the same concepts
can be brought to the same ends by :func:`first_mentions`. ``Relation.concepts`` keeps the pairs as published.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import product
from typing import Literal

from fedlit.data.base.records import BadRecord
from fedlit.data.documents.documents import Document, Entity, Relation
from fedlit.data.documents.formats import Piece, document, number, written_error
from fedlit.data.documents.offsets import Offsets, Places

Pairs = Literal["first", "every"]
UNLINKED = "-1"
RELATION_REMARKS = "5th columns of relations"
PARTS_OF_COMPOSITES = "7th columns of mentions"
_START = re.compile(r"([^|\t]+)\|t\|(.*)")
_SEVERAL = re.compile(r"[|,;]")
_GAP = str.maketrans("\n\r\t", "   ")


def pubtator_pieces(content: str, name: str, pairs: Pairs = "first", offsets: Offsets = "characters") -> list[Piece]:
    """The documents of a file.

    Args:
        content: Content of the file.
        name: Name of the file, for errors.
        pairs: Mentions that a relation of two concepts links: the first of each, or every pair.
        offsets: What offsets count.

    Raises:
        BadRecord: The file does not begin with a title.
    """
    blocks: list[list[tuple[int, str]]] = []
    for place, raw in enumerate(content.split("\n"), 1):
        line = raw.removesuffix("\r")
        if _START.fullmatch(line):
            blocks.append([])
        elif not line.strip():
            continue
        if not blocks:
            raise BadRecord(f"{name}: line {place} comes before any title (id|t|...): give a PubTator file")
        blocks[-1].append((place, line))
    out = []
    for block in blocks:
        start, line = block[0]
        id = line.split("|")[0]
        not_kept: Counter[str] = Counter()

        def parse(id: str = id, block: list[tuple[int, str]] = block, not_kept: Counter[str] = not_kept) -> Document:
            not_kept.clear()
            return _parsed(id, block, name, pairs, offsets, not_kept)

        out.append(Piece(id, f"{name}: line {start}", parse, not_kept))
    return out


def parse_pubtator(content: str, name: str = "text", pairs: Pairs = "first") -> list[Document]:
    """All documents of a file; see :func:`pubtator_pieces`. Title and abstract are joined by a line break.

    Mentions are ``T1``, ``T2``, ... in the order of the file; a composite one (7th column) stays whole, with its
    concepts as written (``D002318|D012131``); ``-1`` is no concept.

    Raises:
        BadRecord: Naming file, line and mend.
    """
    return [piece.parse() for piece in pubtator_pieces(content, name, pairs)]


def write_pubtator(documents: Iterable[Document]) -> str:
    """Contents of a file. Up to the first line break a text is title; further breaks and tabs become blanks.

    Raises:
        BadRecord: A mention has fragments, or a relation links one without a concept.
    """
    out = []
    for own in documents:
        title, _, abstract = own.text.partition("\n")
        if len(title) == len(own.text):
            raise written_error(own, "PubTator", "its text is one line: put the title on a line of its own")
        lines = [f"{own.id}|t|{title.translate(_GAP)}", f"{own.id}|a|{abstract.translate(_GAP)}"]
        for e in own.entities:
            if e.fragments:
                raise written_error(own, "PubTator", f"the mention {e.id!r} has fragments: write brat or JSONL")
            mention = own.mention(e).translate(_GAP)
            lines.append("\t".join((own.id, str(e.start), str(e.stop), mention, e.type, e.concept or UNLINKED)))
        linked: dict[str, None] = {}
        mentions = own.by_id()
        for r in own.relations:
            for head, tail in r.concepts or ((mentions[r.head].concept, mentions[r.tail].concept),):
                if head is None or tail is None:
                    raise written_error(own, "PubTator", "a relation links a mention without a concept: give it one")
                linked[f"{own.id}\t{r.type}\t{head}\t{tail}"] = None
        out.append("\n".join([*lines, *linked]) + "\n\n")
    return "".join(out)


def first_mentions(document: Document) -> Mapping[str, str]:
    """The id of each mention to that of the first with the same concepts and type: itself, where it has none."""
    first: dict[tuple[str, str], str] = {}
    for entity in document.entities:
        if entity.concept is not None:
            first.setdefault((entity.type, entity.concept), entity.id)
    return {e.id: first.get((e.type, e.concept or ""), e.id) for e in document.entities}


def _parsed(
    id: str, block: list[tuple[int, str]], name: str, pairs: Pairs, offsets: Offsets, not_kept: Counter[str]
) -> Document:
    where = f"{name}: line {block[0][0]}"
    abstract = block[1][1] if len(block) > 1 else ""
    if not abstract.startswith(f"{id}|a|"):
        raise BadRecord(f"{where}: the title of {id!r} is not followed by its abstract ({id}|a|...): mend the file")
    text = f"{block[0][1][len(id) + 3 :]}\n{abstract[len(id) + 3 :]}"
    places = Places(text, offsets)
    entities: list[Entity] = []
    links: list[tuple[str, str, str, str]] = []
    for place, line in block[2:]:
        here = f"{name}: line {place}"
        cells = line.split("\t")
        if cells[0] != id:
            raise BadRecord(f"{here} is in the document {id!r}, and does not begin with that id: move it, or mend it")
        if len(cells) in (4, 5) and not cells[1][:1].isdecimal():  # a 5th column says how sure or new it is
            links.append((here, cells[1], cells[2], cells[3]))
            not_kept.update([RELATION_REMARKS] if cells[4:] else [])
            continue
        if len(cells) not in (5, 6, 7):
            raise BadRecord(
                f"{here} has {len(cells)} columns; a mention has 6 (id, start, end, text, type, concept) or 7, a "
                f"relation 4 (id, type, concept, concept): mend it"
            )
        start, stop = number(here, cells[1], "start"), number(here, cells[2], "end")
        ((start, stop),) = places.of(here, [(start, stop)], cells[3])
        not_kept.update([PARTS_OF_COMPOSITES] if cells[6:] else [])
        concept = cells[5].strip() if len(cells) > 5 else ""
        known = concept if concept not in ("", UNLINKED) else None
        entities.append(Entity(f"T{len(entities) + 1}", cells[4], start, stop, concept=known))
    return document(where, id, text, entities, _linked(links, entities, pairs))


def _linked(links: list[tuple[str, str, str, str]], entities: list[Entity], pairs: Pairs) -> list[Relation]:
    """Relations between mentions; of several pairs of concepts between the same two, one that keeps them all."""
    held: dict[tuple[str, str, str], list[tuple[str, str]]] = {}
    for here, type, head, tail in links:
        ends = [
            _standing_for(concept, f"{here} has a relation with the concept in column {column}", entities)
            for column, concept in ((3, head), (4, tail))
        ]
        chosen = product(*ends) if pairs == "every" else [(ends[0][0], ends[1][0])]
        for a, b in chosen:
            own = held.setdefault((type, a.id, b.id), [])
            if (head, tail) not in own:
                own.append((head, tail))
    return [Relation(*ends, concepts=tuple(concepts)) for ends, concepts in held.items()]


def _standing_for(concept: str, here: str, entities: list[Entity]) -> list[Entity]:
    """The mentions of a concept: those of it alone before composite ones, each in the order of the text."""
    alone = [e for e in entities if e.concept == concept]
    among = [e for e in entities if e.concept and e not in alone and concept in _SEVERAL.split(e.concept)]
    found = [*sorted(alone, key=lambda e: (e.start, e.stop)), *sorted(among, key=lambda e: (e.start, e.stop))]
    if not found:
        raise BadRecord(f"{here}, which no mention has: mend it")
    return found
