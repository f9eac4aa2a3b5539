"""Forecasting with a foundation model, fine-tuned whole or by LoRA."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from fedlit.backbones.chronos import Family, unwrap
from fedlit.backbones.lora import LoRA
from fedlit.errors import FedlitError
from fedlit.metrics.forecasting import QUANTILES, ForecastMetrics
from fedlit.tasks.fine_tuned import FineTuned
from fedlit.tasks.naive.forecasting import FORECASTS, Forecast, last_period
from fedlit.tasks.task import Batch, Naive


class ForecastingTask(FineTuned):
    """Forecast the next ``prediction_length`` samples of a signal with a Chronos model.

    The loss is the family's own: token cross-entropy for Chronos-T5 (nats per token), the quantile loss of the
    normalised target for Chronos-Bolt (summed over the horizon) and Chronos-2 (summed over quantiles). So losses of
    two families cannot be compared, and a penalty such as FedProx's mu weighs differently against each; compare
    metrics. The point forecast is the median.

    Args:
        backbone: ``"builtin"``, a folder, or a Hub id such as ``amazon/chronos-bolt-tiny``.
        adapter: LoRA settings; None fine-tunes every parameter.
        prediction_length: Horizon in samples.
        rmse_reduction: See :class:`fedlit.metrics.forecasting.ForecastMetrics`.
        season_length: Period in samples of the forecast by the last period, which rules are compared with; None: found
            in each context. No model sees it.
        kwargs: See :class:`fedlit.tasks.fine_tuned.FineTuned`.

    A batch holds ``context`` (batch, time), ``target`` (batch, horizon), ``kind``, and for ``predict_step`` also
    ``offset``, ``scale`` (batch,), ``record``, ``client``, ``start``.
    """

    added_arguments: ClassVar[Mapping[str, Any]] = {**FineTuned.added_arguments, "season_length": None}
    quantiles: tuple[float, ...] = QUANTILES
    prediction_file: ClassVar[str] = "forecasts.parquet"

    def __init__(
        self,
        backbone: str = "builtin",
        adapter: LoRA | None = LoRA(),  # noqa: B008  # frozen
        prediction_length: int = 64,
        rmse_reduction: Literal["global", "batch_mean"] = "global",
        season_length: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, adapter, **kwargs)
        if prediction_length < 1:
            raise FedlitError(f"prediction_length is {prediction_length}: forecast at least one sample")
        if season_length is not None and season_length < 1:
            raise FedlitError(f"model.season_length is {season_length}: give a number of samples, or leave it out")
        self.prediction_length, self.season_length = prediction_length, season_length
        self.rmse_reduction = rmse_reduction
        self.val_metrics = ForecastMetrics(rmse_reduction=rmse_reduction)
        self.test_metrics = ForecastMetrics(steps=True, rmse_reduction=rmse_reduction)
        self._family: Family | None = None
        self._told = False

    def take_data(self, data: object) -> None:
        """Refuse data whose horizon is another, before a backbone is loaded.

        Raises:
            FedlitError: They differ; with both.
        """
        horizon = getattr(data, "prediction_length", None)
        if horizon is not None:
            self._check_horizon(horizon)

    def configure_model(self) -> None:
        """Load the backbone and put the adapters on it.

        Raises:
            FedlitError: The backbone cannot be had, its horizon is too short, or an adapter target matches nothing.
        """
        if self.network is not None:
            return
        from fedlit.backbones.loading import load_backbone, stand_in

        loaded = stand_in(self.backbone, self.prediction_length) if self._stand_in else load_backbone(self.backbone)
        longest = loaded.family.longest
        if longest is not None and self.prediction_length > longest:
            raise FedlitError(
                f"prediction_length is {self.prediction_length}, but backbone {self.backbone!r} forecasts at most "
                f"{longest} samples: shorten it or take another backbone"
            )
        network = self._fine_tunable(loaded.network, loaded.targets)
        self._family, self._source, self.network = loaded.family, loaded.source, network
        self.train(self.training)

    def whole_anew(self, folder: Path) -> nn.Module:
        from fedlit.backbones.loading import load_backbone

        return load_backbone(str(folder)).network

    def probe(self, network: nn.Module) -> Tensor:
        """The loss of each of a few noisy waves, (waves,)."""
        family, device = self._model()[0], next(network.parameters()).device
        time = torch.arange(256 + self.prediction_length) / torch.tensor([3.0, 7.0, 13.0, 40.0])[:, None]
        waves = time.sin() + 0.3 * torch.randn(time.shape, generator=torch.Generator().manual_seed(0))
        waves = waves.to(device)
        return family.losses(network, waves[:, :256], waves[:, 256:])

    def losses(self, batch: Batch) -> Tensor:
        """The family's loss for each example, (batch,)."""
        family, network = self._model()
        self._check(batch)
        return family.losses(network, batch["context"], batch["target"])

    def features(self, batch: Batch) -> Tensor:
        """Inputs of the network's head in the forward pass of the loss, mean over positions: (batch, features).

        Positions are the decoder's one state in Chronos-Bolt, the target's patches in Chronos-2, and the target's
        tokens, each with those before it known, in Chronos-T5.
        """
        family, network = self._model()
        seen: list[Tensor] = []
        head: nn.Module = unwrap(network).get_submodule(family.head)
        hook = head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
        try:
            self.losses(batch)
        finally:
            hook.remove()
        return seen[0].mean(dim=1)

    def forecast(self, context: Tensor, quantiles: Sequence[float] | None = None) -> Tensor:
        """Quantile forecasts (batch, quantiles, horizon) in the units of ``context``, float32, without gradients."""
        family, network = self._model()
        with torch.no_grad():
            return family.forecast(network, context, self.prediction_length, quantiles or self.quantiles).float()

    def outputs(self, batch: Batch) -> Tensor:
        """Quantile forecasts (batch, quantiles, horizon)."""
        self._check(batch)
        return self.forecast(batch["context"])

    def score_outputs(self, outputs: Tensor, batch: Batch, metrics: Metric) -> None:
        metrics.update(outputs, batch["target"], batch["context"], batch["kind"])

    def naive(self, training: Iterable[Batch]) -> Mapping[str, Naive]:
        """The last value, the mean of the context and its last period; nothing of ``training`` is needed.

        They are points: all quantiles are alike.
        """

        def scored_by(forecast: Forecast) -> Naive:
            def score(batch: Batch, metrics: Metric) -> None:
                point = forecast(batch["context"], batch["target"].shape[1])
                self.score_outputs(point[:, None].expand(-1, len(self.quantiles), -1), batch, metrics)

            return score

        periodic = partial(last_period, season_length=self.season_length)
        forecasts: dict[str, Forecast] = {**FORECASTS, "last period": periodic}
        return {name: scored_by(forecast) for name, forecast in forecasts.items()}

    def predict_step(self, batch: Batch, batch_idx: int = 0) -> dict[str, Any]:
        """Forecasts in the original units.

        Returns:
            ``client``, ``record``, ``kind`` (lists), ``start`` (batch,), ``target`` (batch, horizon) and ``quantiles``
            (batch, levels, horizon), NumPy arrays; the levels are the attribute ``quantiles`` of the task.
        """
        self._check(batch)
        scale, offset = batch["scale"][:, None], batch["offset"][:, None]
        quantiles = self.forecast(batch["context"]) * scale[..., None] + offset[..., None]
        return {
            "client": list(batch["client"]),
            "record": list(batch["record"]),
            "kind": list(batch["kind"]),
            "start": batch["start"].cpu().numpy(),
            "target": (batch["target"] * scale + offset).cpu().numpy(),
            "quantiles": quantiles.cpu().numpy(),
        }

    def prediction_columns(self, prediction: dict[str, Any]) -> dict[str, Any]:
        """Client, record, start, horizon step (from 1), target, and one column a quantile: a row for each sample.

        Targets and quantiles are in the signal's own units; ``start`` is the index of the first context sample at the
        sampling rate of the data module.
        """
        import numpy as np

        target, quantiles = np.asarray(prediction["target"]), np.asarray(prediction["quantiles"])
        windows, steps = target.shape
        columns: dict[str, Any] = {
            "client": np.repeat(np.asarray(prediction["client"], dtype=object), steps),
            "record": np.repeat(np.asarray(prediction["record"], dtype=object), steps),
            "start": np.repeat(np.asarray(prediction["start"]), steps),
            "horizon_step": np.tile(np.arange(1, steps + 1), windows),
            "target": target.ravel(),
        }
        return columns | {f"q{level:g}": quantiles[:, i].ravel() for i, level in enumerate(self.quantiles)}

    def describe(self) -> dict[str, Any]:
        family = self._model()[0]
        return {
            **super().describe(),
            "family": type(family).__name__,
            "prediction_length": self.prediction_length,
            "context_length": family.context_length,
            "quantiles": list(self.quantiles),
        }

    def _check(self, batch: Batch) -> None:
        """Refuse windows of other lengths than the model's.

        Raises:
            FedlitError: The batch holds no windows to forecast, or the horizons differ.
        """
        if not {"context", "target"} <= batch.keys():
            raise FedlitError(
                f"ForecastingTask needs batches of context and target, and the data's hold {', '.join(batch)}: take "
                "data to forecast, or another task (model: ClassificationTask)"
            )
        horizon, seen = batch["target"].shape[-1], batch["context"].shape[-1]
        self._check_horizon(horizon)
        longest = self._model()[0].context_length
        if seen > longest and not self._told:
            warnings.warn(
                f"data.context_length is {seen}, but backbone {self.backbone!r} looks at the last {longest} samples of "
                f"a context only: shorten it to {longest}",
                UserWarning,
                stacklevel=2,
            )
            self._told = True

    def _check_horizon(self, horizon: int) -> None:
        if horizon != self.prediction_length:
            raise FedlitError(
                f"data.prediction_length is {horizon}, model.prediction_length {self.prediction_length}: set both alike"
            )

    def _model(self) -> tuple[Family, nn.Module]:
        network = self.loaded_network()
        assert self._family is not None  # set with the network
        return self._family, network
