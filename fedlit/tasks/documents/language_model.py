"""A causal language model as a task uses it: losses of answers, and answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from fedlit.backbones.chronos import unwrap
from fedlit.instructions.sequences import Dialogue, LossOn, TokenSequence, packed, padded
from fedlit.tasks.row_owners import rows_of

if TYPE_CHECKING:
    from fedlit.backbones.causal_lms import CausalLM


class LanguageModel:
    """Network, tokenizer, and the form of a dialogue between them.

    Args:
        network: Of transformers, adapters and all.
        family: What it is.
        chat_template: See :class:`fedlit.instructions.sequences.Dialogue`.
    """

    def __init__(self, network: Any, family: CausalLM, chat_template: bool | None) -> None:
        self.network, self.family = network, family
        self.dialogue = Dialogue(family.tokenizer, chat_template)

    def losses(
        self, sequences: Sequence[TokenSequence], owners: Sequence[int], count: int, loss_on: LossOn, packing: bool
    ) -> Tensor:
        """Mean over the supervised tokens of each owner's sequences, (count,), nats; 0 where there is none.

        Args:
            sequences: Of all owners; one at least, with one supervised token at least.
            owners: Of each sequence, below ``count``.
            loss_on: Which tokens are supervised.
            packing: One row for all, and not one for each.
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
        """Answers, written greedily; None to a question that is longer than the network's window."""
        window = self.family.max_length
        prompts = [self.dialogue.prompt(one) for one in questions]
        out: list[str | None] = [None] * len(questions)
        together: dict[int, list[int]] = {}  # by room: what one may write does not hang on who is beside it
        for i, one in enumerate(prompts):
            together.setdefault(min(max_new_tokens, window - len(one)), []).append(i)
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
    """The likeliest next token, again and again, by ``transformers.generate``.

    A network's own settings, of sampling or of a penalty for repetition, do not count. Prompts are filled up on the
    left.

    Args:
        network: Of transformers, adapters and all.
        prompts: Tokens, at least one each.
        max_new_tokens: When to stop at the latest.
        pad: The token to fill up with, also after the end.
        ends: Tokens to stop after.

    Returns:
        The new tokens of each.
    """
    from transformers import GenerationConfig

    longest = max(len(one) for one in prompts)
    rows = [[*[pad] * (longest - len(one)), *one] for one in prompts]
    mask = [[0] * (longest - len(one)) + [1] * len(one) for one in prompts]
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
    """Mean of the values of each document, (count,), float32; 0 where there is none.

    Args:
        values: (tokens,).
        documents: Index of the document of each value (tokens,), below ``count``.
        count: How many documents there are.
    """
    empty = torch.zeros(count, device=values.device)
    counts = empty.index_add(0, documents, torch.ones_like(values))
    return empty.index_add(0, documents, values) / counts.clamp(min=1)
