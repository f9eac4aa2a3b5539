"""LoRA by PEFT: its settings, and how it is put onto a network."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from fedlit.backbones.rng import keyed_rng
from fedlit.errors import FedlitError, first_line

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import nn


@dataclass(frozen=True)
class LoRA:
    """Low-rank adapters (Hu et al. 2021, LoRA, arXiv 2106.09685), named as in ``peft.LoraConfig``.

    Args:
        r: Rank.
        alpha: The product BA is scaled by ``alpha / r`` (``alpha / sqrt(r)`` with ``use_rslora``).
        dropout: Dropout on what enters A, while training.
        target_modules: Ends of module names, or a regular expression on the whole name, or ``"all-linear"``.
            None takes the backbone's own list.
        use_rslora: Rank-stabilised scaling (Kalajdzievski 2023, arXiv 2312.03732).
        use_dora: Magnitude and direction apart (Liu et al. 2024, DoRA, arXiv 2402.09353).
        modules_to_save: Modules that are trained whole and saved with the adapter.
    """

    r: int = 8
    alpha: int = 16
    dropout: float = 0.0
    target_modules: list[str] | str | None = None
    use_rslora: bool = False
    use_dora: bool = False
    modules_to_save: list[str] | None = None

    def __post_init__(self) -> None:
        if self.r < 1:
            raise FedlitError(f"adapter.r is {self.r}: a rank is at least 1")
        if not self.alpha > 0:
            raise FedlitError(f"adapter.alpha is {self.alpha}: give a number above 0")
        if not 0 <= self.dropout < 1:
            raise FedlitError(f"adapter.dropout is {self.dropout}: give a probability below 1")


def attach(network: nn.Module, lora: LoRA, targets: Sequence[str], seed: int, name: str) -> PeftModel:
    """Freeze ``network`` and put adapters on it, in place. The same seed gives the same bytes; the global RNG is kept.

    Args:
        targets: Module names used when ``lora.target_modules`` is None.
        name: What the adapter's own configuration names as its base model.

    Raises:
        FedlitError: A target or a module to save that is not in the network, or a module to save that is not held in
            float32: its small steps would be lost.
    """
    from peft import LoraConfig, get_peft_model

    wanted = lora.target_modules if lora.target_modules is not None else list(targets)
    transposed = any(type(module).__name__ == "Conv1D" for module in network.modules())  # GPT-2's linear layers
    linear = [path for path, module in network.named_modules() if is_linear(module)]
    everything = [path for path, _ in network.named_modules() if path]
    if not isinstance(wanted, str):
        _check("target_modules", wanted, linear)
    _check("modules_to_save", lora.modules_to_save or [], everything)
    _check_trainable(network, lora.modules_to_save or [])
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=wanted,
        use_rslora=lora.use_rslora,
        use_dora=lora.use_dora,
        modules_to_save=lora.modules_to_save,
        fan_in_fan_out=transposed,
    )
    with keyed_rng(seed, "adapter"), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT reads a property that transformers renames
        try:
            adapted = get_peft_model(network, config)
        except (ValueError, re.error) as error:
            why = f"cannot be used ({' '.join(str(error).split())[:160]})"
            raise FedlitError(f"adapter.target_modules {wanted!r} {why}; {_names(linear)}") from error
    adapted.peft_config["default"].base_model_name_or_path = name
    return adapted


def is_linear(module: nn.Module) -> bool:
    """A linear layer that LoRA can be put on: of PyTorch, in 4 bits of bitsandbytes, or of GPT-2 in transformers."""
    return isinstance(module, torch.nn.Linear) or type(module).__name__ == "Conv1D"


def load_adapter(network: nn.Module, folder: Path | str, name: str) -> None:
    """Put the weights of a PEFT folder into the adapter of ``network``.

    Args:
        network: With an adapter, as :func:`attach` made it.
        folder: With ``adapter_model.safetensors`` and ``adapter_config.json``; pickles are not read.
        name: Of the backbone. Another name in the folder is warned of: it may be the same backbone elsewhere.

    Raises:
        FedlitError: A file cannot be read, the tensors are not those of this adapter on this backbone, or they were
            made with another scaling.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    from fedlit.backbones.folders import read_json

    path = Path(folder) / "adapter_model.safetensors"
    held = read_tensors(path)
    adapted: Any = network
    wanted = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    made = read_json(Path(folder) / "adapter_config.json")
    base = made.get("base_model_name_or_path")
    if {n: w.shape for n, w in held.items()} != {n: w.shape for n, w in wanted.items()}:
        on = f" (it was made on {base!r})" if base and base != name else ""
        raise FedlitError(
            f"{path} does not fit backbone {name!r}{on}: give the backbone and the LoRA settings it was made with"
        )
    own = adapted.peft_config["default"].to_dict()
    scaling: dict[str, Any] = {"lora_alpha": None, "use_rslora": False, "alpha_pattern": {}}
    for field, usual in scaling.items():
        value = made.get(field, usual)
        if value != own[field]:  # the same tensors mean another model
            raise FedlitError(
                f"{folder}/adapter_config.json says {field} {value}, and the adapter here has {own[field]}: "
                "give the LoRA settings it was made with"
            )
    if base and base != name:
        warnings.warn(f"{folder} was made on backbone {base!r}, and is put on {name!r}", UserWarning, stacklevel=2)
    set_peft_model_state_dict(adapted, held)


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """A safetensors file.

    Raises:
        FedlitError: It is not there, or broken.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        weights: Any = load_file(str(path))
    except (OSError, SafetensorError) as error:
        raise FedlitError(f"{path} cannot be read: {first_line(error)}") from error
    return dict(weights)


def lora_scaling(network: nn.Module) -> dict[str, float]:
    """What each adapted layer multiplies BA by, by the layer's name; empty without adapters."""
    return {
        name: float(module.scaling["default"])
        for name, module in network.named_modules()
        if "default" in getattr(module, "lora_A", ()) and "default" in getattr(module, "scaling", ())
    }


def rank_stabilised(network: nn.Module) -> bool | None:
    """Whether adapters are scaled by ``alpha / sqrt(r)`` rather than ``alpha / r``; None without adapters.

    It is told by the layers themselves; of rank 1, where both are the same, by nothing: False.
    """
    modules: dict[str, Any] = dict(network.named_modules())
    adapted = [modules[name] for name in lora_scaling(network)]
    usual = [math.isclose(m.scaling["default"], m.lora_alpha["default"] / m.r["default"]) for m in adapted]
    return not all(usual) if usual else None


def _check(field: str, wanted: Sequence[str], paths: Sequence[str]) -> None:
    for end in wanted:
        if not any(path == end or path.endswith(f".{end}") for path in paths):
            raise FedlitError(f"adapter.{field}: no module is named {end!r}; {_names(paths)}")


def _check_trainable(network: nn.Module, wanted: Sequence[str]) -> None:
    for path, module in network.named_modules():
        name = next((end for end in wanted if path == end or path.endswith(f".{end}")), None)
        short = [parameter.dtype for parameter in module.parameters() if parameter.element_size() < 4]
        if name is not None and short:
            how = "held in bfloat16" if short[0] == torch.bfloat16 else f"quantised ({short[0]})"
            raise FedlitError(
                f"adapter.modules_to_save: {name!r} is {how}, and what is trained whole must be held in float32: hold "
                "the network so, or leave the module out"
            )


def _names(paths: Sequence[str]) -> str:
    ends = {path.rsplit(".", 1)[-1] for path in paths}
    return "there are " + ", ".join(sorted(end for end in ends if not end.isdigit()))
