"""What a classification task asks of an architecture.

Importing this module, and those of the families, is light; transformers is imported where it is used.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn

from fedlit.backbones.chronos import unwrap

TINY: dict[str, Any] = {
    "initializer_range": 0.2,  # at the usual 0.02 a random network hardly tells one example from another
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
    "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "hidden_dropout": 0.0, "attention_dropout": 0.0,
}  # fmt: skip
PROBE = {"text": 12, "audio": 4000, "signal": 256}
"""Tokens or samples of the examples that networks are compared by."""


class Extent(NamedTuple):
    """How long examples are, and how much of one an encoder looks at.

    Attributes:
        unit: Of what: ``"tokens"``, ``"samples"``, ``"frames of 10 ms"``.
        limit: As many of an example as it looks at.
        lengths: Of each example.
    """

    unit: str
    limit: int
    lengths: Sequence[int]


class EncoderFamily(ABC):
    """One vector for each example. The settings of what comes before the network are the fields of a subclass."""

    modality: ClassVar[str]
    pretrained_targets: ClassVar[tuple[str, ...]]
    all_targets: ClassVar[tuple[str, ...]]

    @classmethod
    @abstractmethod
    def of(cls, config: Any, folder: Path | None = None) -> Self:
        """The family with the settings of a folder, or its usual ones for what the folder does not say.

        Args:
            config: The network's own configuration.
            folder: Where the tokenizer or preprocessor lies; without it a text family has no vocabulary.

        Raises:
            FedlitError: The folder lacks what cannot be guessed, such as a vocabulary.
        """

    @classmethod
    @abstractmethod
    def read(cls, name: str, folder: Path) -> nn.Module:
        """The network with a folder's weights, without heads that do not serve here; evaluation mode.

        Raises:
            FedlitError: The folder cannot be used, or does not hold all the weights.
        """

    @classmethod
    @abstractmethod
    def build(cls, **settings: Any) -> nn.Module:
        """The network with random weights from its configuration's settings."""

    @classmethod
    @abstractmethod
    def stand_in(cls) -> tuple[nn.Module, Self]:
        """A tiny network and its family, for tests and trials."""

    @abstractmethod
    def inputs(self, network: nn.Module, x: Any) -> dict[str, Tensor]:
        """A batch's ``x`` as the network takes it, on the network's device, float32 or int64; without gradients.

        Raises:
            FedlitError: ``x`` is not of the modality's form.
        """

    @abstractmethod
    def pooled(self, network: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        """Features (batch, width) of what :meth:`inputs` gave."""

    @abstractmethod
    def example(self, batch_size: int, length: int | None = None) -> dict[str, Tensor]:
        """Inputs of the right shapes, all zeros or ones, to measure with.

        Args:
            length: Tokens of a text, samples of a waveform or signal; of no meaning for images.
        """

    @abstractmethod
    def save(self, folder: Path | str) -> None:
        """Write the tokenizer or preprocessor beside a network that ``save_pretrained`` wrote."""

    def features(self, network: nn.Module, x: Any) -> Tensor:
        """(batch, width): images uint8 (batch, height, width, 3), a list of texts, waveforms float32 (batch, samples)
        or signals float32 (batch, channels, samples) go in as they come from the data."""
        device = next(network.parameters()).device
        with torch.no_grad(), torch.autocast(device.type, enabled=False):  # spectra and means need float32
            inputs = self.inputs(network, x)
        return self.pooled(network, inputs)

    def extent(self, x: Any) -> Extent | None:
        """How long examples are and how much of one is looked at; None where nothing is ever cut off."""
        return None

    def probe(self, network: nn.Module) -> Tensor:
        """Features (batch, width) of two made-up examples, to compare networks of this architecture by."""
        first, draws = next(network.parameters()), torch.Generator().manual_seed(0)
        length = PROBE.get(self.modality)
        most = getattr(self, "max_length", None)
        inputs = self.example(2, length if length is None or most is None else min(length, most))
        for name, values in inputs.items():
            if values.is_floating_point():
                inputs[name] = torch.randn(values.shape, generator=draws).to(first.dtype)
            elif name == "input_ids":
                rows = int(unwrap(network).config.vocab_size)
                inputs[name] = torch.randint(rows, values.shape, generator=draws)
        return self.pooled(network, {name: values.to(first.device) for name, values in inputs.items()})

    def width(self, network: nn.Module) -> int:
        """Features for each example."""
        return int(unwrap(network).config.hidden_size)

    def targets(self, pretrained: bool) -> list[str]:
        """Module names for LoRA: on random weights all linear layers, since little could be learnt with fewer."""
        return list(self.pretrained_targets if pretrained else self.all_targets)


def floating(network: nn.Module, values: Tensor) -> Tensor:
    """The values on the network's device, in its precision."""
    first = next(network.parameters())
    return values.to(first.device, first.dtype)
