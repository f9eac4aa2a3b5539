"""Questions about a document for a language model, and its answers read back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from fedlit.data.documents.documents import Document, Entity, Relation
from fedlit.errors import FedlitError
from fedlit.instructions.markup import Crossing, parts
from fedlit.instructions.parsed import Counts, Parsed
from fedlit.instructions.parsing import parse
from fedlit.instructions.schema import Schema
from fedlit.instructions.templates import Format, Instance, Lists, Relations, Task, Template, Wording

Together = Literal["joint", "separate"]
Given = Literal["annotated", "predicted"]


@dataclass(frozen=True)
class Asked:
    """A question about a document.

    Attributes:
        task: Kind of annotation that is asked for.
        prompt: Text of the question.
        given: Mentions that the question shows.
        focus: Mention that the question is about, or None.
    """

    task: Task
    prompt: str
    given: tuple[Entity, ...] = ()
    focus: Entity | None = None


@dataclass(frozen=True)
class Questions:
    """Questions of a schema about documents, which may be annotated in part.

    Args:
        schema: What to look for.
        together: ``"joint"`` asks for mentions and relations at once where both were annotated, ``"separate"`` never.
        format: See :class:`fedlit.instructions.Template`.
        relations: As ``format``; ``"focus"`` needs ``"separate"``.
        crossing: As ``format``.
        wording: As ``format``.
        lists: As ``format``.
        given: What a question for relations shows when answers are scored: the ``"annotated"`` mentions, as the paper
            does, or those ``"predicted"`` before.
    """

    schema: Schema
    together: Together = "separate"
    format: Format = "html"
    relations: Relations = "list"
    crossing: Crossing = "split"
    wording: Wording = "full"
    given: Given = "annotated"
    lists: Lists = "both"

    def __post_init__(self) -> None:
        for field, known in (("together", Together), ("given", Given)):
            if getattr(self, field) not in get_args(known):
                raise FedlitError(f"model.{field} is {getattr(self, field)!r}, expected one of {get_args(known)}")
        if self.relations == "focus" and self.together == "joint":
            raise FedlitError("model.relations 'focus' asks about one mention at a time: set model.together 'separate'")

    def template(self, task: Task, document: Document) -> Template:
        """Template of the questions of one task about a document: for the types that were looked for in it."""
        relations: Relations = self.relations if task == "relations" else "list"
        schema = self.schema.of(document) or self.schema
        return Template(schema, task, self.format, relations, self.crossing, self.wording, self.lists)

    def tasks(self, document: Document) -> list[Task]:
        """Tasks to ask about a document: those that it was annotated for and the schema has."""
        schema = self.schema.of(document)
        if schema is None:
            return []
        known = document.annotated if schema.relations else document.annotated - {"relations"}
        if len(known) == 2 and self.together == "joint":
            return ["both"]
        return [task for task in ("entities", "relations") if task in known]

    def instances(self, document: Document) -> list[Instance]:
        """Questions with their answers, for training."""
        templates = [self.template(task, document) for task in self.tasks(document)]
        return [instance for template in templates for instance in template.instances(document)]

    def first(self, document: Document) -> list[Asked]:
        """Questions that need no earlier answer about the document."""
        out = []
        for task in self.tasks(document):
            if task == "relations" and self.given == "predicted":
                out += [] if "entities" in self.tasks(document) else self._asked("entities", document)
            else:
                out += self._asked(task, document)
        return out

    def second(self, document: Document, found: Parsed | None) -> list[Asked]:
        """Questions for relations between the mentions found, with ``given="predicted"``."""
        if self.given != "predicted" or "relations" not in self.tasks(document) or found is None:
            return []
        return self._asked("relations", replace(document, entities=found.entities))

    def read(self, asked: Asked, answer: str, document: Document) -> Parsed:
        """Mentions and relations of an answer."""
        schema = self.template(asked.task, document).schema
        return parse(answer, document.text, schema, asked.task, self.format, asked.given, asked.focus)

    def _asked(self, task: Task, document: Document) -> list[Asked]:
        template = self.template(task, document)
        given = tuple(template.given(document))
        if template.relations == "list":
            return [Asked(task, template.prompt(document.text, given), given)]
        heads = [entity for entity in given if any(entity.type in link.heads for link in template.schema.relations)]
        return [Asked(task, template.prompt(document.text, focus=head), given, head) for head in heads]


def answered(
    questions: Questions, documents: Sequence[Document], generate: Callable[[Sequence[str]], Sequence[str]]
) -> tuple[list[Parsed | None], list[Parsed | None]]:
    """Answers that mentions and those that relations are read from, by document.

    Both are the same object where one question asks for both, and None where no question does.

    Args:
        questions: Questions to ask.
        documents: Documents to ask about.
        generate: Answers up to as many questions as there are documents.
    """

    def ask(asked: Sequence[list[Asked]]) -> list[list[tuple[Asked, Parsed]]]:
        flat = [(i, sought) for i, own in enumerate(asked) for sought in own]
        out: list[list[tuple[Asked, Parsed]]] = [[] for _ in documents]
        for start in range(0, len(flat), max(1, len(documents))):
            part = flat[start : start + len(documents)]
            for (i, sought), answer in zip(part, generate([sought.prompt for _, sought in part]), strict=True):
                out[i].append((sought, questions.read(sought, answer, documents[i])))
        return out

    first = ask([questions.first(document) for document in documents])
    entities = [next((p for a, p in pairs if a.task != "relations"), None) for pairs in first]
    second = ask([questions.second(*pair) for pair in zip(documents, entities, strict=True)])
    relations: list[Parsed | None] = []
    for document, found, *pairs in zip(documents, entities, first, second, strict=True):
        asked = [pair for own in pairs for pair in own if pair[0].task != "entities"]
        if any(question.focus for question, _ in asked):
            relations.append(combined([answer for _, answer in asked], asked[0][0].given))
        elif "relations" in questions.tasks(document) and not asked:  # no mention that may head one
            shown = (
                document
                if questions.given == "annotated" or found is None
                else replace(document, entities=found.entities)
            )
            relations.append(combined([], questions.template("relations", document).given(shown)))
        else:
            relations.append(asked[0][1] if asked else None)
    return entities, relations


def combined(answers: Sequence[Parsed], given: Sequence[Entity]) -> Parsed:
    """Answers about one mention after the other as one: mentions at one place count once, relations are put together.

    Args:
        answers: Answers to questions of ``relations="focus"`` about one document; empty where no mention heads a
            relation.
        given: Mentions that the questions showed.
    """
    known = {(entity.type, parts(entity)): entity for entity in given}
    renamed: dict[Relation, None] = {}
    for number, answer in enumerate(answers):
        own: dict[str, str] = {}
        for entity in answer.entities:
            place = (entity.type, parts(entity))
            if place not in known:
                known[place] = replace(entity, id=f"F{number}.{entity.id}")
            own[entity.id] = known[place].id
        for link in answer.relations:
            renamed[replace(link, head=own[link.head], tail=own[link.tail])] = None
    entities = sorted(known.values(), key=lambda entity: (entity.start, entity.stop, entity.type))
    counts = sum((answer.counts for answer in answers), Counts())
    return Parsed(tuple(entities), tuple(renamed), counts)
