"""What is written of a model: in the format that PEFT or transformers load, and what it predicts."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

from fedlit.aggregators import Aggregator
from fedlit.engine.engine import Engine
from fedlit.errors import FedlitError, writing
from fedlit.tasks.task import member


def export_model(engine: Engine, rule: Aggregator, model: Any, folder: Path) -> None:
    """Write a model by its task's ``export``; nothing where the task has none.

    Where a rule changed frozen weights, an adapter alone would lose that: such a model is written whole, the adapters
    merged into it.

    Args:
        engine: Its network takes the model.
        rule: The rule that made it.
        model: A flat dict of parameters.
        folder: Where to.

    Raises:
        FedlitError: The task's ``export`` has no argument ``merge``, and the rule changed frozen weights.
    """
    export = member(engine.task, "export")
    if export is None:
        return
    engine.load(model)
    if model.keys() <= engine.parameters.keys():
        export(folder)
    elif "merge" in inspect.signature(export).parameters:
        export(folder, merge=True)
    else:
        raise FedlitError(
            f"{type(rule).__name__} changed frozen weights, which {type(engine.task).__name__}.export would leave out: "
            "give it an argument `merge`, with which it writes the whole network, adapters merged"
        )


class Predictions:
    """Writes the task's ``prediction_file``, with its ``prediction_columns``, batch by batch.

    Args:
        engine: Predicts.
        folder: Where the file goes.

    Raises:
        FedlitError: The task does not say what its columns are.
    """

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine, self.task = engine, engine.task
        if member(self.task, "prediction_columns") is None:
            raise FedlitError(
                f"{type(self.task).__name__} has no method prediction_columns, which turns what predict_step gives "
                "into columns by name: write it, as fedlit.tasks.Task has it"
            )
        self.path = folder / str(member(self.task, "prediction_file"))
        self._writer: Any = None
        self._scored = True

    def __enter__(self) -> Self:
        self.task.test_metrics.reset()
        return self

    def __exit__(self, *error: object) -> None:
        if self._writer is not None:
            with writing(self.path):
                self._writer.close()

    def add(self, model: Any, batches: Iterable[Any]) -> None:
        """Write what a model predicts.

        Raises:
            FedlitError: The disk is full.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        for prediction in self.engine.predict(model, batches):
            self._scored = self._scored and self.task.score_prediction(prediction, self.task.test_metrics)
            table = pa.table(self.task.prediction_columns(prediction))
            with writing(self.path):
                self._writer = self._writer or pq.ParquetWriter(self.path, table.schema)
                self._writer.write_table(table)

    def pooled(self) -> dict[str, float]:
        """Test metrics of all that was predicted together, each example by the model that predicted it.

        Empty where nothing was predicted, or the task cannot score predictions.
        """
        metrics = self.task.test_metrics
        known = self._writer is not None and self._scored
        values = {name: float(value) for name, value in metrics.compute().items()} if known else {}
        metrics.reset()
        return values
