"""Base of the tasks that find mentions and relations in documents: batches, scores, predictions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, get_args

import torch
from torch import Tensor
from torchmetrics import Metric

from fedlit.backbones.lora import LoRA
from fedlit.data.documents.documents import Document
from fedlit.errors import FedlitError
from fedlit.instructions.schema import Schema
from fedlit.metrics.spans.matching import Ends
from fedlit.metrics.spans.scores import SpanScores
from fedlit.tasks.documents.predictions import Answers, span_columns
from fedlit.tasks.documents.schema import OF_DATA, UNKNOWN, schema_file
from fedlit.tasks.fine_tuned import FineTuned
from fedlit.tasks.naive.mentions import Dictionary
from fedlit.tasks.task import Batch, Naive


class DocumentTask(FineTuned):
    """Find mentions and the relations between them; subclasses give ``sought`` and ``answers``.

    Args:
        backbone: ``"builtin"``, a folder, or a Hub id.
        adapter: LoRA settings; None fine-tunes every parameter.
        schema: Types to find: a YAML file, or ``"bc5cdr"`` or ``"clinical"``, which ship; ``"data"`` for those that
            the data hold, which the run folder then has as ``schema.yaml``.
        learning_rate: Peak learning rate of AdamW, unless ``optimizer`` is given.
        relation_ends: How relations are compared, see :func:`fedlit.metrics.spans.counts.count_spans`.
        kwargs: See :class:`~fedlit.tasks.fine_tuned.FineTuned`.

    A batch holds ``document`` and ``client``, lists, as :class:`fedlit.data.Documents` gives them.
    """

    prediction_file: ClassVar[str] = "spans.parquet"

    def __init__(
        self,
        backbone: str,
        adapter: LoRA | None,
        schema: str = "bc5cdr",
        learning_rate: float = 2e-4,
        relation_ends: Ends = "mention",
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, adapter, learning_rate=learning_rate, **kwargs)
        if relation_ends not in get_args(Ends):
            raise FedlitError(f"model.relation_ends is {relation_ends!r}, expected one of {get_args(Ends)}")
        self.schema, self.relation_ends = schema, relation_ends
        self.val_metrics, self.test_metrics = SpanScores(), SpanScores(intervals=True)

    def run_files(self) -> dict[str, str]:
        return {"schema.yaml": schema_file(self.sought)} if self.schema == OF_DATA else {}

    def check_schema(self) -> None:
        """Refuse to make a model for the types of data that were not seen.

        Raises:
            FedlitError: No data were given, and ``schema`` is that of the data.
        """
        if self.sought == UNKNOWN:
            raise FedlitError("model.schema is data, and no data were seen: call take_data, or name a schema")

    @property
    def sought(self) -> Schema:
        """Types to find."""
        raise NotImplementedError

    def answers(self, documents: Sequence[Document]) -> tuple[Answers, Answers]:
        """The model's answers for mentions and those for relations, by document; None where it was not asked."""
        raise NotImplementedError

    def naive(self, training: Iterable[Batch]) -> Mapping[str, Naive]:
        """A dictionary of the mentions in a client's training documents; it finds no relations and is asked for none.

        See :class:`fedlit.tasks.naive.mentions.Dictionary`.
        """
        dictionary = Dictionary.of((own for batch in training for own in self.documents_of(batch)), self.sought)

        def look_up(batch: Batch, metrics: Metric) -> None:
            documents = self.documents_of(batch)
            found, nothing = [dictionary.answer(own) for own in documents], [None] * len(documents)
            metrics.update(documents, list(batch["client"]), found, nothing, self.sought, None, self.relation_ends)

        return {"dictionary": look_up}

    def predict_step(self, batch: Batch, batch_idx: int = 0) -> dict[str, Any]:
        """Mentions and relations found in each document.

        Returns:
            ``document``, ``client``, and ``entities`` and ``relations`` as :meth:`answers` gives them: lists.
        """
        documents = self.documents_of(batch)
        entities, relations = self.answers(documents)
        return {"document": documents, "client": list(batch["client"]), "entities": entities, "relations": relations}

    def prediction_columns(self, prediction: dict[str, Any]) -> dict[str, Any]:
        """See :func:`fedlit.tasks.documents.predictions.span_columns`."""
        return span_columns(**prediction)

    def score_prediction(self, prediction: dict[str, Any], metrics: Metric) -> bool:
        names = ("document", "client", "entities", "relations")
        metrics.update(*(prediction[name] for name in names), self.sought, relation_ends=self.relation_ends)
        return True

    def score(self, batch: Batch, found: tuple[Answers, Answers], losses: Tensor, metrics: Metric) -> None:
        """Add the answers about a batch's documents, and their losses (batch,), to ``metrics``."""
        pairs = zip(losses.double().tolist(), self.supervised(batch).tolist(), strict=True)
        each = [loss if there else None for loss, there in pairs]
        own = (self.documents_of(batch), list(batch["client"]), *found)
        metrics.update(*own, self.sought, each, relation_ends=self.relation_ends)

    def documents_of(self, batch: Batch) -> list[Document]:
        """Documents of a batch.

        Raises:
            FedlitError: The batch holds none.
        """
        documents = batch.get("document")
        if not isinstance(documents, list) or not all(isinstance(document, Document) for document in documents):
            raise FedlitError(
                f"{type(self).__name__} needs batches of documents, and the data's hold {', '.join(batch)}: take data "
                "with annotated documents, or another task"
            )
        return documents

    def no_losses(self, count: int) -> Tensor:
        """Losses of documents without targets: NaN (count,), with zero gradients."""
        nothing = torch.zeros((), device=self.device)
        zeros = sum((p.sum() * 0.0 for p in self.parameters() if p.requires_grad), nothing).expand(count)
        return torch.where(torch.zeros_like(zeros, dtype=torch.bool), zeros, math.nan)
