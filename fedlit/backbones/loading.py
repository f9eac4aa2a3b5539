"""Backbones that forecast, by name: the built-in one, a local folder, or a Hub id."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import nn

from fedlit.backbones.chronos import Chronos2, ChronosBolt, ChronosT5, Family
from fedlit.backbones.folders import BUILTIN as BUILTIN
from fedlit.backbones.folders import absent_weights, find_folder, local_folder, read_json, refuse_absent
from fedlit.backbones.folders import quiet as quiet
from fedlit.backbones.rng import keyed_rng
from fedlit.errors import FedlitError, first_line

AnyFamily = ChronosBolt | ChronosT5 | Chronos2
FAMILIES: dict[str, type[AnyFamily]] = {
    "ChronosPipeline": ChronosT5,
    "ChronosBoltPipeline": ChronosBolt,
    "Chronos2Pipeline": Chronos2,
}


class Adaptable(Protocol):
    """What LoRA asks of an architecture."""

    def targets(self, pretrained: bool) -> list[str]:
        """Module names for LoRA."""


F = TypeVar("F", bound=Adaptable, covariant=True)


@dataclass(frozen=True)
class Backbone(Generic[F]):
    """A network, what it is, and where it came from.

    Args:
        name: As the user gave it.
        source: For reports: the built-in's origin, the folder, the Hub id and revision, or that it is a stand-in.
        stand_in: The weights are random and tiny.
    """

    name: str
    family: F
    network: nn.Module
    source: str
    stand_in: bool = False

    def targets(self) -> list[str]:
        """Module names for LoRA when the user names none."""
        return self.family.targets(pretrained=not self.stand_in)


def load_backbone(name: str) -> Backbone[Family]:
    """The backbone called ``"builtin"``, or in the folder ``name``, or with that Hub id; float32, on the CPU, eval.

    Only safetensors weights are read.

    Raises:
        FedlitError: A folder that is missing or holds no Chronos weights in safetensors, or not all of them; a Hub id
            that cannot be had.
    """
    folder, source = find_folder(name)
    network = _load_network(name, folder)
    config: Any = network.config
    family = FAMILIES[_pipeline_class(config.to_dict())].of(config)
    return Backbone(name, family, network, source)


def stand_in(name: str, prediction_length: int = 64) -> Backbone[Family]:
    """A tiny random network of the architecture that ``name`` has, without the network or the weights."""
    kind = _family_of(name)
    mend_bolt()
    with keyed_rng(0, "stand-in", kind.__name__):
        network = kind.stand_in(prediction_length).eval()
    return Backbone(name, kind.of(network.config), network, f"tiny random stand-in for {name}", stand_in=True)


def _load_network(name: str, folder: Path) -> nn.Module:
    from chronos import BaseChronosPipeline
    from safetensors import SafetensorError

    mend_bolt()
    with keyed_rng(0, "weights that are not in the file"), quiet():
        try:
            pipeline = BaseChronosPipeline.from_pretrained(str(folder), dtype=torch.float32, use_safetensors=True)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise FedlitError(f"backbone {name!r} is not a usable Chronos model: {first_line(error)}") from error
    network: nn.Module = pipeline.inner_model
    refuse_absent(name, absent_weights(folder, network))
    return network.eval()


def _pipeline_class(config: dict[str, object]) -> str:
    return str(config.get("chronos_pipeline_class", "ChronosPipeline"))


def _family_of(name: str) -> type[AnyFamily]:
    folder = local_folder(name)
    if folder is not None:
        if not (folder / "config.json").is_file():
            raise FedlitError(f"backbone {name!r}: {folder} holds no config.json")
        kind = _pipeline_class(read_json(folder / "config.json"))
        if kind in FAMILIES:
            return FAMILIES[kind]
        raise FedlitError(f"backbone {name!r}: {kind} in config.json is none of {', '.join(FAMILIES)}")
    for part, family in (("chronos-bolt", ChronosBolt), ("chronos-2", Chronos2), ("chronos-t5", ChronosT5)):
        if part in name.lower():
            return family
    raise FedlitError(
        f"backbone {name!r}: its architecture cannot be told from its name, so there is no stand-in for it; "
        "names with chronos-t5, chronos-bolt or chronos-2 have one"
    )


def mend_bolt() -> None:
    """PEFT asks every network for its input embeddings; Chronos-Bolt of chronos-forecasting 2.3 does not say."""
    from chronos.chronos_bolt import ChronosBoltModelForForecasting

    if "get_input_embeddings" not in vars(ChronosBoltModelForForecasting):
        ChronosBoltModelForForecasting.get_input_embeddings = lambda self: self.shared
