"""Texts: BERT, the sentence encoders made of it, and RoBERTa."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from fedlit.backbones.chronos import unwrap
from fedlit.backbones.encoders.family import TINY, EncoderFamily, Extent
from fedlit.backbones.folders import read_json, read_network
from fedlit.errors import FedlitError, first_line, from_folder

VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json")


@dataclass(frozen=True)
class TextEncoder(EncoderFamily):
    """Tokens of a text; the features are the first token's last state, or the mean of all.

    Args:
        max_length: Tokens of a text, the special ones among them; the rest is cut off.
        pooling: ``"mean"`` where the folder is a sentence encoder that says so, ``"first"`` otherwise.
        tokenizer: Of transformers; None: good for measuring only.
    """

    max_length: int
    pooling: Literal["first", "mean"]
    tokenizer: Any = field(repr=False, compare=False)

    modality: ClassVar[str] = "text"
    pretrained_targets: ClassVar[tuple[str, ...]] = ("query", "value")
    all_targets: ClassVar[tuple[str, ...]] = ("query", "key", "value", "dense")

    @classmethod
    def of(cls, config: Any, folder: Path | None = None) -> Self:
        if folder is None:
            return cls(cls.positions(config), "first", None)
        if not any((folder / name).is_file() for name in VOCABULARIES):
            raise FedlitError(
                f"{folder} holds none of {', '.join(VOCABULARIES)}: save the tokenizer beside the network"
            )
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        except Exception as error:  # the parsers of vocabularies raise many kinds
            raise FedlitError(f"{folder} holds no usable tokenizer: {first_line(error)}") from error
        if len(tokenizer) > config.vocab_size:
            raise FedlitError(
                f"{folder}: the tokenizer has {len(tokenizer)} tokens, the network {config.vocab_size}: they are not "
                "of one model"
            )
        own = read_json(folder / "sentence_bert_config.json").get("max_seq_length")
        limits = [cls.positions(config), tokenizer.model_max_length, *([own] if own else [])]
        return cls(int(min(limits)), _pooling(folder), tokenizer)

    @classmethod
    def positions(cls, config: Any) -> int:
        """The most tokens that the network has positions for."""
        return int(config.max_position_embeddings)

    def inputs(self, network: nn.Module, x: Any) -> dict[str, Tensor]:
        if not isinstance(x, list | tuple) or not all(isinstance(text, str) for text in x):
            found = f"{x.dtype} {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise FedlitError(f"texts are a list of strings for this backbone; the batch has {found}")
        if self.tokenizer is None:
            raise FedlitError("this text backbone has no vocabulary: it was made to be measured, not to be used")
        options = {"padding": True, "truncation": True, "max_length": self.max_length, "return_tensors": "pt"}
        with from_folder("the backbone's tokenizer", "copy its files again, or take another backbone"):
            rows = self.tokenizer(list(x), **options)
        device = next(network.parameters()).device
        return {name: rows[name].to(device) for name in ("input_ids", "attention_mask")}

    def extent(self, x: Any) -> Extent:
        with from_folder("the backbone's tokenizer", "copy its files again, or take another backbone"):
            rows = self.tokenizer(list(x), verbose=False)["input_ids"]
        return Extent("tokens", self.max_length, [len(row) for row in rows])

    def pooled(self, network: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        states: Tensor = unwrap(network)(**inputs).last_hidden_state
        if self.pooling == "first":
            return states[:, 0]
        mask = inputs["attention_mask"][..., None].to(states.dtype)
        return (states * mask).sum(dim=1) / mask.sum(dim=1)

    def example(self, batch_size: int, length: int | None = None) -> dict[str, Tensor]:
        length = length or self.max_length
        if length > self.max_length:
            raise FedlitError(f"texts of {length} tokens are longer than this backbone takes: {self.max_length}")
        ones = torch.ones(batch_size, length, dtype=torch.int64)
        return {"input_ids": ones, "attention_mask": ones.clone()}

    def save(self, folder: Path | str) -> None:
        self.tokenizer.save_pretrained(str(folder))
        path = Path(folder) / "sentence_bert_config.json"
        path.write_text(json.dumps({"max_seq_length": self.max_length}) + "\n")
        if self.pooling == "mean":
            (Path(folder) / "1_Pooling").mkdir(exist_ok=True)
            settings = {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
            (Path(folder) / "1_Pooling" / "config.json").write_text(json.dumps(settings) + "\n")


class BERT(TextEncoder):
    """Devlin et al. 2018 (arXiv 1810.04805), such as emilyalsentzer/Bio_ClinicalBERT and MiniLM sentence encoders."""

    @classmethod
    def read(cls, name: str, folder: Path) -> nn.Module:
        from transformers import BertModel

        return read_network(name, folder, BertModel, add_pooling_layer=False)

    @classmethod
    def build(cls, **settings: Any) -> nn.Module:
        from transformers import BertConfig, BertModel

        network: nn.Module = BertModel(BertConfig(**settings), add_pooling_layer=False)
        return network

    @classmethod
    def stand_in(cls) -> tuple[nn.Module, Self]:
        from transformers import BertTokenizer

        signs = "abcdefghijklmnopqrstuvwxyz0123456789.,;:!?()-'/%"
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *signs, *(f"##{sign}" for sign in signs)]
        tokenizer = BertTokenizer(vocab={word: i for i, word in enumerate(words)}, model_max_length=128)
        network = cls.build(**TINY, vocab_size=len(words), max_position_embeddings=128)
        return network, cls(128, "first", tokenizer)


class RoBERTa(TextEncoder):
    """Liu et al. 2019 (arXiv 1907.11692), such as FacebookAI/roberta-base."""

    @classmethod
    def positions(cls, config: Any) -> int:
        return int(config.max_position_embeddings) - int(config.pad_token_id) - 1

    @classmethod
    def read(cls, name: str, folder: Path) -> nn.Module:
        from transformers import RobertaModel

        return read_network(name, folder, RobertaModel, add_pooling_layer=False)

    @classmethod
    def build(cls, **settings: Any) -> nn.Module:
        from transformers import RobertaConfig, RobertaModel

        network: nn.Module = RobertaModel(RobertaConfig(**settings), add_pooling_layer=False)
        return network

    @classmethod
    def stand_in(cls) -> tuple[nn.Module, Self]:
        from tokenizers.pre_tokenizers import ByteLevel
        from transformers import RobertaTokenizer

        words = ["<s>", "<pad>", "</s>", "<unk>", *sorted(ByteLevel.alphabet()), "<mask>"]
        tokenizer = RobertaTokenizer(
            vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=128
        )  # one token for each byte
        network = cls.build(**TINY, vocab_size=len(words), max_position_embeddings=130)
        return network, cls(128, "first", tokenizer)


def _pooling(folder: Path) -> Literal["first", "mean"]:
    """As a sentence encoder's folder says it.

    Raises:
        FedlitError: It pools in another way.
    """
    path = folder / "1_Pooling" / "config.json"
    modes = {name for name, on in read_json(path).items() if name.startswith("pooling_mode_") and on is True}
    if modes == {"pooling_mode_mean_tokens"}:
        return "mean"
    if modes - {"pooling_mode_cls_token"}:
        raise FedlitError(f"{path}: {', '.join(sorted(modes))} is not known here; the mean and the first token are")
    return "first"
