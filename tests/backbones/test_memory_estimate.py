"""Estimated memory against what the allocator gives out."""

from __future__ import annotations

import pytest
import torch
from allocations import allocated
from torch import nn

from fedlit.backbones.checkpointing import can_checkpoint, checkpoint_activations
from fedlit.backbones.encoders.loading import ENCODERS
from fedlit.backbones.known import KNOWN, sketch
from fedlit.backbones.lora import LoRA, attach
from fedlit.backbones.memory import Memory, estimate, training_memory
from fedlit.errors import FedlitError

SIZES = {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4}
SMALL = {
    "vit": {**SIZES, "intermediate_size": 512, "image_size": 64, "patch_size": 8},
    "dinov2": {**SIZES, "mlp_ratio": 4, "image_size": 56, "patch_size": 14},
    "roberta": {**SIZES, "intermediate_size": 512, "vocab_size": 500, "max_position_embeddings": 202},
    "wav2vec2": {**SIZES, "intermediate_size": 512},
    "audio-spectrogram-transformer": {**SIZES, "intermediate_size": 512, "max_length": 256},
}
LENGTHS = {"roberta": 100, "wav2vec2": 16000}


def built(name, device):
    with torch.device(device):
        network = ENCODERS[name].build(**SMALL[name]).eval()
        family = ENCODERS[name].of(network.config)
        return family, attach(network, LoRA(), family.targets(True), 0, name)


def loss_of(family, network, name, batch_size=8):
    inputs = family.example(batch_size, LENGTHS.get(name))
    if name == "roberta":
        inputs["attention_mask"][0, 50:] = 0  # texts are not of one length; transformers drops a mask of ones
    device = next(network.parameters()).device
    inputs = {key: value.to(device) for key, value in inputs.items()}
    return lambda: family.pooled(network, inputs).float().square().mean()


CASES = [(name, "32-true", ckpt) for name in SMALL for ckpt in (False, True)]
CASES += [(name, "bf16-mixed", ckpt) for name in ("vit", "roberta") for ckpt in (False, True)]


@pytest.mark.parametrize(("name", "precision", "checkpointing"), CASES)
def test_estimate_is_what_training_takes(name, precision, checkpointing):
    family, blank = built(name, "meta")
    told = estimate(blank, lambda network: loss_of(family, network, name), precision, checkpointing, device="cpu")
    assert all(one.is_meta for one in blank.parameters())
    family, network = built(name, "cpu")
    checkpoint_activations(network, checkpointing)
    loss = loss_of(family, network, name)

    def step():
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
            value = loss()
        value.backward()

    measured = allocated(step)
    assert told.work == pytest.approx(measured, rel=0.15)
    stored = sum(one.numel() * one.element_size() for one in (*network.parameters(), *network.buffers()))
    assert told.weights == stored
    optimizer = torch.optim.AdamW([one for one in network.parameters() if one.requires_grad])
    optimizer.step()
    states = [state[key] for state in optimizer.state.values() for key in ("exp_avg", "exp_avg_sq")]
    assert told.optimizer == sum(one.numel() * one.element_size() for one in states)


@pytest.mark.gpu
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("name", ["google/vit-base-patch16-224", "FacebookAI/roberta-base"])
def test_estimate_on_a_gpu(name, precision, checkpointing):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    one = sketch(name)
    with torch.device("meta"):
        network = attach(one.network, LoRA(), one.family.targets(True), 0, name)
    told = estimate(network, lambda n: one.loss(n, 32), precision, checkpointing, device="cuda")
    network.to_empty(device="cuda")
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.02)
    for buffer in network.buffers():
        buffer.zero_()
    checkpoint_activations(network, checkpointing)
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad])
    loss = one.loss(network, 32)
    torch.cuda.reset_peak_memory_stats()
    for _ in range(2):
        optimizer.zero_grad()
        with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bf16-mixed"):
            value = loss()
        value.backward()
        optimizer.step()
        del value
    assert told.total == pytest.approx(torch.cuda.max_memory_allocated(), rel=0.15)


def test_arithmetic_of_one_layer():
    network = nn.Sequential(nn.Linear(10, 6, bias=False), nn.ReLU())
    x = torch.ones(100, 10)  # not counted: it was there before
    told = training_memory(network, lambda: network(x).sum())
    # at most: what relu gave, the gradient before it, and two numbers, the loss and its gradient; the output of relu
    # is gone by the time of the weight's gradient
    assert told == Memory(weights=240, optimizer=480, work=2400 + 2400 + 4 + 4)
    assert told.total == 720 + told.work


def test_trained_parameters_alone_have_moments():
    network = nn.Sequential(nn.Linear(10, 6), nn.Linear(6, 1))
    network[0].requires_grad_(False)
    told = training_memory(network, lambda: network(torch.ones(1, 10)).sum())
    assert (told.weights, told.optimizer) == (4 * 73, 2 * 4 * 7)
    assert all(one.grad is None for one in network.parameters())
    with pytest.raises(FedlitError, match="'16-true' is not estimated"):
        training_memory(network, lambda: network(torch.ones(1, 10)).sum(), "16-true")


def test_what_is_tied_counts_once():
    one = nn.Linear(10, 10, bias=False)
    network = nn.Sequential(one, nn.Linear(10, 10, bias=False))
    network[1].weight = one.weight
    assert training_memory(network, lambda: network(torch.ones(1, 10)).sum()).weights == 400


def test_a_larger_batch_takes_more_and_checkpointing_less():
    family, blank = built("vit", "meta")
    work = {
        (size, ckpt): estimate(blank, lambda n: loss_of(family, n, "vit", size), "32-true", ckpt, "cpu").work  # noqa: B023
        for size in (8, 16)
        for ckpt in (False, True)
    }
    assert work[16, False] == pytest.approx(2 * work[8, False], rel=0.05)
    assert work[8, True] < 0.6 * work[8, False]


@pytest.mark.parametrize("name", ["vit", "roberta", "wav2vec2"])
def test_checkpointing_changes_no_gradient_and_no_mode(name):
    grads = []
    for on in (False, True):
        family, network = built(name, "cpu")
        with torch.no_grad():
            for key, parameter in network.named_parameters():
                generator = torch.Generator().manual_seed(len(key))
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / 10)
        network.eval()
        checkpoint_activations(network, on)
        assert not any(module.training for module in network.modules() if isinstance(module, nn.Dropout))
        loss_of(family, network, name, 2)().backward()
        grads.append({key: p.grad for key, p in network.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    for key, value in grads[0].items():
        torch.testing.assert_close(value, grads[1][key])
    checkpoint_activations(network, False)
    assert not any(module.training for module in network.modules())


def test_what_cannot_be_checkpointed_says_so():
    network = sketch("amazon/chronos-2").network
    assert not can_checkpoint(network)
    with pytest.raises(FedlitError, match="Chronos2Model has no layers that can be checkpointed"):
        checkpoint_activations(network)


PUBLISHED = {
    "google/vit-base-patch16-224": 85_798_656,  # 86.6 M with the head of 1000 classes
    "facebook/dinov2-small": 22_056_576,
    "facebook/dinov2-base": 86_580_480,
    "FacebookAI/roberta-base": 124_055_040,  # 124.6 M with the pooler
    "emilyalsentzer/Bio_ClinicalBERT": 107_719_680,  # 108.3 M with the pooler, as bert-base-cased
    "amazon/chronos-t5-tiny": 8_394_496,
    "amazon/chronos-bolt-tiny": 8_652_672,
    "HuggingFaceTB/SmolLM2-135M-Instruct": 134_515_008,
    "meta-llama/Llama-3.2-1B-Instruct": 1_235_814_400,
    "meta-llama/Llama-3.1-8B": 8_030_261_248,
    "meta-llama/Llama-3.1-8B-Instruct": 8_030_261_248,
    "deepseek-ai/DeepSeek-R1-Distill-Llama-8B": 8_030_261_248,
    "Qwen/Qwen3-4B": 4_022_468_096,
}
MILLIONS = {  # as their model cards round them
    "facebook/wav2vec2-base-960h": 94.4, "MIT/ast-finetuned-audioset-10-10-0.4593": 86.2,
    "amazon/chronos-bolt-mini": 21.2, "amazon/chronos-bolt-small": 47.7, "amazon/chronos-2": 119.5,
}  # fmt: skip


def test_known_sizes():
    found = {name: sum(p.numel() for p in sketch(name).network.parameters()) for name in KNOWN if name != "builtin"}
    for name, count in PUBLISHED.items():
        assert found.pop(name) == count
    assert {name: round(count / 1e6, 1) for name, count in found.items()} == MILLIONS
