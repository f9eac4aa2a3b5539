"""Backbones by name: the built-in one, a local folder, or a Hub id."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fedlit.backbones.chronos import Chronos2, ChronosBolt, ChronosT5, Family
from fedlit.backbones.rng import keyed_rng
from fedlit.errors import FedlitError

BUILTIN = Path(__file__).parent / "builtin"
AnyFamily = ChronosBolt | ChronosT5 | Chronos2
FAMILIES: dict[str, type[AnyFamily]] = {
    "ChronosPipeline": ChronosT5,
    "ChronosBoltPipeline": ChronosBolt,
    "Chronos2Pipeline": Chronos2,
}


@dataclass(frozen=True)
class Backbone:
    """A network, what it is, and where it came from.

    Args:
        name: As the user gave it.
        source: For reports: the built-in's origin, the folder, the Hub id and revision, or that it is a stand-in.
        stand_in: The weights are random and tiny.
    """

    name: str
    family: Family
    network: nn.Module
    source: str
    stand_in: bool = False

    def targets(self) -> list[str]:
        """Module names for LoRA when the user names none."""
        return self.family.targets(pretrained=not self.stand_in)


def load_backbone(name: str) -> Backbone:
    """The backbone called ``"builtin"``, or in the folder ``name``, or with that Hub id; float32, on the CPU, eval.

    Only safetensors weights are read.

    Raises:
        FedlitError: A folder that is missing or holds no Chronos weights in safetensors, or not all of them; a Hub id
            that cannot be had.
    """
    folder = _folder(name)
    source = "built-in stand-in, pretrained on synthetic series" if name == "builtin" else name
    if folder is None:
        folder = _from_hub(name)
        source = f"{name} at revision {folder.name}"
    _check_folder(name, folder)
    network = _load_network(name, folder)
    config: Any = network.config
    family = FAMILIES[_pipeline_class(config.to_dict())].of(config)
    return Backbone(name, family, network, source)


def stand_in(name: str, prediction_length: int = 64) -> Backbone:
    """A tiny random network of the architecture that ``name`` has, without the network or the weights."""
    kind = _family_of(name)
    _mend_bolt()
    with keyed_rng(0, "stand-in", kind.__name__):
        network = kind.stand_in(prediction_length).eval()
    return Backbone(name, kind.of(network.config), network, f"tiny random stand-in for {name}", stand_in=True)


def _folder(name: str) -> Path | None:
    """Where ``name`` points on this machine, or None for a Hub id."""
    if name == "builtin":
        return BUILTIN
    if not name:
        raise FedlitError("backbone is empty: give 'builtin', a folder or a Hub id")
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise FedlitError(f"backbone {name!r} is a file: give the folder that holds config.json and model.safetensors")
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") != 1:
        raise FedlitError(
            f"backbone {name!r}: no such folder (a Hub id is like amazon/chronos-bolt-tiny, what ships is builtin)"
        )
    return None


def _from_hub(name: str) -> Path:
    """Where the configuration and the safetensors of a Hub id lie on this machine; fetched when the cache lacks them.

    Asked for here and not through transformers, which asks for file after file, each with retries, and reads pickles.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors"]))
    except Exception as error:  # the Hub's client and its transport raise many kinds
        raise FedlitError(
            f"backbone {name!r} could not be had from the Hub ({_first_line(error)}). Put a copy on this machine and "
            "give its folder, or set HF_ENDPOINT to a mirror or HF_HOME to a cache that has it, or use the built-in: "
            "backbone: builtin"
        ) from error


def _check_folder(name: str, folder: Path) -> None:
    if not (folder / "config.json").is_file():
        what = "a PEFT adapter, no backbone" if (folder / "adapter_config.json").is_file() else "no config.json"
        raise FedlitError(f"backbone {name!r}: {folder} holds {what}: give a folder that save_pretrained wrote")
    if not any(folder.glob("*.safetensors")):
        raise FedlitError(
            f"backbone {name!r}: {folder} holds no .safetensors file; pickled weights are not read: convert them "
            "with save_pretrained(folder)"
        )


def _load_network(name: str, folder: Path) -> nn.Module:
    from chronos import BaseChronosPipeline
    from safetensors import SafetensorError

    _mend_bolt()
    with keyed_rng(0, "weights that are not in the file"), quiet():
        try:
            pipeline = BaseChronosPipeline.from_pretrained(str(folder), dtype=torch.float32, use_safetensors=True)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise FedlitError(f"backbone {name!r} is not a usable Chronos model: {_first_line(error)}") from error
    network: nn.Module = pipeline.inner_model
    absent = _absent_weights(folder, network)
    if absent:
        raise FedlitError(
            f"backbone {name!r}: {len(absent)} of its weights are not in the file, first {absent[0]!r}, and would stay "
            "random: copy the folder again"
        )
    return network.eval()


def _absent_weights(folder: Path, network: nn.Module) -> list[str]:
    """Parameters that no file of the folder holds, under their own name or that of one they are tied to."""
    from safetensors import safe_open

    stored: set[str] = set()
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            stored.update(file.keys())
    own = dict(network.named_parameters(remove_duplicate=False))
    loaded = {id(parameter) for name, parameter in own.items() if name in stored}
    return [name for name, parameter in own.items() if id(parameter) not in loaded]


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0] if text else ''}"


def _pipeline_class(config: dict[str, object]) -> str:
    return str(config.get("chronos_pipeline_class", "ChronosPipeline"))


def _family_of(name: str) -> type[AnyFamily]:
    folder = _folder(name)
    if folder is not None:
        if not (folder / "config.json").is_file():
            raise FedlitError(f"backbone {name!r}: {folder} holds no config.json")
        kind = _pipeline_class(json.loads((folder / "config.json").read_text()))
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


def _mend_bolt() -> None:
    """PEFT asks every network for its input embeddings; Chronos-Bolt of chronos-forecasting 2.3 does not say."""
    from chronos.chronos_bolt import ChronosBoltModelForForecasting

    if "get_input_embeddings" not in vars(ChronosBoltModelForForecasting):
        ChronosBoltModelForForecasting.get_input_embeddings = lambda self: self.shared


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bar of transformers for weights that load or are written in a blink."""
    from transformers.utils import logging as transformers_logging

    logging: Any = transformers_logging
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
