"""What ``batched.py`` trains: networks with random weights and simulated examples of three modalities."""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peers_work import save_backbone
from torch.utils.data import Dataset
from workload import SineData

from fedlit import seeds
from fedlit.backbones import LoRA
from fedlit.backbones.encoders.loading import ENCODERS
from fedlit.backbones.folders import quiet
from fedlit.backbones.known import KNOWN
from fedlit.data import FederatedDataModule
from fedlit.tasks import ClassificationTask, ForecastingTask

EXAMPLES, CLASSES = 64, 8
WORDS, LETTERS = (6, 10), 5
"""Of a text: least and most words, and letters of each; the tokenizer has a token for each letter and space."""
SMALL_VIT = {
    "model_type": "vit", "hidden_size": 192, "num_hidden_layers": 4, "num_attention_heads": 3,
    "intermediate_size": 768, "image_size": 64, "patch_size": 8,
}  # fmt: skip
SMALL_ROBERTA = {
    "model_type": "roberta", "hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4,
    "intermediate_size": 1024, "vocab_size": 8192, "max_position_embeddings": 514, "type_vocab_size": 1,
}  # fmt: skip


class DrawnExamples(Dataset[Any]):
    """One client's examples to classify; batches are gathered at once."""

    def __init__(self, client: str, x: Any, label: torch.Tensor) -> None:
        self.client, self.x, self.label = client, x, label

    def __len__(self) -> int:
        return len(self.label)

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Any]:
        x = self.x[indices] if isinstance(self.x, torch.Tensor) else [self.x[i] for i in indices]
        ids = [f"{self.client}-{i}" for i in indices]
        return {"x": x, "label": self.label[indices], "id": ids, "client": [self.client] * len(ids)}


class DrawnData(FederatedDataModule):
    """Noise to classify: no network learns anything from it, and all compute as much as with other examples.

    Args:
        modality: ``image`` or ``text``.
        clients: How many.
        batch_size: Examples in a batch.
        size: Pixels of an image's side.
    """

    simulated = True

    def __init__(self, modality: str, clients: int, batch_size: int, size: int) -> None:
        super().__init__()
        self.modality, self.count, self.batch_size, self.size = modality, clients, batch_size, size
        self.classes = [f"class-{i}" for i in range(CLASSES)]

    def setup(self, stage: str | None = None) -> None:
        if self.clients:
            return
        self.clients = [f"client-{i:05d}" for i in range(self.count)]
        self.held = {name: self._drawn(name) for name in self.clients}

    def _drawn(self, name: str) -> DrawnExamples:
        g = seeds.generator(0, "drawn", name)
        label = torch.randint(CLASSES, (EXAMPLES,), generator=g)
        if self.modality == "image":
            shape = (EXAMPLES, self.size, self.size, 3)
            return DrawnExamples(name, torch.randint(256, shape, generator=g, dtype=torch.uint8), label)
        letters = np.array(list(string.ascii_lowercase))
        lengths = torch.randint(WORDS[0], WORDS[1] + 1, (EXAMPLES,), generator=g).tolist()
        drawn = (letters[torch.randint(len(letters), (n, LETTERS), generator=g)] for n in lengths)
        return DrawnExamples(name, [" ".join("".join(word) for word in words) for words in drawn], label)

    def dataset(self, clients: str | Sequence[str], split: str) -> DrawnExamples:
        (name,) = [clients] if isinstance(clients, str) else clients
        whole = self.held[name]
        return whole if split == "train" else DrawnExamples(name, [], whole.label[:0])

    def collate(self, items: Any) -> Any:
        return items


@dataclass(frozen=True)
class Case:
    """A network and its data.

    Attributes:
        shape: For the table.
        save: Writes the network into a folder.
        data: Of so many clients and examples in a batch.
        forecasts: Whether it forecasts; else it classifies.
        targets: Of LoRA.
    """

    shape: str
    save: Callable[[Path], None]
    data: Callable[[int, int], Any]
    forecasts: bool
    targets: tuple[str, ...]

    def task(self, folder: Path, data: Any, optimizer: Any = None) -> Any:
        """LoRA of rank 8 on a network that was saved, with a learning rate that falls linearly."""
        lora = LoRA(target_modules=list(self.targets))
        kind: Any = ForecastingTask if self.forecasts else ClassificationTask
        task = kind(str(folder), lora, schedule="linear", optimizer=optimizer, seed=0)
        data.setup("fit")
        if not self.forecasts:
            task.take_data(data)
        task.configure_model()
        return task


def save_encoder(settings: dict[str, Any], folder: Path) -> None:
    """Write a network that gives features, and its tokenizer or preprocessor."""
    encoder = ENCODERS[settings["model_type"]]
    with torch.random.fork_rng([]), quiet():
        torch.manual_seed(0)
        network: Any = encoder.build(**settings)
        network.save_pretrained(folder)
        family = encoder.stand_in()[1] if encoder.modality == "text" else encoder.of(network.config)
        family.save(folder)


def save_chronos_t5(folder: Path) -> None:
    """Write a network of Chronos-T5-tiny's shape, without dropout."""
    from transformers import T5Config, T5ForConditionalGeneration

    settings = {**KNOWN["amazon/chronos-t5-tiny"], "dropout_rate": 0.0}
    with torch.random.fork_rng([]), quiet():
        torch.manual_seed(0)
        T5ForConditionalGeneration(T5Config(**settings, initializer_factor=0.05)).save_pretrained(folder)


def _classified(shape: str, settings: dict[str, Any], targets: tuple[str, ...], size: int = 0) -> Case:
    modality = ENCODERS[settings["model_type"]].modality

    def data(clients: int, batch_size: int) -> DrawnData:
        return DrawnData(modality, clients, batch_size, size)

    return Case(shape, partial(save_encoder, settings), data, False, targets)


def _sines(clients: int, batch_size: int) -> SineData:
    return SineData(clients, batch_size=batch_size)


def cases(on_gpu: bool) -> dict[str, Case]:
    """By name; networks for images and texts are small ones on a CPU, and of published shapes on a GPU."""
    vit, roberta = "google/vit-base-patch16-224", "FacebookAI/roberta-base"
    if on_gpu:
        image = _classified(f"shape of {vit}", KNOWN[vit], ("q_proj", "v_proj"), 224)
        text = _classified(f"shape of {roberta}", KNOWN[roberta], ("query", "value"))
    else:
        image = _classified("ViT of width 192, 4 layers, 64 x 64 pixels", SMALL_VIT, ("q_proj", "v_proj"), 64)
        text = _classified("RoBERTa of width 256, 4 layers", SMALL_ROBERTA, ("query", "value"))
    return {
        "forecasting": Case("shape of amazon/chronos-bolt-tiny", save_backbone, _sines, True, ("q", "v")),
        "chronos-t5": Case("shape of amazon/chronos-t5-tiny", save_chronos_t5, _sines, True, ("q", "v")),
        "image": image,
        "text": text,
    }
