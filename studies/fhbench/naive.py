"""Scores of what needs no network, on the examples that the rules of the study are scored on."""

from __future__ import annotations

import time
from typing import Any

from fedlit.data import ClassificationDataModule
from fedlit.engine.naive import naive_scores
from fedlit.runs.folder import summary_rows
from fedlit.tasks import ClassificationTask

PREDICTORS = ("commonest class", "linear model")
"""Of :meth:`fedlit.tasks.ClassificationTask.naive`, made by each client of its own training examples."""


def score(data: ClassificationDataModule, predictor: str) -> dict[str, Any]:
    """Figures on test data, over clients and of each, in the form that the runs of rules have."""
    begin = time.process_time()
    data.setup()
    task = ClassificationTask()
    task.take_data(data)
    primary = "micro_f1" if data.multi_label else "accuracy"
    found: dict[str, dict[str, tuple[float, int]]] = {}
    for client in data.clients:
        scores, count = naive_scores(task, data, client, "test", (predictor,), None)
        for metric in {primary, "balanced_accuracy"} & scores[predictor].keys():
            found.setdefault(metric, {})[client] = scores[predictor][metric], count
    figures = {
        metric: {row: value for row, (value, _) in summary_rows(by_client, higher_is_better=True).items()}
        for metric, by_client in found.items()
    }
    return {
        "seconds": round(time.process_time() - begin, 1), "clients": len(data.clients), "primary": primary,
        "tests": sum(len(data.dataset(client, "test")) for client in data.clients),
        "test": {"personal": figures}, "by_client": [value for value, _ in found[primary].values()],
    }  # fmt: skip
