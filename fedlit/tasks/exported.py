"""Classifiers as they are exported, and loaded again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fedlit.tasks.exported_parts import backbone_of, load_head, load_network, read_settings, write_head, write_settings

if TYPE_CHECKING:
    from fedlit.tasks.classification import ClassificationTask

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
