"""Uploads in fewer bits: every value is sent, rounded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fedlit import tree
from fedlit.compression.base import Transform, empty, lossy, walk
from fedlit.errors import FedlitError

LARGEST = 127
SCALE = torch.float32


@dataclass(frozen=True)
class BFloat16(Transform):
    """Uploads in bfloat16: half the bytes of float32, its range, and 8 bits of precision.

    Each value is rounded to the nearest, so it moves by at most ``2^-8`` of itself. It suits every rule. A value beyond
    the range of bfloat16 becomes infinite, and its client is refused at admission.

    Args:
        error_feedback: Whether a client keeps what rounding lost and adds it to what it sends next.
    """

    error_feedback: bool = False

    @property
    def label(self) -> str:
        return "bfloat16"

    def wire(self, upload: Any) -> Any:
        return walk(lambda _, x: empty(x.shape, torch.bfloat16) if _longer(x) else x, upload)

    def encode(self, upload: Any, generator: torch.Generator) -> Any:
        return walk(lambda _, x: x.to(torch.bfloat16) if _longer(x) else x, upload)

    def decode(self, wire: Any, like: Any) -> Any:
        return walk(lambda _, x, t: x.to(t.dtype), wire, like)


def _longer(x: Tensor) -> bool:
    return lossy(x) and x.element_size() > 2


@dataclass(frozen=True)
class Int8(Transform):
    """Uploads in 8 bits with one scale for each output channel: about a quarter of the bytes of float32.

    A channel is a row along the first dimension; a tensor of one dimension has one scale. With
    ``s = max_i |x_i| / 127`` in float32, what is sent is ``q_i = round(x_i / s)``, from -127 to 127, and ``s``; the
    server reads ``s q_i``, off by at most ``s / 2``. It suits every rule.

    A tensor that this would not make shorter passes as it is: one of a single value, or of one value a channel.

    Args:
        stochastic: Round up or down at random, ``q_i = floor(x_i / s + U)`` with ``U`` uniform in [0, 1), so that the
            mean of what the server reads is ``x_i``; off by less than ``s``.
        error_feedback: Whether a client keeps what rounding lost and adds it to what it sends next.
    """

    stochastic: bool = False
    error_feedback: bool = False

    final = True

    @property
    def label(self) -> str:
        return "int8, rounded at random" if self.stochastic else "int8"

    def wire(self, upload: Any) -> Any:
        channels = 0

        def form_of(_: str, x: Tensor) -> Tensor:
            nonlocal channels
            channels += _channels(x)
            return empty(x.shape, torch.int8) if _channels(x) else x

        codes = walk(form_of, upload)
        return {"tensors": codes, "scales": empty((channels,), SCALE)} if channels else codes

    def encode(self, upload: Any, generator: torch.Generator) -> Any:
        scales: list[Tensor] = []

        def code_of(_: str, x: Tensor) -> Tensor:
            if not _channels(x):
                return x
            rows = x.double().reshape(_channels(x), -1)
            scale = (rows.abs().amax(1, keepdim=True) / LARGEST).to(SCALE)
            scales.append(scale[:, 0])
            codes = torch.where(scale > 0, rows / scale.double(), 0.0)
            if self.stochastic:
                codes = (codes + torch.rand(codes.shape, generator=generator, dtype=codes.dtype)).floor()
            return codes.round().clamp(-LARGEST, LARGEST).to(torch.int8).reshape(x.shape)

        codes = walk(code_of, upload)
        return {"tensors": codes, "scales": torch.cat(scales)} if scales else codes

    def decode(self, wire: Any, like: Any) -> Any:
        at = 0

        def value_of(path: str, x: Tensor, t: Tensor) -> Tensor:
            nonlocal at
            count = _channels(t)
            if not count:
                return x
            scale = wire["scales"][at : at + count]
            at += count
            if (scale < 0).any() or (x < -LARGEST).any():
                raise FedlitError(f"{path} has a scale below 0, or a code below {-LARGEST}")
            values: Tensor = x.reshape(count, -1).double() * scale.double()[:, None]
            return values.to(t.dtype).reshape(t.shape)

        return walk(value_of, wire["tensors"], like) if any(_channels(t) for t in tree.leaves(like)) else wire


def _channels(x: Tensor) -> int:
    """How many scales a tensor has; 0 if it passes as it is."""
    count = int(x.shape[0]) if x.dim() > 1 else 1
    return count if lossy(x) and x.numel() + count * SCALE.itemsize < x.numel() * x.element_size() else 0
