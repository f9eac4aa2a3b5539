"""Signals of one or more channels: the encoder of Chronos-Bolt, channel by channel."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from fedlit.backbones.chronos import PATCH_LAYERS, ChronosBolt, unwrap
from fedlit.backbones.encoders.family import EncoderFamily, Extent
from fedlit.backbones.folders import absent_weights, read_network, refuse_absent
from fedlit.backbones.loading import mend_bolt
from fedlit.errors import FedlitError

UNUSED = ("decoder", "output_patch_embedding")


@dataclass(frozen=True)
class BoltEncoder(EncoderFamily):
    """Chronos-Bolt without its decoder. A channel's features are the mean over its patches' last states.

    Each channel is brought to mean 0 and variance 1 by itself, so amplitudes are not seen. NaN is missing.

    Args:
        context_length: The last so many samples of a signal are all that it looks at.
        channels: So many channels, side by side in the features (as MOMENT's ``reduction="concat"``); None: any
            number, and their mean, which does not know one lead from another.
    """

    context_length: int
    channels: int | None = None

    modality: ClassVar[str] = "signal"
    pretrained_targets: ClassVar[tuple[str, ...]] = ("q", "k", "v", "o", *PATCH_LAYERS)
    all_targets: ClassVar[tuple[str, ...]] = ("q", "k", "v", "o", "wi", "wo", *PATCH_LAYERS)

    @classmethod
    def of(cls, config: Any, folder: Path | None = None) -> Self:
        return cls(int(config.chronos_config["context_length"]))

    @classmethod
    def read(cls, name: str, folder: Path) -> nn.Module:
        from chronos.chronos_bolt import ChronosBoltModelForForecasting

        mend_bolt()
        network = read_network(name, folder, ChronosBoltModelForForecasting, UNUSED)
        # the class itself lets patch embeddings stay random
        refuse_absent(name, [name for name in absent_weights(folder, network) if not name.startswith(UNUSED)])
        return _encoder_of(network)

    @classmethod
    def build(cls, **settings: Any) -> nn.Module:
        from chronos.chronos_bolt import ChronosBoltModelForForecasting
        from transformers import T5Config

        mend_bolt()
        inner = settings.pop("chronos_config")
        config = T5Config(**settings)
        config.chronos_config = inner
        return _encoder_of(ChronosBoltModelForForecasting(config))

    @classmethod
    def stand_in(cls) -> tuple[nn.Module, Self]:
        config: Any = ChronosBolt.stand_in(64).config
        network = cls.build(**{**config.to_dict(), "initializer_factor": 1.0})
        return network, cls.of(network.config)

    def inputs(self, network: nn.Module, x: Any) -> dict[str, Tensor]:
        if not isinstance(x, Tensor) or not x.is_floating_point() or x.ndim != 3:
            found = f"{x.dtype} {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise FedlitError(
                f"signals are float32 (batch, channels, samples) for this backbone; the batch has {found}"
            )
        if self.channels is not None and x.shape[1] != self.channels:
            raise FedlitError(f"the backbone was loaded for {self.channels} channels; the batch has {x.shape[1]}")
        return {"context": x.to(next(network.parameters()).device, torch.float32)}

    def extent(self, x: Any) -> Extent:
        return Extent("samples", self.context_length, [x.shape[-1]] * len(x))

    def pooled(self, network: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        context = inputs["context"]
        batch, channels, _ = context.shape
        hidden, _, _, mask = unwrap(network).encode(context=context.flatten(0, 1))
        if unwrap(network).chronos_config.use_reg_token:
            hidden, mask = hidden[:, :-1], mask[:, :-1]
        seen = mask[..., None].to(hidden.dtype)
        each: Tensor = (hidden * seen).sum(dim=1) / seen.sum(dim=1).clamp(min=1)
        each = each.view(batch, channels, -1)
        return each.mean(dim=1) if self.channels is None else each.flatten(1)

    def width(self, network: nn.Module) -> int:
        return int(unwrap(network).config.d_model) * (self.channels or 1)

    def example(self, batch_size: int, length: int | None = None) -> dict[str, Tensor]:
        return {"context": torch.zeros(batch_size, self.channels or 1, length or 512)}

    def save(self, folder: Path | str) -> None:
        """Nothing stands beside the network."""


def _encoder_of(network: Any) -> nn.Module:
    for name in UNUSED:
        setattr(network, name, None)
    network._tied_weights_keys = {"encoder.embed_tokens.weight": "shared.weight"}
    encoder: nn.Module = network.eval()
    return encoder
