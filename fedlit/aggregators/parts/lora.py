"""The LoRA tensors among a network's parameters, by PEFT's names; for rules that treat A and B apart."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fedlit.errors import FedlitError

A = r"\.lora_A\."
"""Matches the names of the A matrices, ``(r, in)``."""
B = r"\.lora_B\."
"""Matches the names of the B matrices, ``(out, r)``."""


class Layer(NamedTuple):
    """An adapted layer, which adds ``scaling * B A`` to its frozen weight."""

    name: str
    """Of the module; :attr:`fedlit.aggregators.Server.scaling` has it."""
    a: str
    """Name of A's parameter."""
    b: str
    """Name of B's parameter."""

    @property
    def weight(self) -> str:
        """Name of the frozen weight, ``(out, in)``."""
        return f"{self.name}.base_layer.weight"


def layers(params: Mapping[str, Any], rule: object) -> list[Layer]:
    """The adapted layers, sorted by name.

    Raises:
        FedlitError: There are none; ``rule`` is named.
    """
    found = []
    for a in sorted(params):
        match = re.fullmatch(r"(.+)\.lora_A\.([^.]+)\.weight", a)
        if match and (b := f"{match[1]}.lora_B.{match[2]}.weight") in params:
            found.append(Layer(match[1], a, b))
    if not found:
        raise FedlitError(
            f"{type(rule).__name__} needs LoRA adapters, and none of the {len(params)} parameters that train is of one "
            f"({', '.join(sorted(params)[:2])} ...): give the model an adapter, as by model.adapter {{r: 8, alpha: 16}}"
        )
    return found


def product(params: Mapping[str, Any], layer: Layer) -> Tensor:
    """``B A``, ``(out, in)``, in float64 and without the scaling."""
    a, b = params[layer.a].double(), params[layer.b].double()
    whole: Tensor = b.flatten(1) @ a.flatten(1)
    return whole


def ranks(params: Mapping[str, Any], found: Iterable[Layer]) -> dict[str, int]:
    """The rank of each layer, by its name."""
    return {layer.name: params[layer.a].shape[0] for layer in found}


def cut_rank(params: Mapping[str, Any], found: Sequence[Layer], start: int, stop: int) -> dict[str, Any]:
    """Rows ``start:stop`` of each A and the same columns of each B; parameters other than these are left out."""
    out = {}
    for layer in found:
        out[layer.a] = params[layer.a][start:stop]
        out[layer.b] = params[layer.b][:, start:stop]
    return out


def join_rank(parts: Sequence[Mapping[str, Any]], found: Sequence[Layer]) -> dict[str, Any]:
    """The adapter whose product BA is the sum of the parts' products: the inverse of cutting by :func:`cut_rank`."""
    out = {}
    for layer in found:
        out[layer.a] = torch.cat([part[layer.a] for part in parts], dim=0)
        out[layer.b] = torch.cat([part[layer.b] for part in parts], dim=1)
    return out


def pad_rank(params: Mapping[str, Any], found: Sequence[Layer], rank: Mapping[str, int]) -> dict[str, Any]:
    """The same products with zero rows and columns up to the given rank of each layer; other parameters as they are."""
    out = dict(params)
    for layer in found:
        a, b = params[layer.a], params[layer.b]
        missing = rank[layer.name] - len(a)
        out[layer.a] = torch.cat([a, a.new_zeros(missing, *a.shape[1:])], dim=0)
        out[layer.b] = torch.cat([b, b.new_zeros(len(b), missing, *b.shape[2:])], dim=1)
    return out
