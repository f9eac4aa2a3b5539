"""Forecasts without a model: the last value, the mean of the context, and its last period again."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Forecast = Callable[[Tensor, int], Tensor]
"""Point forecasts (batch, horizon) of a context (batch, time), NaN where missing, and a number of samples."""
SIGNIFICANT = 1.96
"""Autocorrelations of white noise are below this over the root of the length, at 95 % (Box and Jenkins 1970)."""


def last_value(context: Tensor, horizon: int) -> Tensor:
    """The last value that is not missing, as the forecast of every step (batch, horizon)."""
    return filled(context)[:, -1:].expand(-1, horizon)


def context_mean(context: Tensor, horizon: int) -> Tensor:
    """The mean of the context, as the forecast of every step (batch, horizon)."""
    return context.nanmean(dim=1, keepdim=True).nan_to_num().expand(-1, horizon)


def last_period(context: Tensor, horizon: int, season_length: int | None = None) -> Tensor:
    """The last period of the context again and again (batch, horizon): the seasonal naive forecast.

    ``f(T + h) = x(T + h - m (floor((h - 1) / m) + 1))`` (Hyndman and Athanasopoulos, Forecasting: Principles and
    Practice, 3rd ed., section 5.2), with the period m that is given, or that :func:`period` finds in the context.
    """
    values, length = filled(context), context.shape[1]
    given = None if season_length is None else torch.full((len(context),), min(season_length, length))
    m = (period(context) if given is None else given.to(context.device))[:, None]
    steps = torch.arange(horizon, device=context.device)[None]
    return values.gather(1, length - m + steps % m)


FORECASTS: Mapping[str, Forecast] = {
    "last value": last_value,
    "context mean": context_mean,
    "last period": last_period,
}


def period(context: Tensor) -> Tensor:
    """The period of each context in samples, int64 (batch,); 1 where it has none.

    It is the lag of the highest peak of the autocorrelation, of those after it was first negative and up to half of the
    context, if that peak is above :data:`SIGNIFICANT` over the root of the length. The autocorrelation is the usual
    one, whose sums are divided by the whole length: so of a period and its multiples the first is highest. Missing
    values count as the mean. Peaks of the autocorrelation as candidates: Vlachos, Yu and Castelli 2005, On periodicity
    detection and structural periodic similarity.

    Args:
        context: (batch, time), NaN where missing.
    """
    centred = (context.double() - context.double().nanmean(dim=1, keepdim=True)).nan_to_num()
    length = centred.shape[1]
    power = torch.fft.rfft(centred, n=2 * length).abs().square()
    sums = torch.fft.irfft(power, n=2 * length)[:, : length // 2 + 2]
    r = sums / sums[:, :1].clamp(min=torch.finfo(torch.float64).tiny)
    inner = r[:, 1:-1]  # from a lag of 1
    peak = (inner >= r[:, :-2]) & (inner > r[:, 2:]) & (inner > SIGNIFICANT / length**0.5)
    usable = peak & ((r < -1e-9).cumsum(dim=1)[:, 1:-1] > 0)
    best = inner.masked_fill(~usable, -torch.inf)
    if not best.shape[1]:
        return torch.ones(len(context), dtype=torch.int64, device=context.device)
    return torch.where(usable.any(dim=1), best.argmax(dim=1) + 1, 1)


def filled(context: Tensor) -> Tensor:
    """A context whose missing values are the last one before them, or, at its beginning, the mean; 0 without any."""
    known = ~context.isnan()
    places = torch.arange(context.shape[1], device=context.device).expand_as(context)
    last = torch.where(known, places, -1).cummax(dim=1).values
    mean = context.nanmean(dim=1, keepdim=True).nan_to_num().expand_as(context)
    return torch.where(last < 0, mean, context.nan_to_num().gather(1, last.clamp(min=0)))
