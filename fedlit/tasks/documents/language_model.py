"""Losses and generated answers of a causal language model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from fedlit.backbones.chronos import unwrap
from fedlit.instructions.chat_templates import DATE
from fedlit.instructions.sequences import Dialogue, LossOn, TokenSequence, packed, padded
from fedlit.tasks.row_owners import rows_of

if TYPE_CHECKING:
    from fedlit.backbones.causal_lms import CausalLM


class LanguageModel:
    """A network with its tokenizer and the form of its dialogues.

    Args:
        network: Network of transformers, with its adapters.
        family: Tokenizer and window of the network.
        chat_template: See :class:`fedlit.instructions.sequences.Dialogue`.
        today: Likewise.
    """

    def __init__(self, network: Any, family: CausalLM, chat_template: bool | None, today: date = DATE) -> None:
        self.network, self.family = network, family
        self.dialogue = Dialogue(family.tokenizer, chat_template, today)

    def losses(
        self, sequences: Sequence[TokenSequence], owners: Sequence[int], count: int, loss_on: LossOn, packing: bool
    ) -> Tensor:
        """Mean loss over the supervised tokens of each owner's sequences, (count,), nats; NaN without tokens.

        Args:
            sequences: Sequences of all owners, with at least one supervised token.
            owners: Owner of each sequence, below ``count``.
            count: Number of owners.
            loss_on: Which tokens are supervised.
            packing: Put all sequences into one row.
        """
        device = next(self.network.parameters()).device
        if packing:
            rows = packed(sequences, loss_on, device)
        else:
            rows = padded(sequences, loss_on, self.family.tokenizer.pad_token_id, device)
        with rows_of(None if packing else owners):
            logits = self.network(**rows.inputs, logits_to_keep=rows.keep, use_cache=False).logits
        each = cross_entropy(logits[rows.row, rows.column].float(), rows.target, reduction="none")
        return document_means(each, torch.tensor(owners, device=device)[rows.sequence], count)

    def generate(self, questions: Sequence[str], max_new_tokens: int) -> list[str | None]:
        """Greedy answers; None for a question that is longer than the network's window."""
        window = self.family.max_length
        prompts = [self.dialogue.prompt(question) for question in questions]
        out: list[str | None] = [None] * len(questions)
        together: dict[int, list[int]] = {}  # by room, so that no answer depends on the others
        for i, prompt in enumerate(prompts):
            together.setdefault(min(max_new_tokens, window - len(prompt)), []).append(i)
        for room, own in together.items():
            if room > 0:
                given, pad = [prompts[i] for i in own], self.family.tokenizer.pad_token_id
                written = greedy(self.network, given, room, pad, self.dialogue.end_tokens)
                for i, tokens in zip(own, written, strict=True):
                    out[i] = self.dialogue.text(tokens)
        return out


def greedy(
    network: Any, prompts: Sequence[Sequence[int]], max_new_tokens: int, pad: int, ends: Sequence[int]
) -> list[list[int]]:
    """Greedy decoding by ``transformers.generate``.

    Generation settings of the network, such as sampling or a penalty for repetition, are ignored. Prompts are padded
    on the left.

    Args:
        network: Network of transformers, with its adapters.
        prompts: Tokens of each prompt, at least one.
        max_new_tokens: Longest answer.
        pad: Padding token, also after the end.
        ends: Tokens that end an answer.

    Returns:
        New tokens of each prompt.
    """
    from transformers import GenerationConfig

    longest = max(len(prompt) for prompt in prompts)
    rows = [[*[pad] * (longest - len(prompt)), *prompt] for prompt in prompts]
    mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    device = next(network.parameters()).device
    configuration: Any = GenerationConfig
    settings = configuration(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=1,
        use_cache=True,
        pad_token_id=pad,
        eos_token_id=list(ends),
    )
    plain = unwrap(network)
    own = plain.generation_config
    try:
        plain.generation_config = configuration()  # what is left open would be filled up from the network's
        with torch.inference_mode():
            written = network.generate(
                input_ids=torch.tensor(rows, device=device),
                attention_mask=torch.tensor(mask, device=device),
                generation_config=settings,
            )
    finally:
        plain.generation_config = own
    new: list[list[int]] = written[:, longest:].tolist()
    return new


def document_means(values: Tensor, documents: Tensor, count: int) -> Tensor:
    """Mean of the values of each document, (count,), float32; NaN, without a gradient, where it has none.

    Args:
        values: (tokens,).
        documents: Index of the document of each value (tokens,), below ``count``.
        count: Number of documents.
    """
    empty = torch.zeros(count, device=values.device)
    counts = empty.index_add(0, documents, torch.ones_like(values))
    return torch.where(counts > 0, empty.index_add(0, documents, values) / counts.clamp(min=1), math.nan)
