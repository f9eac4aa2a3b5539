"""Random draws keyed by what they are for, so that no draw depends on the ones before it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    import numpy as np


def key(*parts: object) -> int:
    """A 63-bit seed that depends on every part and on their order.

    Args:
        parts: Anything with a stable ``repr``: integers, strings, tuples of them.
    """
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(seed: int, purpose: str, *parts: object) -> torch.Generator:
    """A CPU generator for one purpose, for instance ``generator(seed, "batches", round, client)``."""
    return torch.Generator().manual_seed(key(seed, purpose, *parts))


def numpy_generator(seed: int, purpose: str, *parts: object) -> np.random.Generator:
    """As :func:`generator`, for NumPy."""
    import numpy as np

    return np.random.default_rng(key(seed, purpose, *parts))
