"""An export is the model that was scored: it is written aside, loaded anew and compared before it takes its place."""

from __future__ import annotations

import copy
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
from fedlit.errors import FedlitError, first_line

BOUND = {torch.float64: 1e-6, torch.float32: 1e-3, torch.float16: 3e-2, torch.bfloat16: 1e-1}
"""Largest difference of outputs, as a part of the largest output, that rounding explains; by the coarsest dtype that
weights are held in. Merging rounds ``W + s B A`` once to that dtype, which layers then add up."""
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
            warnings.warn(
                f"generation_config.json of backbone {backbone!r} contradicts itself ({first_line(error)}): it is "
                "written without settings of sampling",
                stacklevel=3,
            )
            names = ("bos_token_id", "eos_token_id", "pad_token_id")
            network.generation_config = type(own)(**{name: getattr(own, name) for name in names})
    # PEFT's "auto" would ask the Hub for the base model's vocabulary
    options = {"save_embedding_layers": False} if adapted else {}
    with quiet():
        network.save_pretrained(str(folder), **options)


def same_outputs(ours: Tensor, theirs: Tensor, network: nn.Module, what: str) -> None:
    """Refuse outputs of an export that differ from those of the network by more than :data:`BOUND`.

    Where an output of the network is not finite, that of the export may be anything that is not.

    Args:
        ours: Of the network, float32.
        theirs: Of the export.
        network: The network, for its dtypes.
        what: Was written, for the message.

    Raises:
        FedlitError: They differ.
    """
    bound = BOUND[coarsest(network)]
    known = ours.isfinite()
    size = float(ours[known].abs().max()) if known.any() else 0.0
    apart = (ours - theirs)[known].abs()
    if not torch.equal(known, theirs.isfinite()) or bool((apart > bound * size).any()):
        seen = float(apart.max()) if len(apart) else float("nan")
        raise FedlitError(
            f"{what}: loaded anew it gives other outputs than the model that was scored (a difference of {seen:.3g}, "
            f"of outputs up to {size:.3g}; rounding explains {bound * size:.1g}), so nothing was put there. Leave tied "
            "or shared layers out of adapter.target_modules and adapter.modules_to_save, or train without an adapter"
        )


def coarsest(network: nn.Module) -> torch.dtype:
    """The floating dtype of fewest bits among the weights; bfloat16 where they are quantised."""
    kinds = {p.dtype if p.dtype in BOUND else torch.bfloat16 for p in network.parameters()}
    return max(kinds, key=lambda kind: BOUND[kind])


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
    made = copy.deepcopy(network, shared)
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
        base = getattr(module, "base_layer", None)
        weight = None if base is None else base._parameters.get("weight")
        if weight is not None and len(holders.get(id(weight), [])) > 1:
            base.weight = nn.Parameter(weight.detach().clone(), requires_grad=weight.requires_grad)
            for config in {id(c): c for c in _configs(network)}.values():
                config.tie_word_embeddings = False


def _configs(network: Any) -> list[Any]:
    plain = network.get_base_model().config
    return [plain, *([plain.get_text_config()] if hasattr(plain, "get_text_config") else [])]


@torch.no_grad()
def checked(network: nn.Module, again: nn.Module, probe: Callable[[nn.Module], Tensor], what: str) -> None:
    """Compare what ``probe`` gives of a network and of its export, both in evaluation mode, on the network's device.

    Raises:
        FedlitError: They differ.
    """
    device, mode = next(network.parameters()).device, network.training
    network.eval()
    try:
        same_outputs(probe(network).float(), probe(again.to(device).eval()).float(), network, what)
    finally:
        network.train(mode)
