"""Documents as inputs of a network that tags word pieces, and tags as mentions and relations.

Relations are found by one input for each mention that may head one, with markers in plain text around it (the typed
markers of punctuation of Zhou and Chen 2022, arXiv 2102.01373: ``@ * Chemical * lithium @``); the tags are then the
relations' types, on their tails.

A text longer than the network's window is cut into windows of one length that overlap by a quarter or a little more.
Each word piece is tagged, and learnt, once: in the window in which it is farther from an end. A window without the
marked head has the marked head before its text.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from fedlit.backbones.chronos import unwrap
from fedlit.data.documents.documents import Document, Entity
from fedlit.errors import from_folder
from fedlit.instructions.bio import bio_spans, bio_tags
from fedlit.instructions.markup import reading_order
from fedlit.instructions.parsed import Counts, Parsed
from fedlit.instructions.parsing import linked_to
from fedlit.instructions.schema import Schema
from fedlit.tasks.documents.language_model import document_means
from fedlit.tasks.documents.predictions import Answers
from fedlit.tasks.documents.questions import combined

OPENING, CLOSING = " @ * {} * ", " @ "
OVERLAP = 4
"""Neighbouring windows share a quarter of their length."""
SHORTEST = 16
"""Fewest tokens of a window."""


@dataclass(frozen=True)
class Window:
    """One input of the network.

    Attributes:
        tokens: Ids, special ones among them.
        first: Place in ``tokens`` of the first word piece that is tagged here; the others follow it.
        count: Number of word pieces that are tagged here.
    """

    tokens: tuple[int, ...]
    first: int
    count: int


@dataclass(frozen=True)
class Question:
    """Word pieces of one document to tag.

    Attributes:
        document: Index in the batch.
        focus: The mention that is marked, or None where entities are asked for.
        offsets: Characters (start, stop) of each word piece in the document's text; empty ones are not tagged.
        tags: Gold tag of each, an index into :attr:`Tagger.names`.
        allowed: Tags that may be given, indices too.
        mentions: Spans to tag; and how many of them tags leave out, and how many they hold with other bounds.
        windows: In order; their tagged word pieces are those of ``offsets``, each once.
    """

    document: int
    focus: Entity | None
    offsets: tuple[tuple[int, int], ...]
    tags: tuple[int, ...]
    allowed: tuple[int, ...]
    mentions: tuple[int, int, int]
    windows: tuple[Window, ...]

    @property
    def tagged(self) -> list[bool]:
        """Whether each word piece is tagged: not those of markers."""
        return [start < stop for start, stop in self.offsets]


@dataclass(frozen=True)
class Tagger:
    """Questions of a schema about documents, and what tags answer.

    Every word piece is tagged by itself, so mentions may begin and end within words. Mentions that nest or cross, have
    gaps, or share a word piece with another: as :func:`fedlit.instructions.bio.bio_tags` says. A head with gaps is
    marked from its start to its stop.

    Args:
        schema: Types of mention and relation.
        tokenizer: A fast one of transformers.
        max_length: Tokens in a window, special ones among them.
    """

    schema: Schema
    tokenizer: Any = field(repr=False, compare=False)
    max_length: int

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Tags in the order of the head's rows: ``O``, then ``B-`` and ``I-`` of each entity and each relation."""
        types = [*(entity.name for entity in self.schema.main), *(relation.name for relation in self.schema.relations)]
        return ("O", *(f"{sign}-{name}" for name in types for sign in "BI"))

    @cached_property
    def known(self) -> tuple[Mapping[str, int], Mapping[str, int]]:
        """Indices of tags by name: of entities, of relations. A relation may be called as an entity."""
        rows = [(name, i) for i, name in enumerate(self.names)]
        middle = 1 + 2 * len(self.schema.main)
        return dict(rows[:middle]), dict([rows[0], *rows[middle:]])

    def asked(self, document: Document) -> frozenset[str]:
        """Kinds of annotation to ask for: those that the document was annotated for and the schema has."""
        schema = self.schema.of(document)
        if schema is None:
            return frozenset()
        return document.annotated if schema.relations else document.annotated - {"relations"}

    def given(self, document: Document) -> list[Entity]:
        """Mentions that questions for relations know of: all but modifiers, of the types that were looked for."""
        main = {entity.name for entity in self._sought(document).main}
        return reading_order([entity for entity in document.entities if entity.type in main])

    def questions(self, documents: Sequence[Document]) -> list[Question]:
        """Questions for the entities of each document, and for the relations of each mention that may head some."""
        wanted: list[tuple[int, Entity | None]] = []
        for i, document in enumerate(documents):
            asked = self.asked(document)
            wanted += [(i, None)] if "entities" in asked else []
            if "relations" in asked:
                wanted += [(i, mention) for mention in self.given(document) if self._links(mention, document)]
        texts = [marked(documents[i].text, focus) for i, focus in wanted]
        if not texts:
            return []
        with from_folder("the backbone's tokenizer", "copy its files again, or take another backbone"):
            read = self.tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        rows = zip(wanted, read["input_ids"], read["offset_mapping"], strict=True)
        return [self._question(i, documents[i], focus, ids, places) for (i, focus), ids, places in rows]

    def answers(
        self, documents: Sequence[Document], questions: Sequence[Question], tags: Iterable[Sequence[int]]
    ) -> tuple[Answers, Answers]:
        """Mentions, and relations with the mentions known before, that tags stand for, by document; None: not asked.

        Args:
            documents: As given to :meth:`questions`.
            questions: Questions about the documents.
            tags: Indices of tags of each question's word pieces.
        """
        asked = [self.asked(document) for document in documents]
        entities: Answers = [Parsed((), (), Counts(documents=1)) if "entities" in kinds else None for kinds in asked]
        links: list[list[Parsed]] = [[] for _ in documents]
        for question, own in zip(questions, tags, strict=True):
            spans = bio_spans([self.names[tag] for tag in own], question.offsets)
            if question.focus is None:
                entities[question.document] = Parsed(_ordered(spans), (), Counts(documents=1))
                continue
            document = documents[question.document]
            given = self.given(document)
            taken = {known.id for known in given}
            spans = tuple(replace(span, id=_free(span.id, taken)) for span in spans)
            new, found = linked_to(question.focus, spans, given, self._sought(document))
            links[question.document].append(Parsed(_ordered([*given, *new]), tuple(found), Counts()))
        relations: Answers = [
            replace(combined(own, self.given(document)), counts=Counts(documents=1)) if "relations" in wanted else None
            for document, own, wanted in zip(documents, links, asked, strict=True)
        ]
        return entities, relations

    def _sought(self, document: Document) -> Schema:
        """Types that were looked for in a document."""
        return self.schema.of(document) or self.schema

    def _links(self, focus: Entity, document: Document) -> list[str]:
        """Types of relation that a mention may head."""
        return [relation.name for relation in self._sought(document).relations if focus.type in relation.heads]

    def _question(
        self,
        index: int,
        document: Document,
        focus: Entity | None,
        ids: Sequence[int],
        places: Sequence[tuple[int, int]],
    ) -> Question:
        offsets = unmarked(places, len(document.text), focus)
        if focus is None:
            known, spans = self.known[0], self.given(document)
            types = [entity.name for entity in self._sought(document).main]
        else:
            known, mentions = self.known[1], document.by_id()
            tails = self._sought(document).links_of(document, focus.id)
            spans = [replace(mentions[tail.tail], type=tail.type) for tail in tails]
            types = self._links(focus, document)
        tags, left_out = bio_tags(spans, offsets)
        there = {(span.type, span.fragments or ((span.start, span.stop),)) for span in spans}
        back = {(span.type, ((span.start, span.stop),)) for span in bio_spans(tags, offsets)}
        others = len(there - back) - left_out
        return Question(
            document=index,
            focus=focus,
            offsets=tuple(offsets),
            tags=tuple(known[tag] for tag in tags),
            allowed=(0, *(known[f"{sign}-{name}"] for name in types for sign in "BI")),
            mentions=(len(spans), left_out, max(0, others)),
            windows=tuple(self._windows(ids, places, focus)),
        )

    def _windows(self, ids: Sequence[int], places: Sequence[tuple[int, int]], focus: Entity | None) -> list[Window]:
        size = self.max_length - 2
        hint: list[int] = []
        inside: range = range(0)
        if len(ids) > size and focus is not None:
            stop = focus.stop + len(OPENING.format(focus.type)) + len(CLOSING)
            own = [i for i, (a, b) in enumerate(places) if focus.start <= a < b <= stop]
            inside = range(own[0], own[-1] + 1)
            hint = [ids[i] for i in own]
            if len(hint) > size // 2:  # a very long mention: its beginning and its end
                hint = [*hint[: size // 4], *hint[-(size // 4) :]]
        out = []
        for start, stop, first, last in cut(len(ids), size - len(hint)):
            lead = hint if inside and not (start <= inside.start and inside.stop <= stop) else []
            tokens = [self.tokenizer.cls_token_id, *lead, *ids[start:stop], self.tokenizer.sep_token_id]
            out.append(Window(tuple(tokens), 1 + len(lead) + first - start, last - first))
        return out


class Seen:
    """Counts of the mentions that tags could hold, with each question counted once."""

    def __init__(self) -> None:
        self.rows: dict[tuple[Any, ...], tuple[Any, ...]] = {}
        self._told = False

    def note(self, document: Document, question: Question) -> bool:
        """Take a question in; True for the first whose mentions tags do not all hold as they are."""
        key = (document.id, question.focus.id if question.focus else None)
        self.rows[key] = (1, len(question.windows), *question.mentions)
        changed = any(question.mentions[1:])
        first, self._told = changed and not self._told, self._told or changed
        return first

    def counts(self) -> dict[str, dict[str, int]]:
        """Counts of inputs, windows, mentions, and mentions left out or changed, for entities and for tails."""
        names = ("inputs", "windows", "mentions", "left_out", "with_other_bounds")
        out = {}
        for kind, wanted in (("entities", True), ("tails", False)):
            rows = [row for (_, focus), row in self.rows.items() if (focus is None) is wanted]
            out[kind] = {name: sum(row[i] for row in rows) for i, name in enumerate(names)}
        return out


def cut(count: int, size: int) -> list[tuple[int, int, int, int]]:
    """Windows over a sequence: each ``(start, stop, first, last)``, the latter two of what is farther from its ends.

    Args:
        count: Length of the sequence.
        size: Length of a window.
    """
    if count <= size:
        return [(0, count, 0, count)] if count else []
    shared = size // OVERLAP
    number = math.ceil((count - shared) / (size - shared))
    starts = [k * (count - size) // (number - 1) for k in range(number)]
    middles = [0, *((one + size + two) // 2 for one, two in pairwise(starts)), count]
    return [(a, a + size, *own) for a, own in zip(starts, pairwise(middles), strict=True)]


def marked(text: str, focus: Entity | None) -> str:
    """A text with markers around a mention."""
    if focus is None:
        return text
    opening = OPENING.format(focus.type)
    return f"{text[: focus.start]}{opening}{text[focus.start : focus.stop]}{CLOSING}{text[focus.stop :]}"


def unmarked(places: Iterable[tuple[int, int]], length: int, focus: Entity | None) -> list[tuple[int, int]]:
    """Spans in a :func:`marked` text as spans in the text; ``(0, 0)`` for empty ones and those of markers.

    Args:
        places: (start, stop) in the marked text.
        length: Length of the text.
        focus: Mention that is marked, or None.
    """
    if focus is not None:
        one, two = len(OPENING.format(focus.type)), len(CLOSING)
        inside = range(focus.start, focus.stop)
        at = [*range(focus.start), *[focus.start] * one, *inside, *[focus.stop] * two, *range(focus.stop, length + 1)]
        places = [(at[start], at[stop]) for start, stop in places]
    return [(start, stop) if start < stop else (0, 0) for start, stop in places]


def _ordered(entities: Iterable[Entity]) -> tuple[Entity, ...]:
    return tuple(sorted(entities, key=lambda entity: (entity.start, entity.stop, entity.type)))


def _free(name: str, taken: set[str]) -> str:
    """The name, with primes added until it is not taken."""
    while name in taken:
        name += "'"
    return name


def tokenizer_fault(tokenizer: Any) -> str | None:
    """Reason why a tokenizer cannot be used, or None."""
    if not getattr(tokenizer, "is_fast", False):
        return "does not tell where in the text its tokens are"
    ends = ("cls_token", "sep_token", "pad_token")
    lacking = [end for end in ends if getattr(tokenizer, f"{end}_id", None) is None]
    return f"has no {lacking[0]}" if lacking else None


def last_states(network: nn.Module, windows: Sequence[Window], pad: int) -> Tensor:
    """Encoder states of the tagged word pieces of windows, one after the other: (word pieces, width).

    Args:
        network: Network of transformers, with its adapters.
        windows: Windows of one forward pass; at least one.
        pad: Padding token.
    """
    device = next(network.parameters()).device
    rows = [torch.tensor(window.tokens) for window in windows]
    ids = pad_sequence(rows, batch_first=True, padding_value=pad)
    mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    states: Tensor = unwrap(network)(input_ids=ids.to(device), attention_mask=mask.to(device)).last_hidden_state
    row = torch.arange(len(windows)).repeat_interleave(torch.tensor([window.count for window in windows]))
    place = torch.cat([torch.arange(window.first, window.first + window.count) for window in windows])
    return states[row.to(device), place.to(device)]


def only_allowed(logits: Tensor, questions: Sequence[Question]) -> Tensor:
    """Logits (word pieces, tags) of questions one after the other, at the lowest finite value for tags that are not
    allowed."""
    hidden = torch.ones(len(questions), logits.shape[1], dtype=torch.bool)
    for row, question in zip(hidden, questions, strict=True):
        row[list(question.allowed)] = False
    each = hidden.repeat_interleave(_lengths(questions), dim=0)
    return logits.masked_fill(each.to(logits.device), torch.finfo(logits.dtype).min)


def tag_losses(logits: Tensor, questions: Sequence[Question], count: int) -> Tensor:
    """Mean cross-entropy of the tagged word pieces of each document's questions, (count,), nats; NaN without any.

    Args:
        logits: (word pieces, tags) of the questions one after the other.
        questions: With gold tags.
        count: How many documents there are.
    """
    kept = torch.tensor([on for question in questions for on in question.tagged], dtype=torch.bool)
    target = torch.tensor([tag for question in questions for tag in question.tags], dtype=torch.int64)
    documents = torch.tensor([question.document for question in questions], dtype=torch.int64)
    owner = documents.repeat_interleave(_lengths(questions))
    target, owner = target[kept].to(logits.device), owner[kept].to(logits.device)
    each = cross_entropy(logits[kept.to(logits.device)], target, reduction="none")
    return document_means(each, owner, count)


def _lengths(questions: Sequence[Question]) -> Tensor:
    return torch.tensor([len(question.offsets) for question in questions], dtype=torch.int64)
