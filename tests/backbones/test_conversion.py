"""Pickled weights become safetensors once, in a process that can do nothing else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file
from torch import Tensor, nn

from fedlit.backbones import conversion, unpickling
from fedlit.backbones.conversion import convert
from fedlit.backbones.encoders.loading import encoder_stand_in, load_encoder
from fedlit.errors import FedlitError


@pytest.fixture(scope="module")
def pretrained() -> nn.Module:
    """A BERT with the heads of pretraining, of which a matrix is tied to the embeddings, as Bio_ClinicalBERT has it."""
    from transformers import BertForPreTraining

    torch.manual_seed(0)
    return BertForPreTraining(encoder_stand_in("stand-in:bert").network.config).eval()


def aged(network: nn.Module) -> dict[str, Tensor]:
    """Its weights under the names of 2019."""
    names = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    held = network.state_dict()
    assert any(old in name for name in held for old in names)
    return {next((n.replace(a, b) for a, b in names.items() if a in n), n): held[n] for n in held}


def saved(folder: Path, held: Any, **how: Any) -> Path:
    """A folder as such repositories are: settings, vocabulary, and a pickle."""
    one = encoder_stand_in("stand-in:bert")
    folder.mkdir()
    one.network.config.save_pretrained(folder)
    one.family.save(folder)
    torch.save(held, folder / "pytorch_model.bin", **how)
    return folder


@pytest.mark.parametrize("zipped", [True, False])
def test_a_converted_backbone_gives_the_outputs_of_the_pickle(zipped, pretrained, tmp_path):
    source = saved(tmp_path / "source", aged(pretrained), _use_new_zipfile_serialization=zipped)
    done = convert(str(source), tmp_path / "deep" / "out")
    backbone = load_encoder(str(tmp_path / "deep" / "out"))
    inputs = backbone.family.inputs(backbone.network, ["a mole on the left arm", "none"])
    with torch.no_grad():
        expected = pretrained.bert(**inputs).last_hidden_state[:, 0]
        assert torch.equal(backbone.family.features(backbone.network, ["a mole on the left arm", "none"]), expected)
    assert done.tensors == len(pretrained.state_dict())
    record = json.loads((tmp_path / "deep" / "out" / "conversion.json").read_text())
    assert record["digest"] == done.digest
    assert len(record["pickles"]["pytorch_model.bin"]) == 64
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]
    assert not list((tmp_path / "deep").rglob("*.bin"))


def test_names_dtypes_and_tied_weights(pretrained, tmp_path):
    held = aged(pretrained.bfloat16())
    held["part"] = torch.arange(20)[4:8]
    pretrained.float()
    convert(str(saved(tmp_path / "source", held)), tmp_path / "out")
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert set(written) == {*pretrained.state_dict(), "part"}
    assert written["bert.embeddings.LayerNorm.weight"].dtype == torch.bfloat16
    tied = "cls.predictions.decoder.weight", "bert.embeddings.word_embeddings.weight"
    assert torch.equal(written[tied[0]], written[tied[1]])
    assert written["part"].tolist() == [4, 5, 6, 7]


def test_weights_in_parts(pretrained, tmp_path):
    source = saved(tmp_path / "source", {})
    (source / "pytorch_model.bin").unlink()
    names = list(aged(pretrained))
    places = {name: f"pytorch_model-0000{1 + (i > 9)}-of-00002.bin" for i, name in enumerate(names)}
    for part in sorted(set(places.values())):
        torch.save({name: aged(pretrained)[name] for name in names if places[name] == part}, source / part)
    index = source / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    convert(str(source), tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").glob("model*")) == [
        "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json",
    ]  # fmt: skip
    loaded = load_encoder(str(tmp_path / "out")).network.state_dict()
    for name, value in pretrained.bert.state_dict().items():
        if not name.startswith("pooler"):
            assert torch.equal(loaded[name], value)
    (source / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(FedlitError, match=r"holds no pytorch_model-00002-of-00002\.bin"):
        convert(str(source), tmp_path / "missing")
    index.write_text(json.dumps({"weight_map": {"a": "../elsewhere.bin"}}))
    with pytest.raises(FedlitError, match="does not say which files of its folder"):
        convert(str(source), tmp_path / "elsewhere")


class Malicious:
    """Unpickling it runs a command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


def test_code_in_a_pickle_is_refused_and_does_not_run(pretrained, tmp_path):
    held = {**aged(pretrained), "more": Malicious(f"touch {tmp_path / 'owned'}")}
    source = saved(tmp_path / "source", held)
    with pytest.raises(FedlitError, match=r"pytorch_model.bin asks for posix.system, .* nothing of it was run"):
        convert(str(source), tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]
    torch.load(source / "pytorch_model.bin", weights_only=False)
    assert (tmp_path / "owned").exists()  # the file is as malicious as this test says


def test_a_pickle_that_was_cut_off(pretrained, tmp_path):
    source = saved(tmp_path / "source", aged(pretrained))
    whole = (source / "pytorch_model.bin").read_bytes()
    (source / "pytorch_model.bin").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FedlitError, match="pytorch_model.bin is no whole file of weights: download it again"):
        convert(str(source), tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.3, 0.7, 0.9, 0.999])
def test_wherever_a_pickle_was_cut_off(share, zipped, pretrained, tmp_path):
    path = tmp_path / "cut.bin"
    torch.save(aged(pretrained), path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(unpickling.Refused, match="is no whole file of weights"):
        unpickling.read(str(path))


@pytest.mark.parametrize(
    ("held", "why"),
    [
        ([torch.zeros(2)], "holds a list where tensors by name belong"),
        ({}, "holds a dict where"),
        ({"epoch": 3}, "holds int 'epoch' where"),
        ({"a.LayerNorm.gamma": torch.zeros(2), "a.LayerNorm.weight": torch.ones(2)}, "under its old name and its new"),
    ],
)
def test_what_is_no_table_of_weights(held, why, tmp_path):
    torch.save(held, tmp_path / "pytorch_model.bin")
    with pytest.raises(unpickling.Refused, match=why):
        unpickling.read(str(tmp_path / "pytorch_model.bin"))


def test_a_small_file_that_asks_for_much_memory(tmp_path):
    source = saved(tmp_path / "source", {"huge": torch.zeros(1).expand(10**9, 100)})
    with pytest.raises(FedlitError, match="needs more memory than its size accounts for"):
        convert(str(source), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_sources_and_targets_that_will_not_do(pretrained, tmp_path):
    source = saved(tmp_path / "source", aged(pretrained))
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").touch()
    for target in ("there", "there/file"):
        with pytest.raises(FedlitError, match="is there already: give a new folder"):
            convert(str(source), tmp_path / target)
    with pytest.raises(FedlitError, match="builtin holds safetensors and needs no conversion"):
        convert("builtin", tmp_path / "out")
    with pytest.raises(FedlitError, match="no such folder"):
        convert("nobody", tmp_path / "out")
    (source / "pytorch_model.bin").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(FedlitError, match="a pointer of Git LFS and no weights"):
        convert(str(source), tmp_path / "out")
    (source / "pytorch_model.bin").unlink()
    with pytest.raises(FedlitError, match=r"holds no pytorch_model\.bin"):
        convert(str(source), tmp_path / "out")
    (source / "config.json").unlink()
    with pytest.raises(FedlitError, match=r"holds no config\.json"):
        convert(str(source), tmp_path / "out")


def test_the_reading_process_has_no_credentials_and_its_end_is_told(pretrained, monkeypatch, tmp_path):
    source = saved(tmp_path / "source", aged(pretrained))
    program = tmp_path / "program.py"
    monkeypatch.setattr(conversion, "PROGRAM", program)
    monkeypatch.setenv("HF_TOKEN", "secret")
    program.write_text("import os; raise SystemExit(' '.join(sorted(os.environ)))")
    with pytest.raises(FedlitError) as told:
        convert(str(source), tmp_path / "out")
    assert "HF_HUB_OFFLINE" in str(told.value)
    assert "HF_TOKEN" not in str(told.value)
    program.write_text("import os; os.kill(os.getpid(), 9)")
    with pytest.raises(FedlitError, match="ended with signal 9 .*Convert it where there is more memory"):
        convert(str(source), tmp_path / "out")
    program.write_text("print(1 / 0)")
    with pytest.raises(FedlitError, match="ended with code 1 and said 'ZeroDivisionError"):
        convert(str(source), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "call",
    ["socket.create_connection(('127.0.0.1', 9))", "os.system('true')", "subprocess.run(['true'])", "os.fork()"],
)
def test_the_reading_process_can_reach_nothing(call):
    shut = f"import os, socket, subprocess, sys; sys.path.insert(0, {str(Path(unpickling.__file__).parent)!r})"
    code = f"{shut}; import unpickling as u; u.leave_network(); sys.addaudithook(u.refuse_events); {call}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "which was stopped" in done.stderr


def test_a_hub_id_with_a_revision(pretrained, monkeypatch, tmp_path):
    here = tmp_path / "models--nobody--bert-none"
    (here / "snapshots").mkdir(parents=True)
    (here / "refs" / "refs" / "pr").mkdir(parents=True)
    saved(here / "snapshots" / "0a1b", aged(pretrained))
    (here / "refs" / "main").write_text("0a1b")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(FedlitError, match="run `fedlit backbones convert nobody/bert-none FOLDER` once"):
        load_encoder("nobody/bert-none")
    assert convert("nobody/bert-none", tmp_path / "out").source == "nobody/bert-none at revision 0a1b"
    shutil.copytree(tmp_path / "out", here / "snapshots" / "0c2d")
    (here / "refs" / "refs" / "pr" / "7").write_text("0c2d")
    proposed = load_encoder("nobody/bert-none@refs/pr/7")
    assert proposed.source == "nobody/bert-none@refs/pr/7 at revision 0c2d"
    with pytest.raises(FedlitError, match="holds safetensors and needs no conversion"):
        convert("nobody/bert-none@refs/pr/7", tmp_path / "twice")
    with pytest.raises(FedlitError, match="could not be had from the Hub"):
        load_encoder("nobody/bert-none@refs/pr/8")
