import pytest
import torch

from fedlit.backbones import LoRA, stand_in
from fedlit.backbones.lora import attach, load_adapter
from fedlit.backbones.storage import hold
from fedlit.errors import FedlitError


def adapted(lora, seed=0):
    backbone = stand_in("amazon/chronos-bolt-tiny", 16)
    return attach(backbone.network, lora, backbone.targets(), seed, backbone.name)


def trainable(model):
    return {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}


def test_first_values_hang_on_the_seed_alone():
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    one = trainable(adapted(LoRA(r=4)))
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(2)
    two, three = trainable(adapted(LoRA(r=4))), trainable(adapted(LoRA(r=4), seed=1))
    assert all("lora_" in name for name in one)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert any(not torch.equal(one[name], three[name]) for name in one)


@pytest.mark.parametrize(
    ("lora", "part"),
    [
        (LoRA(r=2, use_rslora=True), "lora_A"),
        (LoRA(r=2, use_dora=True), "lora_magnitude_vector"),
        (LoRA(r=2, target_modules=["q"]), ".q.lora_A"),
        (LoRA(r=2, target_modules=r".*encoder.*\.(q|v)"), "encoder.block.0.layer.0.SelfAttention.v.lora_A"),
        (LoRA(r=2, target_modules="all-linear"), "lora_A"),
        (LoRA(r=2, target_modules=["q"], modules_to_save=["output_patch_embedding"]), "modules_to_save"),
    ],
)
def test_options(lora, part):
    names = trainable(adapted(lora))
    assert any(part in name for name in names)
    if lora.target_modules == ["q"] and not lora.modules_to_save:
        assert all(".q." in name for name in names)


def test_scaling():
    network = adapted(LoRA(r=4, alpha=8, use_rslora=True, target_modules=["q"]))
    assert {one.scaling["default"] for name, one in network.named_modules() if name.endswith(".q")} == {4.0}


@pytest.mark.parametrize("targets", [["q", "query"], r".*\.query", ["query"]])
def test_a_target_that_matches_nothing_lists_the_names_there_are(targets):
    with pytest.raises(FedlitError, match="query.*there are.*output_layer.*, q, .*wo"):
        adapted(LoRA(target_modules=targets))


def test_bad_settings():
    with pytest.raises(FedlitError, match=r"modules_to_save.*'head'"):
        adapted(LoRA(modules_to_save=["head"]))
    with pytest.raises(FedlitError, match=r"target_modules '\(\(' cannot be used .*unterminated subpattern"):
        adapted(LoRA(target_modules="(("))
    with pytest.raises(FedlitError, match=r"adapter\.r is 0"):
        LoRA(r=0)
    with pytest.raises(FedlitError, match=r"adapter\.alpha is 0"):
        LoRA(alpha=0)
    with pytest.raises(FedlitError, match=r"adapter\.dropout is 1"):
        LoRA(dropout=1.0)


def test_what_is_trained_whole_is_held_in_float32():
    backbone = stand_in("amazon/chronos-bolt-tiny", 16)
    hold(backbone.network, torch.bfloat16)
    lora = LoRA(target_modules=["q"], modules_to_save=["output_patch_embedding"])
    with pytest.raises(FedlitError, match="'output_patch_embedding' is held in bfloat16, and what is trained whole"):
        attach(backbone.network, lora, ["q"], 0, "x")
    assert attach(backbone.network, LoRA(), backbone.targets(), 0, "x")


def test_an_adapter_is_loaded_only_with_the_settings_it_was_made_with(tmp_path):
    made = adapted(LoRA(r=4, alpha=8, target_modules=["q"]), seed=1)
    made.save_pretrained(tmp_path, save_embedding_layers=False)
    name = stand_in("amazon/chronos-bolt-tiny", 16).name
    again = adapted(LoRA(r=4, alpha=8, target_modules=["q"]))
    load_adapter(again, tmp_path, name)
    assert all(torch.equal(value, trainable(again)[key]) for key, value in trainable(made).items())
    with pytest.warns(UserWarning, match=f"was made on backbone '{name}', and is put on 'elsewhere'"):
        load_adapter(again, tmp_path, "elsewhere")
    for lora, message in (
        (LoRA(r=2, alpha=8, target_modules=["q"]), "does not fit backbone .*give the backbone and the LoRA settings"),
        (LoRA(r=4, alpha=8, target_modules=["v"]), "does not fit backbone"),
        (LoRA(r=4, alpha=16, target_modules=["q"]), "says lora_alpha 8, and the adapter here has 16"),
        (LoRA(r=4, alpha=8, target_modules=["q"], use_rslora=True), "says use_rslora False, .* has True"),
    ):
        with pytest.raises(FedlitError, match=message):
            load_adapter(adapted(lora), tmp_path, name)
    (tmp_path / "adapter_config.json").unlink()
    with pytest.raises(FedlitError, match="says lora_alpha None"):
        load_adapter(again, tmp_path, name)
