"""The runs of the study: every cell is one method on one split of BC5CDR's titles among sites, one seed."""

from __future__ import annotations

import json
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from fedlit.aggregators import (
    Aggregator,
    Centralized,
    FedAvg,
    FedMedLoRA,
    FedMedLoRAPlus,
    FedSALoRA,
    LocalOnly,
    ZeroShot,
)
from fedlit.backbones import LoRA
from fedlit.data import RareTagBalanced
from fedlit.metrics.spans.scores import SpanScores
from fedlit.tasks import InstructionTask
from fedlit.tasks.task import Task
from fedlit.trainer import FederatedTrainer
from studies.medlora.data import Titles, pairs

SITES = 4
TRAIN, TEST = 85, 80
MORE = {85: 1, 170: 1, 340: 2}
"""Training titles, and with how many seeds."""
ROUNDS = 2
UPPER_HALF = r".*layers\.(1[5-9]|2\d)\..*(q|k|v|o|gate|up|down)_proj"
RATE, BERT_RATE = 1e-3, 2e-4
ONE_SITE_FOR_MENTIONS = {f"client-{SITES}": ["entities"]}
INCOMPLETE: dict[str, dict[str, list[str]]] = {
    "all sites both": {},
    "two both, one mentions, one relations": {"client-3": ["entities"], "client-4": ["relations"]},
    "two mentions, two relations": {
        "client-1": ["entities"], "client-2": ["entities"], "client-3": ["relations"], "client-4": ["relations"],
    },
    "three mentions, one relations": {
        **dict.fromkeys(("client-1", "client-2", "client-3"), ["entities"]), "client-4": ["relations"],
    },
}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One run.

    Attributes:
        part: Of the study: main, bert, incomplete, disjoint, influence or size.
        label: Of the method, for the table.
        rule: The rule.
        seed: Of partition and training.
        model: Arguments of the task that are not the usual ones.
        data: Arguments of the data that are not the usual ones.
        rounds: Of one local epoch each.
    """

    part: str
    label: str
    rule: Aggregator
    seed: int
    model: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    rounds: int = ROUNDS

    @property
    def key(self) -> str:
        """Name in the JSON file."""
        return f"{self.part} | {self.label} | {self.seed}"


def cells(seeds: list[int]) -> Iterator[Cell]:
    """All of the study, seed by seed."""
    for seed in seeds:
        yield Cell("main", "FedMedLoRA", FedMedLoRA(), seed)
        yield Cell("main", "FedMedLoRAPlus", FedMedLoRAPlus(), seed)
        yield Cell("main", "FedSALoRA", FedSALoRA(), seed)
        yield Cell("main", "single site", LocalOnly(), seed)
        yield Cell("main", "centralised", Centralized(), seed)
        for label, rule in (("federated", FedAvg()), ("single site", LocalOnly()), ("centralised", Centralized())):
            yield Cell("bert", label, rule, seed, rounds=15)
        if seed == seeds[0]:
            yield Cell("main", "zero-shot", ZeroShot(), seed, {"wording": "full", "chat_template": None})
            for label, annotated in INCOMPLETE.items():
                yield Cell("incomplete", label, FedMedLoRA(), seed, {}, {"annotated": annotated})
            yield Cell("size", "every pair", ZeroShot(), seed)
        for size in (own for own, several in MORE.items() if seed < several):
            yield Cell("size", f"{size} titles", Centralized(), seed, {}, {"annotated": {}, "train": size})
        for lists in ("both", "asked"):
            data = {"annotated": INCOMPLETE["two mentions, two relations"]}
            yield Cell("disjoint", f"lists {lists}", FedMedLoRA(), seed, {"lists": lists}, data)
        if seed < 2:
            yield Cell("influence", "five sites", FedMedLoRA(), seed)


class Recorded:
    """A task's test metrics that are kept for all clients together."""

    def __init__(self, task: Task) -> None:
        self.pooled = SpanScores(intervals=True)
        update = task.test_metrics.update

        def both(*args: Any, **kwargs: Any) -> None:
            update(*args, **kwargs)
            self.pooled.update(*args, **kwargs)

        task.test_metrics.update = both  # type: ignore[method-assign]


def task_of(cell: Cell, where: dict[str, str]) -> Task:
    """A language model, or for the part bert an encoder."""
    if cell.part == "bert":
        from fedlit.tasks import TokenClassificationTask

        return TokenClassificationTask(where["encoder"], learning_rate=BERT_RATE, seed=cell.seed)
    return language_model(where["backbone"], cell.seed, cell.model)


def language_model(backbone: str, seed: int, arguments: dict[str, Any]) -> InstructionTask:
    """The task with the study's usual arguments, or others."""
    usual: dict[str, Any] = {
        "format": "json", "wording": "brief", "chat_template": False, "learning_rate": RATE, "schedule": "constant",
        "validation": "loss", "max_new_tokens": 96, "dtype": "bfloat16", "seed": seed,
    }  # fmt: skip
    return InstructionTask(backbone, LoRA(r=16, alpha=64, target_modules=UPPER_HALF), **{**usual, **arguments})


def data_of(cell: Cell, root: Path) -> Titles:
    """Titles of abstracts, in sites; the server holds five."""
    arguments = {"train": TRAIN, "test": TEST, "annotated": ONE_SITE_FOR_MENTIONS, "server_examples": 5, **cell.data}
    return Titles(
        root, partition=RareTagBalanced(SITES), batch_size=2, eval_batch_size=32, mask_test=False,
        seed=cell.seed, **arguments,
    )  # fmt: skip


def every_pair(cell: Cell, root: Path) -> dict[str, Any]:
    """What to beat: each annotated chemical of a test title related to each of its diseases, without a model."""
    tests = [own for own in data_of(cell, root).read() if own.fold == "test"]
    told = [{(own.type, own.head, own.tail) for own in document.relations} for document in tests]
    answered = [{("CID", *pair) for pair in pairs(document)} for document in tests]
    right = sum(len(a & b) for a, b in zip(told, answered, strict=True))
    precision, recall = right / sum(map(len, answered)), right / sum(map(len, told))
    scores = {"precision": precision, "recall": recall, "f1": 2 * precision * recall / (precision + recall)}
    return {
        "part": cell.part, "label": cell.label, "seed": cell.seed, "seconds": 0.0, "tests": len(tests),
        "relations": sum(map(len, told)), "test": {f"relation_strict_{n}": round(v, 5) for n, v in scores.items()},
    }  # fmt: skip


def run(cell: Cell, root: Path, where: dict[str, str]) -> dict[str, Any]:
    """Final figures on test data of the models that sites serve, all documents together."""
    if cell.label == "every pair":
        return every_pair(cell, root)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    data, task = data_of(cell, root), task_of(cell, where)
    recorded = Recorded(task)
    with tempfile.TemporaryDirectory() as folder:
        trainer = FederatedTrainer(
            cell.rule, max_rounds=cell.rounds, local_epochs=1, check_val_every_n_rounds=cell.rounds,
            gradient_clip_val=1.0, evaluate_at=["after_local"], default_root_dir=folder, seed=cell.seed,
            num_threads=1, enable_progress_bar=False, precision="bf16-mixed",
        )  # fmt: skip
        begin = time.process_time()
        done = trainer.fit(task, data)
        summary = json.loads((done.path / "summary.json").read_text())
        rows = done.metrics.read()
    influence = {
        f"{row['round']}/{row['metric'].split('/', 1)[1]}": float(row["value"])
        for row in rows
        if row["metric"].startswith("influence/")
    }
    scores = {name: round(float(value), 5) for name, value in recorded.pooled.compute().items()}
    return {
        "part": cell.part, "label": cell.label, "seed": cell.seed, "rule": summary["aggregator"],
        "rounds": cell.rounds, "seconds": round(time.process_time() - begin, 1), "bytes": summary["bytes"],
        "communication": summary["communication"], "trainable": summary["model"]["trainable"],
        "parameters": summary["model"]["parameters"], "questions": summary["model"].get("questions"),
        "clients": len(data.clients), "train": [len(data.dataset(c, "train")) for c in data.clients],
        "tests": sum(len(data.dataset(c, "test")) for c in data.clients), "influence": influence, "test": scores,
    }  # fmt: skip
