"""The API carries rules to come: each written as a user would, run by the real trainer, held against a plain loop."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from custom_rules import HeadOnly, Influence, LateLoss, Similarity
from toys import Regression, ToyData, close, last

from fedlit import tree
from fedlit.aggregators import FedAvg, Server, Update
from fedlit.aggregators.server import Sealed
from fedlit.errors import FedlitError

DOUBLE = {"dtype": "float64"}


def test_each_client_may_be_sent_its_own_model(fit):
    folder = fit(Similarity(), max_rounds=3)
    state, _ = last(folder)
    models = state["models"]
    assert list(models) == ["client-00", "client-01", "client-02"]
    assert not tree.equal(models["client-00"], models["client-01"])
    wide, _ = last(fit(Similarity(temperature=1e12), Regression(**DOUBLE), ToyData(**DOUBLE), max_rounds=3))
    mean, _ = last(fit(FedAvg(weighting="uniform"), Regression(**DOUBLE), ToyData(**DOUBLE), max_rounds=3))
    torch.testing.assert_close(wide["models"]["client-00"], mean["params"], rtol=1e-9, atol=1e-9)


def test_part_of_the_parameters_can_train_and_travel(fit):
    folder = fit(HeadOnly(), Regression(hidden=4), max_rounds=2)
    state, _ = last(folder)
    assert set(state["params"]) == {"net.3.weight", "net.3.bias"}
    assert {row["parameters"] for row in folder.ledger.read()} == {"5"}
    # The same as training all with the others frozen.
    frozen = Regression(hidden=4)
    frozen.net[0].requires_grad_(False)
    alone, _ = last(fit(FedAvg(), frozen, max_rounds=2))
    assert tree.equal(state, alone)


def test_a_rule_that_names_unknown_parameters_is_refused(fit):
    class Lost(FedAvg):
        def down(self, state, client):
            return {"elsewhere": torch.ones(1)}

    with pytest.raises(FedlitError, match="does not have.*elsewhere"):
        fit(Lost())


def test_the_local_step_is_known_to_the_objective(fit):
    data, steps = ToyData(num_clients=1, batch_size=0, **DOUBLE), 4
    data.setup()
    plain = Regression(**DOUBLE)
    optimizer = torch.optim.SGD(plain.net.parameters(), lr=0.1)
    for step in range(steps):
        optimizer.zero_grad()
        (plain.losses(data.dataset("client-00", "train").tensors).mean() * (step + 1) / steps).backward()
        optimizer.step()
    state, _ = last(fit(LateLoss(), Regression(**DOUBLE), data, max_rounds=1, local_steps=steps))
    assert close({n: p.detach() for n, p in plain.named_parameters()}, state["params"])


def test_the_server_may_validate_on_its_own_data(fit):
    state, _ = last(fit(Influence(), data=ToyData(server=True)))
    plain, _ = last(fit(FedAvg()))
    assert not tree.equal(state, plain)
    with pytest.raises(FedlitError, match="server_dataset"):
        fit(Influence(), data=ToyData(server=False))


@pytest.mark.parametrize("rule", [Similarity(), Influence()], ids=lambda r: type(r).__name__)
def test_rules_that_read_single_updates_refuse_sealed_ones(rule):
    params = {"w": torch.zeros(1)}
    sealed = [Update("a", 1.0, lambda: params, sealed=True)]
    with pytest.raises(Sealed, match="sealed"):
        rule.aggregate(rule.init(params), sealed, Server(0, torch.Generator(), lambda models: []))


@dataclass(frozen=True)
class Counting(FedAvg):
    """Moves by the share of clients that took part, as SCAFFOLD's control and FedDyn's state do."""

    def aggregate(self, state, updates, server):
        return self.step(state, tree.scale(server.mean(updates), len(updates) / server.num_clients))


def test_the_server_knows_how_many_clients_there_are(fit):
    data = ToyData(num_clients=4, **DOUBLE)
    start = {n: p.detach().clone() for n, p in Regression(**DOUBLE).named_parameters()}
    plain, _ = last(fit(FedAvg(), Regression(**DOUBLE), data, clients_per_round=2, max_rounds=1))
    half, _ = last(fit(Counting(), Regression(**DOUBLE), data, clients_per_round=2, max_rounds=1))
    assert close(half["params"], tree.lerp(tree.ordered(start), plain["params"], 0.5))


@dataclass(frozen=True)
class Wide(FedAvg):
    """Serves a tensor of another shape than the network's."""

    def personal(self, down, memory):
        return {**down, "net.0.weight": down["net.0.weight"][0]}


def test_a_model_of_another_shape_is_refused_by_name(fit):
    with pytest.raises(FedlitError, match=r"net\.0\.weight the shape \[3\], the network's has \[1, 3\]"):
        fit(Wide())
