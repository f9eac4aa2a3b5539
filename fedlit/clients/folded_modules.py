"""Modules of a network on rows of several clients."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from fedlit.clients.layout import Layout, Unfoldable


def folded_forward(module: nn.Module, given: dict[str, Tensor], layout: Layout) -> Callable[..., Tensor]:
    """A module's forward on rows of several clients, each by its own parameters.

    Args:
        module: The module.
        given: Parameters of it and of its parts, (clients, ...), by their name in it. Others are everybody's.
        layout: Whose rows are whose.
    """
    if type(module) is nn.Linear and "weight" in given:
        return _linear(module, given, layout)
    if is_adapted(module):
        return _adapted(module, given, layout)

    def each(*args: Any, **named: Any) -> Tensor:
        inputs = [value for value in (*args, *named.values()) if isinstance(value, Tensor)]
        if not inputs:
            raise Unfoldable(f"{type(module).__name__} takes no tensor")

        def one(own: dict[str, Tensor], rows: list[Tensor]) -> Tensor:
            left = iter(rows)
            place = [next(left) if isinstance(value, Tensor) else value for value in args]
            rest = {key: next(left) if isinstance(value, Tensor) else value for key, value in named.items()}
            values = {f"module.{key}": value for key, value in own.items()}
            out: Tensor = functional_call(_Plain(module), values, tuple(place), rest)
            return out

        rows = [layout.apart(x) for x in inputs]
        y: Tensor = vmap(one)(given, rows)
        if not isinstance(y, Tensor):
            raise Unfoldable(f"{type(module).__name__} gives more than one output")
        return layout.together(y, inputs[0])

    return each


class _Plain(nn.Module):
    """A module whose forward is its class's, also while another one stands in for it."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: Any, **named: Any) -> Tensor:
        return type(self.module).forward(self.module, *args, **named)  # type: ignore[no-any-return]


def _linear(module: nn.Module, given: dict[str, Tensor], layout: Layout) -> Callable[[Tensor], Tensor]:
    weight: Any = given["weight"]
    bias: Any = given.get("bias", module.bias)

    def forward(x: Tensor) -> Tensor:
        rows = layout.apart(x)
        y = torch.bmm(rows.flatten(1, -2), weight.mT)
        if bias is not None:
            y = y + (bias[:, None] if "bias" in given else bias).to(y.dtype)
        return layout.together(y.reshape(*rows.shape[:-1], y.shape[-1]), x)

    return forward


def is_adapted(module: nn.Module) -> bool:
    """Whether it is a linear layer of PEFT with one plain LoRA adapter at work."""
    lora = sys.modules.get("peft.tuners.lora.layer")
    if lora is None or type(module) is not lora.Linear:
        return False
    layer: Any = module
    active = [name for name in layer.active_adapters if name in layer.lora_A]
    plain = not (layer.merged or layer.disable_adapters or layer.lora_variant) and len(active) == 1
    return plain and layer.lora_A[active[0]].bias is None and layer.lora_B[active[0]].bias is None


def _adapted(layer: Any, given: dict[str, Tensor], layout: Layout) -> Callable[..., Tensor]:
    """The same as PEFT's forward, with one pass over the result in the place of three."""
    (name,) = [name for name in layer.active_adapters if name in layer.lora_A]
    a, b = (
        given.get(f"{part}.{name}.weight", getattr(layer, part)[name].weight.expand(layout.clients, -1, -1))
        for part in ("lora_A", "lora_B")
    )
    scaling: float = layer.scaling[name]

    def forward(x: Tensor, *args: Any, **named: Any) -> Tensor:
        y: Tensor = layer.base_layer(x, *args, **named)
        rows = layout.apart(layer.lora_dropout[name](x.to(a.dtype) if layer.cast_input_dtype_enabled else x))
        h = torch.bmm(rows.flatten(1, -2), a.mT)
        result = layout.apart(y).flatten(1, -2)
        if torch.is_autocast_enabled(x.device.type) or result.dtype == h.dtype:
            z = torch.baddbmm(result, h, b.mT, alpha=scaling)
        else:
            z = result + torch.bmm(h, b.mT) * scaling
        return layout.together(z.to(y.dtype).reshape(*rows.shape[:-1], z.shape[-1]), y)

    return forward
