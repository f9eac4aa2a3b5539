"""What tasks that look for mentions and relations in documents have in common: batches, scores, predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, get_args

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torchmetrics import Metric

from fedlit.backbones.lora import LoRA
from fedlit.data.documents.documents import Document
from fedlit.errors import FedlitError
from fedlit.instructions.schema import Schema
from fedlit.metrics.spans.matching import Ends
from fedlit.metrics.spans.scores import SpanScores
from fedlit.tasks.documents.predictions import Answers, span_columns
from fedlit.tasks.fine_tuned import FineTuned, Schedule
from fedlit.tasks.task import Batch


class DocumentTask(FineTuned):
    """Mentions and the relations between them, found in some way; subclasses give ``sought`` and ``answers``.

    Args:
        backbone: See :class:`~fedlit.tasks.fine_tuned.FineTuned`, as all others but the last.
        relation_ends: How relations are compared, see :func:`fedlit.metrics.spans.counts.count_spans`.

    A batch holds ``document`` and ``client``, lists, as :class:`fedlit.data.Documents` gives them.
    """

    prediction_file: ClassVar[str] = "spans.parquet"

    def __init__(
        self,
        backbone: str,
        adapter: LoRA | None,
        learning_rate: float,
        weight_decay: float,
        schedule: Schedule,
        optimizer: OptimizerCallable | None,
        seed: int | None,
        gradient_checkpointing: bool,
        warmup: float,
        relation_ends: Ends,
    ) -> None:
        tuning = (learning_rate, weight_decay, schedule, optimizer, seed, gradient_checkpointing, warmup)
        super().__init__(backbone, adapter, *tuning)
        if relation_ends not in get_args(Ends):
            raise FedlitError(f"model.relation_ends is {relation_ends!r}, expected one of {get_args(Ends)}")
        self.relation_ends = relation_ends
        self.val_metrics, self.test_metrics = SpanScores(), SpanScores(intervals=True)

    @property
    def sought(self) -> Schema:
        """The types that are looked for."""
        raise NotImplementedError

    def answers(self, documents: Sequence[Document]) -> tuple[Answers, Answers]:
        """What the model finds: what mentions and what relations are read from, by document; None where not asked."""
        raise NotImplementedError

    def predict_step(self, batch: Batch, batch_idx: int = 0) -> dict[str, Any]:
        """What is found in each document.

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
        """Add to ``metrics`` what was found in a batch's documents, and their losses, (batch,)."""
        each = losses.double().tolist()
        own = (self.documents_of(batch), list(batch["client"]), *found)
        metrics.update(*own, self.sought, each, relation_ends=self.relation_ends)

    def documents_of(self, batch: Batch) -> list[Document]:
        """The documents of a batch.

        Raises:
            FedlitError: It has none.
        """
        documents = batch.get("document")
        if not isinstance(documents, list) or not all(isinstance(one, Document) for one in documents):
            raise FedlitError(
                f"{type(self).__name__} needs batches of documents, and the data's hold {', '.join(batch)}: take data "
                "with annotated documents, or another task"
            )
        return documents

    def no_losses(self, count: int) -> Tensor:
        """Losses of documents in which nothing is to be learnt: zeros (count,), whose gradients are zeros."""
        nothing = torch.zeros((), device=self.device)
        return sum((p.sum() * 0.0 for p in self.parameters() if p.requires_grad), nothing).expand(count)

    def config(self) -> dict[str, Any]:
        return {**super().config(), "relation_ends": self.relation_ends, "warmup": self.warmup}
