"""Forecasts without a model, against values worked out by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedlit.metrics.forecasting import ForecastMetrics
from fedlit.tasks import ForecastingTask
from fedlit.tasks.naive.forecasting import FORECASTS, context_mean, filled, last_period, last_value, period

NAN = math.nan


def test_values_by_hand():
    context = torch.tensor([[1.0, 2.0, 6.0], [4.0, NAN, NAN], [NAN, 3.0, 5.0], [NAN, NAN, NAN]])
    assert last_value(context, 2).tolist() == [[6, 6], [4, 4], [5, 5], [0, 0]]
    assert context_mean(context, 2).tolist() == [[3, 3], [4, 4], [4, 4], [0, 0]]
    assert filled(context).tolist() == [[1, 2, 6], [4, 4, 4], [4, 3, 5], [0, 0, 0]]


@pytest.mark.parametrize("length", [8, 13, 25, 40])
def test_a_periodic_signal_is_forecast_without_error(length):
    shape = torch.randn(length, generator=torch.Generator().manual_seed(length))
    signal = shape.repeat(8)[None]
    assert period(signal[:, : 4 * length]).item() == length
    forecast = last_period(signal[:, : 4 * length], 3 * length)
    torch.testing.assert_close(forecast, signal[:, 4 * length : 7 * length], rtol=0, atol=0)


def test_a_sine_of_a_period_that_is_no_whole_number():
    t = torch.arange(400.0)
    assert period(torch.sin(2 * torch.pi * t / 31.3)[None]).item() in (31, 63, 94)


def test_what_has_no_period_repeats_its_last_value():
    rising, flat = torch.arange(50.0)[None], torch.full((1, 50), 3.0)
    for context in (flat, torch.full((1, 50), NAN)):
        assert period(context).item() == 1
        assert torch.equal(last_period(context, 4), last_value(context, 4))
    assert period(rising).item() == 1


@given(st.integers(0, 999), st.integers(1, 30))
def test_a_row_does_not_depend_on_the_others(seed, horizon):
    generator = np.random.default_rng(seed)
    values = generator.normal(size=(5, 60)).cumsum(axis=1)
    values[generator.random(values.shape) < 0.2] = NAN
    context = torch.from_numpy(values).float()
    for forecast in FORECASTS.values():
        whole = forecast(context, horizon)
        assert whole.shape == (5, horizon)
        assert torch.isfinite(whole).all()
        for i in range(5):
            torch.testing.assert_close(forecast(context[i : i + 1], horizon)[0], whole[i], rtol=1e-5, atol=1e-6)


def test_the_task_scores_them_by_its_own_metrics():
    task = ForecastingTask(prediction_length=2)
    context, target = torch.tensor([[0.0, 1.0, 0.5]]), torch.tensor([[1.0, 0.0]])
    batch = {"context": context, "target": target, "kind": ["ecg"]}
    found = task.naive([])
    assert list(found) == ["last value", "context mean", "last period"]
    metrics = ForecastMetrics()
    found["last value"](batch, metrics)
    assert float(metrics.compute()["rmse"]) == pytest.approx(0.5)
    assert float(metrics.compute()["mae"]) == pytest.approx(0.5)
