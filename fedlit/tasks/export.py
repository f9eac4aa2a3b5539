"""Export of models with a head of their own: a settings file and the head beside the encoder or adapter."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from torch import nn

from fedlit.backbones.folders import read_json
from fedlit.backbones.lora import LoRA, load_adapter, read_tensors
from fedlit.errors import FedlitError, first_line
from fedlit.tasks.fine_tuned import FineTuned

HEAD = "head.safetensors"


def write_head(head: nn.Module | None, folder: Path | str) -> None:
    """Write ``head.safetensors``, weight and bias."""
    from safetensors.torch import save_file

    assert head is not None  # exported after the network
    save_file({k: v.detach().cpu().contiguous() for k, v in head.state_dict().items()}, str(Path(folder) / HEAD))


def write_settings(task: FineTuned, path: Path, whole: bool, own: dict[str, Any]) -> None:
    """Write the settings that :func:`read_settings` reads: backbone, adapter, and those of this kind of task.

    Args:
        task: A task whose network is loaded.
        path: JSON file to write.
        whole: Whether the folder holds the whole network, and so is its own backbone.
        own: Settings of this kind of task.
    """
    settings = {
        "backbone": None if whole else task.backbone,
        "stand_in": task.config()["stand_in"] and not whole,
        "adapter": None if whole or task.adapter is None else dataclasses.asdict(task.adapter),
        **own,
    }
    path.write_text(json.dumps(settings, indent=2) + "\n")


def read_settings(path: Path, kind: str) -> dict[str, Any]:
    """Settings that :func:`write_settings` wrote, with the ``adapter`` as :class:`LoRA`.

    Args:
        path: JSON file.
        kind: Name of the task, for the error.

    Raises:
        FedlitError: There is no such file.
    """
    about = read_json(path)
    if not about:
        raise FedlitError(f"{path.parent} holds no {path.name}: give a folder that {kind}.export wrote")
    return {**about, "adapter": None if about["adapter"] is None else LoRA(**about["adapter"])}


def backbone_of(about: dict[str, Any], folder: Path, backbone: str | None) -> str:
    """Backbone of an exported model: the folder itself where it holds a whole network, else the adapter's backbone."""
    return str(folder) if about["adapter"] is None else backbone or about["backbone"]


def load_network(task: FineTuned, folder: Path, about: dict[str, Any], backbone: str | None) -> None:
    """Load the task's network, and the folder's adapter into it where there is one.

    Raises:
        FedlitError: The backbone cannot be had, or the adapter does not fit it.
    """
    if about["stand_in"] and backbone is None:
        task.use_stand_in()
    task.configure_model()
    if about["adapter"] is not None:
        load_adapter(task.loaded_network(), folder, task.backbone)


def load_head(head: nn.Module | None, folder: Path) -> None:
    """Load ``head.safetensors`` into the head of a task whose network is loaded.

    Raises:
        FedlitError: The file cannot be read, or belongs to another head.
    """
    assert head is not None  # made with the network
    weights = read_tensors(folder / HEAD)
    try:
        head.load_state_dict(weights)
    except RuntimeError as error:
        raise FedlitError(f"{folder / HEAD} is not the head of this encoder: {first_line(error)}") from error
