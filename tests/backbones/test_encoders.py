"""Encoders of images, texts, sounds and signals, tiny and random; what comes before them, against upstream's."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from fedlit.backbones.encoders.loading import encoder_stand_in, load_encoder
from fedlit.backbones.lora import LoRA, attach
from fedlit.errors import FedlitError

NAMES = {
    "google/vit-base-patch16-224": "ViT",
    "facebook/dinov2-base": "DINOv2",
    "FacebookAI/roberta-base": "RoBERTa",
    "emilyalsentzer/Bio_ClinicalBERT": "BERT",
    "facebook/wav2vec2-base-960h": "Wav2Vec2",
    "MIT/ast-finetuned-audioset-10-10-0.4593": "AST",
    "amazon/chronos-bolt-tiny": "BoltEncoder",
}


def batch(modality):
    generator = torch.Generator().manual_seed(0)
    return {
        "image": torch.randint(0, 256, (3, 28, 30, 3), dtype=torch.uint8, generator=generator),
        "text": ["Heart rate 80.", "x", "sinus rhythm, normal ECG, no change"],
        "audio": torch.randn(3, 8000, generator=generator) / 10,
        "signal": torch.randn(3, 2, 100, generator=generator),
    }[modality]


def saved(backbone, folder):
    backbone.network.save_pretrained(folder)
    backbone.family.save(folder)
    return str(folder)


@pytest.mark.parametrize(("name", "family"), NAMES.items())
def test_stand_in_is_saved_and_loaded(name, family, tmp_path):
    before = torch.random.get_rng_state()
    one, two = encoder_stand_in(name), encoder_stand_in(name)
    assert type(one.family).__name__ == family
    assert one.stand_in
    x = batch(one.family.modality)
    features = one.family.features(one.network, x)
    assert features.shape == (3, one.family.width(one.network))
    assert not torch.allclose(features[0], features[1], atol=1e-3)
    assert torch.equal(features, two.family.features(two.network, x))
    loaded = load_encoder(saved(one, tmp_path))
    assert torch.equal(before, torch.random.get_rng_state())
    assert loaded.family == one.family
    assert not loaded.stand_in
    assert not loaded.network.training
    assert torch.equal(features, loaded.family.features(loaded.network, x))
    assert type(encoder_stand_in(str(tmp_path)).family) is type(one.family)


@pytest.mark.parametrize("pretrained", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_adapters_go_on_and_learn(name, pretrained):
    backbone = encoder_stand_in(name)
    x = batch(backbone.family.modality)
    before = backbone.family.features(backbone.network, x).detach()
    network = attach(backbone.network, LoRA(), backbone.family.targets(pretrained), 0, name)
    features = backbone.family.features(network, x)
    torch.testing.assert_close(features, before, rtol=1e-5, atol=1e-5)
    assert backbone.family.width(network) == features.shape[1]
    features.square().sum().backward()
    grads = [p.grad for n, p in network.named_parameters() if "lora_B" in n]
    assert grads
    assert sum(g is not None and bool(g.abs().sum() > 0) for g in grads) >= len(grads) - 2  # the last query, of AST


@pytest.mark.parametrize("name", ["google/vit-base-patch16-224", "facebook/wav2vec2-base-960h"])
def test_autocast_reaches_the_network_but_not_what_comes_before(name):
    backbone = encoder_stand_in(name)
    x = batch(backbone.family.modality)
    with torch.autocast("cpu", torch.bfloat16):
        features = backbone.family.features(backbone.network, x)
        assert all(
            v.dtype in (torch.float32, torch.int64) for v in backbone.family.inputs(backbone.network, x).values()
        )
    torch.testing.assert_close(features.float(), backbone.family.features(backbone.network, x), rtol=0.1, atol=0.1)


def test_images_are_prepared_as_upstream_does():
    backbone = encoder_stand_in("google/vit-base-patch16-224")
    images = batch("image")
    ours = backbone.family.inputs(backbone.network, images)["pixel_values"]
    upstream = ViTImageProcessorPil(size={"height": 32, "width": 32}, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    theirs = upstream([Image.fromarray(one.numpy()) for one in images], return_tensors="pt")["pixel_values"]
    assert ours.shape == theirs.shape == (3, 3, 32, 32)
    assert (ours - theirs).abs().max() < 2 / 255 * 1.01  # Pillow rounds to whole numbers


def test_bicubic_images_shrink_with_antialiasing(tmp_path):
    backbone = encoder_stand_in("facebook/dinov2-base")
    image = torch.randint(0, 256, (1, 128, 96, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    ours = backbone.family.inputs(backbone.network, image)["pixel_values"][0]
    small = np.asarray(Image.fromarray(image[0].numpy()).resize((32, 32), Image.Resampling.BICUBIC)) / 255
    theirs = (small - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    assert np.abs(ours.permute(1, 2, 0).numpy() - theirs).max() < 1.5 / 255 / 0.224


def test_settings_of_the_folder_count(tmp_path):
    folder = saved(encoder_stand_in("google/vit-base-patch16-224"), tmp_path)
    path = tmp_path / "preprocessor_config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({**settings, "image_mean": [0.1, 0.2, 0.3], "resample": 3}))
    family = load_encoder(folder).family
    assert (family.mean, family.resampling) == ((0.1, 0.2, 0.3), "bicubic")
    path.unlink()
    assert load_encoder(folder).family.mean == (0.5, 0.5, 0.5)
    path.write_text("{")
    with pytest.raises(FedlitError, match=r"preprocessor_config\.json is no JSON"):
        load_encoder(folder)
    path.write_text(json.dumps({**settings, "resample": 1}))
    with pytest.raises(FedlitError, match="resample 1 is none of 2"):
        load_encoder(folder)


def test_dinov2_takes_the_size_of_the_crop(tmp_path):
    folder = saved(encoder_stand_in("facebook/dinov2-base"), tmp_path)
    upstream = {"size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": {"height": 224, "width": 224}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(upstream))
    backbone = load_encoder(folder)
    assert backbone.family.size == (224, 224)
    assert backbone.family.mean == (0.485, 0.456, 0.406)
    assert backbone.family.features(backbone.network, batch("image")).shape == (3, 32)


def test_log_mel_is_upstreams():
    from transformers import ASTFeatureExtractor

    backbone = encoder_stand_in("MIT/ast-finetuned-audioset-10-10-0.4593")
    waveform = batch("audio")
    waveform[1, 5000:] = 0
    ours = backbone.family.inputs(backbone.network, waveform)["input_values"]
    upstream = ASTFeatureExtractor(num_mel_bins=32, max_length=128)
    theirs = upstream(list(waveform.numpy()), sampling_rate=16000, return_tensors="pt")["input_values"]
    assert theirs.shape == (3, 128, 32)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_waveforms_are_normalised_as_upstream_does():
    from transformers import Wav2Vec2FeatureExtractor

    backbone = encoder_stand_in("facebook/wav2vec2-base-960h")
    waveform = batch("audio") + 0.3
    waveform[1, 5000:] = 0
    ours = backbone.family.inputs(backbone.network, waveform)
    each = [waveform[0].numpy(), waveform[1, :5000].numpy(), waveform[2].numpy()]
    upstream = Wav2Vec2FeatureExtractor(return_attention_mask=True)  # without, padding is part of the mean
    theirs = upstream(each, sampling_rate=16000, padding=True, return_tensors="pt")
    torch.testing.assert_close(ours["input_values"], theirs["input_values"], rtol=1e-4, atol=1e-4)
    assert torch.equal(ours["attention_mask"], theirs["attention_mask"].long())


def test_padding_of_waveforms_is_not_in_the_mean():
    backbone = encoder_stand_in("facebook/wav2vec2-base-960h")
    family = replace(backbone.family, attends=True)
    waveform = torch.nn.functional.pad(batch("audio"), (0, 8000))
    waveform[1] = 0  # silence
    states = []
    backbone.network.encoder.register_forward_hook(lambda m, i, out: states.append(out[0]))
    features = family.features(backbone.network, waveform)
    frames = int(backbone.network._get_feat_extract_output_lengths(torch.tensor(8000)))
    torch.testing.assert_close(features[0], states[0][0, :frames].mean(dim=0))
    assert torch.isfinite(features).all()
    longer = family.features(backbone.network, torch.nn.functional.pad(waveform[:1], (0, 3200)))
    assert (longer[0] - features[0]).abs().max() < 0.2 * features[0].abs().max()  # convolutions see past the end


@pytest.mark.parametrize("pooling", ["first", "mean"])
def test_text_features_do_not_depend_on_the_rest_of_the_batch(pooling):
    backbone = encoder_stand_in("sentence-transformers/all-MiniLM-L6-v2")
    family = replace(backbone.family, pooling=pooling)
    together = family.features(backbone.network, batch("text"))
    alone = torch.cat([family.features(backbone.network, [text]) for text in batch("text")])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


def test_texts_are_cut_at_the_networks_positions():
    for name in ("FacebookAI/roberta-base", "emilyalsentzer/Bio_ClinicalBERT"):
        backbone = encoder_stand_in(name)
        assert backbone.family.inputs(backbone.network, ["a b " * 200])["input_ids"].shape == (1, 128)
        assert torch.isfinite(backbone.family.features(backbone.network, ["a b " * 200])).all()
        short = encoder_stand_in(name, max_length=7).family
        assert short.inputs(backbone.network, ["a b " * 200])["input_ids"].shape == (1, 7)


def test_sentence_encoder_folder(tmp_path):
    """As sentence-transformers writes MiniLM: BertModel, pooling apart."""
    backbone = encoder_stand_in("sentence-transformers/all-MiniLM-L6-v2")
    folder = saved(backbone, tmp_path)
    assert load_encoder(folder).family.pooling == "first"
    (tmp_path / "1_Pooling").mkdir()
    pooling = tmp_path / "1_Pooling" / "config.json"
    pooling.write_text(json.dumps({"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}))
    (tmp_path / "sentence_bert_config.json").write_text('{"max_seq_length": 16}')
    family = load_encoder(folder).family
    assert (family.pooling, family.max_length) == ("mean", 16)
    assert load_encoder(folder, max_length=8).family.max_length == 8
    pooling.write_text(json.dumps({"pooling_mode_max_tokens": True}))
    with pytest.raises(FedlitError, match="pooling_mode_max_tokens is not known"):
        load_encoder(folder)


def test_channels_side_by_side_or_their_mean():
    x = batch("signal")
    mean, both = encoder_stand_in("builtin"), encoder_stand_in("builtin", channels=2)
    apart = both.family.features(both.network, x)
    assert apart.shape == (3, 64)
    assert both.family.width(both.network) == 64
    torch.testing.assert_close(mean.family.features(mean.network, x), (apart[:, :32] + apart[:, 32:]) / 2)
    with pytest.raises(FedlitError, match="for 2 channels; the batch has 3"):
        both.family.features(both.network, torch.zeros(1, 3, 50))
    missing = x.clone()
    missing[0, 1] = torch.nan
    assert torch.isfinite(mean.family.features(mean.network, missing)).all()


@pytest.mark.parametrize(
    ("name", "options"), [*((name, {}) for name in NAMES), ("amazon/chronos-bolt-tiny", {"channels": 2})]
)
def test_features_are_of_their_own_example(name, options):
    backbone = encoder_stand_in(name, **options)
    x = batch(backbone.family.modality)
    together = backbone.family.features(backbone.network, x)
    alone = torch.cat([backbone.family.features(backbone.network, x[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


def test_signals_are_the_mean_of_patches_that_hold_samples():
    backbone = load_encoder("builtin")
    network = backbone.network
    assert network.chronos_config.use_reg_token
    x = torch.randn(1, 1, 64, generator=torch.Generator().manual_seed(0))
    x[..., :32] = torch.nan
    with torch.no_grad():
        states, _, _, mask = network.encode(context=x[0])
        features = backbone.family.features(network, x)
    size = network.chronos_config.input_patch_size
    assert mask[0].tolist() == [0.0] * (32 // size) + [1.0] * (32 // size) + [1.0], "the last is the register"
    torch.testing.assert_close(features[0], states[0, 32 // size : -1].mean(dim=0))


def test_wav2vec2_with_layer_norm_does_not_attend_to_padding():
    from fedlit.backbones.encoders.audio import Wav2Vec2

    tiny = encoder_stand_in("facebook/wav2vec2-base-960h").network.config.to_dict()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Wav2Vec2.build(**tiny | {"feat_extract_norm": "layer", "do_stable_layer_norm": True}).eval()
    family = Wav2Vec2.of(network.config)
    assert family.attends
    waveform = batch("audio")
    padded = torch.nn.functional.pad(waveform, (0, 8000))
    with torch.no_grad():
        short, long = family.features(network, waveform), family.features(network, padded)
        blind = replace(family, attends=False).features(network, padded)
    torch.testing.assert_close(short, long, rtol=1e-3, atol=1e-3)
    assert (blind - short).abs().max() > 0.02


def test_roberta_has_two_positions_fewer_than_its_configuration_says():
    from transformers import RobertaConfig

    from fedlit.backbones.encoders.text import RoBERTa

    assert RoBERTa.positions(RobertaConfig(max_position_embeddings=514)) == 512
    backbone = encoder_stand_in("FacebookAI/roberta-base")
    most = RoBERTa.positions(backbone.network.config)
    ones = torch.full((1, most), 3)
    backbone.network(input_ids=ones)
    with pytest.raises((IndexError, RuntimeError), match="out of bounds|out of range"):
        backbone.network(input_ids=torch.full((1, most + 1), 3))


def test_builtin_is_pretrained_and_has_no_decoder():
    backbone = load_encoder("builtin")
    assert "synthetic" in backbone.source
    assert not any("decoder" in name or "output_patch" in name for name, _ in backbone.network.named_parameters())
    assert backbone.family.features(backbone.network, batch("signal")).shape == (3, 128)


def with_head(name):
    """Networks as the Hub has them: with heads, under the names of a larger model."""
    import transformers as t

    config = encoder_stand_in(name).network.config
    return {
        "google/vit-base-patch16-224": t.ViTForImageClassification,
        "FacebookAI/roberta-base": t.RobertaForMaskedLM,
        "emilyalsentzer/Bio_ClinicalBERT": t.BertForPreTraining,
        "facebook/wav2vec2-base-960h": t.Wav2Vec2ForCTC,
        "MIT/ast-finetuned-audioset-10-10-0.4593": t.ASTForAudioClassification,
    }[name](config)


@pytest.mark.parametrize("name", [one for one in NAMES if "dino" not in one and "bolt" not in one])
def test_heads_of_a_checkpoint_are_left_out(name, tmp_path):
    encoder_stand_in(name).family.save(tmp_path)
    whole = with_head(name).eval()
    whole.save_pretrained(tmp_path)
    backbone = load_encoder(str(tmp_path))
    inner = getattr(whole, whole.base_model_prefix).state_dict()
    for key, value in backbone.network.state_dict().items():
        assert torch.equal(value, inner[key])


def test_wav2vec2_without_the_embedding_of_masked_frames(tmp_path):
    """wav2vec2-base-960h has none, though its configuration asks for masking."""
    backbone = encoder_stand_in("facebook/wav2vec2-base-960h")
    folder = saved(backbone, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "mask_time_prob": 0.05, "layerdrop": 0.1}))
    loaded = load_encoder(folder).network
    assert loaded.config.mask_time_prob == loaded.config.layerdrop == 0
    assert not any("masked_spec_embed" in name for name, _ in loaded.named_parameters())


@pytest.mark.parametrize("name", NAMES)
def test_weights_that_are_not_in_the_file_do_not_stay_random(name, tmp_path):
    folder = saved(encoder_stand_in(name), tmp_path)
    path = tmp_path / "model.safetensors"
    held = load_file(path)
    absent = next(key for key in held if "layer_norm" in key or "layernorm" in key.lower() or "norm1" in key)
    save_file({key: value for key, value in held.items() if key != absent}, path, {"format": "pt"})
    with pytest.raises(FedlitError, match="1 of its weights are not in the file, first .*would stay random"):
        load_encoder(folder)


def test_folders_that_will_not_do(tmp_path):
    with pytest.raises(FedlitError, match="no such folder"):
        load_encoder(str(tmp_path / "missing"))
    with pytest.raises(FedlitError, match=r"no config\.json"):
        load_encoder(str(tmp_path))
    folder = saved(encoder_stand_in("FacebookAI/roberta-base"), tmp_path)
    with pytest.raises(FedlitError, match="channels is not for backbone .* takes text"):
        load_encoder(folder, channels=2)
    with pytest.raises(FedlitError, match="max_length is 500: give at least 1 and at most 128"):
        load_encoder(folder, max_length=500)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(FedlitError, match=r"holds none of tokenizer\.json"):
        load_encoder(folder)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(FedlitError, match="no usable tokenizer|tokens"):
        load_encoder(folder)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "gpt2"}))
    with pytest.raises(FedlitError, match=r"gpt2 in config\.json gives no features here; vit, dinov2"):
        load_encoder(folder)
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(FedlitError, match="pickled weights are not read"):
        load_encoder(folder)


def test_vocabulary_of_another_model(tmp_path):
    folder = saved(encoder_stand_in("FacebookAI/roberta-base"), tmp_path / "roberta")
    bert = saved(encoder_stand_in("emilyalsentzer/Bio_ClinicalBERT"), tmp_path / "bert")
    encoder_stand_in("FacebookAI/roberta-base").family.save(bert)
    with pytest.raises(FedlitError, match="the tokenizer has 261 tokens, the network 101"):
        load_encoder(bert)
    assert load_encoder(folder).family.max_length == 128


@pytest.mark.parametrize(
    ("name", "x", "why"),
    [
        ("google/vit-base-patch16-224", torch.zeros(2, 3, 8, 8), r"uint8 .*float32 \(2, 3, 8, 8\)"),
        ("google/vit-base-patch16-224", ["text"], "uint8 .*the batch has list"),
        ("FacebookAI/roberta-base", torch.zeros(2, 3), "list of strings"),
        ("facebook/wav2vec2-base-960h", torch.zeros(2, 1, 800), "float32 .batch, samples"),
        ("facebook/wav2vec2-base-960h", torch.zeros(2, 100), "100 samples are too short"),
        ("MIT/ast-finetuned-audioset-10-10-0.4593", torch.zeros(2, 399), "399 samples are too short"),
        ("builtin", torch.zeros(2, 100), "float32 .batch, channels, samples"),
    ],
)
def test_what_is_not_of_the_modality_is_refused(name, x, why):
    backbone = encoder_stand_in(name)
    with pytest.raises(FedlitError, match=why):
        backbone.family.features(backbone.network, x)


@pytest.mark.parametrize("load", [load_encoder, encoder_stand_in])
def test_moment_is_refused_with_what_to_take(load, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.snapshot_download", None)
    with pytest.raises(FedlitError, match=r"momentfm.*pins numpy 1\.25\.2.*chronos-bolt-small"):
        load("AutonLab/MOMENT-1-small")
    (tmp_path / "config.json").write_text('{"model_name": "MOMENT"}')
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(FedlitError, match="MOMENT needs the package momentfm"):
        load(str(tmp_path))


def test_hub_id(monkeypatch, tmp_path):
    here = tmp_path / "models--nobody--vit-none"
    saved(encoder_stand_in("nobody/vit-none"), here / "snapshots" / "0a1b")
    (here / "refs").mkdir()
    (here / "refs" / "main").write_text("0a1b")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert load_encoder("nobody/vit-none").source == "nobody/vit-none at revision 0a1b"
    with pytest.raises(FedlitError, match="could not be had from the Hub"):
        load_encoder("nobody/vit-other")


@pytest.mark.parametrize("name", ["someone/encoder", "someone/activity-net", "distilbert/distilbert-base-uncased"])
def test_no_stand_in_for_a_name_that_says_nothing(name):
    with pytest.raises(FedlitError, match="architecture cannot be told"):
        encoder_stand_in(name)


def test_import_is_light():
    code = (
        "import sys, fedlit.backbones.encoders.loading; found = {'peft', 'chronos', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", f"{code}; assert not found, found"], check=True)
