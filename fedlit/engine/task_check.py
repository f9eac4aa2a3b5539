"""What tasks must not rely on, and what rules may ask of them: refused at set-up, never ignored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning as L  # noqa: N812
from torch import nn

from fedlit.errors import FedlitError
from fedlit.tasks.task import member

HONOURED_HOOKS = frozenset(
    {
        "configure_model", "configure_optimizers",
        # These run under a plain lightning.Trainer only, where they log what the engine reports by itself.
        "on_test_epoch_end", "on_validation_epoch_end",
    }
)  # fmt: skip
OTHER_HOOKS = frozenset({"backward", "transfer_batch_to_device", "teardown", "prepare_data", "train_dataloader"})


def check_task(task: L.LightningModule) -> None:
    """Refuse a task that relies on what the engine does not do.

    Raises:
        FedlitError: It overrides a Lightning hook that is never called here, optimizes by hand, has no metrics, or
            has batch normalisation with running statistics, which would pass from one client to the next.
    """
    name = type(task).__name__
    theirs = {h for h in dir(L.LightningModule) if callable(getattr(L.LightningModule, h)) and not h.startswith("_")}
    hooks = {h for h in theirs if h.startswith(("on_", "configure_", "optimizer_", "lr_scheduler_"))} | OTHER_HOOKS
    overridden = {h for h in hooks - HONOURED_HOOKS if _owner(type(task), h).__module__.split(".")[0] != "lightning"}
    if overridden:
        raise FedlitError(
            f"{name} overrides {', '.join(sorted(overridden))}, which federated training does not call: move that "
            "code into training_step or into a fedlit.callbacks.Callback"
        )
    if not task.automatic_optimization:
        raise FedlitError(
            f"{name} optimizes by hand (automatic_optimization is False): let training_step return a loss"
        )
    for metrics in ("val_metrics", "test_metrics"):
        if not hasattr(task, metrics):
            raise FedlitError(
                f"{name} has no {metrics}: set it to torchmetrics whose compute() gives a dict of scalars"
            )
    for module_name, module in task.named_modules():
        if isinstance(module, nn.modules.batchnorm._NormBase) and module.track_running_stats:
            raise FedlitError(
                f"{name}.{module_name} keeps running statistics, which would leak from one client to the next: use "
                "group or layer normalisation, or track_running_stats=False"
            )


def _owner(cls: type, name: str) -> type:
    return next(c for c in cls.__mro__ if name in vars(c))


def unpack_optimizer(configured: Any, name: str) -> tuple[Any, list[Any]]:
    """The optimizer and its schedulers by step, from any form that ``configure_optimizers`` may return.

    Args:
        configured: What it returned.
        name: The task's class, for messages.

    Raises:
        FedlitError: There are several optimizers, or a schedule by epoch.
    """
    schedulers: Any = []
    if isinstance(configured, dict):
        schedulers = configured.get("lr_scheduler") or []
        configured = configured["optimizer"]
    elif isinstance(configured, tuple):
        configured, schedulers = configured
    if isinstance(configured, list | tuple):
        if len(configured) != 1:
            raise FedlitError(f"{name} has {len(configured)} optimizers; federated training takes one")
        configured = configured[0]
    plain = []
    for entry in schedulers if isinstance(schedulers, list) else [schedulers]:
        if isinstance(entry, dict):
            if entry.get("interval", "epoch") != "step":
                raise FedlitError(
                    f"{name} schedules its learning rate per epoch: a round has steps, set interval: step"
                )
            entry = entry["scheduler"]
        plain.append(entry)
    return configured, plain


def check_method(task: L.LightningModule, method: str) -> None:
    """Refuse a task without a method that a rule asks for.

    Raises:
        FedlitError: The task has no such method.
    """
    name = type(task).__name__
    if member(task, method) is None:
        raise FedlitError(f"this rule needs {method}, and {name} gives none: write {name}.{method}(batch)")


def check_modules(found: Sequence[object], pattern: str) -> None:
    """Refuse a network without the modules that a rule looks into.

    Raises:
        FedlitError: No module matches.
    """
    if not found:
        raise FedlitError(f"this rule needs the outputs of modules that match {pattern!r}, and there are none")
