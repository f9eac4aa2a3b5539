"""An export is the model that was scored: it is written aside, loaded anew and compared before it takes its place."""

from __future__ import annotations

import copy
import math
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from fedlit.backbones.lora import LoRA, load_adapter
from fedlit.errors import FedlitError

BOUND = 1e-3
"""Largest difference of outputs, as a part of the largest output, that rounding explains. An adapter loaded anew gives
the same bits; one merged into weights of float32 differs by up to 2e-5 in the architectures that tests go through."""
TEXTS = ("", "Aspirin 5 mg twice daily.\n\nNo fever (37.2 \u00b0C)", "  {'a': [1]}", '<span class="Drug">x</span>')
"""What tokenizers are compared on."""
CONFIG = {
    "r": "r", "lora_alpha": "alpha", "use_rslora": "use_rslora", "use_dora": "use_dora",
}  # fmt: skip
"""Of ``adapter_config.json``, by the name that :class:`~fedlit.backbones.lora.LoRA` has for it."""


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A new folder beside ``folder``, whose files take their places in it at the end; gone if an error is raised.

    Weights of an earlier export that the new one has no file for are removed then: they would be loaded instead.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as name:
        place = Path(name)
        yield place
        folder.mkdir(exist_ok=True)
        new = [path.relative_to(place) for path in sorted(place.rglob("*")) if path.is_file()]
        for old in [*folder.glob("*.safetensors"), *folder.glob("*.safetensors.index.json")]:
            if old.relative_to(folder) not in new:
                old.unlink()
        for path in new:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            os.replace(place / path, folder / path)


def save(network: Any, folder: Path, backbone: str, adapted: bool) -> None:
    """Write a network, or its adapter alone, as ``save_pretrained`` does.

    Settings of text generation that transformers would refuse to write are left out, and that is told.
    """
    from fedlit.backbones.folders import quiet

    own = getattr(network, "generation_config", None)
    if own is not None and not adapted:
        try:
            own.validate(strict=True)
        except ValueError as error:
            said = " ".join(str(error).split())[:200]
            warnings.warn(
                f"generation_config.json of backbone {backbone!r} contradicts itself ({said} ...): it is written "
                "without settings of sampling",
                stacklevel=3,
            )
            names = ("bos_token_id", "eos_token_id", "pad_token_id")
            network.generation_config = type(own)(**{name: getattr(own, name) for name in names})
    # PEFT's "auto" would ask the Hub for the base model's vocabulary
    options = {"save_embedding_layers": False} if adapted else {}
    with quiet():
        network.save_pretrained(str(folder), **options)


def outputs(network: nn.Module, probe: Callable[[nn.Module], Tensor]) -> Tensor:
    """What ``probe`` gives of a network in evaluation mode, float32, without gradients."""
    mode = network.training
    network.eval()
    try:
        with torch.no_grad():
            return probe(network).float()
    finally:
        network.train(mode)


def in_float32(network: nn.Module) -> nn.Module:
    """The network itself if it is held in float32, else a copy that is."""
    whole = all(p.dtype == torch.float32 for p in network.parameters())
    return network if whole else copy.deepcopy(network).float()


def same_outputs(ours: Tensor, theirs: Tensor, what: str) -> None:
    """Refuse outputs of an export that differ from those of the network by more than :data:`BOUND`.

    Where an output of the network is not finite, that of the export may be anything that is not.

    Args:
        ours: Of the network.
        theirs: Of the export.
        what: Was written, for the message.

    Raises:
        FedlitError: They differ.
    """
    known = ours.isfinite()
    size = float(ours[known].abs().max()) if known.any() else 0.0
    apart = (ours - theirs)[known].abs()
    if not torch.equal(known, theirs.isfinite()) or bool((apart > BOUND * size).any()):
        seen = float(apart.max()) if len(apart) else math.nan
        raise FedlitError(
            f"{what}: loaded anew it gives other outputs than the model that was scored (a difference of {seen:.3g}, "
            f"of outputs up to {size:.3g}; rounding explains {BOUND * size:.1g}), so nothing was put there. Leave tied "
            "or shared layers out of adapter.target_modules and adapter.modules_to_save, or train without an adapter"
        )


def encoder_anew(family: Any, folder: Path) -> nn.Module:
    """An encoder that was written, loaded anew, with its tokenizer compared where the family has one.

    Args:
        family: The model's own.
        folder: As it was written.

    Raises:
        FedlitError: The tokenizer cuts texts otherwise.
    """
    from fedlit.backbones.encoders.loading import load_encoder

    loaded = load_encoder(str(folder))
    ours, theirs = (getattr(one, "tokenizer", None) for one in (family, loaded.family))
    if ours is not None:
        same_tokens(ours, theirs, str(folder))
    return loaded.network


def same_tokens(ours: Any, theirs: Any, what: str) -> None:
    """Refuse a tokenizer that was written and cuts texts otherwise than the model's own.

    Raises:
        FedlitError: It does.
    """
    if [ours(text)["input_ids"] for text in TEXTS] != [theirs(text)["input_ids"] for text in TEXTS]:
        raise FedlitError(
            f"{what}: the tokenizer loaded anew gives other tokens than the one that was trained with, so nothing was "
            "put there: export the adapter alone, or take a backbone whose folder names its tokenizer's class"
        )


def adapter_anew(network: Any, folder: Path, adapter: LoRA, name: str) -> nn.Module:
    """A copy of a network that shares its frozen weights, and has what trains from a PEFT folder and nowhere else.

    Args:
        network: With its adapters.
        folder: As it was written.
        adapter: Settings of the adapters.
        name: Of the backbone.

    Raises:
        FedlitError: The folder holds another adapter.
    """
    from fedlit.backbones.folders import read_json

    shared: dict[int, Any] = {id(p): p for p in network.parameters() if not p.requires_grad}
    made: nn.Module = copy.deepcopy(network, shared)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.requires_grad:
                parameter.fill_(torch.nan)  # what the folder lacks is found out
    written = read_json(folder / "adapter_config.json")
    for theirs, ours in CONFIG.items():
        if written.get(theirs) != getattr(adapter, ours):
            raise FedlitError(
                f"{folder}/adapter_config.json has {theirs} {written.get(theirs)!r}, not that of the model"
            )
    load_adapter(made, folder, name)
    return made


def untied(network: Any) -> None:
    """Give each adapted layer whose weight another module shares a weight of its own, before adapters are merged.

    Merged into the shared weight, the adapter would change the other module too. The configuration then says that
    embeddings are not tied.
    """
    holders: dict[int, list[nn.Module]] = {}
    for module in network.modules():
        weight = module._parameters.get("weight")
        if weight is not None:
            holders.setdefault(id(weight), []).append(module)
    for module in network.modules():
        base: Any = getattr(module, "base_layer", None)
        weight = None if base is None else base._parameters.get("weight")
        if weight is not None and len(holders.get(id(weight), [])) > 1:
            base.weight = nn.Parameter(weight.detach().clone(), requires_grad=weight.requires_grad)
            for config in {id(c): c for c in _configs(network)}.values():
                config.tie_word_embeddings = False


def _configs(network: Any) -> list[Any]:
    plain = network.get_base_model().config
    return [plain, *([plain.get_text_config()] if hasattr(plain, "get_text_config") else [])]
