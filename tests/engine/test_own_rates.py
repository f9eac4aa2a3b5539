"""Parts of what a rule trains that move at a learning rate of its own."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from toys import Regression, ToyData, last

from fedlit import tree
from fedlit.aggregators import FedALA, FedAvg, Stage, Stages
from fedlit.engine.own_rates import check_unscaled, descend
from fedlit.errors import FedlitError


def test_own_parts_descend_and_are_out_of_the_optimizers_way():
    rule = FedALA(mix_rate=0.5)
    w = {"model": {"a": torch.ones(2, requires_grad=True)}, "shift": {"a": torch.ones(2, requires_grad=True)}}
    (3 * w["model"]["a"].sum() + 4 * w["shift"]["a"].sum()).backward()
    optimizer = torch.optim.AdamW(tree.leaves(w), lr=0.1, weight_decay=0.5)
    descend(rule, w)
    assert w["shift"]["a"].tolist() == [-1.0, -1.0]
    optimizer.step()
    assert w["shift"]["a"].tolist() == [-1.0, -1.0]
    assert w["model"]["a"][0] < 1


@dataclasses.dataclass(frozen=True)
class Steep(FedAvg):
    """FedAvg beside a number with a gradient of a million, which moves at a rate of its own."""

    def start(self, down, memory):
        return {"model": down, "own": torch.zeros(1)}

    def objective(self, loss, w, down, memory):
        return loss(w["model"]) + 1e6 * w["own"].sum()

    def own_rates(self, w):
        return ((w["own"], 1e-6),)

    def finish(self, w, down, memory, work):
        return tree.sub(w["model"], down), {"own": w["own"]}

    def model(self, w, down, memory):
        return w["model"]


@pytest.mark.parametrize("clients_at_once", [1, 3])
def test_a_norm_for_clipping_does_not_count_own_parts(fit, clients_at_once):
    data, task = ToyData(), {"lr": 0.01, "optimizer": "sgd"}
    plain, _ = last(fit(FedAvg(), Regression(**task), data, local_steps=3))
    settings = {"local_steps": 3, "gradient_clip_val": 100.0, "clients_at_once": clients_at_once}
    state, kept = last(fit(Steep(), Regression(**task), data, **settings))
    torch.testing.assert_close(state["params"], plain["params"])
    assert all(memory["own"].item() == pytest.approx(-3) for memory in kept.values())


@pytest.mark.parametrize("rule", [FedAvg(), FedALA(), FedALA(mix_rate=1.0)], ids=repr)
def test_scaled_gradients_are_refused_where_a_rule_has_rates_of_its_own(rule):
    w = {"shift": {}, "model": {}}
    if rule.own_rates(w):
        with pytest.raises(FedlitError, match=r"FedALA .* set trainer\.precision to bf16-mixed"):
            check_unscaled(rule, w)
    else:
        check_unscaled(rule, w)


def test_stages_hand_on_rates_and_steps_of_the_one_in_force():
    own = FedALA(mix_rate=2.0, mix_on_top=True, mix_share=1.0)
    rule = Stages([Stage(FedAvg(), 2), Stage(own, 1)])
    assert [rule.local_steps(5, r) for r in range(5)] == [5, 5, 5, 10, 10]  # its own first round has nothing to mix
    shift = torch.zeros(1)
    assert rule.own_rates({"stage0": {"w": shift}}) == ()
    assert rule.own_rates({"stage1": {"model": {}, "shift": {"w": shift}}}) == (({"w": shift}, 2.0),)
