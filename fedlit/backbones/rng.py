"""The global generators, seeded for a while: for code of others that takes no generator of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from fedlit import seeds


@contextmanager
def keyed_rng(*parts: object, device: torch.device | str = "cpu") -> Iterator[None]:
    """Seed the CPU's generator, and the CUDA ``device``'s, by a key of ``parts``; afterwards they are as before.

    ``torch.manual_seed`` would also seed devices that are not put back.
    """
    device = torch.device(device)
    cuda = [device] if device.type == "cuda" else []
    seed = seeds.key(*parts)
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(seed)
        if cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
