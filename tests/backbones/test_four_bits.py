"""Weights in 4 bits, where bitsandbytes is installed."""

import copy

import pytest
import torch
from causal_lm_folders import TEXTS, gradients, saved

from fedlit.backbones import LoRA
from fedlit.backbones.causal_lms import load_causal_lm
from fedlit.backbones.checkpointing import can_checkpoint, checkpoint_activations
from fedlit.backbones.lora import attach
from fedlit.errors import FedlitError

bitsandbytes = pytest.importorskip("bitsandbytes")


@pytest.fixture
def four_bits(tmp_path):
    saved(tmp_path)
    return load_causal_lm(str(tmp_path), "nf4")


def test_four_bits_quantise_all_linear_layers_but_the_head(four_bits, tmp_path):
    layers = {name: one for name, one in four_bits.network.named_modules() if isinstance(one, torch.nn.Linear)}
    assert not isinstance(layers.pop("lm_head"), bitsandbytes.nn.Linear4bit)
    whole = dict(load_causal_lm(str(tmp_path)).network.named_parameters())
    assert len(layers) == 14
    for name, layer in layers.items():
        state = layer.weight.quant_state
        assert (state.quant_type, state.nested, layer.compute_dtype) == ("nf4", True, torch.bfloat16)
        true = whole[f"{name}.weight"]
        assert layer.weight.nbytes == true.numel() / 2
        near = bitsandbytes.functional.dequantize_4bit(layer.weight.data, state).float()
        assert 0.01 < (near - true).norm() / true.norm() < 0.12  # four bits of a normal variable lose about 10 %
    rest = {one.dtype for one in four_bits.network.parameters() if one.dtype != torch.uint8}
    assert rest == {torch.bfloat16}


def test_four_bits_train_adapters_in_float32_and_checkpointing_changes_no_gradient(four_bits):
    network = attach(four_bits.network, LoRA(r=4), four_bits.targets(), 0, "x")
    assert {one.dtype for one in network.parameters() if one.requires_grad} == {torch.float32}
    assert can_checkpoint(network)
    tokens = four_bits.family.tokenizer(TEXTS[:2], padding=True, return_tensors="pt")
    plain, again = (gradients(network, tokens, on) for on in (False, True))
    for name, value in plain.items():
        torch.testing.assert_close(value, again[name])
    checkpoint_activations(network, True)
    optimizer = torch.optim.AdamW([one for one in network.parameters() if one.requires_grad], 1e-2)
    losses = []
    for _ in range(20):
        logits = network(**tokens, use_cache=False).logits[:, :-1].float()
        losses.append(torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens["input_ids"][:, 1:].flatten()))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0] - 0.5


def test_gradients_pass_through_four_bits_as_through_the_weights_that_they_stand_for(four_bits):
    tokens = four_bits.family.tokenizer(TEXTS[:2], padding=True, return_tensors="pt")
    found = []
    for whole in (False, True):
        network = copy.deepcopy(four_bits.network)
        for name, layer in list(network.named_modules()) if whole else []:
            if isinstance(layer, bitsandbytes.nn.Linear4bit):
                plain = torch.nn.Linear(layer.in_features, layer.out_features, bias=False)
                plain.weight.data = bitsandbytes.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
                network.set_submodule(name, plain)
        network = attach(network, LoRA(r=4), four_bits.targets(), 0, "x")
        with torch.inference_mode():
            network(**tokens)
        found.append(gradients(network, tokens, False))
    for name, value in found[0].items():
        assert (value - found[1][name]).norm() < 0.15 * found[1][name].norm(), name  # bfloat16's rounding


def test_a_stand_in_in_four_bits():
    made = load_causal_lm("stand-in:qwen3", "nf4")
    assert made.stand_in
    assert type(made.network.model.layers[0].self_attn.q_proj).__name__ == "Linear4bit"


def test_what_is_in_four_bits_is_not_trained_whole(four_bits, tmp_path):
    lora = LoRA(target_modules=["v_proj"], modules_to_save=["q_proj"])
    with pytest.raises(FedlitError, match=r"'q_proj' is quantised \(torch\.uint8\), and what is trained whole"):
        attach(four_bits.network, lora, [], 0, "x")
    network = load_causal_lm(str(tmp_path), "nf4", held="float32").network
    lora = LoRA(target_modules=["v_proj"], modules_to_save=["lm_head"])
    network = attach(network, lora, [], 0, "x")
    trained = {name: one for name, one in network.named_parameters() if one.requires_grad}
    assert {one.dtype for one in trained.values()} == {torch.float32}
    assert any("lm_head" in name for name in trained)
    network(**four_bits.family.example(2, 5)).logits.sum().backward()
    assert all(one.grad is not None for one in trained.values())


def test_checkpointing_takes_the_weights_that_a_loss_was_taken_at(four_bits):
    network = attach(four_bits.network, LoRA(r=4), four_bits.targets(), 0, "x")
    tokens = four_bits.family.tokenizer(TEXTS[:2], padding=True, return_tensors="pt")
    found = []
    for on in (False, True):
        checkpoint_activations(network, on)
        other = {
            name: torch.full_like(one, 0.01).requires_grad_()
            for name, one in network.named_parameters()
            if one.requires_grad
        }
        torch.func.functional_call(network, other, (), dict(tokens)).logits.float().square().mean().backward()
        found.append([one.grad for one in other.values()])
    for plain, again in zip(*found, strict=True):
        torch.testing.assert_close(plain, again)
        assert plain.abs().max() > 0
