"""Activation checkpointing of a frozen network with adapters: less memory, one more forward pass."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from fedlit.backbones.chronos import unwrap
from fedlit.errors import FedlitError


def can_checkpoint(network: nn.Module) -> bool:
    """Whether the network's layers know how."""
    return bool(_layers(network))


def checkpoint_activations(network: nn.Module, on: bool = True, **options: Any) -> None:
    """Keep only what enters each layer, and compute the rest again in the backward pass, in place.

    transformers does so in training mode alone. A frozen backbone stays in evaluation mode, so the layers' own flags
    are raised and those of the dropouts in them left as they are. ``train()`` and ``eval()`` undo it: call this after.

    Args:
        options: For ``torch.utils.checkpoint.checkpoint``.

    Raises:
        FedlitError: The network's layers cannot.
    """
    if on and not can_checkpoint(network):
        raise FedlitError(f"{type(unwrap(network)).__name__} has no layers that can be checkpointed")
    if on:
        unwrap(network).activation_checkpointing_enable({"use_reentrant": False})
        for layer in _layers(network):
            layer._gradient_checkpointing_func = partial(_checkpointed, layer, options)  # type: ignore[assignment]
    elif can_checkpoint(network) and unwrap(network).is_activation_checkpointing:
        unwrap(network).activation_checkpointing_disable()
    for layer in _layers(network):
        layer.training = on


class _Held(nn.Module):
    """A layer's own computation, in the form that ``functional_call`` takes."""

    def __init__(self, layer: nn.Module, function: Callable[..., Any]) -> None:
        super().__init__()
        self.layer, self.function = layer, function

    def forward(self, *inputs: Any) -> Any:
        return self.function(*inputs)


def _checkpointed(layer: nn.Module, options: dict[str, Any], function: Callable[..., Any], *inputs: Any) -> Any:
    """Checkpoint a layer with the weights that it has now.

    A rule may have its loss taken at other weights than the layer's own, by ``functional_call``; these are gone from
    the layer by the backward pass, which would then compute again with the wrong ones.
    """
    weights: dict[str, Tensor] = {f"layer.{name}": weight for name, weight in layer.named_parameters()}
    held = _Held(layer, function)
    return checkpoint(lambda *given: functional_call(held, weights, given), *inputs, use_reentrant=False, **options)


def _layers(network: nn.Module) -> list[nn.Module]:
    from transformers.modeling_layers import GradientCheckpointingLayer

    return [layer for layer in network.modules() if isinstance(layer, GradientCheckpointingLayer)]
