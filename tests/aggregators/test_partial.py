"""FedPer, FedRep, LG-FedAvg and FedBN: what is shared, what stays, and what either phase trains."""

from __future__ import annotations

import re

import pytest
import torch
from toys import Classifier, Regression, ToyData, close, last

from fedlit import tree
from fedlit.aggregators import FedAvg, LocalOnly, Stage, Stages
from fedlit.aggregators.partial import HEAD, NORM, FedBN, FedPer, FedRep, LGFedAvg, last_block, opening, part, places
from fedlit.backbones import LoRA
from fedlit.errors import FedlitError
from fedlit.tasks import ForecastingTask

DOUBLE = {"dtype": "float64"}
TOY = r"net\.3\."
BODY, TOP = {"net.0.weight", "net.0.bias"}, {"net.3.weight", "net.3.bias"}


def plain_loop(shared, trains, rounds=3, steps=4, lr=0.1):
    """Rounds of SGD on a two-layer network, written out: ``shared`` names are averaged, ``trains(step)`` move."""
    data = ToyData(batch_size=0, **DOUBLE)
    data.setup()
    sets = {k: data.dataset(k, "train").tensors for k in data.clients}
    start = {n: p.detach().clone() for n, p in Regression(hidden=4, **DOUBLE).named_parameters()}
    own, total = {k: dict(start) for k in sets}, sum(len(y) for _, y in sets.values())
    for _ in range(rounds):
        for k, (x, y) in sets.items():
            for step in range(steps):
                w = {n: p.detach().requires_grad_() for n, p in own[k].items()}
                hidden = torch.tanh(x @ w["net.0.weight"].T + w["net.0.bias"])
                guess = (hidden @ w["net.3.weight"].T + w["net.3.bias"])[:, 0]
                grads = torch.autograd.grad(((guess - y) ** 2).mean() / 2, list(w.values()))
                moves = dict(zip(w, grads, strict=True))
                own[k] = {n: (p - lr * moves[n] if n in trains(step) else p).detach() for n, p in w.items()}
        mean = {n: sum(len(sets[k][1]) / total * own[k][n] for k in sets) for n in shared}
        own = {k: {**w, **mean} for k, w in own.items()}
    return data, own


@pytest.mark.parametrize(
    ("rule", "shared", "trains"),
    [
        (FedPer(head=TOY), BODY, lambda step: BODY | TOP),
        (LGFedAvg(head=TOY), TOP, lambda step: BODY | TOP),
        (FedRep(head=TOY), BODY, lambda step: TOP if step < 2 else BODY),
        (FedRep(head=TOY, head_share=0.8), BODY, lambda step: TOP if step < 3 else BODY),
        (FedBN(norm=r"net\.0\.bias"), BODY | TOP - {"net.0.bias"}, lambda step: BODY | TOP),
    ],
    ids=["FedPer", "LG-FedAvg", "FedRep", "FedRep, mostly head", "FedBN"],
)
def test_is_the_loop_of_its_paper(fit, rule, shared, trains):
    shared = shared - {"net.0.bias"} if isinstance(rule, FedBN) else shared
    data, own = plain_loop(shared, trains)
    state, kept = last(fit(rule, Regression(hidden=4, **DOUBLE), data, max_rounds=3, local_steps=4))
    assert kept.keys() == own.keys()
    for k, model in own.items():
        assert close(rule.personal(rule.down(state, k), kept[k]), model)


@pytest.mark.parametrize(
    ("rule", "crosses"),
    [
        (FedPer(head=TOY), 16),
        (FedRep(head=TOY), 16),
        (LGFedAvg(head=TOY), 5),
        (FedBN(norm=r"net\.0\.bias"), 17),
    ],
    ids=lambda x: type(x).__name__ if not isinstance(x, int) else str(x),
)
def test_what_stays_is_sent_in_neither_direction(fit, rule, crosses):
    """Of the network's 12 + 4 parameters in the body and 4 + 1 in the head."""
    folder = fit(rule, Regression(hidden=4))
    assert {(row["direction"], row["parameters"]) for row in folder.ledger.read()} == {
        ("up", str(crosses)),
        ("down", str(crosses)),
    }
    state, kept = last(folder)
    every = BODY | TOP
    for memory in kept.values():
        assert state["params"].keys() | memory.keys() == every
        assert not state["params"].keys() & memory.keys()
        assert tree.size(memory) == 21 - crosses
    assert not tree.equal(kept["client-00"], kept["client-01"])


def test_flop_and_lgfedavg_share_what_the_other_keeps():
    params = {n: torch.zeros(1) for n in BODY | TOP}
    per, lg = FedPer(head=TOY), LGFedAvg(head=TOY)
    assert per.init(params)["params"].keys() == lg.init_memory(params).keys() == BODY
    assert lg.init(params)["params"].keys() == per.init_memory(params).keys() == TOP


def test_a_client_that_has_no_part_yet_serves_the_initial_one(fit):
    rule, task = FedPer(head=TOY), Regression(hidden=4)
    start = {n: p.detach().clone() for n, p in task.named_parameters()}
    state, _ = last(fit(rule, task))
    served = rule.personal(rule.down(state, "new"), rule.init_memory(start))
    assert torch.equal(served["net.3.weight"], start["net.3.weight"])
    assert torch.equal(served["net.0.weight"], state["params"]["net.0.weight"])


def test_fedrep_with_one_step_in_a_round_is_fedper(fit):
    one = {"max_rounds": 3, "local_steps": 1}
    a, b = (last(fit(rule(head=TOY), Regression(hidden=4), **one)) for rule in (FedRep, FedPer))
    assert tree.equal(a[0], b[0])
    assert tree.equal(a[1], b[1])


@pytest.mark.parametrize(
    ("share", "steps", "first"), [(0.5, 4, 2), (0.1, 4, 1), (0.99, 4, 3), (0.5, 2, 1), (0.5, 1, 0), (0.0, 4, 0)]
)
def test_a_phase_has_its_share_of_the_steps_and_one_at_least(share, steps, first):
    assert opening(share, steps) == first


def test_fedbn_keeps_the_normalisation_of_each_client(fit):
    state, kept = last(fit(FedBN(), Classifier(), ToyData(classes=3, features=4)))
    names = {"network.norm.weight", "network.norm.bias"}
    assert all(memory.keys() == names for memory in kept.values())
    assert not names & state["params"].keys()
    assert not tree.equal(kept["client-00"], kept["client-01"])
    same = last(fit(FedPer(head=r"\.norm\."), Classifier(), ToyData(classes=3, features=4)))
    assert tree.equal(state, same[0])
    assert tree.equal(kept, same[1])


def test_fedbn_without_normalisation_layers_refuses(fit):
    message = r"FedBN\.norm .* matches none of the 4 parameters that train \(net\.0\.bias, net\.0\.weight, .*\): give a"
    with pytest.raises(FedlitError, match=message):
        fit(FedBN(), Regression(hidden=4))


@pytest.mark.parametrize("rule", [FedPer, FedRep, LGFedAvg])
def test_a_pattern_that_leaves_nothing_over_refuses(fit, rule):
    with pytest.raises(FedlitError, match=rf"{rule.__name__}\.head 'net' matches all of .*net\.3\.weight"):
        fit(rule(head="net"), Regression(hidden=4))
    with pytest.raises(FedlitError, match=rf"{rule.__name__}\.head .* matches none"):
        fit(rule(), Regression(hidden=4))


def test_the_names_of_a_large_network_are_not_all_shown():
    with pytest.raises(
        FedlitError,
        match=r"20 parameters that train \(layer\.00\S+ layer\.01\S+ \.\.\., layer\.18\S+ layer\.19\.weight\)",
    ):
        FedPer().init({f"layer.{i:02d}.weight": torch.zeros(1) for i in range(20)})


@pytest.mark.parametrize(
    "name",
    ["head.weight", "network.head.bias", "lm_head.weight", "classifier.dense.weight", "score.weight", "fc.bias",
     "base_model.model.classifier.modules_to_save.default.weight", "pre_classifier.weight",
     "network.output_patch_embedding.output_layer.lora_A.default.weight"],
)  # fmt: skip
def test_the_usual_heads_are_found(name):
    assert re.search(HEAD, name)


@pytest.mark.parametrize("name", ["encoder.block.0.attn.q.weight", "mlp.fc1.weight", "overhead.weight", "net.3.weight"])
def test_bodies_are_not_taken_for_heads(name):
    assert not re.search(HEAD, name)


@pytest.mark.parametrize(
    "name",
    ["norm.weight", "blocks.0.norm1.bias", "layer.0.layer_norm.weight", "encoder.LayerNorm.bias", "ln_f.weight",
     "h.0.ln_1.weight", "bn1.bias", "layers.0.input_layernorm.weight", "vit.layernorm_before.weight",
     "final_layer_norm.weight", "BatchNorm2d.weight", "network.norm.bias"],
)  # fmt: skip
def test_the_usual_norms_are_found(name):
    assert re.search(NORM, name)


@pytest.mark.parametrize("name", ["normalizer_free.weight", "lnear.weight", "blnk.bias", "attn.q.weight", "abnormal.w"])
def test_other_layers_are_not_taken_for_norms(name):
    assert not re.search(NORM, name)


def test_partly_shared_rules_hand_no_model_over(fit):
    with pytest.raises(FedlitError, match="has no global model for stage 1"):
        fit(Stages([Stage(FedPer(head=TOY), 1), Stage(FedAvg(), 1)]), Regression(hidden=4))


def test_fedper_of_one_client_is_local_training(fit):
    data, task = ToyData(num_clients=1, **DOUBLE), Regression(hidden=4, **DOUBLE)
    rule = FedPer(head=TOY)
    state, kept = last(fit(rule, task, data, max_rounds=3))
    _, alone = last(fit(LocalOnly(), Regression(hidden=4, **DOUBLE), data, max_rounds=3))
    assert close(rule.personal(rule.down(state, "client-00"), kept["client-00"]), alone["client-00"])


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: FedPer(head="net("), "FedPer.head"),
        (lambda: FedPer(weighting="size"), "FedPer.weighting"),
        (lambda: FedRep(head_share=1.0), "FedRep.head_share"),
        (lambda: FedRep(head="("), "FedRep.head"),
        (lambda: LGFedAvg(head="("), "LGFedAvg.head"),
        (lambda: FedBN(norm="["), "FedBN.norm"),
    ],
)
def test_refused_by_name(make, field):
    with pytest.raises(FedlitError, match=field.replace(".", r"\.")):
        make()


@pytest.mark.parametrize("adapter", [LoRA(r=2), None], ids=["LoRA", "all weights"])
@pytest.mark.parametrize("rule", [FedPer, FedRep, LGFedAvg])
def test_a_tied_head_is_refused_with_an_expression_that_works(rule, adapter):
    """Chronos-T5's logits come from its embedding: nothing is named a head, and nothing of it trains by itself."""
    task = ForecastingTask("amazon/chronos-t5-tiny", adapter)
    task.use_stand_in()
    task.configure_model()
    params = {name: p.detach() for name, p in task.named_parameters() if p.requires_grad}
    with pytest.raises(FedlitError, match="tied to the embedding") as refused:
        rule().init(params)
    assert "decoder.block.0, network" in str(refused.value)
    expression = re.search(r"such as '([^']+)'", str(refused.value))[1]
    kept = part(rule(head=expression), "head", params)
    assert 0 < len(kept) < len(params)
    assert all(".decoder.block.0." in name for name in kept)
    assert rule(head=expression).init(params)["params"]


def test_places_are_told_by_stack():
    names = [f"net.encoder.block.{i}.{kind}.weight" for i in range(12) for kind in "qv"]
    assert places([*names, "net.decoder.block.3.q.weight", "net.shared.weight"]) == [
        "net.decoder.block.3", "net.encoder.block.0-11", "net.shared",
    ]  # fmt: skip


def test_the_last_block_is_the_one_of_the_highest_number():
    names = [f"network.encoder.layer.{i}.dense.weight" for i in range(12)]
    assert last_block([*names, "network.pooler.weight"]) == r"encoder\.layer\.11\."
    assert last_block([*names, "network.decoder.block.3.q.weight"]) == r"decoder\.block\.3\."
    assert last_block(["net.0.weight", "net.0.bias"]) is None
    assert last_block(["weight"]) is None
