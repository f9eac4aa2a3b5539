import subprocess
import sys

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from fedlit.backbones import load_backbone, stand_in
from fedlit.backbones.chronos import QUANTILES, Chronos2, ChronosBolt, ChronosT5
from fedlit.errors import FedlitError

NAMES = {"amazon/chronos-t5-tiny": ChronosT5, "amazon/chronos-bolt-tiny": ChronosBolt, "amazon/chronos-2": Chronos2}


def test_builtin():
    backbone = load_backbone("builtin")
    assert isinstance(backbone.family, ChronosBolt)
    assert not backbone.stand_in
    assert not backbone.network.training
    assert "synthetic" in backbone.source
    assert sum(one.numel() for one in backbone.network.parameters()) * 4 < 10e6
    # three periods of a sine: the median must know more than the mean
    wave = torch.sin(2 * torch.pi * torch.arange(320) / 40)[None]
    forecast = backbone.family.forecast(backbone.network, wave[:, :256], 64, [0.5])[:, 0]
    assert (forecast - wave[:, 256:]).square().mean() < 0.25 * wave.square().mean()


@pytest.mark.parametrize(("name", "family"), NAMES.items())
def test_stand_in_has_the_architecture_and_can_be_loaded_from_a_folder(name, family, tmp_path):
    before = torch.random.get_rng_state()
    one, two = stand_in(name, 16), stand_in(name, 16)
    assert torch.equal(before, torch.random.get_rng_state())
    assert isinstance(one.family, family)
    assert one.stand_in
    one.network.save_pretrained(tmp_path)
    loaded = load_backbone(str(tmp_path))
    assert torch.equal(before, torch.random.get_rng_state())
    assert loaded.family == one.family
    assert loaded.network.dtype == torch.float32
    for name, value in one.network.state_dict().items():
        assert torch.equal(value, two.network.state_dict()[name])
        assert torch.equal(value, loaded.network.state_dict()[name])
    assert isinstance(stand_in(str(tmp_path)).family, family)


def test_hub_id_without_network(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(FedlitError, match="'nobody/chronos-bolt-none'.*folder.*HF_ENDPOINT.*HF_HOME.*builtin"):
        load_backbone("nobody/chronos-bolt-none")


def test_hub_id_from_the_cache(monkeypatch, tmp_path):
    here = tmp_path / "models--nobody--chronos-bolt-none"
    stand_in("amazon/chronos-bolt-tiny").network.save_pretrained(here / "snapshots" / "0a1b")
    (here / "refs").mkdir()
    (here / "refs" / "main").write_text("0a1b")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    backbone = load_backbone("nobody/chronos-bolt-none")
    assert isinstance(backbone.family, ChronosBolt)
    assert backbone.source == "nobody/chronos-bolt-none at revision 0a1b"


@pytest.mark.parametrize("name", NAMES)
def test_weights_that_are_not_in_the_file_do_not_stay_random(name, tmp_path):
    stand_in(name).network.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    held = load_file(path)
    absent = next(key for key in held if key.endswith(".q.weight"))
    save_file({key: value for key, value in held.items() if key != absent}, path, {"format": "pt"})
    with pytest.raises(FedlitError, match=f"1 of its weights are not in the file, first '{absent}'"):
        load_backbone(str(tmp_path))
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(FedlitError, match="not a usable Chronos model"):
        load_backbone(str(tmp_path))


@pytest.mark.parametrize("name", ["built-in", "a/b/c", ""])
def test_names_that_are_no_hub_ids_never_ask_the_hub(monkeypatch, name):
    monkeypatch.setattr("huggingface_hub.snapshot_download", None)
    with pytest.raises(FedlitError, match="no such folder .*builtin|backbone is empty"):
        load_backbone(name)


def test_folders_that_will_not_do(tmp_path):
    with pytest.raises(FedlitError, match="no such folder"):
        load_backbone(str(tmp_path / "missing"))
    with pytest.raises(FedlitError, match="no such folder"):
        load_backbone("./missing")
    with pytest.raises(FedlitError, match=r"no config\.json"):
        load_backbone(str(tmp_path))
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(FedlitError, match="holds a PEFT adapter, no backbone"):
        load_backbone(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(FedlitError, match="pickled weights are not read"):
        load_backbone(str(tmp_path))
    with pytest.raises(FedlitError, match="is a file"):
        load_backbone(str(tmp_path / "config.json"))
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(FedlitError, match="not a usable Chronos model"):
        load_backbone(str(tmp_path))


def test_no_stand_in_for_a_name_that_says_nothing():
    with pytest.raises(FedlitError, match="architecture cannot be told"):
        stand_in("someone/forecaster")


def test_levels_of_stand_ins():
    assert stand_in("amazon/chronos-bolt-tiny").family.levels == QUANTILES


def test_import_is_light():
    heavy = "{'peft', 'chronos'} & set(sys.modules)"
    code = f"import sys, fedlit.tasks, fedlit.backbones; found = {heavy}; assert not found, found"
    subprocess.run([sys.executable, "-c", code], check=True)
