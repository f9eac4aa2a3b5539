"""Instructions made from a schema, and the answers to learn.

Tasks: ``"entities"`` asks for mentions; ``"relations"`` shows the text with the mentions given, numbered, and asks for
the links between them (with their modifiers, where the schema has any); ``"both"`` asks for all of it from the bare
text.

Formats: ``"html"`` is the text with span tags (:mod:`fedlit.instructions.markup`), then, where relations are asked, a
line ``Relations:`` and a line ``CID: 1 -> 4`` for each, or ``none``. ``"json"`` is a list of mentions
(:mod:`fedlit.instructions.listing`), or an object of two lists, ``entities`` and ``relations``; with lists ``"asked"``
without the one that was not asked for.

Relations: ``"list"`` names both ends by their numbers: one question per document, and every relation comes back as it
was. ``"focus"`` is the way of Fed-MedLoRA's release: one question for each mention that may head a relation, marked in
the text, and the answer marks what it is linked to, by the relation's type. That costs the whole text twice for each
mention, and cannot say which of two entity types a tail has, so ``"list"`` is the default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from fedlit.data.documents.documents import Document, Entity, Relation, document_fault
from fedlit.errors import FedlitError
from fedlit.instructions import listing, markup
from fedlit.instructions.markup import Crossing
from fedlit.instructions.schema import Schema
from fedlit.instructions.wording import instruction

Task = Literal["entities", "relations", "both"]
Format = Literal["html", "json"]
Relations = Literal["list", "focus"]
Wording = Literal["full", "names", "brief"]
Lists = Literal["both", "asked"]


@dataclass(frozen=True)
class Instance:
    """One question and its answer.

    Attributes:
        document: Id.
        prompt: The instruction with the text; the answer follows it directly.
        target: The answer.
        focus: Id of the mention that the question is about, or None.
        dropped_entities: Mentions left out of the answer because they cross another.
        dropped_relations: Relations left out with them.
    """

    document: str
    prompt: str
    target: str
    focus: str | None = None
    dropped_entities: int = 0
    dropped_relations: int = 0


@dataclass(frozen=True)
class Template:
    """How documents of a schema become questions and answers.

    Args:
        schema: What to look for.
        task: ``"entities"``, ``"relations"`` or ``"both"``.
        format: Format of the answer, ``"html"`` or ``"json"``.
        relations: ``"list"``, or ``"focus"`` (task ``"relations"`` only).
        crossing: Mentions that cross, in HTML: ``"split"`` into parts, ``"drop"`` the later one and its relations, or
            ``"error"``. JSON has them as they are.
        wording: ``"full"`` tells the model what each type means and what an answer looks like, ``"names"`` the names of
            types and the latter, ``"brief"`` the names alone: for a model that is trained, and sees shorter questions.
        lists: Which lists a JSON answer to task ``"relations"`` has where the schema has no modifiers: ``"both"``, the
            one of mentions being empty, or those ``"asked"`` for. A site that asks for relations alone teaches by
            ``"both"`` that there are no mentions.

    Raises:
        FedlitError: A value that is none of these; a task of relations with a schema that has none.
    """

    schema: Schema
    task: Task = "both"
    format: Format = "html"
    relations: Relations = "list"
    crossing: Crossing = "split"
    wording: Wording = "full"
    lists: Lists = "both"

    def __post_init__(self) -> None:
        choices = (
            ("task", Task),
            ("format", Format),
            ("relations", Relations),
            ("crossing", Crossing),
            ("wording", Wording),
            ("lists", Lists),
        )
        for field, known in choices:
            if getattr(self, field) not in get_args(known):
                raise FedlitError(f"Template.{field} is {getattr(self, field)!r}, expected one of {get_args(known)}")
        if self.task != "entities" and not self.schema.relations:
            raise FedlitError(f"Template.task is {self.task!r}, but schema {self.schema.name!r} has no relations")
        if self.relations == "focus" and self.task != "relations":
            raise FedlitError(f"Template.relations is 'focus' with task {self.task!r}: it asks for task 'relations'")

    def instances(self, document: Document) -> list[Instance]:
        """A document's questions: one, or with ``"focus"`` one for each mention that may head a relation."""
        if self.relations == "list":
            given = self.given(document)
            answer, lost, cut = self._answer(document, None)
            return [Instance(document.id, self.prompt(document.text, given), answer, None, lost, cut)]
        out = []
        for entity in self.given(document):
            if any(entity.type in relation.heads for relation in self.schema.relations):
                answer, lost, cut = self._answer(document, entity)
                prompt = self.prompt(document.text, focus=entity)
                out.append(Instance(document.id, prompt, answer, entity.id, lost, cut))
        return out

    def given(self, document: Document) -> list[Entity]:
        """Mentions that the question shows, as numbered there: with task ``"relations"`` all but modifiers."""
        if self.task != "relations":
            return []
        main = {entity.name for entity in self.schema.main}
        return markup.reading_order([entity for entity in document.entities if entity.type in main])

    def prompt(self, text: str, given: Sequence[Entity] = (), focus: Entity | None = None) -> str:
        """The question.

        Args:
            text: The note.
            given: With task ``"relations"``: the mentions to link, annotated or found.
            focus: With relations ``"focus"``: the mention that it is about.
        """
        shown = text
        if self.task == "relations":
            marked = [focus] if focus else markup.reading_order(given)
            numbers = None if focus else {entity.id: number for number, entity in enumerate(marked, start=1)}
            shown = markup.write(text, marked, numbers)
        kind = focus.type if focus else None
        escaped = self.format == "html" and markup.escape(text) != text
        return instruction(self.schema, self.task, self.format, kind, escaped, self.wording, shown, self._links_alone)

    @property
    def _links_alone(self) -> bool:
        """Whether a JSON answer has no list of mentions."""
        return self.lists == "asked" and self.task == "relations" and not self.schema.modifiers

    def target(self, document: Document, focus: Entity | None = None) -> str:
        """The answer.

        Raises:
            FedlitError: A mention outside the text, a type that the schema lacks, an annotation that nobody made, or,
                with ``crossing="error"``, mentions that cross.
        """
        return self._answer(document, focus)[0]

    def _answer(self, document: Document, focus: Entity | None) -> tuple[str, int, int]:
        self._check(document)
        main = {entity.name for entity in self.schema.main}
        given = self.given(document)
        if focus is not None:
            mentions = document.by_id()
            links = self.schema.links_of(document, focus.id)
            new = [replace(mentions[link.tail], id=f"{link.type} {link.tail}", type=link.type) for link in links]
        elif self.task == "relations":
            new = [entity for entity in document.entities if entity.type not in main]
        else:
            new = [entity for entity in document.entities if self.task == "both" or entity.type in main]
        crossing = "split" if self.format == "json" else self.crossing
        new, dropped = markup.settle(new, crossing, f"document {document.id!r}")
        if focus is not None or self.task == "entities":
            if self.format == "html":
                return markup.write(document.text, new), len(dropped), len(dropped) if focus else 0
            return listing.lines(listing.items(document.text, new)), 0, 0
        numbered = [*given, *markup.reading_order(new)]
        numbers = {entity.id: number for number, entity in enumerate(numbered, start=1)}
        links = [relation for relation in document.relations if relation.head in numbers and relation.tail in numbers]
        cut = len(document.relations) - len(links)
        links = list(dict.fromkeys(self._forward(link, numbers) for link in links))
        links.sort(key=lambda link: (numbers[link.head], numbers[link.tail], link.type))
        if self.format == "json":
            listed = listing.lines(listing.items(document.text, new, numbers))
            pairs = [{"type": link.type, "head": numbers[link.head], "tail": numbers[link.tail]} for link in links]
            first = "" if self._links_alone else f'"entities": {listed},\n'
            return f'{{{first}"relations": {listing.lines(pairs)}}}', len(dropped), cut
        copied = self.task == "both" or bool(self.schema.modifiers)
        text = markup.write(document.text, new, numbers) + "\n" if copied else ""
        return f"{text}Relations:\n{_links(links, numbers)}", len(dropped), cut

    def _forward(self, link: Relation, numbers: Mapping[str, int]) -> Relation:
        """The link; one without a direction from the lower number to the higher one."""
        if self.schema.relation[link.type].symmetric and numbers[link.head] > numbers[link.tail]:
            return replace(link, head=link.tail, tail=link.head)
        return link

    def _check(self, document: Document) -> None:
        fault = document_fault(document) if document.text.strip() or document.entities else None
        fault = fault or self.schema.fault(document)
        if fault:
            raise FedlitError(f"document {document.id!r} {fault}")
        needed = {"entities": {"entities"}, "relations": {"relations"}, "both": {"entities", "relations"}}[self.task]
        lacking = sorted(needed - document.annotated)
        if lacking:
            raise FedlitError(
                f"document {document.id!r} was not annotated for {lacking[0]}, so it has no answer for task "
                f"{self.task!r}: ask for {task_of(document)!r}"
            )


def _links(links: Sequence[Relation], numbers: dict[str, int]) -> str:
    """The list of relations under the text."""
    return "\n".join(f"{link.type}: {numbers[link.head]} -> {numbers[link.tail]}" for link in links) or "none"


def task_of(document: Document) -> Task | None:
    """The largest task that a document was annotated for, None without any."""
    if len(document.annotated) == 2:
        return "both"
    return next(iter(document.annotated), None)


def prompt(
    document_text: str,
    schema: Schema,
    task: Task = "both",
    format: Format = "html",
    given: Sequence[Entity] = (),
    focus: Entity | None = None,
) -> str:
    """:meth:`Template.prompt` of a template made on the spot."""
    return Template(schema, task, format, "focus" if focus else "list").prompt(document_text, given, focus)


def target(
    document: Document,
    schema: Schema,
    task: Task = "both",
    format: Format = "html",
    crossing: Crossing = "split",
    focus: Entity | None = None,
) -> str:
    """:meth:`Template.target` of a template made on the spot."""
    return Template(schema, task, format, "focus" if focus else "list", crossing).target(document, focus)
