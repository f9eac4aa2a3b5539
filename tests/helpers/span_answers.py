"""What tests of both tasks on documents ask of a model: its scores on documents, and what it predicts of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from fedlit.data.documents.documents import Document
from fedlit.metrics.spans.scores import SpanScores

HEADLINE = ("entity_strict_f1", "relation_strict_f1", "entity_lenient_f1", "relation_lenient_f1")


def batch(documents: Sequence[Document]) -> dict[str, Any]:
    """As a data module gives them."""
    return {
        "document": list(documents),
        "client": [one.site for one in documents],
        "index": torch.arange(len(documents)),
    }


def scores(task, documents: Sequence[Document]) -> dict[str, float]:
    """Of a task's answers."""
    metrics = SpanScores()
    task.evaluate(batch(documents), metrics)
    return {name: float(value) for name, value in metrics.compute().items()}


def assert_learnt(task, documents: Sequence[Document]) -> dict[str, float]:
    """Everything in the documents is found, and the loss is small; their scores."""
    found = scores(task, documents)
    assert [found[name] for name in HEADLINE] == [1.0] * 4
    assert found["loss"] < 0.05
    return found


def assert_predicts(task, documents: Sequence[Document]) -> dict[str, Any]:
    """Columns of predictions hold no text, and nothing that was not asked; they say the truth. The columns.

    Args:
        task: One that has learnt the documents.
        documents: Three. The first is taken without relations, the second without mentions.
    """
    own = [replace(documents[0], annotated=frozenset({"entities"}), relations=()),
           replace(documents[1], annotated=frozenset({"relations"})), documents[2]]  # fmt: skip
    prediction = task.predict_step(batch(own))
    columns = task.prediction_columns(prediction)
    assert set(columns) == {"client", "id", "entities", "relations"}
    assert columns["id"] == [one.id for one in own]
    entities, relations = ([json.loads(one) for one in columns[name]] for name in ("entities", "relations"))
    assert (entities[1], relations[0]) == (None, None)
    gold = {one.id: [one.type, [[one.start, one.stop]]] for one in own[2].entities}
    assert entities[2] == [*gold.values()]
    wanted = [[one.type, gold[one.head], gold[one.tail]] for one in own[2].relations]
    assert sorted(relations[2], key=str) == sorted(wanted, key=str)
    metrics = SpanScores()
    assert task.score_prediction(prediction, metrics)
    assert float(metrics.compute()["relation_strict_f1"]) == 1.0
    return columns
