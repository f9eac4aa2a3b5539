"""Tiny language models as folders, and their gradients."""

from __future__ import annotations

import json

import torch

from fedlit.backbones.causal_lms import causal_stand_in
from fedlit.backbones.checkpointing import checkpoint_activations

TEXTS = ["The patient was given aspirin, 5 mg daily.", "No fever; aspirin was stopped."] * 5


def saved(folder, name="stand-in:llama", **changes):
    """A folder as one is published, with changes to its config.json."""
    made = causal_stand_in(name, TEXTS)
    made.network.save_pretrained(folder)
    made.family.save(folder)
    edit(folder / "config.json", **changes)
    return made


def edit(path, **changes):
    settings = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in settings.items() if value is not ...}))


def gradients(network, tokens, on):
    checkpoint_activations(network, on)
    network.zero_grad()
    for name, parameter in network.named_parameters():
        if "lora_B" in name:
            parameter.data = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) / 10
    network(**tokens, use_cache=False).logits.float().square().mean().backward()
    return {name: one.grad.clone() for name, one in network.named_parameters() if one.requires_grad}
