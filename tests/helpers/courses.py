"""A task whose loss has the gradient 1, so that SGD moves its weight by the learning rate, and what rates it had."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch import nn
from toys import Errors, last

from fedlit.tasks.fine_tuned import FineTuned


class Downhill(FineTuned):
    """A weight that falls by the learning rate in each step, for data of any kind.

    Args:
        noted: Folder for a file of each process, in which each step of an optimizer writes the round and the rate.
        kwargs: See :class:`FineTuned`.
    """

    def __init__(self, noted: str | None = None, learning_rate: float = 1.0, **kwargs: Any) -> None:
        super().__init__("none", None, learning_rate=learning_rate, **kwargs)
        self.noted = noted
        self.layer = nn.Linear(1, 1, bias=False, dtype=torch.float64)
        nn.init.zeros_(self.layer.weight)
        self.val_metrics, self.test_metrics = Errors(), Errors()
        self.network = nn.Identity()

    def argument(self, name: str) -> Any:
        return None if name == "noted" else super().argument(name)

    def losses(self, batch: Any) -> torch.Tensor:
        return self.layer(torch.ones(len(batch[1]), 1, dtype=torch.float64))[:, 0]

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return self.losses(batch).mean()

    def evaluate(self, batch: Any, metrics: Any) -> None:
        metrics.update(self.losses(batch), batch[1])

    def use_stand_in(self) -> None:
        """It is as small as it gets."""

    def export(self, folder: Any, merge: bool = False) -> None:
        """Nothing that could be loaded."""

    def configure_optimizers(self) -> Any:
        made = super().configure_optimizers()
        optimizer = made["optimizer"] if isinstance(made, dict) else made
        if self.noted is not None:
            file, index = Path(self.noted) / f"{os.getpid()}.txt", self.current_round

            def note(optimizer: Any, *_: Any) -> None:
                with file.open("a") as lines:
                    lines.write(f"{index} {optimizer.param_groups[0]['lr']!r}\n")

            optimizer.register_step_pre_hook(note)
        return made


def sgd(parameters: Any) -> torch.optim.SGD:
    return torch.optim.SGD(parameters, 1.0)


def reached(folder: Any) -> float:
    """The weight of a run's global model."""
    return float(last(folder)[0]["params"]["layer.weight"])


def rates(folder: Path) -> dict[int, list[float]]:
    """Learning rates of the steps of each round, in order, one process after the other."""
    found: dict[int, list[float]] = defaultdict(list)
    for file in sorted(folder.glob("*.txt")):
        for line in file.read_text().splitlines():
            index, rate = line.split()
            found[int(index)].append(float(rate))
    return dict(found)
