"""Influence weights by hand."""

from __future__ import annotations

import math
from dataclasses import asdict

import pytest
import torch
from toys import GivenData, Regression, ToyData

from fedlit.aggregators import FedAvg, Sealed, Server, Update
from fedlit.aggregators.base import Work
from fedlit.aggregators.influence import FedDGGA, FedMedLoRA, FedMedLoRAPlus, ReliableInfluence
from fedlit.data import SimulatedVitals
from fedlit.errors import FedlitError
from fedlit.tasks import ForecastingTask

DOUBLE = {"dtype": "float64"}
SIZES, MOVES = (10.0, 20.0, 70.0), (1.0, 2.0, 4.0)


def updates(sizes=SIZES, sealed=False):
    """Clients a, b, c, whose models from zero are 1, 2 and 4."""
    return [
        Update(name, size, lambda x=x: {"w": torch.tensor([x], dtype=torch.float64)}, sealed=sealed)
        for name, size, x in zip("abc", sizes, MOVES, strict=False)
    ]


def server(losses: dict[float, float], records: dict[float, list[float]] | None = None, **arguments) -> Server:
    """The server that measures these losses for models with this value."""
    arguments = {"round": 0, "num_clients": 3, **arguments}
    return Server(
        generator=torch.Generator(),
        losses=lambda models: [
            torch.tensor((records or {}).get(value, [losses.get(value)]), dtype=torch.float64)
            for value in (params["w"].item() for params in models)
        ],
        **arguments,
    )


def state():
    return {"params": {"w": torch.zeros(1, dtype=torch.float64)}}


def result(rule, at: Server, sizes=SIZES):
    return rule.aggregate(state(), updates(sizes), at)["params"]["w"].item()


def shares(at: Server) -> list[float]:
    return [at.logged[f"influence/{name}"] for name in "abc"]


# -- Fed-MedLoRA ---------------------------------------------------------------------------------------------------
def test_tokens_are_counted_in_one_pass_over_the_data():
    """7 records were seen in training, some twice, with 35 tokens: 5 a record, and the client has 4 records."""
    work = Work(*(torch.tensor(x, dtype=torch.float64) for x in (3.0, 7.0, 0.1, 35.0, 0.0, 0.0)))
    assert FedMedLoRA(weighting="tokens").weigh(4, work) == 20
    assert FedMedLoRA().weigh(4, work) == 4


def test_tokens_weigh_in_a_run(fit):
    """A task that supervises as many targets as the label says: client a with 2 records of 3, client b with 2 of 1."""

    class Tokens(Regression):
        def num_targets(self, batch):
            return int(batch[1].sum())

    y = {"a": torch.tensor([3.0, 3.0]).double(), "b": torch.tensor([1.0, 1.0]).double()}
    data = GivenData({k: (torch.eye(2, 3).double(), v) for k, v in y.items()})
    seen = {}

    class Watched(FedMedLoRA):
        def aggregate(self, state, updates, server):
            seen.update({u.client: u.weight for u in updates})
            return super().aggregate(state, updates, server)

    fit(Watched(weighting="tokens"), Tokens(**DOUBLE), data)
    assert seen == {"a": 6.0, "b": 2.0}


def test_by_examples_it_is_fedavg_byte_for_byte(fit):
    runs = [fit(rule, Regression(hidden=4, optimizer="adamw")) for rule in (FedAvg(), FedMedLoRA())]
    blobs = [(run.path / "checkpoints" / "last" / "state.safetensors").read_bytes() for run in runs]
    assert blobs[0] == blobs[1]


# -- Fed-MedLoRA+ --------------------------------------------------------------------------------------------------
LOSSES = {1.0: 0.5, 2.0: 1.0, 4.0: 2.0}


@pytest.mark.parametrize(
    ("rule", "by_hand"),
    [
        (FedMedLoRAPlus(), (10 * math.exp(-0.5), 20 * math.exp(-1), 70 * math.exp(-2))),
        (FedMedLoRAPlus(preset="release"), (math.exp(-0.5), math.exp(-1), math.exp(-2))),
        (FedMedLoRAPlus(a=0.5, temperature=2.0),
         (10**0.5 * math.exp(-0.25), 20**0.5 * math.exp(-0.5), 70**0.5 * math.exp(-1))),
    ],
    ids=["paper", "release", "between"],
)  # fmt: skip
def test_softmax_by_hand(rule, by_hand):
    at = server(LOSSES)
    expected = [x / sum(by_hand) for x in by_hand]
    assert result(rule, at) == pytest.approx(sum(w * x for w, x in zip(expected, MOVES, strict=True)), rel=1e-14)
    assert shares(at) == pytest.approx(expected, rel=1e-14)
    assert [at.logged[f"validation_loss/{name}"] for name in "abc"] == [0.5, 1.0, 2.0]


def test_the_release_is_the_softmax_of_minus_the_loss():
    """torch as oracle; the released code's exp(1 - L) differs by a factor that cancels."""
    at = server(LOSSES)
    result(FedMedLoRAPlus(preset="release"), at)
    theirs = torch.softmax(-torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64), 0)
    assert shares(at) == pytest.approx(theirs.tolist(), rel=1e-14)
    released = torch.tensor([math.exp(1 - x) for x in (0.5, 1.0, 2.0)], dtype=torch.float64)
    assert shares(at) == pytest.approx((released / released.sum()).tolist(), rel=1e-14)


def test_equal_losses_leave_fedavg_byte_for_byte():
    equal = dict.fromkeys(MOVES, 3.7)
    fedavg = FedAvg().aggregate(state(), updates(), server(equal))["params"]["w"].item()
    assert result(FedMedLoRAPlus(), server(equal)) == fedavg
    assert result(FedMedLoRAPlus(temperature=float("inf")), server(LOSSES)) == fedavg
    assert result(FedMedLoRAPlus(preset="release"), server(equal)) == pytest.approx(7 / 3, rel=1e-14)


@pytest.mark.parametrize("shift", [-1e6, 1e6])
def test_huge_losses_and_small_temperatures_are_safe(shift):
    at = server({x: loss + shift for x, loss in LOSSES.items()})
    assert result(FedMedLoRAPlus(preset="release", temperature=1e-300), at) == 1.0
    assert shares(at) == [1.0, 0.0, 0.0]


def test_improvement_by_hand():
    """L_ref = 1: improvements 0.5, none, 0.2; squared and times the root of the size."""
    at = server({0.0: 1.0, 1.0: 0.5, 2.0: 1.2, 4.0: 0.8})
    weights = (10**0.5 * 0.25, 0.0, 70**0.5 * 0.04)
    expected = [x / sum(weights) for x in weights]
    assert result(FedMedLoRAPlus(form="improvement", a=0.5, b=2.0), at) == pytest.approx(
        sum(w * x for w, x in zip(expected, MOVES, strict=True)), rel=1e-12
    )
    assert shares(at) == pytest.approx(expected, rel=1e-12)
    assert at.logged["reference_loss"] == 1.0
    assert at.logged["improving_clients"] == 2


def test_when_nobody_improves_the_model_stays():
    at = server({0.0: 0.1, **LOSSES})
    assert result(FedMedLoRAPlus(form="improvement"), at) == 0.0
    assert shares(at) == [0.0, 0.0, 0.0]
    assert at.logged["improving_clients"] == 0


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_model_that_fails_on_the_records_counts_nothing(bad):
    at = server({**LOSSES, 2.0: bad})
    assert result(FedMedLoRAPlus(preset="release"), at) == pytest.approx(
        (1 * math.exp(-0.5) + 4 * math.exp(-2)) / (math.exp(-0.5) + math.exp(-2)), rel=1e-14
    )
    assert shares(at)[1] == 0
    with pytest.raises(FedlitError, match="no client's model has a finite loss"):
        result(FedMedLoRAPlus(), server(dict.fromkeys(MOVES, bad)))


@pytest.mark.parametrize("rule", [FedMedLoRAPlus(), ReliableInfluence(), FedDGGA()])
def test_sealed_updates_are_refused(rule):
    records = {x: [1.0, 2.0] for x in MOVES}
    with pytest.raises(Sealed, match="the update of 'a' is sealed"):
        rule.aggregate(rule.init(state()["params"]), updates(sealed=True), server(LOSSES, records))


@pytest.mark.parametrize("rule", [FedMedLoRAPlus(), ReliableInfluence()])
def test_without_server_data_the_mend_is_named(fit, rule):
    with pytest.raises(FedlitError, match="set data.server_records, or write `server_dataset`"):
        fit(rule, data=ToyData(server=False))


def noisy_data():
    """Three clients with one truth; the labels of the last are noise. The server has five clean records."""
    generator = torch.Generator().manual_seed(2)
    truth = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)

    def draw(count, noise):
        x = torch.randn(count, 3, generator=generator, dtype=torch.float64)
        return x, x @ truth + noise * torch.randn(count, generator=generator, dtype=torch.float64)

    given, five = {"a": draw(12, 0.1), "b": draw(12, 0.1), "c": draw(12, 20.0)}, draw(5, 0.1)

    class Data(GivenData):
        def server_dataset(self):
            return torch.utils.data.TensorDataset(*five)

    return Data(given)


@pytest.mark.usefixtures("unrehearsed")
@pytest.mark.parametrize(
    "rule",
    [FedMedLoRAPlus(), FedMedLoRAPlus(preset="release"), FedMedLoRAPlus(form="improvement"), ReliableInfluence()],
    ids=["paper", "release", "improvement", "reliable"],
)
def test_a_noisy_client_gets_less_weight(fit, rule):
    logged = []

    class Watched(type(rule)):
        def aggregate(self, state, updates, server):
            out = super().aggregate(state, updates, server)
            logged.append(dict(server.logged))
            return out

    data = noisy_data()
    folder = fit(Watched(**asdict(rule)), Regression(**DOUBLE), data, local_steps=30)
    assert logged[0]["influence/c"] < 0.5 * min(logged[0]["influence/a"], logged[0]["influence/b"])
    assert sum(logged[0][f"influence/{k}"] for k in "abc") == pytest.approx(1, abs=1e-12)
    written = (folder.path / "metrics.csv").read_text()
    assert "influence/c" in written
    assert "validation_loss/a" in written


@pytest.mark.usefixtures("unrehearsed")
def test_the_servers_losses_have_the_mean_that_validate_gives(fit):
    seen = []

    class Watched(FedAvg):
        def aggregate(self, state, updates, server):
            seen.append((server.validate(state["params"]), server.losses(state["params"])))
            return super().aggregate(state, updates, server)

    data = ToyData(server=True, batch_size=2, **DOUBLE)
    fit(Watched(), Regression(**DOUBLE), data)
    x, y = data.server_dataset().tensors
    first = Regression(**DOUBLE).losses((x, y)).detach()
    torch.testing.assert_close(seen[0][1], first, rtol=1e-14, atol=1e-14)
    for mean, each in seen:
        assert each.dtype == torch.float64
        assert len(each) == 5
        assert float(each.mean()) == pytest.approx(mean, rel=1e-14)


@pytest.mark.parametrize("rule", [FedMedLoRAPlus(), ReliableInfluence()])
def test_five_records_of_the_server_are_enough_for_a_forecast(fit, rule):
    folder = fit(rule, ForecastingTask(), SimulatedVitals(server_records=5), fast_dev_run=True)
    shares = [float(row["value"]) for row in folder.metrics.read() if row["metric"].startswith("influence/")]
    assert len(shares) == 2
    assert sum(shares) == pytest.approx(1, abs=1e-12)
