"""brat stand-off: a text and an ``.ann`` file with mentions (T), relations (R), events (E) and equivalences (*)."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import combinations

from fedlit.data.base.records import BadRecord
from fedlit.data.documents.documents import Document, Entity, Relation
from fedlit.data.documents.formats import document, number, written_error
from fedlit.data.documents.offsets import Offsets, Places

NOT_KEPT = "AM#"
"""First letters of lines that are counted, not kept: attributes (A, formerly M) and notes."""
_FORMS = {
    "T": (re.compile(r"(T\S*)\t(\S+) (\d+ \d+(?:;\d+ \d+)*)(?:\t(.*))?"), "T1<TAB>Type start end<TAB>text"),
    "R": (re.compile(r"(R\S*)\t(\S+) (\S+?):(\S+) (\S+?):(\S+)\s*"), "R1<TAB>Type Arg1:T1 Arg2:T2"),
    "E": (re.compile(r"(E\S*)\t([^\s:]+):(\S+)((?: [^\s:]+:\S+)*)\s*"), "E1<TAB>Type:T1 Role:T2"),
    "*": (re.compile(r"(\*)\t(\S+)((?: \S+){2,})\s*"), "*<TAB>Type T1 T2"),
    "N": (re.compile(r"(N\S*)\t(\S+) (\S+) (\S+)(?:\t.*)?"), "N1<TAB>Reference T1 Vocabulary:Id<TAB>name"),
}
_MENTION_ID = re.compile(r"T\S+")
_TYPE = re.compile(r"[^\s:]+")
_NUMBERED = re.compile(r"[A-Z]\d+")


@dataclass
class _Found:
    """What the lines say, until all that they refer to is known. ``links``: line, type, ends, and if symmetric."""

    places: Places
    mentions: dict[str, Entity] = field(default_factory=dict)
    triggers: dict[str, str] = field(default_factory=dict)
    links: list[tuple[str, str, list[str], bool]] = field(default_factory=list)
    concepts: list[tuple[str, str, str]] = field(default_factory=list)
    not_kept: Counter[str] = field(default_factory=Counter)

    def mention(self, name: str, here: str) -> Entity:
        """The mention of an id, or the trigger of the event of it."""
        own = self.mentions.get(self.triggers.get(name, name))
        if own is None:
            raise BadRecord(f"{here} names {_shown(name)}, which is no mention or event of the file: mend the line")
        return own


def parse_brat(
    text: str, ann: str, id: str, name: str = "ann", offsets: Offsets = "characters"
) -> tuple[Document, dict[str, int]]:
    """A document, and how much of the file it cannot hold: attributes (A, M) and notes (#), events that share their
    trigger with another, numbers of roles.

    An event stands for its trigger: who names the event means that mention, and each argument of the event is a
    relation from the trigger, of the type of the argument's role (``Theme`` for ``Theme2``). An equivalence, which has
    no direction, gives a relation of its type between each two of its mentions, the earlier one the head, marked
    as symmetric. Normalisations (N) become concepts, several joined by ``|``.

    Args:
        text: Contents of the ``.txt`` file, line breaks as they are: offsets count them.
        ann: Contents of the ``.ann`` file.
        id: Id of the document.
        name: Name of the ``.ann`` file, for errors.
        offsets: What offsets count.

    Raises:
        BadRecord: Naming file, line and mend.
    """
    found = _Found(Places(text, offsets))
    ignored = found.not_kept
    for place, raw in enumerate(ann.split("\n"), 1):
        line, here = raw.removesuffix("\r"), f"{name}: line {place}"
        if not line.strip():
            continue
        if line[0] in NOT_KEPT:
            ignored[line[0]] += 1
            continue
        if line[0] not in _FORMS:
            raise BadRecord(f"{here} does not begin as lines of brat do, with {', '.join(_FORMS)}, A, M or #: mend it")
        pattern, form = _FORMS[line[0]]
        cells = pattern.fullmatch(line)
        if cells is None:
            fields = line.count("\t") + 1
            raise BadRecord(f"{here}, {fields} field(s) between tabs, is not {form}: mend the line")
        _note(cells, here, found)
    for here, name_, concept in found.concepts:
        own = found.mention(name_, here)
        concepts = dict.fromkeys([*(own.concept.split("|") if own.concept else []), concept])
        found.mentions[own.id] = replace(own, concept="|".join(concepts))
    relations = []
    for here, type, names, symmetric in found.links:
        ends = [found.mention(end, here) for end in names]
        if symmetric:
            ends = sorted(dict.fromkeys(ends), key=lambda entity: (entity.start, entity.stop))
        relations += [Relation(type, a.id, b.id, symmetric=symmetric) for a, b in combinations(ends, 2)]
    return document(name, id, text, found.mentions.values(), relations), dict(ignored)


def write_brat(own: Document) -> tuple[str, str]:
    """Contents of the ``.txt`` and of the ``.ann`` file. Mentions are numbered anew unless all ids begin with ``T``.

    Raises:
        BadRecord: A type has blanks or a colon in it, or is empty.
    """
    kept = all(_MENTION_ID.fullmatch(e.id) for e in own.entities)
    names = {e.id: e.id if kept else f"T{i}" for i, e in enumerate(own.entities, 1)}
    odd = [t for t in (*(e.type for e in own.entities), *(r.type for r in own.relations)) if not _TYPE.fullmatch(t)]
    if odd:
        raise written_error(own, "brat", f"the type {odd[0]!r} is empty, or has blanks or a colon in it: rename it")
    lines: list[str] = []
    concepts: list[str] = []
    for e in own.entities:
        spans = ";".join(f"{a} {b}" for a, b in e.fragments or ((e.start, e.stop),))
        mention = "".join(" " if c.isspace() else c for c in own.mention(e))
        lines.append(f"{names[e.id]}\t{e.type} {spans}\t{mention}")
        for concept in e.concept.split("|") if e.concept else []:
            concepts.append(f"N{len(concepts) + 1}\tReference {names[e.id]} {concept}\t{mention}")
    for i, r in enumerate(own.relations, 1):
        lines.append(f"R{i}\t{r.type} Arg1:{names[r.head]} Arg2:{names[r.tail]}")
    return own.text, "".join(f"{line}\n" for line in lines + concepts)


def _shown(name: str) -> str:
    """A name for errors, unless it may be a word of the text."""
    return repr(name) if _NUMBERED.fullmatch(name) else f"a name of {len(name)} character(s)"


def _note(cells: re.Match[str], here: str, found: _Found) -> None:
    """Add what one line says."""
    id, kind = cells[1], cells[0][0]
    if id != "*" and (id in found.mentions or id in found.triggers):
        raise BadRecord(f"{here} is named {_shown(id)}, as a line before it: give each its own id")
    if kind == "T":
        numbers = [pair.split() for pair in cells[3].split(";")]
        given = sorted((number(here, a, "start"), number(here, b, "end")) for a, b in numbers)
        if cells[4] is None:
            raise BadRecord(f"{here} is without the mention's text: add a tab and the text")
        parts = tuple(found.places.of(here, given, cells[4]))
        several = parts if len(parts) > 1 else ()
        found.mentions[id] = Entity(id, cells[2], parts[0][0], parts[-1][1], several)
    elif kind == "R":
        ends = [cells[4], cells[6]]
        found.links.append((here, cells[2], ends[::-1] if (cells[3], cells[5]) == ("Arg2", "Arg1") else ends, False))
    elif kind == "E":
        found.not_kept.update(["events of one trigger"] if cells[3] in found.triggers.values() else [])
        found.triggers[id] = cells[3]
        for argument in cells[4].split():
            role, _, end = argument.partition(":")
            plain = role.rstrip("0123456789") or role
            found.not_kept.update(["numbers of roles"] if plain != role else [])
            found.links.append((here, plain, [cells[3], end], False))
    elif kind == "*":
        found.links.append((here, cells[2], cells[3].split(), True))
    else:
        found.concepts.append((here, cells[3], cells[4]))
