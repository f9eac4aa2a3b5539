"""How much of the machine a piece of work uses: its floating-point operations against the measured matmul peak."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

SIZES = (256, 512, 1024, 2048)
LARGER = (1024, 2048, 4096, 8192)


def matmul_peak(
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    sizes: Sequence[int] | None = None,
    seconds: float = 0.5,
) -> float:
    """Floating-point operations a second of the fastest square matmul, on the threads that PyTorch has now.

    Args:
        device: Where.
        dtype: Of both factors. On a GPU, float32 follows ``torch.get_float32_matmul_precision()``.
        sizes: Rows of the square matrices that are tried; None: 256 to 2048 on a CPU, 1024 to 8192 on a GPU.
        seconds: Spent on each size.
    """
    device = torch.device(device)
    best = 0.0
    for size in sizes or (SIZES if device.type == "cpu" else LARGER):
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        out = torch.empty(size, size, device=device, dtype=dtype)
        for _ in range(2):
            torch.mm(a, b, out=out)
        _wait(device)
        until = time.perf_counter() + seconds
        while (began := time.perf_counter()) < until:
            torch.mm(a, b, out=out)
            _wait(device)
            best = max(best, 2 * size**3 / (time.perf_counter() - began))
    return best


def count_flops(work: Callable[[], Any]) -> int:
    """Floating-point operations of one call: products, convolutions and attention, forward and backward as they run.

    A multiply-add is two. Operations on single elements are not counted.
    """
    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


def line(flops: float, seconds: float, peak: float, what: str = "achieved") -> str:
    """One line for a table's foot.

    Args:
        flops: Floating-point operations of the work.
        seconds: It took.
        peak: As :func:`matmul_peak` gives it.
        what: Was done.
    """
    rate = flops / seconds
    return f"{what}: {rate / 1e9:.1f} GFLOP/s, {rate / peak:.1%} of the matmul peak of {peak / 1e9:.1f} GFLOP/s"


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
