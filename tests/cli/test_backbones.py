"""The table of backbones."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from fedlit.backbones.causal_lms import causal_stand_in
from fedlit.backbones.encoders.loading import encoder_stand_in
from fedlit.backbones.memory import Memory
from fedlit.cli import backbones
from fedlit.cli.backbones import LANGUAGE_WAYS, WAYS, Line, fits, line, main, row, size
from fedlit.errors import FedlitError


@pytest.fixture(scope="module")
def built_in() -> Line:
    return line("builtin", batch_size=4)


@pytest.fixture
def built_in_is_known(built_in, monkeypatch):
    """The built-in's line is not made anew, for tests of what is said around it."""
    monkeypatch.setattr(backbones, "line", lambda name, *given: built_in if name == "builtin" else line(name, *given))


def test_line_of_the_built_in(built_in):
    from fedlit.backbones import LoRA, load_backbone
    from fedlit.backbones.lora import attach

    told = built_in
    backbone = load_backbone("builtin")
    assert told.modality == "signal"
    assert told.parameters == sum(one.numel() for one in backbone.network.parameters())
    network = attach(backbone.network, LoRA(), backbone.targets(), 0, "builtin")
    assert told.trainable == sum(one.numel() for one in network.parameters() if one.requires_grad)
    assert list(told.memory) == list(WAYS)
    assert told.memory["32 + ckpt"].total < told.memory["32-true"].total


def test_adapters_of_vit_at_two_ranks(monkeypatch):
    monkeypatch.setattr(backbones, "WAYS", {"32-true": WAYS["32-true"]})
    told = {r: line("google/vit-base-patch16-224", batch_size=1, r=r) for r in (8, 16)}
    assert told[8].trainable == 12 * 2 * 8 * (768 + 768)  # 12 layers, query and value
    assert told[16].trainable == 2 * told[8].trainable
    assert told[8].memory["32-true"].optimizer == 8 * told[8].trainable


def test_a_folder_needs_no_weights(tmp_path, capsys):
    one = encoder_stand_in("FacebookAI/roberta-base")
    one.network.config.save_pretrained(tmp_path)
    main(["--model", str(tmp_path), "--batch_size", "2", "--length", "64", "--r", "2"])
    out = capsys.readouterr().out
    assert str(tmp_path) in out
    assert "text" in out
    told = line(str(tmp_path), 2, 64, 2)
    assert told.parameters == sum(p.numel() for p in one.network.parameters())
    assert line(str(tmp_path), 2, 128).memory["32-true"].work > told.memory["32-true"].work
    with pytest.raises(FedlitError, match="texts of 200 tokens are longer"):
        line(str(tmp_path), 2, 200)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip"}))
    with pytest.raises(FedlitError, match="clip in config.json gives no features"):
        line(str(tmp_path))


def test_a_language_model_in_every_way(tmp_path):
    sizes = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 3, "num_attention_heads": 4}
    settings = {"model_type": "llama", "vocab_size": 2000, "tie_word_embeddings": True, **sizes}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    told = line(str(tmp_path), 2, 100)
    assert told.parameters == 2000 * 256 + 3 * (4 * 256 * 256 + 3 * 256 * 512) + 7 * 256
    assert list(told.memory) == list(LANGUAGE_WAYS)
    assert len({told.memory[way].optimizer for way in LANGUAGE_WAYS}) == 1
    adapters, embeddings = 4 * told.trainable, 2000 * 256
    held = {way: one.weights - adapters for way, one in told.memory.items()}
    assert held["float32"] == held["f32+ckpt"] == pytest.approx(4 * told.parameters, rel=1e-3)
    assert held["bfloat16"] == pytest.approx(2 * told.parameters, rel=1e-3)
    linears = told.parameters - embeddings
    assert held["4-bit"] == pytest.approx(2 * embeddings + linears * (1 / 2 + 1 / 64), rel=0.02)
    for plain, ckpt in (("float32", "f32+ckpt"), ("bfloat16", "bf16+ckpt"), ("4-bit", "4-bit+ckpt")):
        assert told.memory[ckpt].work < 0.6 * told.memory[plain].work
    assert told.memory["bfloat16"].work < told.memory["float32"].work


def test_languages_models_have_a_table_of_their_own(built_in_is_known, tmp_path, capsys):
    one = causal_stand_in("stand-in:llama")
    one.network.config.save_pretrained(tmp_path)
    main(["--model", "builtin", "--model", str(tmp_path), "--fits", "24GB"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("backbone ")
    assert lines[3].startswith("language model")
    assert lines[3].split()[-6:] == list(LANGUAGE_WAYS)
    parameters = sum(parameter.numel() for parameter in one.network.parameters()) / 1e6
    assert lines[4].startswith(str(tmp_path))
    assert f" {parameters:.1f} M" in lines[4]
    assert len(lines[3]) == len(lines[4]) or len(str(tmp_path)) > 40
    rest = " ".join(" ".join(lines[5:]).split())
    assert "Backbones at a batch of 32" in rest
    assert "Language models at a batch of 4 texts of 800 tokens" in rest
    main(["--model", str(tmp_path), "--batch_size", "1", "--length", "100"])
    rest = " ".join(capsys.readouterr().out.split())
    assert "at a batch of 1 texts of 100 tokens" in rest
    assert "Backbones at" not in rest
    with pytest.raises(FedlitError, match="texts of 3000 tokens are longer than this backbone's window: 2048"):
        main(["--model", str(tmp_path), "--length", "3000"])


def test_an_input_that_is_too_short():
    with pytest.raises(FedlitError, match="wav2vec2-base-960h' cannot take an input of length 100"):
        line("facebook/wav2vec2-base-960h", 2, 100)


@pytest.mark.parametrize(
    ("text", "expected"), [("24GB", 24 * 10**9), ("1.5 gib", 3 * 2**29), ("80000MB", 80 * 10**9), ("1TB", 10**12)]
)
def test_size(text, expected):
    assert size(text) == expected


@pytest.mark.parametrize("text", ["24", "GB", "24 parrots", "0GB", "-1GB"])
def test_what_is_no_size(text):
    with pytest.raises(FedlitError, match="is no size: write it as 24GB"):
        size(text)


ONE = Line("a", "image", 10**6, 10**4, dict.fromkeys(WAYS, Memory(10**9, 10**9, 3 * 10**9)) | {"32 + ckpt": None})


def test_row_marks_what_does_not_fit():
    assert row(ONE).split() == [
        "a", "image", "1.0", "M", "0.01", "M", "5.00", "GB", "-", "5.00", "GB", "5.00", "GB",
    ]  # fmt: skip
    assert row(ONE, 5 * 10**9) == row(ONE)
    assert row(ONE, 5 * 10**9 - 1).count("(5.00 GB)") == 3
    assert fits(ONE, 5 * 10**9)
    assert not fits(ONE, 5 * 10**9 - 1)


def test_whole_table(monkeypatch, capsys):
    monkeypatch.setattr(
        backbones, "line", lambda name, *_: replace(ONE, name=name) if "vit" in name else replace(ONE, memory={})
    )
    main(["--fits", "6GB"])
    out = capsys.readouterr().out
    assert out.splitlines()[1].startswith("google/vit-base-patch16-224")
    assert "Larger than 6GB in every way: facebook/dinov2-small" in out
    assert "a batch of 32" in " ".join(out.split())


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (["--batch_size", "0"], "--batch_size is 0"),
        (["--batch_size", "many"], "fedlit backbones: .*invalid int"),
        (["--length", "64"], "give --model too"),
        (["--model", "nobody"], "no such folder"),
        (["--fits", "much"], "no size"),
        (["--nonsense"], "unrecognized arguments"),
        (["--r", "0"], "rank is at least 1"),
        (["convert", "nobody"], "fedlit backbones convert: .*required: FOLDER"),
        (["convert", "builtin", "somewhere"], "builtin holds safetensors and needs no conversion"),
    ],
)
def test_bad_arguments(args, why):
    with pytest.raises(FedlitError, match=why):
        main(args)


def test_a_backbone_that_cannot_be_had_leaves_no_empty_table(capsys):
    with pytest.raises(FedlitError, match="'stand-in:vit' is a tiny random stand-in: name the backbone"):
        main(["--model", "stand-in:vit"])
    assert not capsys.readouterr().out


def test_brackets_are_explained_where_there_can_be_any(built_in_is_known, capsys):
    main(["--model", "builtin", "--batch_size", "2", "--fits", "1GB"])
    assert "In brackets: more than 1GB." in " ".join(capsys.readouterr().out.split())
    main(["--model", "builtin", "--batch_size", "2"])
    assert "brackets" not in capsys.readouterr().out


def test_a_pickle_is_converted(tmp_path, capsys):
    one = encoder_stand_in("stand-in:bert")
    one.network.config.save_pretrained(tmp_path)
    one.family.save(tmp_path)
    torch.save(one.network.state_dict(), tmp_path / "pytorch_model.bin")
    main(["convert", str(tmp_path), str(tmp_path / "out")])
    told = capsys.readouterr().out
    assert f"{tmp_path / 'out'}: {len(one.network.state_dict())} tensors" in told
    assert f"--model.backbone {tmp_path / 'out'}" in told
    assert line(str(tmp_path / "out"), 1).parameters == sum(p.numel() for p in one.network.parameters())
