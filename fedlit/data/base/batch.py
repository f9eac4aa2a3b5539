"""A batch of examples, and how single examples are joined to a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

Batch = dict[str, Any]


def collate(items: Batch | Sequence[Batch]) -> Batch:
    """A batch as it is (``__getitems__`` already made one), or single examples joined to one."""
    if isinstance(items, dict):
        return items
    first = items[0]
    return {
        name: torch.stack([torch.as_tensor(item[name]) for item in items])
        if isinstance(first[name], torch.Tensor)
        else [item[name] for item in items]
        for name in first
    }
