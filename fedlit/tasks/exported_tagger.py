"""Taggers of word pieces as they are exported, and loaded again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from fedlit.errors import FedlitError
from fedlit.tasks.exported_parts import backbone_of, load_head, load_network, read_settings, write_head, write_settings

if TYPE_CHECKING:
    from fedlit.tasks.token_classification import TokenClassificationTask

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
    from fedlit.tasks.token_classification import TokenClassificationTask

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
