"""Tiny language models that answer questions about notes in memory."""

from __future__ import annotations

import torch
from span_answers import batch

from fedlit.backbones import LoRA
from fedlit.data.documents.generated import CHEMICALS, stand_in_documents
from fedlit.tasks import InstructionTask

NOTES = stand_in_documents(2, 24, CHEMICALS, "CID")
STAND_IN = "stand-in:llama"
WHOLE = LoRA(r=16, alpha=64, modules_to_save=["embed_tokens", "lm_head"])


class Held:
    """What a task asks of a data module."""

    clients = ("a",)

    def __init__(self, documents=NOTES):
        self.documents = list(documents)
        self.schema = {"entities": ["Chemical", "Disease"], "relations": {"CID": [["Chemical", "Disease"]]}}

    def dataset(self, clients, split):
        return self


def ready(backbone: str = STAND_IN, documents=NOTES, stirred: bool = True, **kwargs) -> InstructionTask:
    """A task with its model, in evaluation mode; short questions, and, stirred, adapters that change something."""
    task = InstructionTask(backbone, **({"adapter": LoRA(r=4), "format": "json", "wording": "brief"} | kwargs))
    task.take_data(Held(documents))
    task.configure_model()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, one in task.named_parameters():
            if stirred and "lora_B" in name:
                one.copy_(torch.randn(one.shape, generator=generator) / 10)
    return task.eval()


def learn(task, documents, steps: int, rate: float = 5e-3):
    """Full batches, by AdamW, the rate falling to 0."""
    task.train()
    optimizer = torch.optim.AdamW([one for one in task.parameters() if one.requires_grad], lr=rate, weight_decay=0.0)
    falling = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    for _ in range(steps):
        optimizer.zero_grad()
        task.losses(batch(documents)).mean().backward()
        optimizer.step()
        falling.step()
    return task.eval()
