"""What a model wrote, read back: tolerant, counted, never an error."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fedlit.data.documents.documents import Entity, Relation
from fedlit.instructions import listing, markup
from fedlit.instructions.alignment import MIN_SIMILARITY, TOKEN, Alignment
from fedlit.instructions.markup import Parts
from fedlit.instructions.parsed import Counts, Parsed
from fedlit.instructions.schema import Schema
from fedlit.instructions.templates import Format, Task

THOUGHT = re.compile(r"\A.*</think>\s?", re.DOTALL)
FENCE = re.compile(r"\A\s*```[a-zA-Z]*\n(.*?)(?:\n```\s*)?\Z", re.DOTALL)
HEADING = re.compile(r"^[ \t]?Relations:", re.MULTILINE)
LINK = re.compile(r"[\s*-]?\s?([A-Za-z][\w.-]*)\s?:\s?#?(\d{1,6})\s?(?:->|→|,)\s?#?(\d{1,6})\s?")
BEGUN = re.compile(r"<\s?/?\s?(?:s|sp|spa|span)?\Z", re.IGNORECASE)


def parse(
    generated: str,
    document_text: str,
    schema: Schema,
    task: Task = "both",
    format: Format = "html",
    given: Sequence[Entity] = (),
    focus: Entity | None = None,
) -> Parsed:
    """The mentions and relations of an answer to a :class:`~fedlit.instructions.Template`'s question.

    An exact answer comes back exactly. From any other as much is taken as can be placed: a reasoning passage up to
    ``</think>`` and a code fence are skipped, types are read whatever their case, a changed copy of the text is aligned
    with the text (:mod:`fedlit.instructions.alignment`), of JSON that breaks off the whole items are taken.

    Args:
        generated: What the model wrote after the prompt.
        document_text: The note, as it is in the data.
        schema: Schema of the question.
        task: Task of the question.
        format: Answer format that the question asked for.
        given: Mentions that the question showed.
        focus: Mention that the question was about, or None.
    """
    return _Reading(generated, document_text, schema, task, format, given, focus).parsed()


class _Reading:
    def __init__(
        self,
        generated: str,
        text: str,
        schema: Schema,
        task: Task,
        format: Format,
        given: Sequence[Entity],
        focus: Entity | None,
    ) -> None:
        self.text, self.schema, self.task, self.format, self.focus = text, schema, task, format, focus
        self.given = markup.reading_order(given) if task == "relations" else []
        if "</think>" in generated and "</think>" not in text:
            generated = THOUGHT.sub("", generated)
        if fenced := None if text.lstrip().startswith("```") else FENCE.match(generated):
            generated = fenced[1]
        self.taken = {entity.id for entity in (*self.given, *((focus,) if focus else ()))}
        self.generated = generated
        self.count = dict.fromkeys(Counts().to_dict(), 0) | {"documents": 1}
        main, modifiers = ([kind.name for kind in types] for types in (schema.main, schema.modifiers))
        labels = {"entities": main, "relations": modifiers, "both": [*main, *modifiers]}[task]
        if focus is not None:
            labels = [relation.name for relation in schema.relations if focus.type in relation.heads]
        self.labels = {label.lower(): label for label in labels}
        self.links = {relation.name.lower(): relation.name for relation in schema.relations}
        self.entities: list[Entity] = []
        self.relations: dict[Relation, None] = {}
        self.numbered = {str(number): entity for number, entity in enumerate(self.given, start=1)}

    def parsed(self) -> Parsed:
        if self.format == "json":
            self._read_json()
        else:
            self._read_html()
        if self.focus is not None:
            self._link_to_focus(self.focus)
        found = [*self.given, *self.entities]
        found.sort(key=lambda entity: (entity.start, entity.stop, entity.type))
        return Parsed(tuple(found), tuple(self.relations), Counts(**self.count))

    def _read_html(self) -> None:
        copy, listed = self.generated, None
        if self.task != "entities" and self.focus is None:
            headings = list(HEADING.finditer(copy))
            if headings:
                listed, copy = copy[headings[-1].end() :], copy[: headings[-1].start()].removesuffix("\n")
            else:
                self.count["truncated"] = 1
        if self.task != "relations" or self.focus is not None or self.schema.modifiers:
            self._read_copy(copy)
        elif listed is None:
            self.count["unparsable"] = 1
        for line in (listed or "").strip().splitlines():
            link = LINK.fullmatch(line)
            if link:
                self._relate(link[1], link[2], link[3])
            elif line.strip().lower() not in ("none", ""):
                self.count["malformed"] += 1

    def _read_copy(self, copy: str) -> None:
        marked = markup.read(copy)
        self.count["malformed"] += marked.unmatched
        self.count["truncated"] |= marked.unclosed > 0
        copied = marked.text
        aligned: Alignment | None = None
        shift = 0
        if copied != self.text:
            ours, theirs = "".join(copied.split()), "".join(self.text.split())
            if not theirs.startswith(ours) and theirs.startswith(BEGUN.sub("", ours)):
                copied = BEGUN.sub("", copied.rstrip())
                ours = BEGUN.sub("", ours)
            if ours != theirs and theirs.startswith(ours):
                self.count["truncated"] = 1
            elif ours != theirs:
                self.count["altered"] = 1
            if copied.strip() and self.text.startswith(copied.strip(), _indent(self.text)):
                shift = _indent(self.text) - _indent(copied)
            else:
                aligned = Alignment(copied, self.text)
                if (self.text.strip() and not ours) or aligned.share < MIN_SIMILARITY:
                    self.count["unparsable"] = 1
                    return
        for label, number, pieces in marked.marks:
            if aligned is None:
                places = [(max(0, a + shift), min(b + shift, len(self.text))) for a, b in pieces]
            else:
                found = [aligned.find(a, b) for a, b in pieces]
                places = [item for item in found if item is not None]
                words = [copied[a:b] for a, b in pieces]
                changed = len(places) == len(pieces) and words != [self.text[a:b] for a, b in places]
                self.count["realigned"] += changed and label.lower() in self.labels
            self._add(label, number, tuple(places) if len(places) == len(pieces) else None)

    def _read_json(self) -> None:
        read = listing.read(self.generated)
        if read is None:
            self.count["unparsable"] = 1
            return
        listed, cut = read
        self.count["truncated"] = int(cut)
        places = listing.Places(self.text)
        links: list[Mapping[str, Any]] = []
        for item in listed:
            if not isinstance(item, dict) or not isinstance(item.get("type"), str):
                self.count["malformed"] += 1
            elif "head" in item and "tail" in item and self.focus is None and self.task != "entities":
                links.append(item)
            else:
                self._read_item(item, places)
        for item in links:
            self._relate(item["type"], _number(item["head"]), _number(item["tail"]))

    def _read_item(self, item: Mapping[str, Any], places: listing.Places) -> None:
        label, wanted = item["type"], item.get("text")
        texts = [wanted] if isinstance(wanted, str) else wanted
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text for text in texts):
            self.count["malformed"] += 1
            return
        counts = item.get("occurrence")
        counts = [int(_number(count) or 0) for count in (counts if isinstance(counts, list) else [counts])]
        known = self.labels.get(label.lower(), label)
        counted = all(counts) and len(counts) == len(texts)
        found = places.find(known, texts if len(texts) > 1 else texts[0], counts if counted else None)
        if found is None and not any(text in self.text for text in texts):
            found = self._similar(texts)
            if found is not None and known in self.labels.values():
                self.count["altered"] = 1
                self.count["realigned"] += 1
        if found is not None:
            places.note(known, found)
        self._add(known, _number(item.get("id")), found)

    def _similar(self, texts: Sequence[str]) -> Parts | None:
        """Words that differ in case or white space only: their first place."""
        out = []
        for text in texts:
            pattern = r"\s*".join(re.escape(word) for word in TOKEN.findall(text))
            found = re.search(pattern, self.text, re.IGNORECASE) if pattern else None
            if found is None:
                return None
            out.append(found.span())
        return tuple(out)

    def _add(self, label: str, number: str | None, places: Parts | None) -> None:
        known = self.labels.get(label.lower())
        if known is None:
            self.count["out_of_schema"] += 1
        elif not places or any(a >= b for a, b in places):
            self.count["not_found"] += 1
        else:
            places = markup.joined(places)
            fragments = places if len(places) > 1 else ()
            name = f"P{len(self.entities) + 1}"
            while name in self.taken:
                name += "'"
            entity = Entity(name, known, places[0][0], places[-1][1], fragments)
            self.entities.append(entity)
            if number is not None:
                self.numbered.setdefault(number, entity)

    def _relate(self, label: str, head: str | None, tail: str | None) -> None:
        first, second = self.numbered.get(head or ""), self.numbered.get(tail or "")
        known = self.links.get(label.lower())
        if known is None:
            self.count["out_of_schema"] += 1
        elif first is None or second is None:
            self.count["malformed"] += 1
        elif not self.schema.fits(known, first.type, second.type):
            self.count["out_of_schema"] += 1
        else:
            self.relations[Relation(known, first.id, second.id)] = None

    def _link_to_focus(self, focus: Entity) -> None:
        self.entities, links = linked_to(focus, self.entities, self.given, self.schema)
        self.relations.update(dict.fromkeys(links))
        self.given = self.given if focus in self.given else [*self.given, focus]


def linked_to(
    focus: Entity, spans: Sequence[Entity], given: Sequence[Entity], schema: Schema
) -> tuple[list[Entity], list[Relation]]:
    """Spans found for a focus as tails: a mention given at the same place, or one of the relation's first tail.

    Args:
        focus: The head.
        spans: Mentions whose types are those of relations.
        given: Mentions that are known.
        schema: Schema of the types.

    Returns:
        The tails that were not given, and the relations, each once.
    """
    shown = {(entity.type, markup.parts(entity)): entity for entity in given}
    kept: dict[tuple[str, Parts], Entity] = {}
    links: dict[Relation, None] = {}
    for span in spans:
        tails = schema.relation[span.type].tails
        place = markup.parts(span)
        tail = next((shown[tail, place] for tail in tails if (tail, place) in shown), None)
        tail = tail or kept.setdefault((tails[0], place), replace(span, type=tails[0]))
        links[Relation(span.type, focus.id, tail.id)] = None
    return list(kept.values()), list(links)


def _indent(text: str) -> int:
    return len(text) - len(text.lstrip())


def _number(value: Any) -> str | None:
    """A number of a mention, whether written as a number or as text."""
    if isinstance(value, str) and value.strip().isdecimal() and len(value) < 7:
        return str(int(value))
    return str(value) if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**6 else None
