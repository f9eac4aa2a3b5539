"""Tiny causal language models with a tokenizer of their own, for tests and trials without weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fedlit.backbones.folders import STAND_IN
from fedlit.errors import FedlitError

PAD, END = "<pad>", "<eos>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
CHAT = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\\n' + message['content'] + '<eos>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)
WINDOW = 2048

NAMES = {
    r"gpt-neox|pythia": "gpt_neox", r"gpt-?2": "gpt2", r"llama|smollm2?\b": "llama", r"qwen-?3": "qwen3",
    r"qwen": "qwen2", r"mistral": "mistral", r"gemma": "gemma",
}  # fmt: skip
"""What the name of a model says of its architecture, the first that is found."""

TINY: dict[str, Any] = {
    "initializer_range": 0.2,  # at the usual 0.02 a frozen head can prefer no token to another
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128,
    "max_position_embeddings": WINDOW, "tie_word_embeddings": False, "bos_token_id": None,
}  # fmt: skip
GROUPED: dict[str, Any] = {"num_key_value_heads": 2, "head_dim": 16}
STILL: dict[str, Any] = {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
OWN: dict[str, dict[str, Any]] = {
    "llama": GROUPED, "mistral": GROUPED, "qwen2": {"num_key_value_heads": 2}, "qwen3": GROUPED, "gemma": GROUPED,
    "gpt_neox": {}, "gpt2": STILL,
}  # fmt: skip
CHATTY = ("llama", "mistral", "qwen2", "qwen3", "gemma")
"""Those whose published instruction models have a chat template."""


def tiny_config(architecture: str, tokenizer: Any) -> Any:
    """Settings of a tiny network for a tokenizer.

    Raises:
        FedlitError: There is none of the architecture.
    """
    from transformers import AutoConfig

    if architecture not in OWN:
        raise FedlitError(f"there is no {STAND_IN}{architecture}; there are {', '.join(sorted(OWN))}")
    tokens = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    return AutoConfig.for_model(
        architecture, **TINY, **OWN[architecture], **tokens, eos_token_id=tokenizer.eos_token_id
    )


def tiny_tokenizer(architecture: str, texts: Sequence[str], vocabulary: int) -> Any:
    """A byte-level tokenizer, lossless for any text, trained on ``texts``; the same texts give the same one.

    Raises:
        FedlitError: ``vocabulary`` has no room for the 256 bytes.
    """
    from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    wrapped: Any = PreTrainedTokenizerFast

    special = [PAD, END, *(ROLES if architecture in CHATTY else ())]
    if vocabulary < 256 + len(special):
        raise FedlitError(f"vocabulary is {vocabulary}: a byte-level tokenizer needs at least {256 + len(special)}")
    inner = Tokenizer(BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    inner.train_from_iterator(texts, trainer)
    tokenizer = wrapped(
        tokenizer_object=inner,
        pad_token=PAD,
        eos_token=END,
        extra_special_tokens=special[2:],
        model_max_length=WINDOW,
        clean_up_tokenization_spaces=False,
    )
    if architecture in CHATTY:
        tokenizer.chat_template = CHAT
    return tokenizer
