"""Scores of what needs no network, of one client: on the batches and by the metrics of trained models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fedlit.data.base.module import FederatedDataModule
from fedlit.engine.batches import evaluation_loader
from fedlit.errors import FedlitError
from fedlit.tasks.task import member


def naive_scores(
    task: Any, data: FederatedDataModule, client: str, split: str, names: Sequence[str], limit: int | None
) -> tuple[dict[str, dict[str, float]], int]:
    """Metrics of each of a task's predictors without a network, and how many examples they are of.

    Args:
        task: Makes the predictors of the client's training examples, see :meth:`fedlit.tasks.task.Task.naive`.
        data: After ``setup``.
        client: The client.
        split: ``val`` or ``test``.
        names: Which predictors; none for all.
        limit: Most batches to score, or None.

    Raises:
        FedlitError: A name is not known.
    """
    make, scored = member(task, "naive"), data.dataset((client,), split)
    batches: Any = evaluation_loader(data, scored, limit)
    count = sum(map(len, batches.indices))
    if not count:
        return {}, 0
    made = {} if make is None else make(evaluation_loader(data, data.dataset((client,), "train")))
    if (unknown := {*names} - {*made}) and (made or make is None):
        known = ", ".join(made) or "none"
        raise FedlitError(
            f"trainer.naive names {min(unknown)!r}, and this task has: {known}; take some of these, or true or false"
        )
    usual = task.test_metrics if split == "test" else task.val_metrics
    usual.reset()
    metrics = {name: usual.clone() for name in made if not names or name in names}
    for batch in batches:
        for name, own in metrics.items():
            made[name](batch, own)
    return {name: {key: float(v) for key, v in own.compute().items()} for name, own in metrics.items()}, count
