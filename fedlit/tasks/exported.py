"""Classifiers as they are exported, and loaded again."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

from fedlit.backbones.folders import read_json
from fedlit.backbones.lora import LoRA, load_adapter, read_tensors
from fedlit.errors import FedlitError, first_line

if TYPE_CHECKING:
    from fedlit.tasks.classification import ClassificationTask

SETTINGS, HEAD = "classifier.json", "head.safetensors"


def write_head(task: ClassificationTask, folder: Path | str, whole: bool) -> None:
    """Write ``head.safetensors`` (weight (classes, width) and bias) and ``classifier.json``, what the model is.

    Args:
        task: A task with its model.
        folder: Where its encoder or adapter was written.
        whole: The folder holds the encoder itself.
    """
    from safetensors.torch import save_file

    assert task.head is not None  # exported after the network
    save_file({k: v.detach().cpu().contiguous() for k, v in task.head.state_dict().items()}, str(Path(folder) / HEAD))
    settings = {
        "backbone": None if whole else task.backbone,
        "stand_in": task.config()["stand_in"] and not whole,
        "adapter": None if whole or task.adapter is None else dataclasses.asdict(task.adapter),
        "classes": task.classes,
        "multi_label": task.multi_label,
        "modality": task.describe()["modality"],
        "max_length": task.max_length,
        "channels": task.channels,
    }
    (Path(folder) / SETTINGS).write_text(json.dumps(settings, indent=2) + "\n")


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
    about = read_json(folder / SETTINGS)
    if not about:
        raise FedlitError(f"{folder} holds no {SETTINGS}: give a folder that ClassificationTask.export wrote")
    adapter = None if about["adapter"] is None else LoRA(**about["adapter"])
    task = ClassificationTask(
        str(folder) if adapter is None else backbone or about["backbone"],
        adapter=adapter,
        classes=about["classes"],
        max_length=about["max_length"],
        channels=about["channels"],
    )
    task.multi_label = about["multi_label"]
    if about["stand_in"] and backbone is None:
        task.use_stand_in()
    task.configure_model()
    if adapter is not None:
        load_adapter(task.loaded_network(), folder, task.backbone)
    assert task.head is not None  # made with the network
    head = read_tensors(folder / HEAD)
    try:
        task.head.load_state_dict(head)
    except RuntimeError as error:
        raise FedlitError(f"{folder / HEAD} is not the head of this encoder: {first_line(error)}") from error
    return task.eval()
