"""Two adapters in one: joined against PEFT's own two, what travels, and what is refused."""

from __future__ import annotations

import pytest
import torch
from toys import Classifier, Regression, ToyData, contents, memories

from fedlit import codec, tree
from fedlit.aggregators.orthogonal import FedDAT, FedDPA, MedDualLoRA, OrthogonalDualLoRA, joined, split
from fedlit.aggregators.parts import lora, overlap
from fedlit.errors import FedlitError
from fedlit.runs.checkpoint import read

DOUBLE = {"dtype": "float64"}
PENALTIES = [*overlap.ON_WEIGHTS, "representations"]
LAYERS = ("first", "second")


def toys(**arguments):
    data = ToyData(classes=3, features=4, batch_size=0, **DOUBLE)
    return Classifier(rank=4, alpha=8.0, **DOUBLE, **arguments), data


# -- the joined adapter --------------------------------------------------------------------------------------------
@pytest.fixture
def trained():
    """The parameters that train, all non-zero."""
    generator = torch.Generator().manual_seed(0)
    named = Classifier(rank=4, **DOUBLE).named_parameters()
    return {n: torch.randn(p.shape, generator=generator, dtype=torch.float64) / 2 for n, p in named if p.requires_grad}


def network(params, **arguments) -> Classifier:
    task = Classifier(rank=4, **DOUBLE, **arguments)
    with torch.no_grad():
        for name, p in task.named_parameters():
            if name in params:
                p.copy_(params[name])
    return task


@pytest.mark.filterwarnings("ignore:Already found a `peft_config`")
@pytest.mark.parametrize("shared_rank", [None, 1, 3])
def test_the_joined_adapter_is_pefts_forward_with_two_adapters(trained, shared_rank):
    """PEFT as oracle: two adapters active at once, of both ranks, with the scaling that the joined one has."""
    from peft import LoraConfig, inject_adapter_in_model

    rule, x = MedDualLoRA(shared_rank=shared_rank), torch.randn(8, 4, dtype=torch.float64)
    shared, personal = split(rule, trained, shared_rank, None)
    mine = network(joined(rule, shared, personal), alpha=8.0)
    assert all(torch.equal(joined(rule, shared, personal)[n], p) for n, p in trained.items())

    theirs = Classifier(rank=0, **DOUBLE)
    net = theirs.network
    for name, adapter in (("shared", shared), ("personal", personal)):
        rank = adapter["network.first.lora_A.default.weight"].shape[0]
        config = LoraConfig(r=rank, lora_alpha=8.0 / 4 * rank, target_modules=["first", "second"])
        net = inject_adapter_in_model(config, net, adapter_name=name).double()
    with torch.no_grad():
        for layer in ("first", "second"):
            net[layer].set_adapter(["shared", "personal"])
            for name, adapter in (("shared", shared), ("personal", personal)):
                for kind in "AB":
                    ours = adapter[f"network.{layer}.lora_{kind}.default.weight"]
                    getattr(net[layer], f"lora_{kind}")[name].weight.copy_(ours)
        for end in ("weight", "bias"):
            getattr(net["head"], end).copy_(trained[f"network.head.{end}"])
    torch.testing.assert_close(mine.logits((x,)), theirs.logits((x,)), rtol=1e-12, atol=1e-12)


def test_without_a_head_of_all_there_is_no_model_of_all():
    """The initial head under trained adapters would be scored, and a later stage would begin with it."""
    params = {n: p.detach() for n, p in toys()[0].named_parameters() if p.requires_grad}
    for rule, whole in ((MedDualLoRA(), True), (MedDualLoRA(local="head"), False)):
        assert (rule.global_model(rule.init(params)) is not None) == whole


def test_the_global_model_has_the_shared_adapter_only(trained):
    rule, base = MedDualLoRA(), dict(Classifier(rank=4, **DOUBLE).named_parameters())
    state, memory = rule.init(trained), rule.init_memory(trained)
    for model, halves in ((rule.global_model(state), [state["params"]]),
                          (rule.personal(rule.down(state, "a"), memory), [state["params"], memory])):  # fmt: skip
        for layer in lora.layers(trained, rule):
            update = sum(lora.product(half, layer) for half in halves)
            torch.testing.assert_close(lora.product(model, layer), update)
            x = torch.randn(3, base[layer.weight].shape[1], dtype=torch.float64)
            task = network(model, alpha=8.0)
            dense = x @ (base[layer.weight] + 2.0 * update).T + task.get_submodule(layer.name).base_layer.bias
            torch.testing.assert_close(task.get_submodule(layer.name)(x), dense)
    layer = lora.layers(trained, rule)[0]  # the silent part could learn: its A is not zero
    assert bool(state["silent"][layer.a].any())
    assert not state["silent"][layer.b].any()


# -- what holds between rules --------------------------------------------------------------------------------------
def files(folder) -> dict[str, bytes]:
    found = contents(folder.path / "checkpoints" / "last")
    kept = {name: blob for name, blob in found.items() if name.endswith(".safetensors")}
    return {**kept, **memories(folder), "metrics": (folder.path / "metrics.csv").read_bytes()}


@pytest.mark.parametrize("name", PENALTIES)
def test_without_a_penalty_it_is_med_dual_lora_byte_for_byte(fit, name):
    plain = files(fit(MedDualLoRA(shared_rank=1), *toys(optimizer="adamw")))
    off = files(fit(OrthogonalDualLoRA(lam=0.0, penalty=name, shared_rank=1), *toys(optimizer="adamw")))
    on = files(fit(OrthogonalDualLoRA(lam=0.1, penalty=name, shared_rank=1), *toys(optimizer="adamw")))
    assert off == plain
    assert on != plain


@pytest.mark.parametrize("name", PENALTIES)
def test_the_penalty_makes_the_adapters_orthogonal(fit, name):
    """One client, for a mean of shared adapters need not be orthogonal to what each of them is orthogonal to."""
    left = []
    for lam in (0.0, 1.0):
        task, data = Classifier(rank=4, optimizer="adamw", lr=0.02, **DOUBLE), ToyData(1, 20, 4, classes=3, **DOUBLE)
        folder = fit(OrthogonalDualLoRA(lam=lam, penalty=name), task, data, max_rounds=1, local_steps=60)
        shared = read(folder.path / "checkpoints" / "last").state["params"]
        (blob,) = memories(folder).values()
        personal, found = codec.decode(blob)[0], lora.layers(shared, FedDAT())
        if name == "representations":
            seen, trained = {}, network(joined(FedDAT(), shared, personal))
            for layer in found:
                keep = lambda m, i, o, key=f"{layer.name}.lora_A.default", seen=seen: seen.update({key: o})  # noqa: E731
                trained.get_submodule(layer.name).lora_A["default"].register_forward_hook(keep)
            trained.logits(data.dataset("client-00", "train").tensors)
            left.append(float(overlap.representations(shared, personal, found, 1e-8, seen).detach()))
        else:
            left.append(float(overlap.ON_WEIGHTS[name](shared, personal, found, 1e-8)))
    assert left[1] < left[0] / 4, left


@pytest.mark.usefixtures("unrehearsed")
@pytest.mark.parametrize("base", [MedDualLoRA, OrthogonalDualLoRA, FedDPA, FedDAT])
def test_the_personal_part_never_travels(fit, base):
    sent = []

    class Watched(base):
        def aggregate(self, state, updates, server):
            sent.extend(u.tensors for u in updates)
            return super().aggregate(state, updates, server)

    folder = fit(Watched(shared_rank=1, local="head"), *toys())
    shared = {f"network.{layer}.lora_{kind}.default.weight" for layer in LAYERS for kind in "AB"}
    for upload in sent:
        assert set(upload) == shared
        assert all(x.shape[0 if "lora_A" in n else 1] == 1 for n, x in upload.items())
    count = (4 + 6) + (6 + 6)  # one row of A and one column of B in each layer
    assert {(row["direction"], row["parameters"]) for row in folder.ledger.read()} == {
        ("up", str(count)), ("down", str(count))
    }  # fmt: skip
    assert len(sent) == 6


def test_who_never_trained_is_served_the_shared_adapter(fit):
    rule = MedDualLoRA()
    task, data = toys()
    start = {n: p.detach().clone() for n, p in task.named_parameters() if p.requires_grad}
    folder = fit(rule, task, data, clients_per_round=1, max_rounds=1)
    state = read(folder.path / "checkpoints" / "last").state
    assert len(memories(folder)) == 1
    model = rule.personal(rule.down(state, "new"), rule.init_memory(start))
    for layer in lora.layers(start, rule):
        torch.testing.assert_close(lora.product(model, layer), lora.product(state["params"], layer))


def test_what_cannot_be_split_is_refused(fit):
    with pytest.raises(FedlitError, match=r"MedDualLoRA needs LoRA adapters"):
        fit(MedDualLoRA(), Regression())
    with pytest.raises(FedlitError, match=r"FedDAT.shared_rank is 4, expected from 1 to below 4"):
        fit(FedDAT(shared_rank=4), *toys())
    with pytest.raises(FedlitError, match=r"MedDualLoRA.shared_rank is None, .* below 1, the rank of network.first"):
        MedDualLoRA().init({n: p for n, p in Classifier(rank=1).named_parameters() if p.requires_grad})
    with pytest.raises(FedlitError, match=r"MedDualLoRA.local is 'tail', expected .* some of \['network.head"):
        fit(MedDualLoRA(local="tail"), *toys())
    with pytest.raises(FedlitError, match=r"MedDualLoRA.local is '\(', expected a regular expression"):
        MedDualLoRA(local="(")
    with pytest.raises(FedlitError, match="FedDPA trains one adapter after the other.*at least 2 local steps"):
        fit(FedDPA(), *toys(), local_steps=1)


def test_tree_parts_hold_no_views():
    """A half that shared its storage with the network would move with it."""
    params = {n: p.detach() for n, p in Classifier(rank=4).named_parameters() if p.requires_grad}
    before = tree.clone(params)
    shared, personal = split(MedDualLoRA(), params, None, None)
    for half in (shared, personal):
        for leaf in tree.leaves(half):
            leaf.add_(1)
    assert tree.equal(params, before)
