"""What follows from a config's settings and defaults: rows ``derived`` of the tables in ``tests/acceptance/papers``.

Each function takes what ``facts.command`` gives: a command line with its task, data module and trainer.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from types import SimpleNamespace
from typing import Any

import torch

from fedlit.backbones.encoders.signal import BoltEncoder
from fedlit.backbones.known import KNOWN, sketch
from fedlit.backbones.lora import LoRA, attach
from fedlit.tasks import ClassificationTask


def partition(run: Any) -> dict[str, Any]:
    """The partition in force, given or the data's own."""
    found: dict[str, Any] = (run.datamodule.partition or run.datamodule.usual_partition()).config()
    return found


def shares(run: Any) -> dict[str, float]:
    """Of each client's examples."""
    found = run.datamodule.protocol.describe()
    val, test = found["val_fraction"], found["test_fraction"]
    return {"train": round(1 - val - test, 6), "val": val, "test": test}


def clients_of_30_subjects(run: Any) -> list[int]:
    """Subjects of each client."""
    records = [SimpleNamespace(subject=f"GDN{number:04}") for number in range(1, 31)]
    chosen = run.datamodule.partition
    return [len(held) for held in getattr(chosen, "partition", chosen).assign(records, 0).values()]


def classes(run: Any) -> int:
    return len(run.datamodule.class_names)


@cache
def adapters(backbone: str, lora: str, encodes: bool) -> dict[str, int]:
    """Tensors of a published network's adapters and their numbers of weights; of the network only the sizes are known.

    Args:
        lora: Settings of the adapters, as JSON.
        encodes: Whether a forecaster serves as an encoder.
    """
    with torch.device("meta"):
        if encodes and "chronos_config" in KNOWN[backbone]:
            network, wanted = BoltEncoder.build(**KNOWN[backbone]), BoltEncoder.pretrained_targets
        else:
            network, wanted = (drawn := sketch(backbone)).network, drawn.family.targets(pretrained=True)
        adapted = attach(network, LoRA(**json.loads(lora)), wanted, 0, backbone)
    return {f"network.{name}": p.numel() for name, p in adapted.named_parameters() if p.requires_grad}


def _adapters(run: Any) -> dict[str, int]:
    lora, encodes = json.dumps(asdict(run.model.adapter)), isinstance(run.model, ClassificationTask)
    return adapters(run.model.backbone, lora, encodes)


def targets(run: Any) -> list[str]:
    """Ends of the names of the layers that have an adapter."""
    return sorted({name.split(".lora_")[0].rsplit(".", 1)[-1] for name in _adapters(run)})


def adapted(run: Any) -> int:
    """Weights in all adapters."""
    return sum(_adapters(run).values())


def trained(run: Any) -> int:
    """Weights that train and travel, where there is no adapter."""
    assert run.model.adapter is None
    return sum(p.numel() for p in sketch(run.model.backbone).network.parameters())


def frozen(run: Any) -> list[str]:
    """Patterns of what does not train, where there is no adapter."""
    assert run.model.adapter is None
    return list(run.model.frozen)


def sampling(run: Any) -> dict[str, Any]:
    """How Chronos-T5 draws its forecasts, of which the median is taken."""
    found: dict[str, Any] = KNOWN[run.model.backbone]["chronos_config"]
    return found


def optimizer(run: Any) -> dict[str, Any]:
    """Class and settings of what the task optimizes with."""
    made = planned(run, 0, 1)[0]
    return {"class": type(made).__name__, **made.defaults, "betas": list(made.defaults.get("betas", []))}


def planned(run: Any, index: int, steps: int) -> tuple[torch.optim.Optimizer, Any]:
    """Optimizer and scheduler, or None, that the config's own task makes for a round, on a made-up parameter."""
    task = copy.copy(run.model)
    task._parameters = {"made_up": torch.nn.Parameter(torch.zeros(1))}
    task.num_training_steps, task.current_round, task.num_rounds = steps, index, run.trainer.settings.max_rounds
    chosen = task.configure_optimizers()
    return (chosen["optimizer"], chosen["lr_scheduler"]["scheduler"]) if isinstance(chosen, dict) else (chosen, None)


def learning_rates(run: Any, index: int, steps: int) -> list[float]:
    """Learning rate of each step of a round.

    Args:
        index: Of the round, from 0.
        steps: Local steps in it.
    """
    made, scheduler = planned(run, index, steps)
    found: list[float] = []
    for _ in range(steps):
        found.append(float(made.param_groups[0]["lr"]))
        made.step()
        if scheduler is not None:
            scheduler.step()
    return found


DERIVED: dict[str, Callable[[Any], Any]] = {
    "partition": partition, "shares": shares, "clients_of_30_subjects": clients_of_30_subjects, "classes": classes,
    "targets": targets, "adapted": adapted, "trained": trained, "frozen": frozen, "sampling": sampling,
    "optimizer": optimizer,
}  # fmt: skip
"""By the name in the tables."""
