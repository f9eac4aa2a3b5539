"""Instruction tuning of a causal language model to write down mentions and their relations."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from fedlit.backbones.folders import STAND_IN
from fedlit.backbones.lora import LoRA
from fedlit.data.documents.documents import Document
from fedlit.errors import FedlitError
from fedlit.instructions.chat_templates import DATE, date_of
from fedlit.instructions.markup import Crossing
from fedlit.instructions.schema import Schema
from fedlit.instructions.sequences import Cuts, LossOn, TokenSequence
from fedlit.instructions.templates import Format, Lists, Relations, Wording
from fedlit.tasks.documents.language_model import LanguageModel
from fedlit.tasks.documents.predictions import Answers
from fedlit.tasks.documents.questions import Given, Questions, Together, answered
from fedlit.tasks.documents.room import Room, check_room
from fedlit.tasks.documents.schema import load_schema, take_schema
from fedlit.tasks.documents.task import DocumentTask
from fedlit.tasks.export_check import same_tokens
from fedlit.tasks.schedules import Schedule
from fedlit.tasks.task import Batch

if TYPE_CHECKING:
    from fedlit.backbones.causal_lms import Held, Quantization

ASKED = ("together", "format", "relations", "crossing", "wording", "given", "lists")


class InstructionTask(DocumentTask):
    """Find mentions and the relations between them, by fine-tuning a causal language model on questions and answers.

    Federated instruction tuning of Li et al. 2026 (Fed-MedLoRA, arXiv 2601.22124), with instructions of our own
    (:mod:`fedlit.instructions`). A document asks one question or several, by what it was annotated for: where a client
    annotated mentions only, it trains and is scored on those. The loss of a document is the mean over the supervised
    tokens of all its questions, in nats; a batch's is the mean over its documents.

    Args:
        backbone: A folder, or a Hub id such as ``meta-llama/Llama-3.1-8B-Instruct``. ``stand-in:llama`` is a tiny
            random one, with a tokenizer made from the training texts at hand.
        adapter: LoRA settings; None fine-tunes every parameter.
        together: ``"separate"`` asks for mentions, and then for relations between those given; ``"joint"`` for both at
            once where both were annotated.
        format: Format of answers: ``"html"``, the text with span tags; ``"json"``, a list, which is shorter.
        relations: ``"list"``, one question for all relations of a document; ``"focus"``, one for each mention that may
            have some, as the paper's code does.
        crossing: How mentions that cross are written in HTML: ``"split"``, ``"drop"``, or ``"error"`` to refuse them.
        wording: ``"full"`` questions; ``"names"`` without what each type means; ``"brief"`` without what an answer
            looks like, too, which only a trained model knows: questions are then much shorter.
        lists: Which lists a JSON answer about relations has, where the schema has no modifiers: ``"both"``, that of
            mentions being empty, or those ``"asked"`` for. Where some sites annotated relations alone take ``"asked"``:
            the empty list teaches the shared model that there are no mentions.
        given: Which mentions a question for relations shows when answers are scored: ``"annotated"``, ``"predicted"``.
        schedule: Course of the learning rate: ``"linear"``, ``"cosine"`` or ``"constant"``, see ``kwargs``.
        loss_on: ``"completion"``, or ``"both"`` to train on the question's tokens too, as the paper's code does.
        max_length: Tokens of a question with its answer; the rest is cut off at the end, and counted. Questions alone
            may be as long as the backbone's window when answers are generated.
        packing: Put a batch into one row without padding, no question seeing another.
        chat_template: Use the tokenizer's chat template; None: if it has one.
        prompt_date: What a chat template that writes the date takes for today, as ``2024-07-26``: the true date would
            make other prompts on another day.
        max_without_answer: Largest share of a client's training documents that ``max_length`` may leave without any
            token of an answer, from 0 to 1. Such documents are not trained on, and are in no mean.
        max_new_tokens: Longest answer in tokens; an answer of that length counts as truncated.
        validation: ``"answers"`` are generated and scored, or ``"loss"`` alone, which is much faster. Test data are
            always answered.
        quantization: ``"nf4"`` holds the frozen weights in 4 bits (QLoRA, Dettmers et al. 2023, arXiv 2305.14314),
            with double quantisation and computing in bfloat16; it needs bitsandbytes.
        dtype: Precision of the weights that are not in 4 bits; None: ``"float32"``, and ``"bfloat16"`` beside those in
            4 bits. Adapters are always float32.
        start_from: Folder of a PEFT adapter to start from, made on this backbone with these LoRA settings.
        kwargs: See :class:`~fedlit.tasks.documents.task.DocumentTask`.

    A batch holds ``document`` and ``client``, lists, as :class:`fedlit.data.Documents` gives them. A document whose
    question is longer than the backbone's window gets no answer, which counts as unparsable.
    """

    added_arguments: ClassVar[Mapping[str, Any]] = {
        **DocumentTask.added_arguments,
        "prompt_date": DATE.isoformat(),
        "max_without_answer": 0.5,
        "lists": "both",
    }

    def __init__(
        self,
        backbone: str,
        adapter: LoRA | None = LoRA(r=16, alpha=64, dropout=0.05),  # noqa: B008  # frozen
        together: Together = "separate",
        format: Format = "html",
        relations: Relations = "list",
        crossing: Crossing = "split",
        wording: Wording = "full",
        given: Given = "annotated",
        schedule: Schedule = "cosine",
        loss_on: LossOn = "completion",
        max_length: int = 800,
        packing: bool = False,
        chat_template: bool | None = None,
        max_new_tokens: int = 512,
        validation: Literal["answers", "loss"] = "answers",
        quantization: Quantization | None = None,
        dtype: Held | None = None,
        start_from: str | None = None,
        prompt_date: str = DATE.isoformat(),
        max_without_answer: float = 0.5,
        lists: Lists = "both",
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, adapter, schedule=schedule, **kwargs)
        for name, value, known in (
            ("loss_on", loss_on, ("completion", "both")),
            ("validation", validation, ("answers", "loss")),
            ("quantization", quantization, (None, "nf4")),
            ("dtype", dtype, (None, "float32", "bfloat16")),
        ):
            if value not in known:
                raise FedlitError(f"model.{name} is {value!r}, expected one of {known}")
        for name, number in (("max_length", max_length), ("max_new_tokens", max_new_tokens)):
            if number < 1:
                raise FedlitError(f"model.{name} is {number}: give a number above 0")
        for name, needed in (
            ("quantization", quantization),
            ("start_from", start_from),
            ("dtype", dtype == "bfloat16"),
        ):
            if adapter is None and needed:
                raise FedlitError(f"model.{name} needs an adapter, and model.adapter is null: give LoRA settings")
        self.questions = Questions(
            load_schema(self.schema), together, format, relations, crossing, wording, given, lists
        )
        self.loss_on, self.max_length, self.packing, self.chat_template = loss_on, max_length, packing, chat_template
        self.max_new_tokens, self.validation = max_new_tokens, validation
        self.quantization, self.dtype_held, self.start_from = quantization, dtype, start_from
        self._today, self.prompt_date = date_of(prompt_date), prompt_date
        self._model: LanguageModel | None = None
        self._texts: list[str] = []
        if not 0 <= max_without_answer <= 1:
            raise FedlitError(f"model.max_without_answer is {max_without_answer}: give a share from 0 to 1")
        self.max_without_answer = max_without_answer
        self._at_hand: dict[str, list[Document]] = {}
        self._rooms: dict[str, Room] = {}
        self._has_targets: dict[tuple[Document, int, str], bool] = {}
        self.tally: Cuts = Cuts()
        self._told: set[str] = set()
        self._cut_told = False

    def use_stand_in(self) -> None:
        """As in other tasks. Answers of a stand-in mean nothing, and are kept short."""
        super().use_stand_in()
        self.max_new_tokens = min(self.max_new_tokens, 32)

    def take_data(self, data: Any) -> None:
        """Check that the data's types are the schema's; for a stand-in, take its own, and texts for its tokenizer.

        Raises:
            FedlitError: The data are no annotated documents, or have types that the schema lacks; or a stand-in's
                tokenizer is to be made of training texts that are not at hand.
        """
        self.questions = replace(self.questions, schema=take_schema(self.questions.schema, data, self._stand_in))
        held = hasattr(data, "dataset")
        if self._random and not held:
            raise FedlitError(
                f"backbone {self.backbone!r}: the tokenizer of a random stand-in is made of the training texts, and "
                f"{type(data).__name__} holds none: give a folder with a tokenizer of its own"
            )
        own = {client: data.dataset((client,), "train").documents for client in data.clients} if held else {}
        self._at_hand = own
        if self._random:
            documents = data.dataset(data.clients, "train").documents
            asked = [instance for document in documents for instance in self.questions.instances(document)]
            self._texts = [text for instance in asked for text in (instance.prompt, instance.target)]

    def configure_model(self) -> None:
        """Load the backbone and put the adapters on it.

        Raises:
            FedlitError: The backbone cannot be had, is no causal language model, has a shorter window than
                ``max_length``, or, with ``packing``, layers that look less far back; or an adapter target matches
                nothing, or ``max_length`` leaves too few training documents an answer.
        """
        if self.network is not None:
            return
        self.check_schema()
        from fedlit.backbones.causal_lms import causal_stand_in, load_causal_lm
        from fedlit.backbones.chronos import unwrap
        from fedlit.backbones.lora import load_adapter

        if self._random:
            storage = (None, None) if self._stand_in else (self.quantization, self.dtype_held)  # bitsandbytes or not
            loaded = causal_stand_in(self.backbone, self._texts, 1024, *storage)
        else:
            loaded = load_causal_lm(self.backbone, self.quantization, self.dtype_held)
        window = loaded.family.max_length
        if self.max_length > window and not loaded.stand_in:
            raise FedlitError(
                f"model.max_length is {self.max_length}, and backbone {self.backbone!r} sees {window} tokens: lower it"
            )
        near = getattr(unwrap(loaded.network).config.get_text_config(), "sliding_window", None)
        if self.packing and near is not None and near < min(self.max_length, window):
            raise FedlitError(
                f"model.packing: layers of backbone {self.backbone!r} look {near} tokens back, which packing does not "
                f"keep to: set model.packing false, or lower model.max_length to {near}"
            )
        network = self._fine_tunable(loaded.network, loaded.targets)
        if self.start_from is not None and not self._stand_in:
            load_adapter(network, self.start_from, self.backbone)
        self._model = LanguageModel(network, loaded.family, self.chat_template, self._today)
        self._source, self.network = loaded.source, network
        self._check_room()
        self.train(self.training)

    def sequences(self, documents: Sequence[Document]) -> tuple[list[TokenSequence], list[int]]:
        """Questions about documents with their answers as tokens, and the index of the document of each."""
        out, owner = [], []
        for i, document in enumerate(documents):
            for number, sequence in enumerate(self._sequences_of(document)):
                out.append(sequence)
                owner.append(i)
                if self.tally.note((document.id, number), sequence) and not self._cut_told:
                    self._tell(
                        f"questions longer than model.max_length {self._window} lose their end; see summary.json"
                    )
        return out, owner

    def _sequences_of(self, document: Document) -> list[TokenSequence]:
        dialogue, asked = self._language().dialogue, self.questions.instances(document)
        return [dialogue.sequence(instance.prompt, instance.target, self._window) for instance in asked]

    @property
    def _window(self) -> int:
        """Tokens of a question with its answer, at most."""
        return min(self.max_length, self._language().family.max_length)

    def supervised(self, batch: Batch) -> Tensor:
        """Whether any token of a document's questions and answers is to be learnt, (batch,), bool."""
        keys = [(document, self._window, self.loss_on) for document in self.documents_of(batch)]
        for key in keys:
            if key not in self._has_targets:
                own = self._sequences_of(key[0])
                self._has_targets[key] = any(len(sequence.supervised(self.loss_on)) for sequence in own)
        return torch.tensor([self._has_targets[key] for key in keys], dtype=torch.bool)

    def losses(self, batch: Batch) -> Tensor:
        """One loss per document, (batch,), nats per supervised token; NaN without supervised tokens."""
        documents = self.documents_of(batch)
        sequences, owner = self.sequences(documents)
        if not any(len(sequence.supervised(self.loss_on)) for sequence in sequences):
            return self.no_losses(len(documents))
        return self._language().losses(sequences, owner, len(documents), self.loss_on, self.packing)

    def num_targets(self, batch: Batch) -> int:
        """Supervised tokens of a batch."""
        sequences, _ = self.sequences(self.documents_of(batch))
        return sum(len(sequence.supervised(self.loss_on)) for sequence in sequences)

    def evaluate(self, batch: Batch, metrics: Metric) -> None:
        with torch.no_grad():
            losses = self.losses(batch)
        nothing: Answers = [None] * len(losses)
        found = (nothing, nothing)
        if metrics is not self.val_metrics or self.validation == "answers":
            found = self.answers(self.documents_of(batch))
        self.score(batch, found, losses, metrics)

    @property
    def sought(self) -> Schema:
        return self.questions.schema

    def answers(self, documents: Sequence[Document]) -> tuple[Answers, Answers]:
        """The model's answers for mentions and those for relations, by document.

        Both are the same object where one question asks for both, and None where no question does.
        """
        return answered(self.questions, documents, self.generate)

    def generate(self, questions: Sequence[str]) -> list[str]:
        """Greedy answers; empty where the question is longer than the backbone's window."""
        language = self._language()
        answers = language.generate(questions, self.max_new_tokens)
        if None in answers:
            window = language.family.max_length
            self._tell(f"questions longer than the window of {window} tokens get no answer, which counts as unparsable")
        return [answer or "" for answer in answers]

    def export(self, folder: Path | str, merge: bool = False) -> None:
        """As in other tasks, with the tokenizer beside a whole network.

        Raises:
            FedlitError: ``merge`` is set, and the network is held in 4 bits.
        """
        if merge and self.quantization is not None:
            raise FedlitError(
                "an adapter cannot be merged into weights of 4 bits without losing most of it: train with "
                "model.quantization null, or export the adapter"
            )
        super().export(folder, merge)

    def write(self, folder: Path, merge: bool) -> None:
        super().write(folder, merge)
        if self.adapter is None or merge:
            self._language().family.save(folder)

    def whole_anew(self, folder: Path) -> nn.Module:
        from fedlit.backbones.causal_lms import load_causal_lm, read_causal_network

        if self._random:  # transformers may read a made-up tokenizer as that of the architecture
            return read_causal_network(folder)
        loaded = load_causal_lm(str(folder))
        same_tokens(self._language().family.tokenizer, loaded.family.tokenizer, str(folder))
        return loaded.network

    def probe(self, network: nn.Module) -> Tensor:
        """Logits (2, tokens, vocabulary) of made-up tokens."""
        return self._language().family.probe(network)

    def describe(self) -> dict[str, Any]:
        return {
            **super().describe(),
            "family": self._language().family.architecture,
            "schema": self.questions.schema.to_dict(),
            "quantization": self.quantization,
            "dtype": self.dtype_held,
            "questions": self.tally.counts(),
            "training_documents": {client: room.to_dict() for client, room in self._rooms.items()},
        }

    def config(self) -> dict[str, Any]:
        # A stand-in's tokenizer is made of the training texts: other texts make another model.
        texts = hashlib.sha256("\0".join(self._texts).encode()).hexdigest() if self._texts else None
        return {**super().config(), "texts": texts}

    def argument(self, name: str) -> Any:
        if name == "dtype":  # LightningModule has a dtype of its own
            return self.dtype_held
        return getattr(self.questions, name) if name in ASKED else super().argument(name)

    def _check_room(self) -> None:
        """Count what is cut of the training documents at hand, and refuse or tell it."""
        self._rooms = {client: Room.of(own, self._sequences_of) for client, own in self._at_hand.items()}
        self._at_hand = {}
        told = check_room(self._rooms, self._window, 1.0 if self._stand_in else self.max_without_answer)
        self._cut_told = told is not None
        if told is not None:
            self._tell(told)

    def _tell(self, what: str) -> None:
        """Warn of something the first time that it happens."""
        if what not in self._told:
            self._told.add(what)
            warnings.warn(what, UserWarning, stacklevel=3)

    @property
    def _random(self) -> bool:
        """Whether the network is a stand-in, by its name or by ``fast_dev_run``."""
        return self._stand_in or self.backbone.startswith(STAND_IN)

    def _language(self) -> LanguageModel:
        self.loaded_network()
        assert self._model is not None  # set with the network
        return self._model
