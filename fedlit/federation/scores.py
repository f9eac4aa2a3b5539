"""Scores of the global and the personal models on clients' data, as rows of ``metrics.csv``."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torchmetrics import MetricCollection

from fedlit.errors import FedlitError
from fedlit.runs.folder import SUMMARY_ROWS, summary_rows
from fedlit.transports import Reply

Row = tuple[int, str, str, str, str, str, float, int]


def score_rows(round: int, stage: str, split: str, replies: Iterable[Reply], metrics: Any) -> list[Row]:  # noqa: A002
    """One row for each model, client and metric, then the summary rows over clients.

    A metric counts as many examples as were scored, without those that ``<metric>_left_out`` of the scores says.

    Args:
        round: Rounds done so far.
        stage: ``start``, ``after_local`` or ``after_aggregation``.
        split: ``val``, ``test`` or ``external``.
        replies: With ``scores``; those of clients without examples are left out.
        metrics: The task's metrics, for ``higher_is_better``.
    """
    rows: list[Row] = []
    values: dict[tuple[str, str], dict[str, tuple[float, int]]] = defaultdict(dict)
    for reply in sorted(replies, key=lambda r: r.client):
        count = int(reply.metrics.get("evaluated", reply.num_examples))
        for model, scores in sorted(reply.scores.items()):
            for metric, value in scores.items():
                own = max(0, count - int(scores.get(f"{metric}_left_out", 0)))
                rows.append((round, stage, model, reply.client, split, metric, value, own))
                values[model, metric][reply.client] = (value, own)
    for (model, metric), by_client in values.items():
        for name, (value, count) in summary_rows(by_client, higher_is_better(metrics, metric)).items():
            rows.append((round, stage, model, name, split, metric, value, count))
    return rows


def training_rows(
    round: int,  # noqa: A002
    replies: Iterable[Reply],
    refused: Iterable[str],
    missing: Iterable[str],
    figures: Sequence[str],
) -> list[Row]:
    """Each client's loss and further figures of its training, then who was refused, and who did not answer.

    Args:
        round: Rounds done so far.
        replies: Admitted ones.
        refused: Clients whose reply does not count.
        missing: Clients without a reply.
        figures: Names among the replies' metrics.
    """
    rows: list[Row] = []
    for reply in sorted(replies, key=lambda r: r.client):
        values = {"loss": reply.metrics["train_loss"], **{name: reply.metrics[name] for name in figures}}
        head = (round, "after_local", "personal", reply.client, "train")
        rows += [(*head, name, value, reply.num_examples) for name, value in values.items()]
    for metric, clients in (("refused", refused), ("missing", missing)):
        rows += [(round, "after_local", "personal", client, "train", metric, 1.0, 0) for client in sorted(clients)]
    return rows


def higher_is_better(metrics: Any, name: str) -> bool:
    """Which way a metric points.

    Args:
        metrics: A MetricCollection, whose member is asked; or one metric that computes several figures, whose
            ``directions``, ``{figure: higher is better}``, is asked first and then its own ``higher_is_better``.
        name: What comes before a slash names the metric.
    """
    first = name.split("/")[0]
    if isinstance(metrics, MetricCollection):
        metrics = dict(metrics.items()).get(first)
    directions = getattr(metrics, "directions", {})
    return bool(directions.get(first, getattr(metrics, "higher_is_better", False)))


class Monitor:
    """The figure by which rounds are compared, see ``trainer.monitor``.

    Args:
        name: Of the summary figure; None: no round is better than another.
        metrics: The task's for validation, which say which way it points.
        needed: Whether it is an error that the figure is not there. A baseline need not have every model that the run's
            own rule has.
    """

    def __init__(self, name: str | None, metrics: Any, needed: bool = True) -> None:
        self.name, self.metrics, self.needed = name, metrics, needed

    def improved(self, values: Mapping[str, float], best: float | None) -> float | None:
        """The figure, if a round has one that is better than the best so far.

        Args:
            values: Summary figures of the round.
            best: The best so far; None before the first.

        Raises:
            FedlitError: The figure is not there, though others of its split are.
        """
        if self.name is None or not values:
            return None
        split, *rest = self.name.split("/")
        if self.name not in values:
            measured = split not in ("train", "val") or any(n.startswith(f"{split}/") for n in values)
            if not measured or not self.needed:
                return None
            known = sorted(n for n in values if n.count("/") <= 2)
            raise FedlitError(f"trainer.monitor: there is no {self.name!r}; there are {known}")
        value = values[self.name]
        upwards = split == "val" and higher_is_better(self.metrics, rest[1])
        if math.isnan(value) or (best is not None and (value <= best if upwards else value >= best)):
            return None
        return value


def summaries(rows: Sequence[Row]) -> dict[str, float]:
    """Summary rows as flat names, ``val/personal/rmse`` for the mean and ``val/personal/rmse/worst`` and so on."""
    out = {}
    for _, _, model, client, split, metric, value, _ in rows:
        if client in SUMMARY_ROWS and "/step_" not in metric:
            out[f"{split}/{model}/{metric}" + ("" if client == "mean" else f"/{client}")] = value
    return out


def nested(rows: Sequence[Row]) -> dict[str, dict[str, dict[str, float]]]:
    """Summary rows as ``{model: {metric: {row: value}}}``."""
    out: dict[str, dict[str, dict[str, float]]] = {}
    for _, _, model, client, _, metric, value, _ in rows:
        if client in SUMMARY_ROWS:
            out.setdefault(model, {}).setdefault(metric, {})[client] = value
    return out
