"""Tiny encoders with a head, and three clients whose images have one of three colours."""

from __future__ import annotations

import torch
from torch.utils.data import Dataset

from fedlit.backbones import LoRA
from fedlit.data import FederatedDataModule
from fedlit.tasks.classification import ClassificationTask

VIT, BERT, WAV, BOLT = "google/vit-base-patch16-224", "some/bert-base", "facebook/wav2vec2-base", "builtin"
CLASSES = ["blue", "green", "red"]


def images(y, seed=0):
    """8 x 8 pixels of noise with one bright colour."""
    x = torch.randint(0, 60, (len(y), 8, 8, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    x[torch.arange(len(y)), :, :, 2 - y] += 150
    return x


def batch(name=VIT, size=6, seed=0, multi_label=False):
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(size) % 3
    x = {
        VIT: images(y, seed),
        BERT: [f"the {CLASSES[i]} one, {seed}" for i in y],
        WAV: torch.randn(size, 1600, generator=generator) * (1.0 + y[:, None]),
        BOLT: torch.randn(size, 2, 64, generator=generator).cumsum(-1),
    }[name]
    y = torch.nn.functional.one_hot(y, 3).float() if multi_label else y
    return {"x": x, "label": y, "id": [f"e{i}" for i in range(size)], "client": ["a", "b"] * (size // 2)}


def tiny(name=VIT, adapter=LoRA(r=4), classes=CLASSES, **kwargs):  # noqa: B008
    task = ClassificationTask(name, adapter=adapter, classes=classes, **kwargs)
    task.use_stand_in()
    task.configure_model()
    return task


def fit(task, steps=30, rate=1e-2, name=VIT):
    task.train()
    optimizer = torch.optim.AdamW([one for one in task.parameters() if one.requires_grad], rate)
    losses = []
    for step in range(steps):
        loss = task.training_step(batch(name, seed=step, multi_label=task.multi_label), step)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    task.eval()
    return losses


class Colours(Dataset):
    def __init__(self, clients, split, data):
        self.rows = [(client, i, y) for client in clients for i, y in enumerate(data.held[client])]
        self.split = split
        y = torch.tensor([y for *_, y in self.rows])
        self.labels = torch.nn.functional.one_hot(y, 3).float() if data.multi_label else y

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        return self.__getitems__([i])

    def __getitems__(self, indices):
        rows = [self.rows[i] for i in indices]
        x = images(torch.tensor([y for *_, y in rows]), len(self.split))
        return {
            "x": x,
            "label": self.labels[indices],
            "id": [f"{c}-{i}" for c, i, _ in rows],
            "client": [c for c, *_ in rows],
        }


class ColourData(FederatedDataModule):
    """Client ``a`` has no red, client ``b`` nothing but red."""

    modality, classes, simulated = "image", CLASSES, True

    def __init__(self, multi_label=False):
        super().__init__()
        self.multi_label, self.batch_size = multi_label, 4
        self.held = {"a": [0, 1, 0, 0], "b": [2, 2], "c": [0, 1, 2, 2, 1]}

    def setup(self, stage=None):
        self.clients = sorted(self.held)

    def dataset(self, clients, split):
        return Colours([clients] if isinstance(clients, str) else clients, split, self)

    def collate(self, items):
        return items

    def use_stand_in(self, folder):
        pass
