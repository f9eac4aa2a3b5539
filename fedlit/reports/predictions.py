"""What each client's personal model predicts on its test data, as one file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedlit.engine.batches import evaluation_loader
from fedlit.errors import FedlitError, writing
from fedlit.reports.labels import labels
from fedlit.runs.folder import RunFolder

if TYPE_CHECKING:
    from fedlit.federation.loop import FederatedLoop


def write_predictions(loop: FederatedLoop, folder: RunFolder) -> Path:
    """Write the task's ``prediction_file``, with its ``prediction_columns``, batch by batch.

    Where the task can score predictions, ``pooled.json`` is written too: its test metrics of all clients' examples
    together, each by the model that its client serves. Most are no mean of clients' scores.

    Returns:
        The file.

    Raises:
        FedlitError: The task does not say what its columns are, no client has test data, or the disk is full.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    task = loop.engine.task
    if not hasattr(task, "prediction_columns"):
        raise FedlitError(
            f"{type(task).__name__} has no method prediction_columns, which turns what predict_step gives into columns "
            "by name: write it, as fedlit.tasks.Task has it"
        )
    path = folder.path / str(task.prediction_file)
    if not loop.fabric.is_global_zero:
        return path
    metrics = task.test_metrics
    metrics.reset()
    writer, clients, scored = None, 0, True
    try:
        for client in loop.data.clients[: loop.trainer.limit_eval_clients]:
            batches = evaluation_loader(loop.data, loop.data.dataset((client,), "test"))
            model = loop.local.personal(client, loop.rule.down(loop.state, client))
            found = False
            for prediction in loop.engine.predict(model, batches):
                found = True
                scored = scored and task.score_prediction(prediction, metrics)
                table = pa.table(task.prediction_columns(prediction))
                with writing(path):
                    writer = writer or pq.ParquetWriter(path, table.schema)
                    writer.write_table(table)
            clients += found
    finally:
        if writer is not None:
            with writing(path):
                writer.close()
    if writer is None:
        raise FedlitError("no client has test data, so there is nothing to predict")
    loop.fabric.print(f"predictions: {path}")
    if scored:
        _write_pooled(loop, folder, {name: float(value) for name, value in metrics.compute().items()}, clients)
    metrics.reset()
    return path


def _write_pooled(loop: FederatedLoop, folder: RunFolder, scores: dict[str, float], clients: int) -> None:
    shown: dict[str, Any] = {name: None if math.isnan(value) else value for name, value in scores.items()}
    folder.write_json("pooled.json", {"clients": clients, "test": shown, "labels": labels(loop.trainer)})
    figures = ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
    loop.fabric.print(f"test data of {clients} clients pooled: {figures}\n{folder.path / 'pooled.json'}")
