"""A mean of nothing is undefined: NaN, and neither 0 nor 1, nor infinite."""

from __future__ import annotations

import math

import pytest
import torch

from fedlit.metrics.classification import ClassificationMetrics
from fedlit.metrics.forecasting import QUANTILES, ForecastMetrics
from fedlit.metrics.spans.scores import SpanScores
from fedlit.runs.folder import summary_rows


def forecasts(target, forecast, context=None):
    metrics = ForecastMetrics(steps=True)
    target, forecast = torch.tensor(target), torch.tensor(forecast)
    context = torch.randn(len(target), 8) if context is None else context
    metrics.update(forecast[:, None].expand(-1, len(QUANTILES), -1), target, context, ["ecg"] * len(target))
    return {name: float(value) for name, value in metrics.compute().items()}


def test_where_target_and_forecast_are_0_no_relative_error_is_defined():
    found = forecasts([[0.0, 1.0], [0.0, 3.0]], [[0.0, 1.0], [0.0, 1.0]])
    assert found["smape"] == pytest.approx(200 * 2 / 4 / 2, rel=1e-6)
    assert math.isnan(found["smape/step_01"])
    assert found["smape/step_02"] == pytest.approx(50, rel=1e-6)
    assert found["smape_samples_left_out"] == found["smape_samples_left_out/ecg"] == 2
    assert found["mae"] == 0.5
    assert "smape_samples_left_out" not in forecasts([[1.0]], [[0.0]])


def test_targets_that_are_all_0_have_no_weighted_loss():
    assert math.isnan(forecasts([[0.0, 0.0]], [[1.0, 1.0]])["wql"])
    found = forecasts([[0.0, 0.0]], [[0.0, 0.0]])
    assert math.isnan(found["wql"])
    assert math.isnan(found["smape"])
    assert found["rmse"] == 0


def test_contexts_that_never_move_have_no_scaled_error():
    found = forecasts([[1.0], [2.0]], [[1.0], [1.0]], torch.ones(2, 8))
    assert math.isnan(found["mase"])
    assert found["mase_left_out"] == 2


def test_labels_that_nobody_has_or_guesses_have_no_f1():
    metrics = ClassificationMetrics()
    metrics.update(torch.full((3, 2), -5.0), torch.zeros(3, 2))
    found = {name: float(value) for name, value in metrics.compute().items()}
    assert all(math.isnan(found[name]) for name in ("macro_f1", "micro_f1", "auroc"))
    assert found["classes_left_out"] == 2
    assert found["subset_accuracy"] == 1


def test_no_example_has_no_score():
    metrics = ClassificationMetrics()
    assert metrics.compute() == {}
    metrics.update(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))
    found = metrics.compute()
    assert all(value.isnan() for name, value in found.items() if name != "classes_left_out"), found
    assert SpanScores().compute() == {}
    assert ForecastMetrics().compute() == {}


def test_a_client_without_a_value_is_in_no_row_over_clients():
    rows = summary_rows({"a": (1.0, 2), "b": (math.nan, 100), "c": (4.0, 1)}, higher_is_better=False)
    assert rows["mean"] == (2.5, 3)
    assert rows["weighted_mean"] == (2.0, 3)
    assert rows["worst"] == (4.0, 1)
    assert all(math.isnan(value) for value, _ in summary_rows({"b": (math.nan, 9)}, True).values())
