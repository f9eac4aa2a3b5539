"""Mentions and relations by tagging word pieces with a pretrained encoder: the baseline of instruction tuning."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml
from torch import Tensor, nn
from torchmetrics import Metric

from fedlit.backbones.freezing import freeze
from fedlit.backbones.lora import LoRA
from fedlit.data.documents.documents import Document
from fedlit.errors import FedlitError
from fedlit.instructions.schema import Schema
from fedlit.tasks.documents.predictions import Answers
from fedlit.tasks.documents.schema import load_schema, take_schema
from fedlit.tasks.documents.tagging import (
    SHORTEST,
    Question,
    Seen,
    Tagger,
    last_states,
    only_allowed,
    tag_losses,
    tokenizer_fault,
)
from fedlit.tasks.documents.task import DocumentTask
from fedlit.tasks.export import backbone_of, load_head, load_network, read_settings, write_head, write_settings
from fedlit.tasks.export_check import encoder_anew
from fedlit.tasks.row_owners import rows_of
from fedlit.tasks.task import Batch

if TYPE_CHECKING:
    from fedlit.backbones.encoders.text import TextEncoder

AT_ONCE = 64
"""Windows in one forward pass without gradients."""
SETTINGS, SCHEMA = "tagger.json", "schema.yaml"


class TokenClassificationTask(DocumentTask):
    """Find mentions and the relations between them with BIO tags on an encoder's word pieces.

    The encoder baseline of Li et al. 2026 (Fed-MedLoRA, arXiv 2601.22124), on the same documents, schema and scores as
    :class:`~fedlit.tasks.documents.instruction.InstructionTask`. A linear head, ``head.weight`` and ``head.bias``, has
    rows for the tags of entities and of relations. Entities are tagged in the text as it is. Relations are tagged in
    one input for each mention that may head some, as in the paper: the head is marked, its tails have tags of the
    relation's type; a tail at the place of a mention known is that mention. Heads are the annotated mentions, when
    answers are scored too. See :mod:`fedlit.tasks.documents.tagging` for markers, long texts, and what tags cannot
    hold; mentions that they cannot are counted, and in scores they count as missed.

    The loss of a document is the mean cross-entropy of all its tagged word pieces, in nats, the softmax running over
    the tags that the input asks for; a batch's is the mean over its documents. A document of n heads is n + 1 inputs:
    take ``data.batch_size`` accordingly.

    Args:
        backbone: A folder, or a Hub id such as ``emilyalsentzer/Bio_ClinicalBERT``, of an encoder of texts.
            ``stand-in:bert`` is a tiny random one.
        adapter: LoRA settings; None fine-tunes every parameter but the ``frozen``.
        max_length: Tokens of a window, if fewer than the backbone takes. Longer texts are cut into windows.
        frozen: Regular expressions: without an adapter, encoder parameters whose name contains a match do not train.
            None stands for ``["embeddings"]``.
        kwargs: See :class:`~fedlit.tasks.documents.task.DocumentTask`.

    A batch holds ``document`` and ``client``, lists, as :class:`fedlit.data.Documents` gives them. A document without
    a word piece to tag has no loss: it is not trained on, and in no mean.
    """

    def __init__(
        self,
        backbone: str,
        adapter: LoRA | None = None,
        max_length: int | None = None,
        frozen: list[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, adapter, **kwargs)
        if max_length is not None and max_length < SHORTEST:
            raise FedlitError(f"model.max_length is {max_length}: give at least {SHORTEST} tokens")
        self.max_length = max_length
        self.frozen = ["embeddings"] if frozen is None else list(frozen)
        self.head: nn.Linear | None = None
        self._schema = load_schema(self.schema)
        self._family: TextEncoder | None = None
        self._tagger: Tagger | None = None
        self.tally: Seen = Seen()
        self._has_targets: dict[Document, bool] = {}
        self._last: tuple[list[Document], list[Question]] | None = None

    def take_data(self, data: Any) -> None:
        """Check that the data's types are the schema's; for a stand-in, take its own.

        Raises:
            FedlitError: The data are no annotated documents, or have types that the schema lacks.
        """
        schema = take_schema(self._schema, data, self._stand_in)
        if self._tagger is not None and schema != self._tagger.schema:
            raise FedlitError("this model has tags for other types than the data's: make a new model for them")
        self._schema = schema

    def configure_model(self) -> None:
        """Load the encoder, put the adapters on it or freeze what is to be frozen, and make the head.

        Raises:
            FedlitError: The backbone cannot be had, is no encoder of texts, or has no fast tokenizer; an adapter target
                or a pattern of ``frozen`` matches nothing.
        """
        if self.network is not None:
            return
        self.check_schema()
        from fedlit.backbones.encoders.loading import encoder_stand_in, load_encoder
        from fedlit.backbones.encoders.text import TextEncoder

        load = encoder_stand_in if self._stand_in else load_encoder
        loaded = load(self.backbone, max_length=self.max_length)
        family = loaded.family
        if not isinstance(family, TextEncoder):
            raise FedlitError(
                f"backbone {self.backbone!r} takes {family.modality}, and documents are text: take an encoder of texts "
                "such as emilyalsentzer/Bio_ClinicalBERT"
            )
        if fault := tokenizer_fault(family.tokenizer) or (family.max_length < SHORTEST and "sees too few tokens"):
            raise FedlitError(f"backbone {self.backbone!r}: its tokenizer {fault}: take another encoder, such as BERT")
        width = family.width(loaded.network)
        network = self._fine_tunable(loaded.network, loaded.targets)
        if self.adapter is None:
            freeze(network, self.frozen, self.backbone)
        self._tagger = Tagger(self._schema, family.tokenizer, family.max_length)
        self._family, self._source, self.network = family, loaded.source, network
        self.head = self._first_head(width, len(self._tagger.names))
        self.train(self.training)

    @property
    def tags(self) -> tuple[str, ...]:
        """Tags in the order of the head's rows."""
        return self._loaded().names

    def losses(self, batch: Batch) -> Tensor:
        """One loss per document, (batch,), nats per word piece; NaN without word pieces."""
        documents = self.documents_of(batch)
        questions = self._questions(documents)
        return self._losses(questions, self.logits_of(questions), len(documents))

    def logits_of(self, questions: Sequence[Question]) -> Tensor:
        """Logits of the word pieces of all questions, one after the other: (word pieces, tags), float32.

        Tags that a question does not ask for have the lowest finite value.
        """
        assert self._family is not None  # set with the network
        assert self.head is not None
        network, pad = self.loaded_network(), self._family.tokenizer.pad_token_id
        windows = [window for question in questions for window in question.windows]
        size = max(1, len(windows)) if torch.is_grad_enabled() else AT_ONCE
        states = []
        owners = [question.document for question in questions for _ in question.windows]
        for start in range(0, len(windows), size):
            with rows_of(owners[start : start + size]):
                states.append(last_states(network, windows[start : start + size], pad))
        if not states:
            return torch.zeros(0, len(self.tags), device=self.device)
        with rows_of([question.document for question in questions for _ in question.offsets]):
            logits = self.head(torch.cat(states))
        return only_allowed(logits.float(), questions)

    def supervised(self, batch: Batch) -> Tensor:
        """Whether each document has a word piece to tag, (batch,), bool."""
        documents = self.documents_of(batch)
        for document in documents:
            if document not in self._has_targets:
                asked = self._loaded().questions([document])
                self._has_targets[document] = any(any(question.tagged) for question in asked)
        return torch.tensor([self._has_targets[document] for document in documents], dtype=torch.bool)

    def num_targets(self, batch: Batch) -> int:
        """Tagged word pieces of a batch."""
        return sum(sum(question.tagged) for question in self._questions(self.documents_of(batch)))

    def evaluate(self, batch: Batch, metrics: Metric) -> None:
        documents = self.documents_of(batch)
        with torch.no_grad():
            questions = self._questions(documents)
            logits = self.logits_of(questions)
            losses = self._losses(questions, logits, len(documents))
        self.score(batch, self._answers(documents, questions, logits), losses, metrics)

    @property
    def sought(self) -> Schema:
        return self._schema

    def answers(self, documents: Sequence[Document]) -> tuple[Answers, Answers]:
        """Mentions that the model finds, and relations with the mentions that they may link; None where not asked."""
        with torch.no_grad():
            questions = self._questions(documents)
            return self._answers(documents, questions, self.logits_of(questions))

    def export(self, folder: Path | str, merge: bool = False) -> None:
        """Write the encoder or its adapter, the head, ``tagger.json`` and ``schema.yaml``.

        A whole encoder comes with its tokenizer. :func:`load_tagger` loads either with its head, ``head.safetensors``:
        weight (tags, width) and bias.

        Args:
            folder: Target folder.
            merge: Merge the adapter into a copy of the backbone and write that.
        """
        super().export(folder, merge)

    def write(self, folder: Path, merge: bool) -> None:
        super().write(folder, merge)
        assert self._family is not None  # set with the network
        whole = self.adapter is None or merge
        if whole:
            self._family.save(folder)
        write_head(self.head, folder)
        tagger = self._loaded()
        own = {"max_length": tagger.max_length, "frozen": self.frozen, "tags": list(self.tags)}
        write_settings(self, folder / SETTINGS, whole, own)
        schema = yaml.safe_dump(tagger.schema.to_dict(), sort_keys=False, allow_unicode=True)
        (folder / SCHEMA).write_text(schema, encoding="utf-8")

    def whole_anew(self, folder: Path) -> nn.Module:
        return encoder_anew(self._family, folder)

    def probe(self, network: nn.Module) -> Tensor:
        """Features of a few made-up examples under the head, (batch, rows)."""
        assert self._family is not None  # set with the network
        assert self.head is not None
        logits: Tensor = self.head(self._family.probe(network))
        return logits

    def describe(self) -> dict[str, Any]:
        tagger = self._loaded()
        return {
            **super().describe(),
            "family": type(self._family).__name__,
            "schema": tagger.schema.to_dict(),
            "window": tagger.max_length,
            "frozen": self.frozen if self.adapter is None else [],
            "tagged": self.tally.counts(),
        }

    def _questions(self, documents: Sequence[Document]) -> list[Question]:
        tagger = self._loaded()
        if self._last is not None and [*map(id, self._last[0])] == [*map(id, documents)]:
            return self._last[1]  # the engine asks for losses and targets of each batch
        for document in documents:
            if fault := tagger.schema.fault(document):
                raise FedlitError(f"document {document.id!r} {fault}")
        questions = tagger.questions(documents)
        for question in questions:
            document = documents[question.document]
            if self.tally.note(document, question):
                warnings.warn(
                    f"document {document.id!r} has mentions that tags cannot hold as they are (nested, with gaps, or "
                    "within a word piece); such mentions are counted in summary.json, and missed in scores",
                    stacklevel=2,
                )
        self._last = (list(documents), questions)
        return questions

    def _losses(self, questions: Sequence[Question], logits: Tensor, count: int) -> Tensor:
        return tag_losses(logits, questions, count) if len(logits) else self.no_losses(count)

    def _answers(
        self, documents: Sequence[Document], questions: Sequence[Question], logits: Tensor
    ) -> tuple[Answers, Answers]:
        tags = iter(logits.argmax(dim=1).tolist())
        own = [[*islice(tags, len(question.offsets))] for question in questions]
        return self._loaded().answers(documents, questions, own)

    def _loaded(self) -> Tagger:
        self.loaded_network()
        assert self._tagger is not None  # set with it
        return self._tagger


def load_tagger(folder: Path | str, backbone: str | None = None) -> TokenClassificationTask:
    """Load an exported tagger with its head, in evaluation mode, on the CPU.

    Args:
        folder: For instance ``adapters/global`` of a run folder.
        backbone: Where the encoder under an adapter is now; None: where it was at the export.

    Raises:
        FedlitError: The folder holds no exported tagger, or an incomplete one.
    """
    folder = Path(folder)
    about = read_settings(folder / SETTINGS, "TokenClassificationTask")
    task = TokenClassificationTask(
        backbone_of(about, folder, backbone),
        adapter=about["adapter"],
        schema=str(folder / SCHEMA),
        max_length=about["max_length"],
        frozen=about["frozen"],
    )
    load_network(task, folder, about, backbone)
    if list(task.tags) != about["tags"]:
        raise FedlitError(f"{folder / SCHEMA} gives other tags than {SETTINGS} has: copy the folder again")
    load_head(task.head, folder)
    return task.eval()
