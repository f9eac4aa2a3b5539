"""Chains of compression, and an upload with all that a rule may send."""

from __future__ import annotations

import torch

from fedlit.compression import BFloat16, Int8, TopK

CHAINS = {
    "bfloat16": [BFloat16()],
    "int8": [Int8()],
    "int8 at random": [Int8(stochastic=True)],
    "int8 with feedback": [Int8(error_feedback=True)],
    "top-k": [TopK(0.2)],
    "top-k alone": [TopK(0.2, error_feedback=False)],
    "top-k, bfloat16": [TopK(0.2), BFloat16()],
    "top-k, int8": [TopK(0.2), Int8()],
    "bfloat16, top-k, int8": [BFloat16(), TopK(0.2), Int8(stochastic=True)],
}


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def upload(seed: int = 0, size: float = 1.0) -> dict:
    """All that a rule may send: nested, whole numbers, flags, no dimension, one value, none, empty parts."""
    g = draws(seed)
    return {
        "w": size * torch.randn(6, 5, generator=g),
        "a": {"kernel": torch.randn(4, 3, 2, generator=g).transpose(0, 1), "bias": torch.randn(9, generator=g)},
        "double": torch.randn(8, 4, generator=g, dtype=torch.float64),
        "half": torch.randn(7, 6, generator=g).bfloat16(),
        "tau": torch.tensor(2.5, dtype=torch.float64), "one": torch.ones(1), "none": torch.zeros(0, 3),
        "column": torch.randn(5, 1, generator=g), "steps": torch.arange(40).reshape(4, 10),
        "chosen": torch.tensor([True, False, True]), "nothing": {},
    }  # fmt: skip
