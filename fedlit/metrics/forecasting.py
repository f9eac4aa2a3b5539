"""Errors of forecasts, accumulated in float64 on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torchmetrics import Metric

from fedlit.errors import FedlitError

QUANTILES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


class ForecastMetrics(Metric):
    """RMSE, MAE, sMAPE, MASE and weighted quantile loss, overall, by signal kind and by horizon step.

    With y the target, f the median forecast and q the forecast of level p:

    - ``rmse``: square root of the mean of (y - f)^2 over all windows and steps (one pool, not a mean of batches).
    - ``mae``: mean of |y - f|.
    - ``smape``: mean of 200 |y - f| / (|y| + |f| + 1e-8), in percent. Samples of which both are 0 are left out, and
      counted in ``smape_samples_left_out`` where there are any.
    - ``mase``: mean over windows of (MAE of the window / mean |x_t - x_(t-1)| in its context), season of 1
      (Hyndman and Koehler 2006). Windows whose context never moves are left out and counted in ``mase_left_out``.
    - ``wql``: mean over levels of 2 sum((y - q)(p - 1[y < q])) / sum |y| (Ansari et al. 2024, arXiv 2403.07815);
      NaN where all y are 0.

    ``compute`` returns scalars by name: ``rmse``; ``rmse/ecg`` for each kind seen; with ``steps=True`` also
    ``rmse/step_01``. All are computed on the values given: scaled ones, so that signals of any unit can be pooled.
    Lower is better. Not reduced across processes: each client is scored in one.

    Args:
        quantiles: Levels of the forecasts, 0.5 among them.
        steps: Also report RMSE, MAE and sMAPE by horizon step.
        rmse_reduction: ``"global"``, or ``"batch_mean"``: the mean over batches of each batch's RMSE, as the
            code of arXiv 2502.09744 has it. By step it is always global.
    """

    higher_is_better = False
    is_differentiable = False
    full_state_update = False
    headline: ClassVar[tuple[str, ...]] = ("rmse", "mae", "smape")
    """What tables show, the primary one first."""
    note: str = (
        "errors are of values as data.scale gives them (context: 1 is the range of a window's context); so is smape, "
        "in percent of such values and not of the signal's own unit"
    )
    """What tables say of the figures."""

    def __init__(
        self,
        quantiles: Sequence[float] = QUANTILES,
        steps: bool = False,
        rmse_reduction: Literal["global", "batch_mean"] = "global",
    ) -> None:
        super().__init__(sync_on_compute=False)
        if 0.5 not in quantiles:
            raise FedlitError(f"quantiles {list(quantiles)}: 0.5 must be among them, the point forecast is the median")
        if rmse_reduction not in ("global", "batch_mean"):
            raise FedlitError(f"rmse_reduction {rmse_reduction!r}: give 'global' or 'batch_mean'")
        self.quantiles = tuple(quantiles)
        self.steps = steps
        self.rmse_reduction = rmse_reduction
        if rmse_reduction == "batch_mean":
            self.note = f"{self.note}; rmse is the mean over batches of each batch's (model.rmse_reduction)"
        self._sums: dict[str, dict[str, Tensor]] = {}

    def update(self, quantiles: Tensor, target: Tensor, context: Tensor, kind: Sequence[str]) -> None:
        """Add a batch.

        Args:
            quantiles: (batch, levels, horizon).
            target: (batch, horizon), nothing missing.
            context: (batch, time), NaN where missing.
            kind: Signal kind of each example.
        """
        quantiles, target, context = (
            values.detach().to("cpu", torch.float64) for values in (quantiles, target, context)
        )
        if torch.isnan(target).any():
            raise FedlitError("a target holds NaN: windows with missing targets must be left out before scoring")
        self._add("", self._measure(quantiles, target, context))
        for name in sorted(set(kind)):
            rows = torch.tensor([own == name for own in kind])
            self._add(name, self._measure(quantiles[rows], target[rows], context[rows]))

    def compute(self) -> dict[str, Tensor]:
        """Every metric as a float64 scalar; empty before the first batch."""
        out: dict[str, Tensor] = {}
        for name in sorted(self._sums):
            scores = self._scores(self._sums[name])
            out |= {f"{metric}/{name}" if name else metric: value for metric, value in scores.items()}
        if self.steps and self._sums:
            sums = self._sums[""]
            width = max(2, len(str(len(sums["squared"]))))
            by_step = {
                "rmse": (sums["squared"] / sums["windows"]).sqrt(),
                "mae": sums["absolute"] / sums["windows"],
                "smape": sums["relative"] / sums["compared"],
            }
            for metric, values in by_step.items():
                out |= {f"{metric}/step_{i:0{width}d}": value for i, value in enumerate(values, start=1)}
        return out

    def reset(self) -> None:
        super().reset()
        self._sums = {}

    def _apply(self, fn: Callable[..., object], exclude_state: Sequence[str] = ()) -> ForecastMetrics:
        return self  # the sums stay in float64 on the CPU, whatever device the task moves to

    def _add(self, name: str, sums: dict[str, Tensor]) -> None:
        seen = self._sums.get(name)
        self._sums[name] = sums if seen is None else {key: seen[key] + value for key, value in sums.items()}

    def _measure(self, quantiles: Tensor, target: Tensor, context: Tensor) -> dict[str, Tensor]:
        """What a batch adds. By step: squared, absolute, relative (horizon,); by level: pinball (levels,)."""
        point = quantiles[:, self.quantiles.index(0.5)]
        error = target - point
        levels = torch.tensor(self.quantiles, dtype=torch.float64)[None, :, None]
        gap = target[:, None] - quantiles
        pinball = gap * (levels - (gap < 0).double())
        naive = context.diff(dim=-1).abs().nanmean(-1)
        moves = naive > 0  # False also for NaN, a context with no two neighbours
        relative = 200 * error.abs() / (target.abs() + point.abs() + 1e-8)
        unit = torch.ones((), dtype=torch.float64)
        return {
            "windows": unit * len(target),
            "batches": unit,
            "batch_rmse": error.square().mean().sqrt(),
            "squared": error.square().sum(0),
            "absolute": error.abs().sum(0),
            "relative": relative.sum(0),
            "compared": (target.abs() + point.abs() > 0).sum(0).double(),
            "pinball": pinball.sum((0, 2)),
            "size": target.abs().sum(),
            "scaled": (error.abs().mean(-1)[moves] / naive[moves]).sum(),
            "moving": moves.sum().double(),
        }

    def _scores(self, sums: dict[str, Tensor]) -> dict[str, Tensor]:
        pooled = (sums["squared"].mean() / sums["windows"]).sqrt()
        batched = sums["batch_rmse"] / sums["batches"]
        left_out = sums["windows"] * len(sums["compared"]) - sums["compared"].sum()
        size = torch.where(sums["size"] > 0, sums["size"], torch.nan)
        out = {
            "rmse": pooled if self.rmse_reduction == "global" else batched,
            "mae": sums["absolute"].mean() / sums["windows"],
            "smape": sums["relative"].sum() / sums["compared"].sum(),
            "mase": sums["scaled"] / sums["moving"],
            "mase_left_out": sums["windows"] - sums["moving"],
            "wql": 2 * (sums["pinball"] / size).mean(),
        }
        return out | ({"smape_samples_left_out": left_out} if left_out else {})
