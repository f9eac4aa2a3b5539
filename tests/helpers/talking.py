"""Byte-level tokenizers with the marks and chat templates of published models."""

from __future__ import annotations

from typing import Any

from tokenizers import Tokenizer, decoders, pre_tokenizers, processors, trainers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

LLAMA = (
    "{{ bos_token }}{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    " + message['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
REASONING = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '<|User|>' + message['content'] }}{% else %}"
    "{{ '<|Assistant|>' + message['content'].split('</think>')[-1] + '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|Assistant|><think>\n' }}{% endif %}"
)
LINES = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\n\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
MARKED_ON_A_LINE = LINES.replace("'\n\n'", "'\n<|end|>\n'")


def tokenizer(
    *marks: str,
    template: str | None = None,
    eos: str | None = None,
    bos: str | None = None,
    pad: str | None = None,
    adds_bos: bool = False,
) -> Any:
    """A token for each byte, and one for each mark; only ``eos``, ``bos`` and ``pad`` are named to transformers."""
    inner = Tokenizer(BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=256 + len(marks),
        special_tokens=list(marks),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    inner.train_from_iterator([], trainer)
    if adds_bos:
        inner.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, inner.token_to_id(bos))]
        )
    made = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token=eos, bos_token=bos, pad_token=pad)
    made.chat_template = template
    return made


def llama(**changes: Any) -> Any:
    """As Llama 3's: begins by itself, and once more in the template; white space is trimmed."""
    marks = ("<|begin|>", "<|end_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>")
    given = {"template": LLAMA, "bos": "<|begin|>", "eos": "<|end_of_text|>", "adds_bos": True} | changes
    return tokenizer(*marks, **given)


def qwen(**changes: Any) -> Any:
    """As Qwen's: nothing at the beginning, and a line break after the mark that ends a turn."""
    marks = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    return tokenizer(*marks, **({"template": CHATML, "eos": "<|im_end|>", "pad": "<|endoftext|>"} | changes))


def reasoning() -> Any:
    """As DeepSeek-R1's: it begins answers with a thought, and leaves thoughts out of turns."""
    marks = ("<|begin|>", "<|end|>", "<|User|>", "<|Assistant|>", "<think>", "</think>")
    return tokenizer(*marks, template=REASONING, bos="<|begin|>", eos="<|end|>", adds_bos=True)
