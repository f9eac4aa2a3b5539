"""LoRA rules that lose nothing: against PEFT's stacked adapters, and after real rounds in float64."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from adapters import LAYERS, WEIGHTS, Clients, relative
from lightning.fabric import Fabric
from peft import LoraConfig, inject_adapter_in_model
from toys import Classifier, Regression, ToyData, memories
from transformers.pytorch_utils import Conv1D

from fedlit import codec, tree
from fedlit.aggregators import FedAvg, Sealed, Server, Stage, Stages, Update
from fedlit.aggregators.lora_exact import AlternatingLoRA, FedExLoRA, FedSALoRA, FFALoRA, FLoRA
from fedlit.aggregators.lora_truncated import FlexLoRA, HetLoRA, LoRAFair
from fedlit.engine.serial import SerialEngine
from fedlit.errors import FedlitError

MIXED = {"c0": 4, "c1": 8, "c2": 16}
RULES = [FFALoRA, FedSALoRA, AlternatingLoRA, FedExLoRA, FLoRA, FlexLoRA, HetLoRA, LoRAFair]


@pytest.mark.parametrize("use_rslora", [False, True])
@pytest.mark.parametrize("make", [FedExLoRA, FLoRA])
def test_mixed_ranks_give_the_update_that_peft_stacks(make, use_rslora):
    """Oracle: PEFT's ``add_weighted_adapter(combination_type="cat")``."""
    clients = Clients({"network": 16, **MIXED}, use_rslora)
    rule = make(ranks=MIXED, use_rslora=use_rslora)
    state, _ = clients.aggregate(rule)
    wanted = clients.mean("cat")
    for client in (None, *MIXED):
        torch.testing.assert_close(clients.effective(rule, state, client), wanted, rtol=0, atol=1e-12)
    assert {c: len(rule.down(state, c)["params"]["net.first.lora_A.default.weight"]) for c in MIXED} == MIXED


def test_the_head_is_the_mean():
    clients = Clients({"network": 16, **MIXED})
    wanted = sum(w * MIXED[c] for c, w in WEIGHTS.items()) / sum(WEIGHTS.values())
    for make in (FedExLoRA, FLoRA, FlexLoRA, LoRAFair):
        state, _ = clients.aggregate(make(ranks=MIXED))
        assert make(ranks=MIXED).global_model(state)["net.head.weight"] == pytest.approx(wanted), make


def test_what_plain_averaging_loses_is_a_covariance_and_what_fedex_adds():
    """``M - mean(B) mean(A) = sum_k p_k (B_k - mean B)(A_k - mean A)``, derived by expanding the right side."""
    clients = Clients({"network": 8, "c0": 8, "c1": 8, "c2": 8}, close=0.3)
    average, exact = FedAvg(), FedExLoRA()
    plain = clients.effective(average, clients.aggregate(average)[0])
    state, server = clients.aggregate(exact)
    parts = {c: clients.params(c) for c in WEIGHTS}
    shares = {c: w / sum(WEIGHTS.values()) for c, w in WEIGHTS.items()}
    for layer in LAYERS:
        a, b = (f"net.{layer}.lora_{ab}.default.weight" for ab in "AB")
        mean_a, mean_b = (sum(shares[c] * parts[c][name] for c in shares) for name in (a, b))
        terms = [shares[c] * (parts[c][b] - mean_b).flatten(1) @ (parts[c][a] - mean_a).flatten(1) for c in shares]
        lost = clients.scaling[f"net.{layer}"] * sum(terms).reshape(len(mean_b), *mean_a.shape[1:])
        torch.testing.assert_close(clients.mean("cat")[layer] - plain[layer], lost, rtol=0, atol=1e-12)
        torch.testing.assert_close(
            exact.global_model(state)[f"net.{layer}.base_layer.weight"], lost, rtol=0, atol=1e-12
        )
    assert server.logged["averaging_error"] == pytest.approx(relative(plain, clients.mean("cat")), rel=1e-9)


@pytest.mark.parametrize("make", [FedExLoRA, FLoRA, FlexLoRA, HetLoRA, LoRAFair])
@pytest.mark.parametrize("ranks", [None, MIXED])
def test_any_order_of_updates_gives_the_same_bytes(make, ranks):
    clients = Clients({"network": 16, **(ranks or dict.fromkeys(MIXED, 16))})
    (one, server), (other, again) = (clients.aggregate(make(ranks=ranks), order=step) for step in (1, -1))
    assert tree.equal(one, other)
    assert server.logged == again.logged


@pytest.mark.parametrize("make", [FedExLoRA, FLoRA, FlexLoRA, HetLoRA, LoRAFair])
def test_one_client_keeps_its_update(make):
    clients = Clients({"network": 16, "c1": 8})
    rule = make(ranks={"c1": 8})
    state, server = clients.aggregate(rule, {"c1": 2.0})
    for client in (None, "c1"):
        torch.testing.assert_close(clients.effective(rule, state, client), clients.delta("c1"), rtol=0, atol=1e-11)
    assert all(value < 1e-12 for value in server.logged.values())


class Watched:
    """What crossed in each round of a run, by a rule that is otherwise as it was."""

    def __init__(self, rule: Any) -> None:
        self.rounds: list[Any] = []
        watch = self

        class Same(type(rule)):  # type: ignore[misc]
            def aggregate(self, state: Any, updates: Any, server: Server) -> Any:
                new = super().aggregate(state, updates, server)
                watch.rounds.append((state, {u.client: (u.weight, u.tensors) for u in updates}, new, server))
                return new

        self.rule = Same(**{name: getattr(rule, name) for name in rule.__dataclass_fields__})


SMALL = {"client-01": 2, "client-02": 3}
EXACT = {
    "FFALoRA": FFALoRA(),
    "AlternatingLoRA": AlternatingLoRA(),
    "FedExLoRA": FedExLoRA(),
    "FedExLoRA mixed": FedExLoRA(ranks=SMALL),
    "FedExLoRA mixed rsLoRA": FedExLoRA(ranks=SMALL, use_rslora=True),
    "FLoRA": FLoRA(),
    "FLoRA mixed": FLoRA(ranks=SMALL),
}


def task_of(rule: Any) -> Classifier:
    rs = getattr(rule, "use_rslora", False)
    return Classifier(rank=4, alpha=6, use_rslora=rs, dtype="float64", lr=0.5)


def data(**arguments: Any) -> ToyData:
    return ToyData(num_clients=3, classes=3, features=4, dtype="float64", **arguments)


def weights_of(engine: SerialEngine, model: Any) -> dict[str, torch.Tensor]:
    """What the network's layers compute with, by PEFT: the frozen weights and the adapters, and the head."""
    engine.load(model)
    network = engine.task.network
    layers = {n: network[n].base_layer.weight + network[n].get_delta_weight("default") for n in ("first", "second")}
    return {n: w.detach().clone() for n, w in {**layers, "head": network["head"].weight}.items()}


def gaps(rule: Any, fit: Any) -> list[float]:
    """Largest difference, in each round, of the new global model from the mean of the clients' weights."""
    watched = Watched(rule)
    fit(watched.rule, task_of(rule), data(), max_rounds=4, local_steps=3)
    engine = SerialEngine(task_of(rule), Fabric(accelerator="cpu", devices=1))
    out = []
    for state, updates, new, _ in watched.rounds:
        total = sum(weight for weight, _ in updates.values())
        wanted: Any = None
        for client, (weight, upload) in updates.items():
            down = rule.down(state, client)
            trained = tree.add(rule.start(down, {}), upload)
            part = tree.scale(weights_of(engine, rule.model(trained, down, {})), weight / total)
            wanted = part if wanted is None else tree.add(wanted, part)
        models = [rule.global_model(new)]
        if isinstance(rule, FedExLoRA | FLoRA):  # these give every client the whole of it, whatever its rank
            models += [rule.personal(rule.down(new, client), {}) for client in updates]
        for model in models:
            missed = tree.sub(weights_of(engine, model), wanted)
            out.append(max(float(leaf.abs().max()) for leaf in tree.leaves(missed)))
    return out


@pytest.mark.usefixtures("unrehearsed")
@pytest.mark.parametrize("name", EXACT)
def test_the_global_model_is_the_mean_of_the_clients_weights_after_each_round(name, fit):
    assert max(gaps(EXACT[name], fit)) < 1e-12


@pytest.mark.usefixtures("unrehearsed")
def test_plain_averaging_is_not_exact(fit):
    """Without this, the test above could pass on clients that are too alike."""
    assert max(gaps(FedAvg(), fit)) > 1e-4


@pytest.mark.usefixtures("unrehearsed")
def test_ffa_trains_and_sends_b_alone(fit):
    watched = Watched(FFALoRA())
    fit(watched.rule, task_of(FFALoRA()), data())
    start = {n: p.detach() for n, p in task_of(FFALoRA()).named_parameters()}
    for _, updates, new, _ in watched.rounds:
        for _, upload in updates.values():
            assert not [n for n in upload if "lora_A" in n]
            assert [n for n in upload if "lora_B" in n]
        model = FFALoRA().global_model(new)
        assert all(torch.equal(p, start[n]) for n, p in model.items() if "lora_A" in n)


@pytest.mark.parametrize("share_head", [False, True])
def test_fedsa_never_sends_b_and_every_client_keeps_its_own(fit, share_head):
    rule = FedSALoRA(share_head=share_head)
    watched = Watched(rule)
    folder = fit(watched.rule, task_of(rule), data(), max_rounds=3)
    for state, updates, new, _ in watched.rounds:
        names = {n for _, upload in updates.values() for n in upload}
        assert names == set(rule.down(state, "any"))
        assert not [n for n in names if "lora_B" in n]
        assert any("head" in n for n in names) is share_head
        for name in names:  # the mean, by hand
            total = sum(w for w, _ in updates.values())
            moved = sum(w * upload[name] for w, upload in updates.values()) / total
            torch.testing.assert_close(new["params"][name], state["params"][name] + moved, rtol=0, atol=1e-14)
    held = [codec.decode(blob)[0] for blob in memories(folder).values()]
    assert len(held) == 3
    b = next(n for n in held[0] if "lora_B" in n)
    assert not torch.equal(held[0][b], held[1][b])
    assert any("head" in n for n in held[0]) is not share_head


def test_alternating_moves_b_first_then_a_and_the_head_always(fit):
    watched = Watched(AlternatingLoRA())
    fit(watched.rule, task_of(AlternatingLoRA()), data(), max_rounds=4)
    for index, (state, updates, new, _) in enumerate(watched.rounds):
        before, after = (AlternatingLoRA().global_model(s) for s in (state, new))
        moved = {n for n in before if not torch.equal(before[n], after[n])}
        wanted = "lora_A" if index % 2 else "lora_B"
        assert moved == {n for n in before if wanted in n or "head" in n}
        assert all(set(upload) == moved for _, upload in updates.values())


def test_flora_starts_anew_as_peft_does():
    """Oracle of the spread: PEFT's own initial A on a wide layer."""
    clients = Clients({"network": 16, **MIXED})
    rule = FLoRA(ranks=MIXED)
    (one, _), (other, _) = (clients.aggregate(rule, seed=seed) for seed in (0, 1))
    drawn = []
    for layer in LAYERS:
        a, b = (f"net.{layer}.lora_{ab}.default.weight" for ab in "AB")
        model = rule.global_model(one)
        assert not model[b].any()
        assert not torch.equal(model[a], rule.global_model(other)[a])
        assert torch.equal(rule.down(one, "c0")["params"][a], model[a][:4])
        scaled = model[a].flatten(1) * model[a][0].numel() ** 0.5
        assert scaled.abs().max() <= 1
        drawn.append(scaled.flatten())
    network = torch.nn.ModuleDict({"wide": torch.nn.Linear(400, 2)})
    peft = inject_adapter_in_model(LoraConfig(r=64, target_modules=["wide"]), network)["wide"].lora_A["default"].weight
    ours, theirs = torch.cat(drawn), peft.detach().double().flatten() * 20
    assert theirs.abs().max() <= 1
    assert float(ours.std()) == pytest.approx(float(theirs.std()), rel=0.05)


@pytest.mark.parametrize("make", RULES)
def test_a_network_without_adapters_is_refused_by_the_rule_s_name(make, fit):
    with pytest.raises(FedlitError, match=f"{make.__name__} needs LoRA adapters"):
        fit(make(), Regression())


@pytest.mark.parametrize("make", [FedExLoRA, FLoRA, FlexLoRA, HetLoRA, LoRAFair])
def test_ranks_are_refused_by_name(make, fit):
    for rank in (0, 2.5):
        with pytest.raises(FedlitError, match=rf"{make.__name__}\.ranks .*whole rank of at least 1"):
            make(ranks={"client-00": rank})
    with pytest.raises(FedlitError, match=rf"{make.__name__}\.ranks .*up to 4, the rank of network.first"):
        fit(make(ranks={"client-00": 5}), Classifier(rank=4, dtype="float64"), data())
    with pytest.raises(FedlitError, match=rf"{make.__name__}\.ranks .*\['client-09'\] is none"):
        fit(make(ranks={"client-09": 2}), Classifier(rank=4, dtype="float64"), data())


@pytest.mark.parametrize("make", [FedExLoRA, FLoRA, FlexLoRA, HetLoRA, LoRAFair])
def test_sealed_updates_are_refused(make):
    clients = Clients({"network": 4, "c0": 4})
    rule = make()
    state = rule.init(clients.params("network"))
    sealed = Update("c0", 1.0, lambda: clients.params("c0"), sealed=True)
    with pytest.raises(Sealed, match="'c0' is sealed"):
        rule.aggregate(state, [sealed], Server(0, torch.Generator(), scaling=clients.scaling))


def test_a_rule_that_changes_frozen_weights_comes_last_among_stages(fit):
    plan = [Stage(FedExLoRA(), 1), Stage(FedAvg(), 1)]
    with pytest.raises(FedlitError, match="Stages: stage 0, FedExLoRA, changes frozen weights.*make it the last"):
        fit(Stages(plan), Classifier(rank=4, dtype="float64"), data(), max_rounds=3)
    fit(Stages(plan[::-1]), Classifier(rank=4, dtype="float64"), data(), max_rounds=3)


def test_bases_are_kept_in_float32_at_least():
    clients = Clients({"network": 4, "c0": 4, "c1": 4, "c2": 4})
    rule = FedExLoRA()
    start = {name: p.bfloat16() for name, p in clients.params("network").items()}
    down = rule.down(rule.init(start), "c0")
    assert {p.dtype for p in down["base"].values()} == {torch.float32}
    assert {p.dtype for p in down["params"].values()} == {torch.bfloat16}


def test_equal_ranks_given_or_not_are_one(fit):
    """A client named with the network's own rank is as one that is not named."""
    for make in (FedExLoRA, FLoRA, FlexLoRA, HetLoRA, LoRAFair):
        clients = Clients({"network": 8, "c0": 8, "c1": 8, "c2": 8})
        plain, named = make(), replace(make(), ranks={"c1": 8})
        one, other = clients.aggregate(plain)[0], clients.aggregate(named)[0]
        assert tree.equal(plain.global_model(one), named.global_model(other))
        assert tree.equal(named.personal(named.down(other, "c1"), {}), plain.global_model(one))


class Turned(Classifier):
    """Its second layer, which is square, keeps its weight as ``(in, out)``, as GPT-2's layers do."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        layer: Any = self.network["second"]
        linear, layer.base_layer = layer.base_layer, Conv1D(6, 6)
        layer.base_layer.weight = torch.nn.Parameter(linear.weight.detach().T.contiguous(), requires_grad=False)
        layer.base_layer.bias, layer.fan_in_fan_out = linear.bias, True


@pytest.mark.parametrize("make", [FedExLoRA, FLoRA])
def test_a_layer_that_keeps_its_weight_turned_is_changed_alike(make, fit):
    states = []
    for task in (Classifier, Turned):
        watched = Watched(make())
        fit(watched.rule, task(rank=4, dtype="float64", lr=0.5), data(), max_rounds=3)
        states.append(watched.rounds[-1][2])
    torch.testing.assert_close(states[1], states[0], rtol=0, atol=1e-12)
