"""LocalOnly, local adaptation and Fed-LA: who keeps what, and that the second stage does adapt."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import pytest
import torch
from toys import GivenData, Regression, ToyData
from toys import memories as kept_by_clients

from fedlit import codec, tree
from fedlit.aggregators import FedAvg, FedLA, FedProx, LocalAdaptation, LocalOnly, Stage, Stages
from fedlit.errors import FedlitError
from fedlit.runs.checkpoint import read


def memories(folder) -> dict[str, dict]:
    found = kept_by_clients(folder)
    return {name.removesuffix(".safetensors"): codec.decode(blob)[0] for name, blob in found.items()}


def state(folder):
    return read(folder.path / "checkpoints" / "last").state


def test_local_clients_do_not_know_of_each_other(fit):
    data = ToyData()
    data.setup()
    alone = {}
    for client in data.clients:
        single = GivenData({client: data.dataset(client, "train").tensors}, batch_size=4)
        alone[client] = memories(fit(LocalOnly(), data=single))[client]
    together = memories(fit(LocalOnly()))
    assert together.keys() == alone.keys()
    assert all(tree.equal(together[c], alone[c]) for c in alone)
    assert not tree.equal(together["client-00"], together["client-01"])


def test_local_goes_on_from_its_own_model_and_sends_nothing(fit):
    one, two = (memories(fit(LocalOnly(), max_rounds=n))["client-00"] for n in (1, 2))
    assert not tree.equal(one, two)
    folder = fit(LocalOnly())
    assert state(folder) == {}
    assert {row["parameters"] for row in folder.ledger.read()} == {"0"}
    models = {row["model"] for row in folder.metrics.read()}
    assert models == {"personal"}


def test_fedla_first_stage_is_fedavg_to_the_byte(fit):
    shared = state(fit(FedAvg(), max_rounds=2))
    staged = state(fit(FedLA(fedavg_rounds=3, adapt_rounds=1), max_rounds=2))
    assert tree.equal(shared, staged["stage0"])
    switched = state(fit(FedLA(fedavg_rounds=2, adapt_rounds=1), max_rounds=2))
    assert list(switched) == ["stage1"]
    assert tree.equal(shared["params"], switched["stage1"]["params"])


def test_fedla_second_stage_adapts_each_client_and_leaves_the_shared_model(fit):
    """In the public code of arXiv:2502.09744 it adapted nothing."""
    shared = state(fit(FedAvg(), max_rounds=2))["params"]
    folder = fit(FedLA(fedavg_rounds=2, adapt_rounds=2, mu=0.1), max_rounds=4)
    assert tree.equal(state(folder)["stage1"]["params"], shared)
    kept = {client: memory["stage1"] for client, memory in memories(folder).items()}
    assert len(kept) == 3
    for client, model in kept.items():
        assert not tree.equal(model, shared), client
    assert not tree.equal(kept["client-00"], kept["client-01"])
    rows = [r for r in folder.metrics.read() if r["metric"] == "mse" and r["split"] == "test" and r["client"] == "mean"]
    value = {r["model"]: float(r["value"]) for r in rows}
    assert value["personal"] < value["global"]


def test_fedla_goes_on_from_the_clients_own_weights(fit):
    """One round of adaptation after another is not one round twice from the shared model."""
    after = [
        memories(fit(FedLA(fedavg_rounds=1, adapt_rounds=9, mu=0.0), max_rounds=n))["client-00"]["stage1"]
        for n in (2, 3)
    ]
    data = ToyData()
    data.setup()
    shared = state(fit(FedAvg(), max_rounds=1))["params"]
    far = [float(tree.sq(tree.sub(model, shared))) for model in after]
    assert far[1] > far[0]


def test_the_anchor_pulls(fit):
    shared = state(fit(FedAvg(), max_rounds=1))["params"]
    far = []
    for mu in (0.0, 1.0, 5.0):
        kept = memories(fit(FedLA(fedavg_rounds=1, adapt_rounds=3, mu=mu), max_rounds=4, local_steps=10))
        far.append([float(tree.sq(tree.sub(m["stage1"], shared))) for m in kept.values()])
    assert all(a > b > c for a, b, c in zip(*far, strict=True))


def test_adaptation_solves_its_proximal_problem():
    """By hand in one dimension: min (w - 3)^2 / 2 + mu/2 (w - 1)^2 has w = (3 + mu) / (1 + mu)."""
    rule, w = LocalAdaptation(mu=3.0), torch.tensor(1.0, dtype=torch.float64)
    anchor = {"w": w.clone()}
    w.requires_grad_()
    for _ in range(500):
        value = rule.objective(lambda p: (p["w"] - 3) ** 2 / 2, {"w": w}, anchor, {})
        (grad,) = torch.autograd.grad(value, w)
        with torch.no_grad():
            w -= 0.1 * grad
    assert w.item() == pytest.approx(6 / 4)


def test_stages_follow_their_plan_and_the_last_goes_on(fit):
    plan = Stages([Stage(FedAvg(), 1), Stage(FedProx(mu=1.0), 2), Stage(LocalAdaptation(mu=1.0), 1)])
    assert [list(state(fit(plan, max_rounds=n)))[0] for n in (1, 2, 3, 5)] == ["stage1", "stage1", "stage2", "stage2"]


def test_fedla_is_an_instance_of_stages(fit):
    staged = Stages([Stage(FedAvg(), 2), Stage(LocalAdaptation(mu=0.5), 1)])
    a, b = fit(staged, max_rounds=4), fit(FedLA(fedavg_rounds=2, adapt_rounds=2, mu=0.5), max_rounds=4)
    assert tree.equal(state(a), state(b))
    assert (a.path / "metrics.csv").read_bytes() == (b.path / "metrics.csv").read_bytes()


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_stage_trains_only_what_it_names(fit, optimizer):
    task = Regression(hidden=4, optimizer=optimizer, weight_decay=0.1)
    before = {name: p.detach().clone() for name, p in task.named_parameters()}
    plan = Stages([Stage(FedAvg(), 2, trainable=r"net\.3\."), Stage(FedAvg(), 1)])
    first = state(fit(plan, task, max_rounds=1))["stage0"]["params"]
    assert {n for n in before if not torch.equal(before[n], first[n])} == {"net.3.weight", "net.3.bias"}
    later = state(fit(plan, task, max_rounds=3))["stage1"]["params"]
    assert all(not torch.equal(before[n], later[n]) for n in before)


def test_a_stage_that_would_train_nothing_is_refused(fit):
    with pytest.raises(FedlitError, match=r"Stage\.trainable"):
        fit(Stages([Stage(FedAvg(), 1), Stage(FedAvg(), 1, trainable="lora_A")]))


def test_a_stage_without_a_global_model_cannot_hand_over(fit):
    with pytest.raises(FedlitError, match="has no global model for stage 1"):
        fit(Stages([Stage(LocalOnly(), 1), Stage(FedAvg(), 1)]))


@dataclass(frozen=True)
class Halved(FedAvg):
    """Serves half of what it was sent."""

    def personal(self, down, memory):
        return tree.scale(down, 0.5)


def test_a_stage_serves_the_model_that_its_rule_serves():
    params = {"w": torch.ones(2)}
    plan = Stages([Stage(Halved(), 1), Stage(FedAvg(), 1)])
    served = plan.personal(plan.down(plan.init(params), "a"), plan.init_memory(params))
    assert torch.equal(served["w"], torch.full((2,), 0.5))


def test_local_training_as_a_later_stage_is_adaptation_without_a_pull(fit):
    plans = [Stages([Stage(FedAvg(), 1), Stage(rule, 1)]) for rule in (LocalOnly(), LocalAdaptation(mu=0.0))]
    kept = [memories(fit(plan, max_rounds=3)) for plan in plans]
    assert all(tree.equal(kept[0][client]["stage1"], kept[1][client]["stage1"]) for client in kept[1])


def test_a_run_too_short_for_its_rule_is_warned_of(fit):
    with pytest.warns(UserWarning, match=r"FedLA needs 3 rounds .*max_rounds is 2"):
        fit(FedLA(fedavg_rounds=2, adapt_rounds=1), max_rounds=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(FedLA(fedavg_rounds=2, adapt_rounds=1), max_rounds=3)
        fit(FedLA(), fast_dev_run=True)


def test_fedla_weighs_its_clients_as_it_is_told(fit):
    for weighting in ("examples", "uniform"):
        staged = state(fit(FedLA(fedavg_rounds=5, weighting=weighting), max_rounds=1))
        plain = state(fit(FedAvg(weighting=weighting), max_rounds=1))
        assert tree.equal(staged["stage0"], plain)
