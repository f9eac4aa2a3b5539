"""Taggers of word pieces as they are exported, and loaded again."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from fedlit.backbones.folders import read_json
from fedlit.backbones.lora import LoRA, load_adapter, read_tensors
from fedlit.errors import FedlitError, first_line

if TYPE_CHECKING:
    from fedlit.tasks.token_classification import TokenClassificationTask

SETTINGS, SCHEMA, HEAD = "tagger.json", "schema.yaml", "head.safetensors"


def write_tagger(task: TokenClassificationTask, folder: Path | str, whole: bool) -> None:
    """Write ``head.safetensors`` (weight (tags, width) and bias), ``tagger.json`` and ``schema.yaml``.

    Args:
        task: A task with its model.
        folder: Where its encoder or adapter was written.
        whole: The folder holds the encoder itself.
    """
    from safetensors.torch import save_file

    assert task.head is not None  # exported after the network
    folder = Path(folder)
    save_file({k: v.detach().cpu().contiguous() for k, v in task.head.state_dict().items()}, str(folder / HEAD))
    about = task.describe()
    settings = {
        "backbone": None if whole else task.backbone,
        "stand_in": task.config()["stand_in"] and not whole,
        "adapter": None if whole or task.adapter is None else dataclasses.asdict(task.adapter),
        "max_length": about["window"],
        "frozen": task.frozen,
        "tags": list(task.tags),
    }
    (folder / SETTINGS).write_text(json.dumps(settings, indent=2) + "\n")
    (folder / SCHEMA).write_text(yaml.safe_dump(about["schema"], sort_keys=False, allow_unicode=True), encoding="utf-8")


def load_tagger(folder: Path | str, backbone: str | None = None) -> TokenClassificationTask:
    """A tagger that was exported, with its head, in evaluation mode, on the CPU.

    Args:
        folder: For instance ``adapters/global`` of a run folder.
        backbone: Where the encoder under an adapter is now; None: where it was.

    Raises:
        FedlitError: The folder holds no exported tagger, or not all of one.
    """
    from fedlit.tasks.token_classification import TokenClassificationTask

    folder = Path(folder)
    about = read_json(folder / SETTINGS)
    if not about:
        raise FedlitError(f"{folder} holds no {SETTINGS}: give a folder that TokenClassificationTask.export wrote")
    adapter = None if about["adapter"] is None else LoRA(**about["adapter"])
    task = TokenClassificationTask(
        str(folder) if adapter is None else backbone or about["backbone"],
        adapter=adapter,
        schema=str(folder / SCHEMA),
        max_length=about["max_length"],
        frozen=about["frozen"],
    )
    if about["stand_in"] and backbone is None:
        task.use_stand_in()
    task.configure_model()
    if adapter is not None:
        load_adapter(task.loaded_network(), folder, task.backbone)
    if list(task.tags) != about["tags"]:
        raise FedlitError(f"{folder / SCHEMA} gives other tags than {SETTINGS} has: copy the folder again")
    assert task.head is not None  # made with the network
    head = read_tensors(folder / HEAD)
    try:
        task.head.load_state_dict(head)
    except RuntimeError as error:
        raise FedlitError(f"{folder / HEAD} is not the head of this encoder: {first_line(error)}") from error
    return task.eval()
