"""Facts that two settings could state: taken from one place, or refused where the two differ."""

from __future__ import annotations

import pytest
import torch
from toys import Classifier, ToyData

from fedlit.aggregators import FedAvg, FedExLoRA, FlexLoRA, FLoRA, HetLoRA, Stage, Stages
from fedlit.aggregators.lora_truncated import LoRAFair
from fedlit.backbones.lora import rank_stabilised
from fedlit.errors import FedlitError
from fedlit.federation.session import suited
from fedlit.runs.checkpoint import read

MIXED = (FedExLoRA, FLoRA, FlexLoRA, HetLoRA, LoRAFair)


def task(use_rslora: bool, rank: int = 4) -> Classifier:
    return Classifier(rank=rank, alpha=8.0, use_rslora=use_rslora)


@pytest.mark.parametrize("rank", [2, 4, 9])
@pytest.mark.parametrize("stabilised", [False, True])
def test_the_layers_tell_how_they_are_scaled(stabilised, rank):
    assert rank_stabilised(task(stabilised, rank)) is stabilised


def test_without_adapters_nothing_is_told():
    assert rank_stabilised(torch.nn.Linear(2, 2)) is None
    assert rank_stabilised(Classifier(rank=0)) is None


@pytest.mark.parametrize("make", MIXED)
@pytest.mark.parametrize("stabilised", [False, True])
def test_a_rule_takes_the_scaling_from_the_adapters(make, stabilised):
    said: list[str] = []
    rules = suited({"": make(ranks={"a": 2})}, task(stabilised), said.append)
    assert rules[""] == make(ranks={"a": 2}, use_rslora=stabilised)
    assert bool(said) is stabilised
    assert suited(rules, task(stabilised), said.append)[""] == rules[""]


@pytest.mark.parametrize("make", MIXED)
@pytest.mark.parametrize("stabilised", [False, True])
def test_a_rule_that_says_otherwise_is_refused_where_ranks_differ(make, stabilised):
    with pytest.raises(FedlitError, match=f"{make.__name__}.use_rslora is {not stabilised}.*model.adapter.use_rslora"):
        suited({"": make(ranks={"a": 2}, use_rslora=not stabilised)}, task(stabilised), print)
    alone = make(use_rslora=not stabilised)
    assert suited({"": alone}, task(stabilised), print)[""] == alone  # of one rank it has no effect


def test_so_does_a_rule_within_stages():
    staged = Stages([Stage(FedAvg(), 1), Stage(FlexLoRA(ranks={"a": 2}), 1)])
    found = suited({"": staged}, task(True), lambda said: None)[""]
    assert [stage.aggregator for stage in found.plan] == [FedAvg(), FlexLoRA(ranks={"a": 2}, use_rslora=True)]
    plain = Stages([Stage(FedAvg(), 1)])
    assert suited({"": plain}, task(True), print)[""] == plain


def test_a_client_of_lower_rank_has_the_strength_that_its_settings_say(fit, capsys):
    data = ToyData(classes=3, features=4)
    data.setup("fit")
    small = data.clients[0]
    folder = fit(FlexLoRA(ranks={small: 1}), task(True), ToyData(classes=3, features=4), max_rounds=1, local_steps=1)
    assert "sqrt(r), as model.adapter.use_rslora has it" in capsys.readouterr().out
    rule = FlexLoRA(ranks={small: 1}, use_rslora=True)
    state = read(folder.path / "checkpoints" / "last").state
    down = rule.down(state, small)
    own, wide = down["params"], rule.personal(down, {})
    a, b = (next(n for n in own if f"first.lora_{x}" in n) for x in "AB")
    torch.testing.assert_close(8.0 * own[b] @ own[a], 8.0 / 2 * wide[b] @ wide[a])
