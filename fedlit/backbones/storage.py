"""How a frozen network's weights are held: in float32, in bfloat16, or in 4 bits as far as memory goes."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from fedlit.backbones.chronos import unwrap
from fedlit.backbones.lora import is_linear

Storage = Literal["float32", "bfloat16", "nf4"]
BLOCK, OUTER = 64, 256  # weights that share a constant in bitsandbytes, and constants that share another


def hold(network: nn.Module, dtype: torch.dtype) -> None:
    """Parameters of floating point in another precision, in place. Buffers, such as rotary frequencies, stay."""
    for parameter in network.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)


def measurable(network: nn.Module, storage: Storage) -> nn.Module:
    """A network without weights, in place, such that training it takes the memory that one held so takes.

    ``"nf4"``: 4 bits for the linear layers but the head, and bfloat16 for the rest.
    """
    hold(network, torch.float32 if storage == "float32" else torch.bfloat16)
    if storage == "nf4":
        head = unwrap(network).get_output_embeddings()
        for name, module in list(network.named_modules()):
            if is_linear(module) and module is not head:
                network.set_submodule(name, PackedLinear(module))
    return network


class PackedLinear(nn.Linear):
    """What bitsandbytes' layer of 4 bits with double quantisation holds and computes with; its values mean nothing.

    Half a byte for a weight, a byte for 64 of them, 4 bytes for 64 * 256, and a table of the values that bits stand
    for. The whole weights come to be in bfloat16 for the product, and once more for the gradient.
    """

    def __init__(self, layer: nn.Module) -> None:
        weight: Any = layer.weight
        out_features, in_features = weight.shape if isinstance(layer, nn.Linear) else weight.shape[::-1]
        super().__init__(in_features, out_features, bias=layer.bias is not None, device="meta")
        blocks = -(-weight.numel() // BLOCK)
        packed = torch.empty((weight.numel() + 1) // 2, 1, dtype=torch.uint8, device=weight.device)
        self.weight = nn.Parameter(packed, requires_grad=False)
        self.bias: Any = layer.bias
        self.register_buffer("constants", torch.empty(blocks, dtype=torch.uint8, device=weight.device))
        self.register_buffer("outer", torch.empty(-(-blocks // OUTER), device=weight.device))
        self.register_buffer("tables", torch.empty(16 + 256 + 1, device=weight.device))  # of each layer its own

    def whole(self) -> Tensor:
        """The weights in bfloat16, without their values."""
        constants: Any = self.constants
        constants = constants.float()  # they come to be as numbers first
        return torch.empty(self.out_features, self.in_features, dtype=torch.bfloat16, device=constants.device)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = _Product.apply(x.to(torch.bfloat16), self)  # type: ignore[no-untyped-call]
        out = out if self.bias is None else out + self.bias
        return out.to(x.dtype).clone()  # as PEFT does with 4 bits


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: PackedLinear) -> Tensor:
        ctx.layer = layer
        return nn.functional.linear(x, layer.whole())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None]:
        return gradient @ ctx.layer.whole(), None
