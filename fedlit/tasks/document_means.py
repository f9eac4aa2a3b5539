"""One figure for each document out of those of its tokens."""

from __future__ import annotations

import torch
from torch import Tensor


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
