"""Questions and answers as tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

import torch
from torch import Tensor

from fedlit.errors import FedlitError, from_folder
from fedlit.instructions.chat_templates import DATE, ChatTemplate

LossOn = Literal["completion", "both"]
_ANSWER = "ANSWER"


@dataclass(frozen=True)
class TokenSequence:
    """A question with its answer.

    Attributes:
        tokens: Both, one after the other.
        prompt_length: How many of them are the question's.
        cut: How many were left out at the end.
    """

    tokens: tuple[int, ...]
    prompt_length: int
    cut: int = 0

    def supervised(self, loss_on: LossOn) -> range:
        """Positions of the tokens that a model is trained to give; the first token has nothing before it."""
        return range(max(1, self.prompt_length if loss_on == "completion" else 1), len(self.tokens))


class Cuts:
    """Number of questions that were cut, each counted once."""

    def __init__(self) -> None:
        self.rows: dict[tuple[Any, ...], tuple[Any, ...]] = {}

    def note(self, key: tuple[str, int], sequence: TokenSequence) -> bool:
        """Whether a sequence is cut and was not seen before.

        Args:
            key: Id of the document, and number of the question.
            sequence: As it was cut.
        """
        new = sequence.cut > 0 and key not in self.rows
        self.rows[key] = (sequence.cut, not sequence.supervised("completion"))
        return new

    def counts(self) -> dict[str, int]:
        """Questions ``seen``, those ``cut``, the tokens cut off, and questions ``without_answer``."""
        cut = [count for count, _ in self.rows.values() if count]
        bare = sum(bare for _, bare in self.rows.values())
        return {"seen": len(self.rows), "cut": len(cut), "cut_tokens": sum(cut), "without_answer": bare}


class Dialogue:
    """One question and one answer in the form that a tokenizer's model knows.

    With a chat template the question is the user's turn, and the answer the assistant's, up to the mark that ends it:
    the first added token that the template writes after it. Without one, the answer follows the question directly and
    ends with the end-of-sequence token. The answer is always exactly what is to be learnt: templates that strip white
    space do not get to see it, and a mark that its text spells out is text.

    Args:
        tokenizer: Tokenizer of transformers.
        chat_template: Use the template; None: where the tokenizer has one.
        today: What the template takes for today's date.

    Raises:
        FedlitError: There is no template, or one that cannot be used, or nothing that ends an answer.
    """

    def __init__(self, tokenizer: Any, chat_template: bool | None = None, today: date = DATE) -> None:
        self.tokenizer = tokenizer
        has = bool(getattr(tokenizer, "chat_template", None))
        if chat_template and not has:
            raise FedlitError("model.chat_template is true, and the tokenizer has none: leave it out, or set it false")
        self.chat_template = has if chat_template is None else chat_template
        self._template = ChatTemplate(tokenizer, today) if self.chat_template else None
        self._end: list[int] = [] if self._template is None else self._written_after(self._template)
        if not self._end and tokenizer.eos_token_id is None:
            raise FedlitError("the tokenizer has no eos_token, so nothing would end an answer: set one in its folder")
        self._end = self._end or [tokenizer.eos_token_id]

    @property
    def end_tokens(self) -> list[int]:
        """Tokens after which nothing more is generated."""
        return sorted({self._end[-1], self.tokenizer.eos_token_id} - {None})

    def prompt(self, question: str) -> list[int]:
        """Tokens of a question, up to where the answer begins."""
        if self._template is None:
            tokens = self._plain(question)
            first = self.tokenizer.bos_token_id
            adds = first is not None and self._read("")[:1] == [first]
            return [first, *tokens] if adds else tokens
        return self._tokens(self._template.prompt(question))

    def sequence(self, question: str, answer: str, max_length: int) -> TokenSequence:
        """A question with its answer; what is longer than ``max_length`` tokens is cut off at the end."""
        asked = self.prompt(question)
        tokens = asked + self._plain(answer) + self._end
        return TokenSequence(tuple(tokens[:max_length]), min(len(asked), max_length), max(0, len(tokens) - max_length))

    def text(self, tokens: Sequence[int]) -> str:
        """What a model wrote, without what ends it."""
        ends = set(self.end_tokens)
        stop = next((i for i, token in enumerate(tokens) if token in ends), len(tokens))
        written: str = self.tokenizer.decode(
            tokens[:stop], skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return written

    def _plain(self, text: str) -> list[int]:
        """Tokens of a text in which nothing is a mark."""
        return self._tokens(text, split_special_tokens=True)

    def _tokens(self, text: str, **options: bool) -> list[int]:
        # not verbose: whether a text is too long is said elsewhere
        return self._read(text, add_special_tokens=False, verbose=False, **options)

    def _read(self, text: str, **options: bool) -> list[int]:
        with from_folder("the backbone's tokenizer", "copy its files again, or take another backbone"):
            return list(self.tokenizer(text, **options)["input_ids"])

    def _written_after(self, template: ChatTemplate) -> list[int]:
        """What the template writes after an answer, up to its first mark; nothing if it writes none."""
        _, _, after = template.dialogue("?", _ANSWER).rpartition(_ANSWER)
        tokens = self._tokens(after)
        marks = [i for i, token in enumerate(tokens) if token in self.tokenizer.added_tokens_decoder]
        return tokens[: marks[0] + 1] if marks else []


@dataclass(frozen=True)
class Rows:
    """Sequences as a network takes them.

    Attributes:
        inputs: Arguments of the network: ``input_ids`` (rows, length) and what goes with them.
        keep: Positions (kept,) at which logits are needed, in the order of a row.
        row: Row of each supervised token (tokens,).
        column: Where among the kept positions its logits are (tokens,).
        target: The token (tokens,).
        sequence: Index of its sequence (tokens,).
    """

    inputs: dict[str, Tensor]
    keep: Tensor
    row: Tensor
    column: Tensor
    target: Tensor
    sequence: Tensor


def padded(sequences: Sequence[TokenSequence], loss_on: LossOn, pad: int, device: torch.device) -> Rows:
    """A row for each sequence, filled up on the right with ``pad``."""
    longest = max(len(sequence.tokens) for sequence in sequences)
    tokens = [[*sequence.tokens, *[pad] * (longest - len(sequence.tokens))] for sequence in sequences]
    mask = [[1] * len(sequence.tokens) + [0] * (longest - len(sequence.tokens)) for sequence in sequences]
    supervised = [(i, place) for i, sequence in enumerate(sequences) for place in sequence.supervised(loss_on)]
    keep = sorted({place - 1 for _, place in supervised})
    column = {place: i for i, place in enumerate(keep)}
    inputs = {"input_ids": torch.tensor(tokens, device=device), "attention_mask": torch.tensor(mask, device=device)}
    return Rows(
        inputs,
        *(torch.tensor(values, dtype=torch.int64, device=device) for values in (
            keep,
            [i for i, _ in supervised],
            [column[place - 1] for _, place in supervised],
            [sequences[i].tokens[place] for i, place in supervised],
            [i for i, _ in supervised],
        )),
    )  # fmt: skip


def packed(sequences: Sequence[TokenSequence], loss_on: LossOn, device: torch.device) -> Rows:
    """All sequences in one row, with positions from 0 in each, and an attention mask that keeps them apart."""
    tokens = [token for sequence in sequences for token in sequence.tokens]
    owner = torch.tensor([i for i, sequence in enumerate(sequences) for _ in sequence.tokens], device=device)
    places = torch.tensor([place for sequence in sequences for place in range(len(sequence.tokens))], device=device)
    mask = (owner[:, None] == owner[None, :]) & (places[:, None] >= places[None, :])
    starts = [sum(len(other.tokens) for other in sequences[:i]) for i in range(len(sequences))]
    supervised = [(i, place) for i, sequence in enumerate(sequences) for place in sequence.supervised(loss_on)]
    inputs = {
        "input_ids": torch.tensor([tokens], device=device),
        "position_ids": places[None],
        "attention_mask": mask[None, None],
    }
    return Rows(
        inputs,
        *(torch.tensor(values, dtype=torch.int64, device=device) for values in (
            [starts[i] + place - 1 for i, place in supervised],
            [0] * len(supervised),
            list(range(len(supervised))),
            [sequences[i].tokens[place] for i, place in supervised],
            [i for i, _ in supervised],
        )),
    )  # fmt: skip
