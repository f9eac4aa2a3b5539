"""What FHBench's baselines are set to in its configs, as numbers that follow from them."""

from __future__ import annotations

import re

import pytest
from facts import names, settings
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import RobertaConfig, RobertaModel, ViTConfig, ViTModel, Wav2Vec2Config, Wav2Vec2Model

PAPER = "2504.10817"
SMALL = {"hidden_size": 8, "num_hidden_layers": 12, "num_attention_heads": 2, "intermediate_size": 8}
NETWORKS = {
    "google/vit-base-patch16-224": lambda: ViTModel(ViTConfig(image_size=32, patch_size=16, **SMALL)),
    "FacebookAI/roberta-base": lambda: RobertaModel(RobertaConfig(vocab_size=9, **SMALL)),
    "facebook/wav2vec2-base-960h": lambda: Wav2Vec2Model(
        Wav2Vec2Config(conv_dim=(8,), conv_stride=(5,), conv_kernel=(10,), num_conv_pos_embedding_groups=2, **SMALL)
    ),
}
TARGETS = r".*\.(q_proj|v_proj|query|value)"


@pytest.mark.parametrize("config", names(PAPER))
def test_the_pull_of_apple_ends_with_the_run(config):
    found = settings(PAPER, config)
    assert found["trainer.baselines.APPLE.pull_rounds"] == found["trainer.max_rounds"] == 200


@pytest.mark.parametrize("config", names(PAPER))
def test_fedala_mixes_the_last_26_tensors_that_train(config):
    found = settings(PAPER, config)
    pattern, backbone = found["trainer.baselines.FedALA.mixed"], found["model.backbone"]
    if backbone not in NETWORKS:  # 6 blocks, 4 tensors each, and the head's two
        assert (pattern, backbone) == (".", "amazon/chronos-bolt-small")
        return
    whole = nn.Module()  # named as a task names its parts
    whole.network = get_peft_model(NETWORKS[backbone](), LoraConfig(r=2, target_modules=TARGETS))
    whole.head = nn.Linear(8, 3)
    trained = [name for name, p in whole.named_parameters() if p.requires_grad]
    assert len(trained) == 50
    assert [name for name in trained if re.search(pattern, name)] == trained[-26:]
