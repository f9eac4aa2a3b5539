"""Documents in memory, and a tiny encoder that knows their words."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from from_memory import FromMemory
from span_answers import batch

from fedlit.backbones.encoders.family import TINY
from fedlit.backbones.encoders.text import BERT
from fedlit.backbones.rng import keyed_rng
from fedlit.data import BySite
from fedlit.data.documents.generated import CHEMICALS, stand_in_documents
from fedlit.data.documents.module import DocumentDataModule
from fedlit.tasks.documents.token_classification import TokenClassificationTask

NOTES = stand_in_documents(2, 24, CHEMICALS, "CID")


class Notes(FromMemory, DocumentDataModule):
    """Documents, by default those of two sites."""

    default_partition = BySite()

    def __init__(self, given=NOTES, **kwargs):
        super().__init__(given, **({"batch_size": 6, "split": "fold"} | kwargs))


def word_encoder(folder: Path, documents=NOTES, window: int = 64) -> str:
    """A folder with a random BERT and a vocabulary of whole words."""
    from transformers import BertTokenizer

    words = {word for one in documents for word in re.findall(r"\w+|[^\w\s]", one.text.lower())}
    words |= {"@", "*", "chemical", "disease", "treatment", "problem"}
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(words)]
    tokenizer = BertTokenizer(vocab={word: i for i, word in enumerate(vocabulary)}, model_max_length=window)
    with keyed_rng(0, "words"):
        network = BERT.build(**TINY, vocab_size=len(vocabulary), max_position_embeddings=window)
    network.save_pretrained(folder)
    BERT(window, "first", tokenizer).save(folder)
    return str(folder)


def ready(backbone: str, **kwargs) -> TokenClassificationTask:
    """A task with its model, in evaluation mode."""
    task = TokenClassificationTask(backbone, **kwargs)
    task.configure_model()
    return task.eval()


def learn(task, documents, steps: int, rate: float = 1e-2):
    """Full batches, by Adam."""
    task.train()
    optimizer = torch.optim.AdamW([one for one in task.parameters() if one.requires_grad], lr=rate, weight_decay=0.0)
    for _ in range(steps):
        optimizer.zero_grad()
        task.losses(batch(documents)).mean().backward()
        optimizer.step()
    return task.eval()
