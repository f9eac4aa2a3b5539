"""The backbones that were published, as settings: networks of their sizes without their weights.

Settings are those of the config.json files, as far as they are not the defaults of the configuration classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fedlit.backbones.causal_lms import CausalLM, causal_config, causal_family
from fedlit.backbones.chronos import QUANTILES, SPECIAL, Family
from fedlit.backbones.encoders.family import EncoderFamily
from fedlit.backbones.encoders.loading import ENCODERS, family_in
from fedlit.backbones.folders import BUILTIN, STAND_IN, find_folder, read_json
from fedlit.backbones.loading import FAMILIES, mend_bolt
from fedlit.errors import FedlitError

TEXT_LENGTH, AUDIO_SECONDS, CONTEXT, HORIZON = 128, 8, 512, 64
TOKENS, BATCH, LANGUAGE_BATCH = 800, 32, 4
"""Of a language model's texts (prompt and answer), and examples at a time; both as arXiv 2601.22124 has them."""


@dataclass(frozen=True)
class Sketch:
    """A network on the meta device.

    Args:
        name: As the user knows it.
        modality: What it takes.
        family: Its architecture.
        network: Without weights.
    """

    name: str
    modality: str
    family: Family | EncoderFamily | CausalLM
    network: nn.Module

    @property
    def is_language_model(self) -> bool:
        """Whether it writes text."""
        return isinstance(self.family, CausalLM)

    def loss(
        self, network: nn.Module, batch_size: int | None = None, length: int | None = None
    ) -> Callable[[], Tensor]:
        """What computes a scalar of a batch, on the network as it is now: of features, or a model's own loss.

        Args:
            batch_size: None: 32, of a language model 4.
            length: Tokens of a text, samples of a sound or signal; None: 128 tokens, of a language model 800, 8 s, 512
                samples. Forecasts are of 64 samples.
        """
        device = next(network.parameters()).device
        family = self.family
        if isinstance(family, CausalLM):
            return language_loss(network, family, batch_size or LANGUAGE_BATCH, length)
        batch_size = batch_size or BATCH
        if isinstance(family, EncoderFamily):
            usual = {"text": TEXT_LENGTH, "audio": AUDIO_SECONDS * getattr(family, "rate", 16000)}
            inputs = family.example(batch_size, length or usual.get(self.modality))
            on_device = {name: value.to(device) for name, value in inputs.items()}
            return lambda: family.pooled(network, on_device).float().square().mean()
        context = torch.zeros(batch_size, length or CONTEXT, device=device)
        target = torch.zeros(batch_size, HORIZON, device=device)
        return lambda: family.losses(network, context, target).mean()


def language_loss(network: nn.Module, family: CausalLM, batch_size: int, length: int | None) -> Callable[[], Tensor]:
    """Cross entropy of every token, prompt and answer alike, of texts that are not all of one length."""
    device = next(network.parameters()).device
    inputs = {k: v.to(device) for k, v in family.example(batch_size, length or min(TOKENS, family.max_length)).items()}
    if batch_size > 1:
        inputs["attention_mask"][0, -1] = 0
    target = inputs["input_ids"][:, 1:].flatten()
    row = torch.arange(batch_size, device=device).repeat_interleave(inputs["input_ids"].shape[1] - 1)
    column = torch.arange(inputs["input_ids"].shape[1] - 1, device=device).repeat(batch_size)

    def compute() -> Tensor:
        logits = network(**inputs, use_cache=False).logits
        return nn.functional.cross_entropy(logits[row, column].float(), target)

    return compute


def _t5(d_model: int, d_ff: int, num_layers: int, num_heads: int, **more: Any) -> dict[str, Any]:
    sizes = {"d_model": d_model, "d_ff": d_ff, "num_layers": num_layers, "num_heads": num_heads, "d_kv": 64}
    return {**SPECIAL, **sizes, "num_decoder_layers": num_layers, "dropout_rate": 0.1, **more}


def _bolt(*sizes: int) -> dict[str, Any]:
    inner = {
        "context_length": 2048, "prediction_length": 64, "input_patch_size": 16, "input_patch_stride": 16,
        "quantiles": list(QUANTILES), "use_reg_token": True,
    }  # fmt: skip
    return _t5(*sizes, chronos_pipeline_class="ChronosBoltPipeline", chronos_config=inner, is_encoder_decoder=True)


CHRONOS_T5: dict[str, Any] = {
    "tokenizer_class": "MeanScaleUniformBins", "tokenizer_kwargs": {"low_limit": -15.0, "high_limit": 15.0},
    "n_tokens": 4096, "n_special_tokens": 2, "pad_token_id": 0, "eos_token_id": 1, "use_eos_token": True,
    "model_type": "seq2seq", "context_length": 512, "prediction_length": 64, "num_samples": 20, "temperature": 1.0,
    "top_k": 50, "top_p": 1.0,
}  # fmt: skip
CHRONOS_2: dict[str, Any] = {
    "context_length": 8192, "input_patch_size": 16, "input_patch_stride": 16, "output_patch_size": 16,
    "max_output_patches": 64, "use_reg_token": True, "use_arcsinh": True, "time_encoding_scale": 8192,
    "quantiles": [0.01, *(round(0.05 * i, 2) for i in range(1, 20)), 0.99],
}  # fmt: skip
LLAMA_8B: dict[str, Any] = {
    "model_type": "llama", "vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-05, "rope_theta": 500000.0, "rope_scaling": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
}  # fmt: skip
KNOWN: dict[str, dict[str, Any]] = {
    "google/vit-base-patch16-224": {"model_type": "vit"},
    "facebook/dinov2-small": {
        "model_type": "dinov2", "hidden_size": 384, "num_attention_heads": 6, "image_size": 518, "patch_size": 14,
    },
    "facebook/dinov2-base": {"model_type": "dinov2", "image_size": 518, "patch_size": 14},
    "FacebookAI/roberta-base": {
        "model_type": "roberta", "vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1,
    },
    "emilyalsentzer/Bio_ClinicalBERT": {"model_type": "bert", "vocab_size": 28996},
    "facebook/wav2vec2-base-960h": {"model_type": "wav2vec2"},
    "MIT/ast-finetuned-audioset-10-10-0.4593": {"model_type": "audio-spectrogram-transformer"},
    "amazon/chronos-t5-tiny": _t5(
        256, 1024, 4, 4, vocab_size=4096, chronos_pipeline_class="ChronosPipeline", chronos_config=CHRONOS_T5
    ),
    "amazon/chronos-bolt-tiny": _bolt(256, 1024, 4, 4),
    "amazon/chronos-bolt-mini": _bolt(384, 1536, 4, 8),
    "amazon/chronos-bolt-small": _bolt(512, 2048, 6, 8),
    "amazon/chronos-2": {
        "d_model": 768, "d_kv": 64, "d_ff": 3072, "num_layers": 12, "num_heads": 12, "vocab_size": 2,
        "reg_token_id": 1, "chronos_pipeline_class": "Chronos2Pipeline", "chronos_config": CHRONOS_2,
    },
    "builtin": {},
    "HuggingFaceTB/SmolLM2-135M-Instruct": {
        "model_type": "llama", "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536,
        "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-05, "rope_theta": 100000, "tie_word_embeddings": True,
    },
    "meta-llama/Llama-3.2-1B-Instruct": LLAMA_8B | {
        "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "head_dim": 64,
        "rope_scaling": LLAMA_8B["rope_scaling"] | {"factor": 32.0}, "tie_word_embeddings": True,
    },
    "Qwen/Qwen3-4B": {
        "model_type": "qwen3", "vocab_size": 151936, "hidden_size": 2560, "intermediate_size": 9728,
        "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
        "max_position_embeddings": 40960, "rms_norm_eps": 1e-06, "rope_theta": 1000000, "tie_word_embeddings": True,
    },
    "meta-llama/Llama-3.1-8B": LLAMA_8B,
    "meta-llama/Llama-3.1-8B-Instruct": LLAMA_8B,
    "deepseek-ai/DeepSeek-R1-Distill-Llama-8B": LLAMA_8B,
}  # fmt: skip


def sketch(name: str) -> Sketch:
    """A known backbone, or another's folder or Hub id, of which only the settings are read.

    Raises:
        FedlitError: It cannot be had, or its architecture is not known.
    """
    if name in KNOWN and name != "builtin":
        return _sketch(name, KNOWN[name])
    if name.startswith(STAND_IN):
        raise FedlitError(f"backbone {name!r} is a tiny random stand-in: name the backbone that it stands for")
    folder = BUILTIN if name == "builtin" else find_folder(name, weights=False)[0]
    settings = read_json(folder / "config.json")
    forecasts = settings.get("chronos_pipeline_class") is not None or "chronos_config" in settings
    if not forecasts and not _writes(settings):
        family_in(name, folder)
    return _sketch(name, settings)


def _writes(settings: dict[str, Any]) -> bool:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    kind = settings.get("model_type")
    return kind not in ENCODERS and kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES


def _sketch(name: str, settings: dict[str, Any]) -> Sketch:
    with torch.device("meta"):
        if _writes(settings):
            from transformers import AutoModelForCausalLM

            kinds: Any = AutoModelForCausalLM
            config = causal_config(name, settings)
            language = kinds.from_config(config, attn_implementation="sdpa", dtype=torch.float32).eval()
            return Sketch(name, "language", causal_family(language, None), language)
        if "chronos_config" in settings:
            network: Any = _forecaster(dict(settings)).eval()
            kind = FAMILIES[settings.get("chronos_pipeline_class", "ChronosPipeline")]
            return Sketch(name, "signal", kind.of(network.config), network)
        encoder = ENCODERS[settings["model_type"]]
        network = encoder.build(**settings).eval()
        return Sketch(name, encoder.modality, encoder.of(network.config), network)


def _forecaster(settings: dict[str, Any]) -> Any:
    inner, pipeline = settings.pop("chronos_config"), settings.pop("chronos_pipeline_class", "ChronosPipeline")
    if pipeline == "Chronos2Pipeline":
        from chronos.chronos2 import Chronos2Model
        from chronos.chronos2.config import Chronos2CoreConfig

        return Chronos2Model(Chronos2CoreConfig(**settings, chronos_config=inner))
    from chronos.chronos_bolt import ChronosBoltModelForForecasting
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(**settings)
    config.chronos_config = inner
    mend_bolt()
    return (T5ForConditionalGeneration if pipeline == "ChronosPipeline" else ChronosBoltModelForForecasting)(config)
