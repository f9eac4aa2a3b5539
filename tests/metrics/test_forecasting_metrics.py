import numpy as np
import pytest
import torch

from fedlit.errors import FedlitError
from fedlit.metrics.forecasting import QUANTILES, ForecastMetrics


@pytest.fixture
def batches():
    generator = torch.Generator().manual_seed(0)
    out = []
    for size, kinds in ((5, ["ecg", "icg", "ecg", "ecg", "icg"]), (3, ["icg", "icg", "ecg"])):
        quantiles = torch.randn(size, 9, 4, generator=generator).sort(dim=1).values
        context = torch.randn(size, 6, generator=generator)
        context[0] = 2.0  # never moves
        context[1, 3] = torch.nan
        out.append((quantiles, torch.randn(size, 4, generator=generator), context, kinds))
    return out


def by_hand(quantiles, target, context):
    """The definitions of the docstring, in plain NumPy loops."""
    q, y, x = (one.double().numpy() for one in (quantiles, target, context))
    f = q[:, 4]
    out = {
        "rmse": np.sqrt(np.mean((y - f) ** 2)),
        "mae": np.mean(np.abs(y - f)),
        "smape": np.mean(200 * np.abs(y - f) / (np.abs(y) + np.abs(f) + 1e-8)),
    }
    ratios = []
    for i in range(len(y)):
        steps = [abs(a - b) for a, b in zip(x[i, 1:], x[i, :-1], strict=True) if not np.isnan(a - b)]
        if np.mean(steps) > 0:
            ratios.append(np.mean(np.abs(y[i] - f[i])) / np.mean(steps))
    out["mase"], out["mase_left_out"] = np.mean(ratios), len(y) - len(ratios)
    losses = []
    for i, p in enumerate(QUANTILES):
        pinball = np.where(y >= q[:, i], p * (y - q[:, i]), (1 - p) * (q[:, i] - y))
        losses.append(2 * pinball.sum() / np.abs(y).sum())
    out["wql"] = np.mean(losses)
    return out


def joined(batches, kind=None):
    rows = [[kind is None or one == kind for one in kinds] for *_, kinds in batches]
    return [torch.cat([batch[i][row] for batch, row in zip(batches, rows, strict=True)]) for i in range(3)]


@pytest.mark.parametrize("kind", [None, "ecg", "icg"])
def test_equals_numpy(batches, kind):
    metrics = ForecastMetrics()
    for batch in batches:
        metrics.update(*batch)
    got = metrics.compute()
    for name, value in by_hand(*joined(batches, kind)).items():
        assert got[name if kind is None else f"{name}/{kind}"].item() == pytest.approx(value, rel=1e-12)
    assert not any("step" in name for name in got)


def test_by_step(batches):
    metrics = ForecastMetrics(steps=True)
    for batch in batches:
        metrics.update(*batch)
    quantiles, target, context = joined(batches)
    got = metrics.compute()
    for step in range(4):
        one = by_hand(quantiles[..., [step]], target[:, [step]], context)
        for name in ("rmse", "mae", "smape"):
            assert got[f"{name}/step_{step + 1:02d}"].item() == pytest.approx(one[name], rel=1e-12)


def test_batch_mean_is_the_mean_of_batch_rmses(batches):
    metrics = ForecastMetrics(rmse_reduction="batch_mean")
    for batch in batches:
        metrics.update(*batch)
    expected = np.mean([by_hand(*batch[:3])["rmse"] for batch in batches])
    assert metrics.compute()["rmse"].item() == pytest.approx(expected, rel=1e-12)
    assert abs(expected - by_hand(*joined(batches))["rmse"]) > 1e-3


def test_order_and_cut_of_batches_do_not_matter(batches):
    whole, parts = ForecastMetrics(), ForecastMetrics()
    whole.update(*joined(batches), batches[0][3] + batches[1][3])
    for batch in reversed(batches):
        parts.update(*batch)
    for name, value in whole.compute().items():
        assert parts.compute()[name].item() == pytest.approx(value.item(), rel=1e-12)


def test_reset_and_float64(batches):
    metrics = ForecastMetrics()
    assert metrics.compute() == {}
    metrics.update(*batches[0])
    first = metrics.compute()
    metrics.reset()
    assert metrics.compute() == {}
    metrics.to(torch.float32).update(*batches[0])
    second = metrics.compute()
    assert all(torch.equal(first[name], second[name]) and second[name].dtype == torch.float64 for name in first)


def test_a_context_that_never_moves_leaves_mase_undefined(batches):
    quantiles, target, context, kinds = batches[0]
    metrics = ForecastMetrics()
    metrics.update(quantiles[:1], target[:1], context[:1], kinds[:1])
    out = metrics.compute()
    assert torch.isnan(out["mase"])
    assert out["mase_left_out"] == 1


def test_refuses_what_it_cannot_score(batches):
    quantiles, target, context, kinds = batches[0]
    target = target.clone()
    target[0, 0] = torch.nan
    with pytest.raises(FedlitError, match="target holds NaN"):
        ForecastMetrics().update(quantiles, target, context, kinds)
    with pytest.raises(FedlitError, match=r"0\.5 must be among"):
        ForecastMetrics(quantiles=(0.1, 0.9))
    with pytest.raises(FedlitError, match="batch_mean"):
        ForecastMetrics(rmse_reduction="mean")
