"""Backbones that give features, by name: a folder, a Hub id, the built-in Chronos-Bolt, or a stand-in asked for."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

from fedlit.backbones.encoders.audio import AST, Wav2Vec2
from fedlit.backbones.encoders.family import EncoderFamily
from fedlit.backbones.encoders.image import DINOv2, ViT
from fedlit.backbones.encoders.signal import BoltEncoder
from fedlit.backbones.encoders.text import BERT, RoBERTa
from fedlit.backbones.folders import STAND_IN, find_folder, local_folder, read_json
from fedlit.backbones.loading import Backbone
from fedlit.backbones.rng import keyed_rng
from fedlit.errors import FedlitError

ENCODERS: dict[str, type[EncoderFamily]] = {
    "vit": ViT,
    "dinov2": DINOv2,
    "bert": BERT,
    "roberta": RoBERTa,
    "wav2vec2": Wav2Vec2,
    "audio-spectrogram-transformer": AST,
    "ChronosBoltPipeline": BoltEncoder,
}
"""By ``chronos_pipeline_class`` or ``model_type`` of config.json."""

NAMES: dict[str, type[EncoderFamily]] = {
    r"dinov2": DINOv2, r"\bvit\b": ViT, r"roberta": RoBERTa, r"bert|minilm": BERT, r"wav2vec2": Wav2Vec2,
    r"\bast\b": AST, r"chronos-bolt": BoltEncoder,
}  # fmt: skip
"""What a Hub id says of its architecture, the first that is found."""

NO_MOMENT = (
    "MOMENT needs the package momentfm, and its newest, 0.1.4, pins numpy 1.25.2, transformers 4.33.3 and "
    "huggingface-hub 0.24.0, so it cannot be installed beside fedlit; take the encoder of Chronos-Bolt: builtin, or "
    "amazon/chronos-bolt-small"
)


def load_encoder(name: str, max_length: int | None = None, channels: int | None = None) -> Backbone[EncoderFamily]:
    """The encoder in the folder ``name``, or with that Hub id, or ``"builtin"``; float32, on the CPU, eval.

    Only safetensors weights are read. Heads of the file that do not serve here are left out. ``stand-in:vit`` (dinov2,
    bert, roberta, wav2vec2, ast, chronos-bolt) is :func:`encoder_stand_in` by name, for demonstrations without weights.

    Args:
        max_length: Of a text (tokens), to cut at fewer than the network could take.
        channels: Of a signal, see :class:`~fedlit.backbones.encoders.signal.BoltEncoder`.

    Raises:
        FedlitError: A folder or Hub id that cannot be had, an architecture that is not known, weights or a vocabulary
            that are not all there, or an argument that is not for this modality.
    """
    if name.startswith(STAND_IN):
        return encoder_stand_in(name, max_length, channels)
    _refuse_moment(name, {})
    folder, source = find_folder(name)
    kind = family_in(name, folder)
    network: Any = kind.read(name, folder)
    family = _with(name, kind.of(network.config, folder), max_length, channels)
    return Backbone(name, family, network, source)


def encoder_stand_in(name: str, max_length: int | None = None, channels: int | None = None) -> Backbone[EncoderFamily]:
    """A tiny random network of the architecture that ``name`` has, without the network or the weights.

    Texts are cut where the tiny network ends, should ``max_length`` be more.
    """
    kind = family_of(name)
    with keyed_rng(0, "stand-in", kind.__name__):
        network, family = kind.stand_in()
    most = getattr(family, "max_length", None) if family.modality == "text" else None
    family = _with(name, family, min(max_length, most) if max_length and most else max_length, channels)
    source = f"tiny random stand-in for {name.removeprefix(STAND_IN)}"
    return Backbone(name, family, network.eval(), source, stand_in=True)


def family_of(name: str) -> type[EncoderFamily]:
    """The architecture of a folder, or of a Hub id as far as its name says it.

    Raises:
        FedlitError: It cannot be told, or is not known.
    """
    folder = None if name.startswith(STAND_IN) else local_folder(name)
    if folder is not None:
        return family_in(name, folder)
    _refuse_moment(name, {})
    for pattern, family in NAMES.items():
        if re.search(pattern, name.lower().replace("_", "-")) and "distil" not in name.lower():
            return family
    raise FedlitError(
        f"backbone {name!r}: its architecture cannot be told from its name, so there is no stand-in for it; names "
        "with vit, dinov2, bert, roberta, wav2vec2, ast or chronos-bolt have one"
    )


def family_in(name: str, folder: Path) -> type[EncoderFamily]:
    """The architecture that a folder's config.json names.

    Raises:
        FedlitError: There is none, or it is not known.
    """
    if not (folder / "config.json").is_file():
        raise FedlitError(f"backbone {name!r}: {folder} holds no config.json")
    config = read_json(folder / "config.json")
    _refuse_moment(name, config)
    kind = str(config.get("chronos_pipeline_class") or config.get("model_type"))
    if kind not in ENCODERS:
        raise FedlitError(f"backbone {name!r}: {kind} in config.json gives no features here; {', '.join(ENCODERS)} do")
    return ENCODERS[kind]


def _refuse_moment(name: str, config: dict[str, Any]) -> None:
    if re.search(r"/moment-\d", name.lower()) or str(config.get("model_name")).upper() == "MOMENT":
        raise FedlitError(f"backbone {name!r}: {NO_MOMENT}")


def _with(name: str, family: EncoderFamily, max_length: int | None, channels: int | None) -> EncoderFamily:
    for field, value in (("max_length", max_length), ("channels", channels)):
        if value is None:
            continue
        if field not in {field.name for field in dataclasses.fields(family)}:  # type: ignore[arg-type]
            raise FedlitError(f"{field} is not for backbone {name!r}, which takes {family.modality}: leave it out")
        most = getattr(family, field)
        if value < 1 or (field == "max_length" and value > most):
            raise FedlitError(f"{field} is {value}: give at least 1" + (f" and at most {most}" if most else ""))
        family = dataclasses.replace(family, **{field: value})  # type: ignore[type-var]
    return family
