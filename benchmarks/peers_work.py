"""The one workload of ``benchmarks/peers.py``, as each of its programs builds it: network, data, batches, settings."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from workload import SineData

from fedlit import seeds
from fedlit.backbones import LoRA
from fedlit.backbones.folders import quiet
from fedlit.engine.batches import training_batches
from fedlit.tasks import ForecastingTask


@dataclass(frozen=True)
class Work:
    """What is trained, and how."""

    backbone: str
    """A folder that :func:`save_backbone` wrote, or any other backbone's name."""
    batch_size: int
    rounds: int
    threads: int
    """Of all processes together."""
    clients: int = 20
    steps: int = 5
    processes: int = 1
    """That train clients side by side; threads are dealt among them."""
    clients_at_once: str | None = None
    """For fedlit's trainer; None: its own choice."""
    double: bool = False
    """Compute in float64."""

    def task(self) -> ForecastingTask:
        """Frozen network with LoRA of rank 8 on q and v, in training mode."""
        task = ForecastingTask(self.backbone, LoRA(target_modules=["q", "v"]), seed=0)
        task.configure_model()
        return (task.double() if self.double else task).train()

    def data(self) -> SineData:
        """The clients."""
        data = SineData(self.clients, batch_size=self.batch_size)
        data.setup("fit")
        if self.double:
            data.signals = {client: signal.double() for client, signal in data.signals.items()}
        return data

    def batches(self, data: SineData, client: str, index: int) -> Iterator[dict[str, Any]]:
        """A client's batches of round ``index``, counted from 0: those that fedlit takes."""
        dataset = data.dataset(client, "train")
        order = seeds.generator(0, "batches", index, client)
        for indices in training_batches(len(dataset), self.batch_size, self.steps, order):
            yield dataset.__getitems__(indices)

    def write(self, path: Path) -> None:
        """As JSON."""
        path.write_text(json.dumps(asdict(self)))


def optimizer(live: list[torch.nn.Parameter], steps: int, learning_rate: float) -> torch.optim.AdamW:
    """AdamW whose learning rate falls linearly to 0 over ``steps`` steps; it moves its schedule itself."""
    adamw = torch.optim.AdamW(live, lr=learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(adamw, lambda step: max(0.0, 1 - step / steps))
    adamw.register_step_post_hook(lambda *_: schedule.step())
    return adamw


def save_backbone(folder: Path) -> None:
    """Write a network of Chronos-Bolt-tiny's shape (d_model 256, 4 + 4 layers) with random weights, without dropout."""
    from chronos.chronos_bolt import ChronosBoltModelForForecasting
    from transformers import T5Config

    from fedlit.backbones.known import KNOWN

    settings = {**KNOWN["amazon/chronos-bolt-tiny"], "dropout_rate": 0.0}
    settings["chronos_config"] = {**settings["chronos_config"], "context_length": 512}
    with torch.random.fork_rng([]), quiet():
        torch.manual_seed(0)
        config = T5Config(**settings, architectures=["ChronosBoltModelForForecasting"], initializer_factor=0.5)
        ChronosBoltModelForForecasting(config).save_pretrained(folder)


class Record:
    """The times at which rounds ended, and the weights after the first; each rank above 0 has a folder of its own."""

    def __init__(self, out: Path) -> None:
        rank = os.environ.get("RANK", "0")
        self.out = out if rank == "0" else out / f"rank-{rank}"
        self.out.mkdir(exist_ok=True)
        self.ends: list[float] = []

    def ended(self, weights: dict[str, Tensor] | dict[str, np.ndarray[Any, Any]] | None = None) -> None:
        """A round ended; ``weights`` are kept for the first round only, after its time is taken."""
        self.ends.append(time.time())
        if weights is not None and len(self.ends) == 1:
            arrays: dict[str, Any] = {name: np.asarray(value) for name, value in weights.items()}
            np.savez(self.out / "weights.npz", **arrays)

    def close(self, **more: Any) -> None:
        """Write the file that tells that the run came to its end."""
        (self.out / "record.json").write_text(json.dumps({"ends": self.ends, **more}))


def arguments() -> tuple[Work, Path, argparse.Namespace]:
    """The work, the folder for results, and all else, of the command line that ``peers.py`` gives its programs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("work", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--bare", action="store_true")
    parser.add_argument("--flops", type=int, nargs="*", default=[], help="batch sizes of the steps to count")
    given = parser.parse_args()
    return Work(**json.loads(given.work.read_text())), given.out, given
