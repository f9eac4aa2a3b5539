"""What exported models with a head of their own have in common: a settings file, and the head beside the network."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from torch import nn

from fedlit.backbones.folders import read_json
from fedlit.backbones.lora import LoRA, load_adapter, read_tensors
from fedlit.errors import FedlitError, first_line
from fedlit.tasks.fine_tuned import FineTuned

if TYPE_CHECKING:
    from fedlit.tasks.documents.token_classification import TokenClassificationTask
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedlit.tasks.classification import ClassificationTask

HEAD = "head.safetensors"


def write_head(head: nn.Module | None, folder: Path | str) -> None:
    """Write ``head.safetensors``: its weight and bias."""
    from safetensors.torch import save_file

    assert head is not None  # exported after the network
    save_file({k: v.detach().cpu().contiguous() for k, v in head.state_dict().items()}, str(Path(folder) / HEAD))


def write_settings(task: FineTuned, path: Path, whole: bool, own: dict[str, Any]) -> None:
    """Write what the model is: its backbone, its adapter, and what only its kind has.

    Args:
        task: A task with its model.
        path: Of the JSON file.
        whole: The folder holds the network itself, so that it is its own backbone.
        own: What only this kind of task has.
    """
    settings = {
        "backbone": None if whole else task.backbone,
        "stand_in": task.config()["stand_in"] and not whole,
        "adapter": None if whole or task.adapter is None else dataclasses.asdict(task.adapter),
        **own,
    }
    path.write_text(json.dumps(settings, indent=2) + "\n")


def read_settings(path: Path, kind: str) -> dict[str, Any]:
    """What :func:`write_settings` wrote, the ``adapter`` as :class:`LoRA`.

    Args:
        path: Of the JSON file.
        kind: Name of the task, for the error.

    Raises:
        FedlitError: There is no such file.
    """
    about = read_json(path)
    if not about:
        raise FedlitError(f"{path.parent} holds no {path.name}: give a folder that {kind}.export wrote")
    return {**about, "adapter": None if about["adapter"] is None else LoRA(**about["adapter"])}


def backbone_of(about: dict[str, Any], folder: Path, backbone: str | None) -> str:
    """Where the network is: under an adapter where it was or is now, else in the folder."""
    return str(folder) if about["adapter"] is None else backbone or about["backbone"]


def load_network(task: FineTuned, folder: Path, about: dict[str, Any], backbone: str | None) -> None:
    """Make the task's network, with the weights of the folder's adapter where there is one.

    Raises:
        FedlitError: The backbone cannot be had, or the adapter does not fit it.
    """
    if about["stand_in"] and backbone is None:
        task.use_stand_in()
    task.configure_model()
    if about["adapter"] is not None:
        load_adapter(task.loaded_network(), folder, task.backbone)


def load_head(head: nn.Module | None, folder: Path) -> None:
    """Put the weights of the folder into the head of a task whose network is loaded.

    Raises:
        FedlitError: The file cannot be read, or is of another head.
    """
    assert head is not None  # made with the network
    weights = read_tensors(folder / HEAD)
    try:
        head.load_state_dict(weights)
    except RuntimeError as error:
        raise FedlitError(f"{folder / HEAD} is not the head of this encoder: {first_line(error)}") from error


SETTINGS, SCHEMA = "tagger.json", "schema.yaml"


def write_tagger(task: TokenClassificationTask, folder: Path | str, whole: bool) -> None:
    """Write ``head.safetensors`` (weight (tags, width) and bias), ``tagger.json`` and ``schema.yaml``.

    Args:
        task: A task with its model.
        folder: Where its encoder or adapter was written.
        whole: The folder holds the encoder itself.
    """
    folder = Path(folder)
    write_head(task.head, folder)
    about = task.describe()
    own = {"max_length": about["window"], "frozen": task.frozen, "tags": list(task.tags)}
    write_settings(task, folder / SETTINGS, whole, own)
    (folder / SCHEMA).write_text(yaml.safe_dump(about["schema"], sort_keys=False, allow_unicode=True), encoding="utf-8")


def load_tagger(folder: Path | str, backbone: str | None = None) -> TokenClassificationTask:
    """A tagger that was exported, with its head, in evaluation mode, on the CPU.

    Args:
        folder: For instance ``adapters/global`` of a run folder.
        backbone: Where the encoder under an adapter is now; None: where it was.

    Raises:
        FedlitError: The folder holds no exported tagger, or not all of one.
    """
    from fedlit.tasks.documents.token_classification import TokenClassificationTask

    folder = Path(folder)
    about = read_settings(folder / SETTINGS, "TokenClassificationTask")
    task = TokenClassificationTask(
        backbone_of(about, folder, backbone),
        adapter=about["adapter"],
        schema=str(folder / SCHEMA),
        max_length=about["max_length"],
        frozen=about["frozen"],
    )
    load_network(task, folder, about, backbone)
    if list(task.tags) != about["tags"]:
        raise FedlitError(f"{folder / SCHEMA} gives other tags than {SETTINGS} has: copy the folder again")
    load_head(task.head, folder)
    return task.eval()


SETTINGS = "classifier.json"


def write_classifier(task: ClassificationTask, folder: Path | str, whole: bool) -> None:
    """Write ``head.safetensors`` (weight (classes, width) and bias) and ``classifier.json``, what the model is.

    Args:
        task: A task with its model.
        folder: Where its encoder or adapter was written.
        whole: The folder holds the encoder itself.
    """
    write_head(task.head, folder)
    own = {
        "classes": task.classes,
        "multi_label": task.multi_label,
        "modality": task.describe()["modality"],
        "max_length": task.max_length,
        "channels": task.channels,
    }
    write_settings(task, Path(folder) / SETTINGS, whole, own)


def load_classifier(folder: Path | str, backbone: str | None = None) -> ClassificationTask:
    """A classifier that was exported, with its head, in evaluation mode, on the CPU.

    Args:
        folder: For instance ``adapters/global`` of a run folder.
        backbone: Where the encoder under an adapter is now; None: where it was.

    Raises:
        FedlitError: The folder holds no exported classifier, or not all of one.
    """
    from fedlit.tasks.classification import ClassificationTask

    folder = Path(folder)
    about = read_settings(folder / SETTINGS, "ClassificationTask")
    task = ClassificationTask(
        backbone_of(about, folder, backbone),
        adapter=about["adapter"],
        classes=about["classes"],
        max_length=about["max_length"],
        channels=about["channels"],
    )
    task.multi_label = about["multi_label"]
    load_network(task, folder, about, backbone)
    load_head(task.head, folder)
    return task.eval()
