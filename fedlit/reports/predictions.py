"""What each client's personal model predicts on its test data, as one file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from fedlit.errors import FedlitError
from fedlit.federation.loop import FederatedLoop
from fedlit.reports.labels import labels
from fedlit.runs.folder import RunFolder
from fedlit.tasks.task import member


def write_predictions(loop: FederatedLoop, folder: RunFolder) -> Path:
    """Have the sites write the task's ``prediction_file``, with its ``prediction_columns``.

    Where the task can score predictions and one site holds all clients, ``pooled.json`` is written too: its test
    metrics of all clients' examples together, each by the model that its client serves. Most are no mean of clients'
    scores.

    Returns:
        The file; sites elsewhere write one of this name each.

    Raises:
        FedlitError: The task does not say what its columns are, no client has test data, or the disk is full.
    """
    session = loop.session
    replies = loop.ask("predict")
    path = folder.path / str(member(session.task, "prediction_file"))
    clients = sum(reply.num_examples > 0 for reply in replies)
    if not clients:
        raise FedlitError("no client has test data, so there is nothing to predict")
    session.fabric.print(f"predictions: {path}")
    pooled = [reply.scores["pooled"] for reply in replies if "pooled" in reply.scores]
    if len(pooled) == 1 and session.fabric.is_global_zero:
        shown: dict[str, Any] = {name: None if math.isnan(value) else value for name, value in pooled[0].items()}
        folder.write_json("pooled.json", {"clients": clients, "test": shown, "labels": labels(session)})
        figures = ", ".join(f"{name} {value:.4f}" for name, value in pooled[0].items())
        session.fabric.print(f"test data of {clients} clients pooled: {figures}\n{folder.path / 'pooled.json'}")
    return path
