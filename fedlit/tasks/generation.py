"""Text from a causal language model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


def greedy(
    network: Any, prompts: Sequence[Sequence[int]], max_new_tokens: int, pad: int, ends: Sequence[int]
) -> list[list[int]]:
    """The likeliest next token, again and again, by ``transformers.generate``.

    What a network's own settings say of sampling does not count. Prompts are filled up on the left.

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
    with torch.inference_mode():
        written = network.generate(
            input_ids=torch.tensor(rows, device=device),
            attention_mask=torch.tensor(mask, device=device),
            generation_config=settings,
        )
    new: list[list[int]] = written[:, longest:].tolist()
    return new
