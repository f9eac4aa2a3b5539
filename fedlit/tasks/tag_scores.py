"""From windows of word pieces to states, from scores of tags to losses."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from fedlit.backbones.chronos import unwrap
from fedlit.tasks.document_means import document_means
from fedlit.tasks.tagging import Question, Window


def last_states(network: nn.Module, windows: Sequence[Window], pad: int) -> Tensor:
    """An encoder's states of the word pieces that are tagged in windows, one after the other: (word pieces, width).

    Args:
        network: Of transformers, adapters and all.
        windows: That go through it together; at least one.
        pad: The token to fill up with.
    """
    device = next(network.parameters()).device
    rows = [torch.tensor(one.tokens) for one in windows]
    ids = pad_sequence(rows, batch_first=True, padding_value=pad)
    mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    states: Tensor = unwrap(network)(input_ids=ids.to(device), attention_mask=mask.to(device)).last_hidden_state
    row = torch.arange(len(windows)).repeat_interleave(torch.tensor([one.count for one in windows]))
    place = torch.cat([torch.arange(one.first, one.first + one.count) for one in windows])
    return states[row.to(device), place.to(device)]


def only_allowed(logits: Tensor, questions: Sequence[Question]) -> Tensor:
    """Logits (word pieces, tags) of questions one after the other; those of tags that may not be given are the least
    number that there is."""
    hidden = torch.ones(len(questions), logits.shape[1], dtype=torch.bool)
    for row, question in zip(hidden, questions, strict=True):
        row[list(question.allowed)] = False
    each = hidden.repeat_interleave(_lengths(questions), dim=0)
    return logits.masked_fill(each.to(logits.device), torch.finfo(logits.dtype).min)


def tag_losses(logits: Tensor, questions: Sequence[Question], count: int) -> Tensor:
    """Mean cross-entropy of the tagged word pieces of each document's questions, (count,), nats; 0 without any.

    Args:
        logits: (word pieces, tags) of the questions one after the other.
        questions: With gold tags.
        count: How many documents there are.
    """
    kept = torch.tensor([on for one in questions for on in one.tagged], dtype=torch.bool)
    target = torch.tensor([tag for one in questions for tag in one.tags], dtype=torch.int64)
    owner = torch.tensor([one.document for one in questions], dtype=torch.int64).repeat_interleave(_lengths(questions))
    target, owner = target[kept].to(logits.device), owner[kept].to(logits.device)
    each = cross_entropy(logits[kept.to(logits.device)], target, reduction="none")
    return document_means(each, owner, count)


def _lengths(questions: Sequence[Question]) -> Tensor:
    return torch.tensor([len(one.offsets) for one in questions], dtype=torch.int64)
