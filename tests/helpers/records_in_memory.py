"""Several records for the reader ``in_memory``, and windows that fit them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fedlit.data import Record

SMALL = {"context_length": 40, "prediction_length": 10}


def many(record: Callable[..., Record], subjects: int = 4, sites: int = 2, **kwargs: Any) -> list[Record]:
    return [record(f"s{site}-p{n}", site=f"s{site}", **kwargs) for site in range(sites) for n in range(subjects)]
