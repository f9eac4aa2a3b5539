"""The digest of frozen weights."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import pytest
import torch
from torch import nn

from fedlit.backbones import LoRA
from fedlit.backbones.digest import CHUNK, frozen_digest, frozen_tensors
from fedlit.backbones.lora import attach
from fedlit.errors import FedlitError

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int8, torch.uint8, torch.bool)


def network() -> nn.Module:
    torch.manual_seed(0)
    made = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 2))
    made.register_buffer("frequencies", torch.arange(3.0), persistent=False)
    return made.requires_grad_(False)


def test_it_is_the_sha256_that_its_definition_gives():
    tensors = {"b": torch.tensor([1.0, -2.0]), "a": torch.tensor(3, dtype=torch.int64)}
    own = [hashlib.sha256(tensors[name].numpy().tobytes()).hexdigest() for name in "ab"]
    lines = f"a\0torch.int64\0()\0{own[0]}\nb\0torch.float32\0(2,)\0{own[1]}\n"
    assert frozen_digest(tensors) == hashlib.sha256(lines.encode()).hexdigest()


def test_the_order_of_the_names_does_not_matter_and_everything_else_does():
    tensors = dict(frozen_tensors(network()))
    digest = frozen_digest(tensors)
    assert frozen_digest(dict(reversed(tensors.items()))) == digest
    changed = {name: tensor.clone() for name, tensor in tensors.items()}
    assert frozen_digest(changed) == digest
    changed["0.weight"][0, 0] = torch.nextafter(changed["0.weight"][0, 0], torch.tensor(9.0))
    renamed = {("x" if name == "0.bias" else name): tensor for name, tensor in tensors.items()}
    others = [
        changed,
        renamed,
        {**tensors, "0.weight": tensors["0.weight"].reshape(4, 6)},
        {**tensors, "0.weight": tensors["0.weight"].bfloat16()},
        {**tensors, "0.weight": tensors["0.weight"].view(torch.int32)},
        {name: tensor for name, tensor in tensors.items() if name != "2.bias"},
        {**tensors, "0.bias": tensors["1.weight"], "1.weight": tensors["0.bias"]},
    ]
    digests = [digest, *map(frozen_digest, others)]
    assert len(set(digests)) == len(digests)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_is_hashed_by_its_bytes(dtype):
    values = torch.arange(12).reshape(3, 4).to(dtype)
    other = values.clone()
    other[2, 1] = 0
    assert frozen_digest({"w": values}) == frozen_digest({"w": values.clone()})
    assert frozen_digest({"w": values}) != frozen_digest({"w": other})
    assert frozen_digest({"w": values.t()}) == frozen_digest({"w": values.t().contiguous()})
    assert frozen_digest({"w": values[:0]}) != frozen_digest({"w": values[:1]})


def test_tensors_longer_than_a_piece_are_hashed_whole():
    values = torch.zeros(CHUNK // 4 + 5)
    other = values.clone()
    other[-1] = 1
    assert frozen_digest({"w": values}) != frozen_digest({"w": other})
    whole = hashlib.sha256(values.numpy().tobytes()).hexdigest()
    line = f"w\0torch.float32\0({len(values)},)\0{whole}\n"
    assert frozen_digest({"w": values}) == hashlib.sha256(line.encode()).hexdigest()


def test_what_trains_and_what_is_computed_is_left_out():
    made = network()
    assert set(frozen_tensors(made)) == set(made.state_dict()) > {"1.running_mean"}
    made[0].weight.requires_grad_(True)
    assert "0.weight" not in frozen_tensors(made)
    before = frozen_digest(frozen_tensors(made))
    made[0].weight.data += 1
    made.frequencies += 1
    assert frozen_digest(frozen_tensors(made)) == before
    made[0].bias.data += 1
    assert frozen_digest(frozen_tensors(made)) != before


def test_an_adapter_that_trains_leaves_the_digest_of_its_backbone():
    adapted = attach(nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 2)), LoRA(r=2), ["0", "1"], 0, "toy")
    held = frozen_tensors(adapted)
    assert held
    assert not [name for name in held if "lora" in name]
    before = frozen_digest(held)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data += 1
    assert frozen_digest(frozen_tensors(adapted)) == before


def test_another_process_gives_the_same_digest():
    code = "import torch; from fedlit.backbones.digest import frozen_digest; print(frozen_digest({'w': torch.ones(3)}))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert said.stdout.strip() == frozen_digest({"w": torch.ones(3)})


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_gives_the_same_digest():
    tensors = frozen_tensors(network())
    assert frozen_digest({name: tensor.cuda() for name, tensor in tensors.items()}) == frozen_digest(tensors)


def test_weights_without_values_are_refused():
    with pytest.raises(FedlitError, match=r"0\.weight is on the meta device"):
        frozen_digest(frozen_tensors(nn.Sequential(nn.Linear(2, 2, device="meta")).requires_grad_(False)))
