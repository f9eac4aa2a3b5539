"""Scores of mentions and relations as a torchmetrics metric, from all documents at once."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric

from fedlit.data.documents.documents import Document
from fedlit.errors import FedlitError
from fedlit.instructions.parsed import Counts, Parsed
from fedlit.instructions.schema import Schema
from fedlit.metrics.spans.counts import SpanCounts, beside, count_spans
from fedlit.metrics.spans.matching import Ends

NOTHING = Parsed((), (), Counts())
COUNTED = tuple(field.name for field in dataclasses.fields(Counts) if field.name != "documents")


class SpanScores(Metric):
    """Precision, recall and F1 of mentions and relations, strict and lenient, pooled and by type.

    Names and definitions are those of :class:`fedlit.metrics.spans.counts.SpanCounts`, and:

    - ``answers_unparsable`` and the like: :class:`~fedlit.instructions.Counts`, divided by the number of answers.
    - ``loss``: mean over documents of the task's loss; NaN where none has one. ``loss_left_out``, where there are any:
      documents that have none, such as those whose answer is cut off. They are in no mean.
    - ``entity_strict_f1/low``, ``entity_strict_f1/high`` with ``intervals``: 95 % percentile bootstrap over documents,
      of the four headline scores.

    An undefined score (nothing annotated, nothing predicted) is left out, and so is in no mean over clients. Nothing is
    reduced across processes: each client is scored in one.

    Args:
        intervals: Compute the intervals.
        seed: Seed of the bootstrap.
        n_resamples: Number of its resamples.
    """

    higher_is_better = True
    is_differentiable = False
    full_state_update = False
    directions: ClassVar[Mapping[str, bool]] = dict.fromkeys(
        (
            "loss",
            "loss_left_out",
            "entity_types_left_out",
            "relation_types_left_out",
            *(f"answers_{name}" for name in COUNTED),
        ),
        False,
    )
    headline: ClassVar[tuple[str, ...]] = SpanCounts.headline
    """What tables show, the primary one first."""

    def __init__(self, intervals: bool = False, seed: int = 0, n_resamples: int = 1000) -> None:
        super().__init__(sync_on_compute=False)
        self.intervals, self.seed, self.n_resamples = intervals, seed, n_resamples
        self._documents: list[Document] = []
        self._clients: list[str] = []
        self._entities: list[Parsed | None] = []
        self._relations: list[Parsed | None] = []
        self._losses: list[float | None] = []
        self._setting: tuple[Schema, Ends] | None = None

    def update(
        self,
        documents: Sequence[Document],
        clients: Sequence[str],
        entities: Sequence[Parsed | None],
        relations: Sequence[Parsed | None],
        schema: Schema,
        losses: Sequence[float | None] | None = None,
        relation_ends: Ends = "mention",
    ) -> None:
        """Add a batch.

        Args:
            documents: As annotated.
            clients: Client of each document.
            entities: What was found in each, as the answer that mentions are taken from; None where none was asked
                for, or, with ``losses``, where nothing was generated at all.
            relations: The answers that relations and modifiers are taken from; one object with that of ``entities``
                where one question asked for both.
            schema: Schema of the questions, the same for all batches.
            losses: Loss of each document; None where it has nothing to learn from.
            relation_ends: See :func:`fedlit.metrics.spans.counts.count_spans`.
        """
        sizes = {len(documents), len(clients), len(entities), len(relations), len(losses or documents)}
        if len(sizes) > 1 or self._setting not in (None, (schema, relation_ends)):
            raise FedlitError("documents, clients, answers and losses of one schema belong together, one of each")
        self._setting = (schema, relation_ends)
        self._documents += documents
        self._clients += clients
        self._entities += entities
        self._relations += relations
        self._losses += list(losses or ())

    def counts(self) -> SpanCounts:
        """Counts of each document that a question was asked about.

        Raises:
            FedlitError: There is none yet.
        """
        asked = [i for i, pair in enumerate(zip(self._entities, self._relations, strict=True)) if any(pair)]
        if self._setting is None or not asked:
            raise FedlitError("no answer yet: add one before scores are computed")
        schema, ends = self._setting
        clients = [self._clients[i] for i in asked]
        answers = [(self._entities[i], self._relations[i]) for i in asked]
        documents = [_asked(self._documents[i], *pair) for i, pair in zip(asked, answers, strict=True)]
        found = count_spans(documents, [answer or NOTHING for answer, _ in answers], schema, clients, "entities")
        if schema.relations:
            linked = [answer or NOTHING for _, answer in answers]
            found = beside(found, count_spans(documents, linked, schema, clients, "relations", ends))
        distinct = [{id(answer): answer for answer in pair if answer is not None}.values() for pair in answers]
        return dataclasses.replace(
            found, answers=tuple(sum((answer.counts for answer in pair), Counts()) for pair in distinct)
        )

    def compute(self) -> dict[str, Tensor]:
        """Every score as a float64 scalar; empty before the first batch."""
        out: dict[str, float] = {}
        if any(self._entities) or any(self._relations):
            counts = self.counts()
            out = {name: value for name, value in counts.scores().items() if not math.isnan(value)}
            answers = out.pop("answers_documents")
            out |= {f"answers_{name}": out[f"answers_{name}"] / max(answers, 1) for name in COUNTED}
            if self.intervals:
                bounds = counts.intervals(self.seed, self.n_resamples)
                for name in self.headline:
                    if name in out:
                        out[f"{name}/low"], out[f"{name}/high"] = bounds[name]
        if self._losses:
            known = [loss for loss in self._losses if loss is not None]
            out["loss"] = math.fsum(known) / len(known) if known else math.nan
            if len(known) < len(self._losses):
                out["loss_left_out"] = float(len(self._losses) - len(known))
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in out.items()}

    def reset(self) -> None:
        super().reset()
        self._documents, self._clients, self._entities, self._relations = [], [], [], []
        self._losses, self._setting = [], None

    def _apply(self, fn: Callable[..., object], exclude_state: Sequence[str] = ()) -> SpanScores:
        return self  # nothing here is on a device


def _asked(document: Document, entities: Parsed | None, relations: Parsed | None) -> Document:
    """The document with only those annotations that were asked for."""
    asked = {name for name, answer in (("entities", entities), ("relations", relations)) if answer is not None}
    return dataclasses.replace(document, annotated=document.annotated & asked)
