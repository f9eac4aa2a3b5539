"""FedDG-GA: two rounds by hand, and a whole run in a plain loop."""

from __future__ import annotations

import pytest
import torch
from test_influence import MOVES, server, shares, state
from toys import Regression, ToyData

from fedlit.aggregators import Update
from fedlit.aggregators.influence import FedDGGA
from fedlit.runs.checkpoint import read

DOUBLE = {"dtype": "float64"}


def reported(losses: dict[str, tuple[float, float]], moves=MOVES):
    def upload(x, start, end):
        start, end = (torch.tensor(v, dtype=torch.float64) for v in (start, end))
        return {"moved": {"w": torch.tensor([x], dtype=torch.float64)}, "start_loss": start, "end_loss": end}

    return [Update(k, 1.0, lambda x=x, v=v: upload(x, *v)) for (k, v), x in zip(losses.items(), moves, strict=False)]


def test_generalization_adjustment_by_hand():
    """K = 3, step size 0.3, so d_r = 0.1 (1 - r / 10)."""
    rule = FedDGGA(step_size=0.3, rounds=10)
    now = rule.init(state()["params"])
    now = rule.aggregate(now, reported({"a": (9.0, 1.0), "b": (9.0, 1.0), "c": (9.0, 2.0)}), server({}))
    assert now["params"]["w"].item() == pytest.approx(7 / 3, rel=1e-14)  # no local model to compare with yet
    # Gaps 0.5, 0.2, -0.1: less their mean 0.3, 0, -0.3, over the largest 1, 0, -1, times d_1 = 0.09.
    at = server({}, round=1)
    now = rule.aggregate(now, reported({"a": (1.5, 1.0), "b": (1.2, 1.0), "c": (1.9, 1.0)}), at)
    first = [1 / 3 + 0.09, 1 / 3, 1 / 3 - 0.09]
    assert shares(at) == pytest.approx(first, rel=1e-12)
    moved = 7 / 3 + sum(a * x for a, x in zip(first, MOVES, strict=True))
    assert now["params"]["w"].item() == pytest.approx(moved, rel=1e-12)
    # Gaps 0, 0.6, 0.3: -1, 1, 0, times d_2 = 0.08.
    at = server({}, round=2)
    now = rule.aggregate(now, reported({"a": (1.0, 1.0), "b": (1.6, 1.0), "c": (1.3, 1.0)}), at)
    assert shares(at) == pytest.approx([first[0] - 0.08, first[1] + 0.08, first[2]], rel=1e-12)
    # After `rounds` the weights stand still.
    before, at = shares(at), server({}, round=10)
    rule.aggregate(now, reported({"a": (9.0, 1.0), "b": (1.6, 1.0), "c": (1.3, 1.0)}), at)
    assert shares(at) == before


def test_a_weight_stops_at_zero_and_the_sum_stays():
    """Step size 1 of two clients is 1/2: 1/2 - 1/2 is 0; a third gap in the opposite direction starts from there."""
    rule = FedDGGA(step_size=1.0, rounds=1000000)
    now = rule.init(state()["params"])
    for r, starts in enumerate([(1.0, 1.0), (2.0, 1.0), (2.0, 1.0)]):
        at = server({}, round=r, num_clients=2)
        now = rule.aggregate(now, reported({"a": (starts[0], 1.0), "b": (starts[1], 1.0)}), at)
    assert [at.logged[f"influence/{k}"] for k in "ab"] == pytest.approx([1, 0], abs=1e-6)
    assert sum(float(x) for x in now["weights"].values()) == pytest.approx(1, abs=1e-12)


def test_who_sits_out_keeps_its_weight():
    rule = FedDGGA(step_size=0.3, rounds=10)
    now = rule.init(state()["params"])
    now = rule.aggregate(now, reported({"a": (9.0, 1.0), "b": (9.0, 1.0), "c": (9.0, 2.0)}), server({}))
    at = server({}, round=1)
    now = rule.aggregate(now, reported({"a": (1.5, 1.0), "b": (1.2, 1.0)}), at)
    weights = {k: float(x) for k, x in now["weights"].items()}
    assert weights == pytest.approx({"a": 1 / 3 + 0.09, "b": 1 / 3 - 0.09, "c": 1 / 3}, rel=1e-12)
    assert at.logged["influence/a"] == pytest.approx((1 / 3 + 0.09) / (2 / 3), rel=1e-12)


def test_generalization_adjustment_is_the_plain_loop(fit):
    data, steps, rounds, lr = ToyData(batch_size=0, **DOUBLE), 3, 4, 0.1
    data.setup()
    parts = {c: data.dataset(c, "train").tensors for c in data.clients}
    parts = {c: (torch.cat([x, torch.ones(len(x), 1)], 1), y) for c, (x, y) in parts.items()}
    net = Regression(**DOUBLE).net[0]
    w = torch.cat([net.weight[0], net.bias]).detach()
    share, previous = dict.fromkeys(data.clients, 1 / 3), {}
    for r in range(rounds):
        start = {c: float(((x @ w - y) ** 2).mean() / 2) for c, (x, y) in parts.items()}
        if previous:
            gaps = {c: start[c] - previous[c] for c in share}
            centred = {c: g - sum(gaps.values()) / 3 for c, g in gaps.items()}
            top = max(abs(g) for g in centred.values())
            share = {c: max(0, share[c] + 0.9 / 3 * (1 - r / 5) * centred[c] / top) for c in share}
            share = {c: a / sum(share.values()) for c, a in share.items()}
        own = {}
        for c, (x, y) in parts.items():
            own[c] = w
            for _ in range(steps):
                own[c] = own[c] - lr * x.T @ (x @ own[c] - y) / len(y)
        previous = {c: float(((x @ own[c] - y) ** 2).mean() / 2) for c, (x, y) in parts.items()}
        w = sum(share[c] * own[c] for c in share)
    folder = fit(FedDGGA(step_size=0.9, rounds=5), Regression(**DOUBLE), data, max_rounds=rounds, local_steps=steps)
    found = read(folder.path / "checkpoints" / "last").state
    assert {c: float(a) for c, a in found["weights"].items()} == pytest.approx(share, rel=1e-10)
    assert max(share.values()) > 0.5
    params = torch.cat([found["params"]["net.0.weight"][0], found["params"]["net.0.bias"]])
    torch.testing.assert_close(params, w, rtol=1e-10, atol=1e-10)


def test_clients_that_count_nothing_leave_the_model_where_it_is():
    """Of a client whose weight has fallen to 0 and who is alone in a round, no mean can be taken."""
    rule = FedDGGA(step_size=1.0, rounds=100)
    now = rule.init(state()["params"])
    for _ in range(3):
        now = rule.aggregate(now, reported({"a": (1.0, 0.9), "b": (2.0, 0.1)}), server({}))
    assert now["weights"]["a"] == 0
    alone = rule.aggregate(now, reported({"a": (1.0, 0.7)}), server({}))
    assert torch.equal(alone["params"]["w"], now["params"]["w"])
    assert alone["losses"]["a"] == pytest.approx(0.7)
    again = rule.aggregate(alone, reported({"a": (9.0, 0.9), "b": (0.2, 0.1)}), server({}))
    assert again["weights"]["a"] > 0
