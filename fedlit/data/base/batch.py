"""A batch of examples, and how single examples are joined to a batch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import Dataset

Batch = dict[str, Any]


class AlteredExamples(Dataset[Batch]):
    """Examples as one client's local steps in one round see them: altered at random, anew in every batch."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of examples."""

    @abstractmethod
    def batch(self, indices: Sequence[int], number: int) -> Batch:
        """Some examples, as the ``number``-th batch of the round, from 0; the same batch for the same arguments."""


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
