"""Forecasts without a model, against values worked out by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedlit.errors import FedlitError
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


@given(st.integers(4, 40), st.integers(0, 2**31), st.floats(0.0, 0.2))
def test_the_period_of_a_noisy_wave_is_found(length, seed, noise):
    draws = np.random.default_rng(seed)
    angle = 2 * np.pi * np.arange(4 * length) / length + draws.uniform(0, 2 * np.pi)
    wave = np.sin(angle) + noise * draws.normal(size=4 * length)
    assert abs(int(period(torch.from_numpy(wave)[None])[0]) - length) <= max(1, round(0.1 * length))


def test_the_period_is_the_highest_peak_of_the_autocorrelation_summed_by_hand():
    draws = np.random.default_rng(0)
    wave = np.sin(np.arange(90) / 3) + np.sin(np.arange(90) / 1.5 + 1) + 0.2 * draws.normal(size=90)
    x = wave - wave.mean()
    r = np.array([(x[: 90 - k] * x[k:]).sum() / (x * x).sum() for k in range(47)])
    fallen = int(np.flatnonzero(r < 0)[0])
    peaks = [k for k in range(fallen, 46) if r[k] >= r[k - 1] and r[k] > r[k + 1] and r[k] > 1.96 / 90**0.5]
    assert int(period(torch.from_numpy(wave)[None])[0]) == max(peaks, key=lambda k: r[k])


@pytest.mark.parametrize("samples", [1, 2, 3, 5])
def test_contexts_too_short_for_a_period_have_none(samples):
    assert period(torch.arange(2.0 * samples).reshape(2, samples) % 2).tolist() == [1, 1]


def test_a_period_that_is_given_is_taken():
    context = torch.tensor([[9.0, 1.0, 2.0, 3.0, NAN, 5.0]])
    assert last_period(context, 4, 3).tolist() == [[3, 3, 5, 3]]
    assert last_period(context, 2, 100).tolist() == [[9, 1]]
    task = ForecastingTask(prediction_length=2, season_length=3)
    metrics = ForecastMetrics()
    task.naive([])["last period"]({"context": context, "target": torch.tensor([[3.0, 4.0]]), "kind": ["x"]}, metrics)
    assert float(metrics.compute()["mae"]) == pytest.approx(0.5)
    with pytest.raises(FedlitError, match="model.season_length is 0: give a number of samples"):
        ForecastingTask(season_length=0)
