import importlib
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fedlit.backbones.encoders.loading import load_encoder

SCRIPTS = Path(__file__).parents[2] / "scripts"


def module(name):
    sys.path.insert(0, str(SCRIPTS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(SCRIPTS))


def drawn(name, count, seed=0):
    draw = {"image": "images", "sound": "sounds"}[name]
    source = torch.Generator().manual_seed(seed)
    parts = [getattr(module(f"procedural_{draw}"), draw)(min(count, 10), source) for _ in range(-(-count // 10))]
    return type(parts[0])(*(torch.cat([getattr(part, name) for part in parts]) for name in ("x", "kind", "values")))


def run(name, out, monkeypatch, *more):
    given = ["--steps", "3", "--examples", "32", "--batch", "16", "--held-out", "32", "--subjects", "6"]
    monkeypatch.setattr(sys, "argv", ["pretrain_encoders.py", name, "--out", str(out), *given, *more])
    module("pretrain_encoders").main()


@pytest.mark.parametrize("name", ["image", "sound"])
def test_the_folder_loads_and_tells_examples_apart(name, tmp_path, monkeypatch):
    run(name, tmp_path / "one", monkeypatch)
    one = load_encoder(str(tmp_path / "one"))
    assert one.family.modality == {"image": "image", "sound": "audio"}[name]
    assert getattr(one.family, "rate", 8000) == 8000
    with torch.no_grad():
        features = one.family.features(one.network, drawn(name, 8).x)
    assert features.shape == (8, 128)
    assert torch.pdist(features).min() > 1e-3
    card = (tmp_path / "one" / "README.md").read_text()
    assert "pretrained on procedural data" in card
    assert "--steps 3 --examples 32" in card
    found = json.loads((tmp_path / "one" / "pretraining.json").read_text())
    assert set(found["held_out"]["explained_variance"]) == set(module("pretrain_encoders").RECIPES[name].parameters)
    assert len(found["probe"]["pretrained"]) == len(found["probe"]["random"]) == 3


def test_weights_depend_on_the_seed_alone(tmp_path, monkeypatch):
    for folder, seed in (("one", "0"), ("again", "0"), ("other", "1")):
        run("image", tmp_path / folder, monkeypatch, "--seed", seed)
    one, again, other = (load_file(tmp_path / folder / "model.safetensors") for folder in ("one", "again", "other"))
    assert all(torch.equal(one[key], again[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("name", ["image", "sound"])
def test_examples_are_keyed_and_their_targets_standard(name):
    one, two, other = drawn(name, 200), drawn(name, 20), drawn(name, 20, seed=1)
    assert torch.equal(one.x[:20], two.x)
    assert not torch.equal(two.x, other.x)
    assert torch.isfinite(one.x.float()).all()
    assert torch.equal(one.values[:20].nan_to_num(), two.values.nan_to_num())
    values = one.values.numpy()
    assert (np.isfinite(values).sum(axis=0) >= 10).all()
    assert np.abs(np.nanmean(values, axis=0)).max() < 0.9
    assert ((np.nanstd(values, axis=0) > 0.5) & (np.nanstd(values, axis=0) < 1.3)).all()


def named(name, data, parameter):
    return data.values[:, module(f"procedural_{name}s").PARAMETERS.index(parameter)]


def test_dark_cells_are_more_of_the_picture_where_they_are_more_and_larger():
    data = drawn("image", 600, seed=3)
    size = named("image", data, "cells: number") + 2 * named("image", data, "cells: radius")
    unlike = named("image", data, "cells: contrast") > 0
    rows = ~size.isnan() & unlike & (data.kind == 1)
    spread = data.x.float().mean(-1).std(dim=(1, 2))
    assert np.corrcoef(size[rows], spread[rows])[0, 1] > 0.2


def test_the_pitch_of_a_tone_is_where_its_spectrum_peaks():
    data = drawn("sound", 120, seed=3)
    rows = data.kind == 2
    spectrum = torch.fft.rfft(data.x[rows] * torch.hann_window(data.x.shape[-1])).abs()
    spectrum[:, :600] = 0  # hum below 150 Hz
    heard = (spectrum.argmax(-1) / 4).log2()
    pitch = named("sound", data, "tone: pitch")[rows] * math.sqrt(1 / 12) + 0.5
    drawn_pitch = math.log2(200) + pitch * math.log2(3000 / 200)
    assert rows.sum() > 5
    # a tone slides by up to 0.3 octaves a second over 4 s
    assert (heard - drawn_pitch).abs().median() < 0.3
    assert (heard - drawn_pitch).abs().max() < 0.8


def test_parameters_that_an_example_lacks_are_not_learnt():
    script = module("pretrain_encoders")
    outputs = torch.tensor([[9.0, 0.0, 1.0, 5.0]])
    kind, square = script.losses(outputs, torch.tensor([0]), torch.tensor([[3.0, math.nan]]), 2)
    assert float(square) == 4.0
    assert float(kind) == pytest.approx(math.log1p(math.exp(-9.0)), rel=1e-3)


def test_the_probe_finds_what_is_linear_and_nothing_in_noise():
    probe = module("encoder_probe")
    source = torch.Generator().manual_seed(0)
    label = torch.randint(3, (600,), generator=source)
    noise = torch.randn(600, 20, generator=source)
    subject = torch.arange(600) // 4
    assert probe._accuracy(noise + 3 * torch.nn.functional.one_hot(label, 20), label, subject) > 0.9
    assert probe._accuracy(noise, label, subject) < 0.45
