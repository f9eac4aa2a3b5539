"""Forecasts without a model: the last value, the mean of the context, and its last period again."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Forecast = Callable[[Tensor, int], Tensor]
"""Point forecasts (batch, horizon) of a context (batch, time), NaN where missing, and a number of samples."""


def last_value(context: Tensor, horizon: int) -> Tensor:
    """The last value that is not missing, as the forecast of every step (batch, horizon)."""
    return filled(context)[:, -1:].expand(-1, horizon)


def context_mean(context: Tensor, horizon: int) -> Tensor:
    """The mean of the context, as the forecast of every step (batch, horizon)."""
    return context.nanmean(dim=1, keepdim=True).nan_to_num().expand(-1, horizon)


def last_period(context: Tensor, horizon: int) -> Tensor:
    """The last period of the context again and again (batch, horizon): the seasonal naive forecast.

    ``f(T + h) = x(T + h - m (floor((h - 1) / m) + 1))`` (Hyndman and Athanasopoulos, Forecasting: Principles and
    Practice, 3rd ed., section 5.2), with the period m that :func:`period` finds in the context.
    """
    values, length = filled(context), context.shape[1]
    m = period(context)[:, None]
    steps = torch.arange(horizon, device=context.device)[None]
    return values.gather(1, length - m + steps % m)


FORECASTS: Mapping[str, Forecast] = {
    "last value": last_value,
    "context mean": context_mean,
    "last period": last_period,
}


def period(context: Tensor) -> Tensor:
    """The period of each context in samples, int64 (batch,); 1 where it has none.

    It is the lag, of at most half the context, at which the autocorrelation is largest after it was first negative;
    there is none where it is never negative, or not positive afterwards. Missing values count as the mean.

    Args:
        context: (batch, time), NaN where missing.
    """
    centred = (context.double() - context.double().nanmean(dim=1, keepdim=True)).nan_to_num()
    length = centred.shape[1]
    power = torch.fft.rfft(centred, n=2 * length).abs().square()
    lags = torch.arange(length, device=context.device)
    found = torch.fft.irfft(power, n=2 * length)[:, :length] / (length - lags)  # pairs that far apart: a mean of each
    tiny = 1e-9 * found[:, :1].abs()
    after = (found < -tiny).cumsum(dim=1) > 0
    usable = after & (lags <= length // 2) & (found > tiny)
    found = found.masked_fill(~usable, -torch.inf)
    largest = found >= found.max(dim=1, keepdim=True).values - tiny  # a period's multiples are alike but for rounding
    best = largest.int().argmax(dim=1)
    return torch.where(usable.any(dim=1), best, torch.ones_like(best))


def filled(context: Tensor) -> Tensor:
    """A context whose missing values are the last one before them, or, at its beginning, the mean; 0 without any."""
    known = ~context.isnan()
    places = torch.arange(context.shape[1], device=context.device).expand_as(context)
    last = torch.where(known, places, -1).cummax(dim=1).values
    mean = context.nanmean(dim=1, keepdim=True).nan_to_num().expand_as(context)
    return torch.where(last < 0, mean, context.nan_to_num().gather(1, last.clamp(min=0)))
