"""Predictions as a Parquet table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedlit.clients.batches import evaluation_loader
from fedlit.errors import FedlitError, writing
from fedlit.run_folder import RunFolder

if TYPE_CHECKING:
    from fedlit.loop import FederatedLoop


def write_predictions(loop: FederatedLoop, folder: RunFolder) -> Path:
    """Write ``forecasts.parquet``: client, record, start, horizon step, target, and one column a quantile.

    Targets and quantiles are in the signal's own units; ``start`` is the index of the first context sample at the
    sampling rate of the data module; ``horizon_step`` counts from 1. It is written window batch by window batch.

    Returns:
        The file.

    Raises:
        FedlitError: No client has test data, or the disk is full.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder.path / "forecasts.parquet"
    if not loop.fabric.is_global_zero:
        return path
    writer = None
    try:
        for columns in _columns(loop):
            table = pa.table(columns)
            with writing(path):
                writer = writer or pq.ParquetWriter(path, table.schema)
                writer.write_table(table)
    finally:
        if writer is not None:
            with writing(path):
                writer.close()
    if writer is None:
        raise FedlitError("no client has test data, so there is nothing to predict")
    loop.fabric.print(f"forecasts: {path}")
    return path


def _columns(loop: FederatedLoop) -> Iterator[dict[str, Any]]:
    import numpy as np

    data = loop.data
    for client in data.clients[: loop.trainer.limit_eval_clients]:
        dataset = data.dataset((client,), "test")
        batches = evaluation_loader(data, dataset)
        model = loop.local.personal(client, loop.rule.down(loop.state, client))
        for out in loop.engine.predict(model, batches):
            target, quantiles = np.asarray(out["target"]), np.asarray(out["quantiles"])
            windows, steps = target.shape
            columns: dict[str, Any] = {
                "client": np.repeat(np.asarray(out["client"], dtype=object), steps),
                "record": np.repeat(np.asarray(out["record"], dtype=object), steps),
                "start": np.repeat(np.asarray(out["start"]), steps),
                "horizon_step": np.tile(np.arange(1, steps + 1), windows),
                "target": target.ravel(),
            }
            for i, level in enumerate(loop.engine.task.quantiles):
                columns[f"q{level:g}"] = quantiles[:, i].ravel()
            yield columns
