"""Causal language models by name: a folder, a Hub id, or a tiny stand-in; in full, in bfloat16 or in 4 bits."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fedlit.backbones.chronos import unwrap
from fedlit.backbones.folders import STAND_IN, find_folder, local_folder, quiet, read_json, read_network
from fedlit.backbones.loading import Backbone
from fedlit.backbones.lora import is_linear
from fedlit.backbones.rng import keyed_rng
from fedlit.backbones.storage import hold
from fedlit.errors import FedlitError, first_line

Quantization = Literal["nf4"]
Held = Literal["float32", "bfloat16"]

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
SEVEN = (*ATTENTION, "gate_proj", "up_proj", "down_proj")
LORA_TARGETS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "gemma", "gemma2", "gemma3_text", "smollm3", "granite"), SEVEN),
    "qwen3": ATTENTION,  # as in arXiv 2601.22124
    "phi3": ("qkv_proj", "o_proj", "gate_up_proj", "down_proj"),
    "gpt_neox": ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"),
    "gpt2": ("c_attn", "c_proj", "c_fc"),
}
"""What LoRA is put on, by ``model_type`` of config.json."""

VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json")
SANE = 10**9  # transformers writes a larger number where a tokenizer knows no longest text


@dataclass(frozen=True)
class CausalLM:
    """What a task on text asks of a causal language model.

    Args:
        tokenizer: Of transformers; None: good for measuring only.
        max_length: The model's window, tokens.
        architecture: ``model_type`` of config.json.
        linears: Ends of the names of all linear layers but the head.
    """

    tokenizer: Any = field(repr=False, compare=False)
    max_length: int
    architecture: str
    linears: tuple[str, ...] = ()

    def targets(self, pretrained: bool) -> list[str]:
        """Module names for LoRA, by :data:`LORA_TARGETS`.

        On random weights, and for an architecture that is not in the table, every linear layer but the head.
        """
        known = LORA_TARGETS.get(self.architecture, self.linears)
        return list(known if pretrained else self.linears or known)

    def example(self, batch_size: int, length: int | None = None) -> dict[str, Tensor]:
        """Tokens and their mask (batch, length), int64, to measure with.

        Raises:
            FedlitError: ``length`` is more than the window.
        """
        length = length or self.max_length
        if length > self.max_length:
            raise FedlitError(f"texts of {length} tokens are longer than this backbone's window: {self.max_length}")
        ones = torch.ones(batch_size, length, dtype=torch.int64)
        return {"input_ids": ones, "attention_mask": ones.clone()}

    def probe(self, network: nn.Module) -> Tensor:
        """Logits (2, tokens, vocabulary) of made-up tokens, to compare networks by."""
        rows, device = unwrap(network).config.get_text_config().vocab_size, next(network.parameters()).device
        draws = torch.Generator().manual_seed(0)
        ids = torch.randint(rows, (2, min(16, self.max_length)), generator=draws).to(device)
        logits: Tensor = network(input_ids=ids, use_cache=False).logits
        return logits

    def save(self, folder: Path | str) -> None:
        """Write the tokenizer beside a network that ``save_pretrained`` wrote."""
        self.tokenizer.save_pretrained(str(folder))


def load_causal_lm(name: str, quantization: Quantization | None = None, held: Held | None = None) -> Backbone[CausalLM]:
    """The causal language model in the folder ``name``, or with that Hub id; on the CPU, in evaluation mode.

    Only safetensors weights are read, and no code that lies beside them. ``stand-in:llama`` (gemma, gpt2, gpt_neox,
    mistral, qwen2, qwen3) is :func:`causal_stand_in` by name, with a tokenizer of bytes. A tokenizer that has no
    padding token pads with its end-of-text token, which is masked wherever it pads; the vocabulary is never enlarged.

    Args:
        quantization: ``"nf4"``: the linear layers but the head in 4 bits, with double quantisation, computing in
            bfloat16 (Dettmers et al. 2023, QLoRA, arXiv 2305.14314). It needs ``pip install 'fedlit[qlora]'``.
        held: What weights are held in; with ``quantization`` those that are not quantised. None: ``"float32"``, and
            ``"bfloat16"`` beside quantised ones. Adapters are float32 always.

    Raises:
        FedlitError: A folder or Hub id that cannot be had or is no causal language model, weights or a tokenizer that
            are not all there or not of one model, or 4 bits without bitsandbytes.
    """
    if name.startswith(STAND_IN):
        return causal_stand_in(name, quantization=quantization, held=held)
    check_storage(quantization, held)
    folder, source = find_folder(name)
    config = _config(name, folder)
    tokenizer = _tokenizer(name, folder, config)
    network = _read(name, folder, config, quantization, held)
    network.generation_config.pad_token_id = tokenizer.pad_token_id
    return Backbone(name, causal_family(network, tokenizer), network, source)


def causal_stand_in(
    name: str,
    texts: Sequence[str] = (),
    vocabulary: int = 1024,
    quantization: Quantization | None = None,
    held: Held | None = None,
) -> Backbone[CausalLM]:
    """A tiny random network of the architecture that ``name`` has, without the network or the weights.

    Args:
        texts: What its byte-level tokenizer is trained on; without any it has a token for each byte.
        vocabulary: At most so many tokens.
        quantization: As in :func:`load_causal_lm`.
        held: As in :func:`load_causal_lm`.

    Raises:
        FedlitError: The architecture cannot be told, or has no stand-in.
    """
    from transformers import AutoModelForCausalLM

    from fedlit.backbones.tiny_causal_lms import tiny_config, tiny_tokenizer

    check_storage(quantization, held)
    architecture = architecture_of(name)
    tokenizer = tiny_tokenizer(architecture, texts, vocabulary)
    config = tiny_config(architecture, tokenizer)
    kind: Any = AutoModelForCausalLM
    with keyed_rng(0, "stand-in", architecture), quiet():
        network = kind.from_config(config, attn_implementation="sdpa").eval()
    if quantization is not None:
        with TemporaryDirectory() as folder:
            with quiet():
                network.save_pretrained(folder)
            network = _read(name, Path(folder), config, quantization, held)
    elif held is not None:
        hold(network, getattr(torch, held))
    family = causal_family(network, tokenizer)
    trained = "trained on the texts at hand" if texts else "for single bytes"
    source = f"tiny random stand-in for {name.removeprefix(STAND_IN)}; tokenizer of {len(tokenizer)} tokens {trained}"
    return Backbone(name, family, network, source, stand_in=True)


def architecture_of(name: str) -> str:
    """``model_type`` of a folder, or of a Hub id as far as its name says it.

    Raises:
        FedlitError: It cannot be told, or has no stand-in.
    """
    from fedlit.backbones.tiny_causal_lms import NAMES

    folder = None if name.startswith(STAND_IN) else local_folder(name)
    if folder is not None:
        return str(_config(name, folder).model_type)
    for pattern, architecture in NAMES.items():
        if re.search(pattern, name.lower().replace("_", "-")):
            return architecture
    raise FedlitError(
        f"backbone {name!r}: its architecture cannot be told from its name, so there is no stand-in for it; names with "
        "llama, smollm, qwen, mistral, gemma, pythia or gpt2 have one"
    )


def causal_family(network: nn.Module, tokenizer: Any) -> CausalLM:
    """The family of a network that is there, on whatever device."""
    config = unwrap(network).config
    head = unwrap(network).get_output_embeddings()
    ends = {
        path.rsplit(".", 1)[-1]: None
        for path, module in unwrap(network).named_modules()
        if is_linear(module) and module is not head
    }
    own = getattr(tokenizer, "model_max_length", SANE)
    window = getattr(config.get_text_config(), "max_position_embeddings", None)
    limits = [int(length) for length in (window, own) if length is not None and length < SANE]
    if not limits:
        raise FedlitError(f"neither {config.model_type} nor its tokenizer says how many tokens it takes")
    return CausalLM(tokenizer, min(limits), str(config.model_type), tuple(ends))


def read_causal_network(folder: Path) -> nn.Module:
    """The network alone of a folder; float32, on the CPU, in evaluation mode.

    Raises:
        FedlitError: It is no causal language model, or not all there.
    """
    network: nn.Module = _read(str(folder), folder, _config(str(folder), folder), None, None)
    return network


def check_storage(quantization: str | None, held: str | None) -> None:
    """Whether weights can be held so.

    Raises:
        FedlitError: A value that is not known, or bitsandbytes is not installed.
    """
    if held not in (None, "float32", "bfloat16"):
        raise FedlitError(f"weights held in {held!r}: give 'float32' or 'bfloat16'")
    if quantization not in (None, "nf4"):
        raise FedlitError(f"quantization {quantization!r}: give 'nf4', or leave it out")
    if quantization is not None and find_spec("bitsandbytes") is None:
        raise FedlitError("quantization 'nf4' needs bitsandbytes: pip install 'fedlit[qlora]', or leave it out")


def causal_config(name: str, settings: dict[str, Any]) -> Any:
    """The configuration of a causal language model from what its config.json holds.

    Raises:
        FedlitError: It is of another kind, or of one that transformers does not have, or quantised already.
    """
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    kind = str(settings.get("model_type"))
    usual = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(kind)
    found = (settings.get("architectures") or [usual])[0]
    encodes = kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not settings.get("is_decoder")
    if usual is None or found != usual or encodes:
        raise FedlitError(
            f"backbone {name!r} is {found or kind} (model_type {kind}), no causal language model of transformers: give "
            "one, such as a LlamaForCausalLM"
        )
    if "quantization_config" in settings:
        how = settings["quantization_config"].get("quant_method")
        raise FedlitError(
            f"backbone {name!r} is quantised already ({how}): give the folder of the whole weights, and quantization "
            "'nf4' for 4 bits"
        )
    return AutoConfig.for_model(**settings)


def _config(name: str, folder: Path) -> Any:
    if not (folder / "config.json").is_file():
        raise FedlitError(f"backbone {name!r}: {folder} holds no config.json")
    return causal_config(name, read_json(folder / "config.json"))


def _tokenizer(name: str, folder: Path, config: Any) -> Any:
    if not any((folder / name).is_file() for name in VOCABULARIES):
        raise FedlitError(f"{folder} holds none of {', '.join(VOCABULARIES)}: save the tokenizer beside the network")
    from transformers import AutoTokenizer

    with quiet():
        try:
            tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        except Exception as error:  # the parsers of vocabularies raise many kinds
            raise FedlitError(f"{folder} holds no usable tokenizer: {first_line(error)}") from error
    rows = config.get_text_config().vocab_size
    if len(tokenizer) > rows:
        raise FedlitError(
            f"{folder}: the tokenizer has {len(tokenizer)} tokens, the network {rows}: they are not of one model"
        )
    if tokenizer.eos_token_id is None:
        raise FedlitError(
            f"{folder}: the tokenizer has no end-of-text token, so a model could not learn to stop: name one as "
            "eos_token in tokenizer_config.json"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _read(name: str, folder: Path, config: Any, quantization: str | None, held: str | None) -> Any:
    import transformers

    kind = transformers.MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    options: dict[str, Any] = {"attn_implementation": "sdpa", "dtype": getattr(torch, held or "float32")}
    if quantization is not None:
        options["dtype"] = getattr(torch, held or "bfloat16")
        options["device_map"] = {"": "cpu"}
        quantized: Any = transformers.BitsAndBytesConfig
        options["quantization_config"] = quantized(
            load_in_4bit=True,
            bnb_4bit_quant_type=quantization,
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    network: Any = read_network(name, folder, kind, **options)
    for module in network.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            # else bitsandbytes 0.50 repacks a layer for good when it is first evaluated on such a CPU, and no gradient
            # passes through it any more
            module.support_avx512bf16_for_cpu = False
    return network
