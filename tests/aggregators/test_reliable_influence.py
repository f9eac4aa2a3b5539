"""ReliableInfluence: against psychometrics' formula, by hand, and against its baselines."""

from __future__ import annotations

import math

import pytest
import torch
from test_influence import MOVES, result, server, state, updates

from fedlit import tree
from fedlit.aggregators import FedAvg, Server, Update
from fedlit.aggregators.influence import FedMedLoRAPlus, ReliableInfluence, reliability


def alpha(table: torch.Tensor) -> float:
    """Cronbach 1951: m / (m - 1) (1 - sum of the items' variances / variance of the subjects' totals)."""
    m = table.shape[1]
    return float(m / (m - 1) * (1 - table.var(0).sum() / table.sum(1).var()))


def test_reliability_is_cronbachs_alpha():
    generator, found = torch.Generator().manual_seed(0), []
    for _ in range(20):
        noise = torch.randn(6, 5, generator=generator, dtype=torch.float64)
        table = torch.randn(6, 1, generator=generator, dtype=torch.float64) + noise
        assert reliability(table) == pytest.approx(max(0.0, alpha(table)), abs=1e-12)
        found.append(reliability(table))
    assert min(found) == 0
    assert max(found) > 0.9


def test_reliability_where_it_is_known():
    ones = torch.ones(4, 5, dtype=torch.float64)
    ladder = torch.arange(4.0, dtype=torch.float64)[:, None]
    assert reliability(ladder + torch.arange(5.0)) == pytest.approx(1, abs=1e-12)  # all records rank alike
    assert reliability(ones / 3) == 0  # nobody differs, but for rounding
    assert reliability(ladder) == 0  # one record
    assert reliability(ones[:1]) == 0  # one client
    # By hand, rows (0, 1), (1, 4): means 1/2, 5/2; MS_clients = 2 * 2 = 4; residuals +-1/2, MS = 1; 1 - 1/4.
    assert reliability(torch.tensor([[0.0, 1.0], [1.0, 4.0]]).double()) == pytest.approx(0.75, abs=1e-14)


def test_reliable_influence_by_hand():
    """Two clients with the table above: rho = 3/4, spread = sd(1/2, 5/2) = sqrt(2), the worse has exp(-.75 sqrt 2)."""
    at = server({}, {1.0: [0.0, 1.0], 2.0: [1.0, 4.0]})
    out = ReliableInfluence(temperature=1.0).aggregate(state(), updates((10.0, 20.0)), at)["params"]["w"].item()
    weights = (10.0, 20 * math.exp(-0.75 * 2 / 2**0.5))
    assert out == pytest.approx((weights[0] + 2 * weights[1]) / sum(weights), rel=1e-14)
    assert at.logged["reliability"] == pytest.approx(0.75, rel=1e-14)
    assert at.logged["spread"] == pytest.approx(2**0.5, rel=1e-14)
    assert at.logged["influence/b"] == pytest.approx(weights[1] / sum(weights), rel=1e-14)


def test_where_records_cannot_tell_it_is_fedavg_byte_for_byte():
    fedavg = FedAvg().aggregate(state(), updates(), server({}))["params"]["w"].item()
    for records in ([[1.0]] * 3, [[1.0, 2.0]] * 3, [[1.0, 2.0], [2.0, 1.0], [1.5, 1.5]]):
        assert result(ReliableInfluence(), server({}, dict(zip(MOVES, records, strict=True)))) == fedavg


def test_reliable_influence_leaves_out_who_fails():
    nan = float("nan")
    at = server({}, {1.0: [0.0, 1.0], 2.0: [1.0, nan], 4.0: [1.0, 4.0]})
    assert result(ReliableInfluence(temperature=1.0), at, (1.0, 1.0, 1.0)) == pytest.approx(
        (1 + 4 * math.exp(-0.75 * 2**0.5)) / (1 + math.exp(-0.75 * 2**0.5)), rel=1e-14
    )


def excess(rule, spreads, unit: float, seeds: int = 40) -> float:
    """Mean over seeds of ``|w|^2``, the excess risk of the mean of models ``spread_k * noise`` around the optimum 0.

    The server has five records of a linear regression in ten dimensions, and its loss has some unit.
    """
    total = 0.0
    for seed in range(seeds):
        generator = torch.Generator().manual_seed(seed)
        models = torch.randn(len(spreads), 10, generator=generator, dtype=torch.float64)
        models = models * torch.tensor(spreads, dtype=torch.float64)[:, None]
        x = torch.randn(5, 10, generator=generator, dtype=torch.float64)
        y = torch.randn(5, generator=generator, dtype=torch.float64) / 2

        def losses(params, x=x, y=y):
            return unit * (x @ params["w"] - y) ** 2 / 2

        at = Server(0, generator, lambda models, f=losses: [f(one) for one in models], len(spreads))
        sent = [Update(f"c{i}", 20.0, lambda m=m: {"w": m}) for i, m in enumerate(models)]
        out = rule.aggregate({"params": {"w": torch.zeros(10, dtype=torch.float64)}}, sent, at)
        total += float(tree.sq(out["params"])) / seeds
    return total


def test_against_fixed_temperatures_on_five_records():
    """Fixed temperatures: right for one unit of the loss, wrong for others. Where all are alike: FedAvg."""
    alike, noisy = [1.0] * 8, [1.0] * 7 + [5.0]
    for unit in (0.01, 1.0, 100.0):
        ours = {name: excess(ReliableInfluence(), spreads, unit) for name, spreads in
                (("alike", alike), ("noisy", noisy))}  # fmt: skip
        fixed = {name: excess(FedMedLoRAPlus(), spreads, unit) for name, spreads in
                 (("alike", alike), ("noisy", noisy))}  # fmt: skip
        assert ours["alike"] < 1.1 * excess(FedAvg(), alike, unit)  # chance differences are left alone
        assert ours["noisy"] < excess(FedAvg(), noisy, unit) / 2.5  # a true one is seen
        assert ours["noisy"] < 0.8 * fixed["noisy"]
        assert ours["alike"] < fixed["alike"] / 1.8 or unit == 0.01  # there the fixed one is as good as off


def test_the_spread_over_clients_alone_would_follow_chance(monkeypatch):
    """Why the server's losses are read record by record: their spread without its reliability weighs noise."""
    ours = excess(ReliableInfluence(), [1.0] * 8, 1.0)
    monkeypatch.setattr("fedlit.aggregators.influence.reliability", lambda table: 1.0)
    assert ours < 0.75 * excess(ReliableInfluence(), [1.0] * 8, 1.0)
