"""A data set of documents, as tasks get them in batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import Dataset

from fedlit.data.base.batch import Batch
from fedlit.data.documents.documents import Document


class Documents(Dataset[Any]):
    """Map-style data set of documents.

    A batch is ``{"document": [Document, ...], "client": [str, ...], "index": int64 (batch,)}``, the last of positions
    in this data set.

    Args:
        documents: In order.
        clients: The client of each.
    """

    def __init__(self, documents: Sequence[Document], clients: Sequence[str]) -> None:
        self.documents = list(documents)
        self.clients = list(clients)

    def __len__(self) -> int:
        return len(self.documents)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"document": self.documents[index], "client": self.clients[index], "index": index}

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        names = {"document": [self.documents[i] for i in indices], "client": [self.clients[i] for i in indices]}
        return {**names, "index": torch.tensor(list(indices), dtype=torch.int64)}
