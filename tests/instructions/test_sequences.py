"""Questions and answers as tokens: what is asked, what is learnt, where it ends and what is cut."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from talking import LINES, MARKED_ON_A_LINE, llama, qwen, reasoning, tokenizer

from fedlit.errors import FedlitError
from fedlit.instructions.sequences import Cuts, Dialogue, TokenSequence, packed, padded

QUESTION = "Find drugs.\n\nText:\n 5 mg of ANSWER \n\nAnswer:\n"
ANSWER = '  <span class="Chemical">a</span>\n\nRelations:\nnone \n'
MADE = {
    "llama": llama, "qwen": qwen, "reasoning": reasoning,
    "bare": lambda: tokenizer("<s>", "</s>", bos="<s>", eos="</s>", adds_bos=True),
    "without a beginning": lambda: tokenizer("<s>", "</s>", bos="<s>", eos="</s>"),
}  # fmt: skip
BEFORE = {
    "llama": "<|begin|><|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "qwen": "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n",
    "reasoning": "<|begin|><|User|>{}<|Assistant|><think>\n",
    "bare": "<s>{}",
    "without a beginning": "{}",
}
AFTER = {
    "llama": "<|eot_id|>", "qwen": "<|im_end|>", "reasoning": "<|end|>", "bare": "</s>", "without a beginning": "</s>",
}  # fmt: skip


@pytest.mark.parametrize("name", MADE)
def test_what_a_model_reads_and_learns(name):
    dialogue = Dialogue(MADE[name]())
    sequence = dialogue.sequence(QUESTION, ANSWER, 10_000)
    asked = QUESTION.strip() if name == "llama" else QUESTION
    whole = dialogue.tokenizer.decode(sequence.tokens)
    assert whole == BEFORE[name].format(asked) + ANSWER + AFTER[name]
    assert list(sequence.tokens[: sequence.prompt_length]) == dialogue.prompt(QUESTION)
    learnt = sequence.supervised("completion")
    assert dialogue.tokenizer.decode([sequence.tokens[i] for i in learnt]) == ANSWER + AFTER[name]
    assert sequence.supervised("both") == range(1, len(sequence.tokens))
    assert sequence.cut == 0


@pytest.mark.parametrize("name", MADE)
def test_what_is_learnt_last_stops_an_answer_and_nothing_before_it_does(name):
    dialogue = Dialogue(MADE[name]())
    sequence = dialogue.sequence(QUESTION, ANSWER, 10_000)
    learnt = [sequence.tokens[i] for i in sequence.supervised("completion")]
    assert learnt[-1] in dialogue.end_tokens
    assert not set(learnt[:-1]) & set(dialogue.end_tokens)
    assert dialogue.tokenizer.eos_token_id in dialogue.end_tokens
    assert dialogue.text([*learnt, *learnt]) == ANSWER
    assert dialogue.text(learnt[:-1]) == ANSWER  # not ended yet


@pytest.mark.parametrize("name", MADE)
@given(answer=st.lists(st.sampled_from([" ", "\n", "a", "é", "🫀", "<|eot_id|>", "<|end|>", "</s>", "<|im_end|>"])))
@settings(max_examples=25, deadline=None)
def test_any_answer_comes_back_as_it_was(name, answer):
    """What spells out a mark is text."""
    dialogue = _made(name)
    sequence = dialogue.sequence("?", "".join(answer), 10_000)
    assert dialogue.text(sequence.tokens[sequence.prompt_length :]) == "".join(answer)


_dialogues: dict[str, Dialogue] = {}


def _made(name: str) -> Dialogue:
    return _dialogues.setdefault(name, Dialogue(MADE[name]()))


def test_a_mark_in_a_bare_question_is_text():
    dialogue = Dialogue(tokenizer("</s>", eos="</s>"))
    assert dialogue.tokenizer.eos_token_id not in dialogue.prompt("a</s>b")


def test_line_breaks_before_a_mark_do_not_end_answers():
    dialogue = Dialogue(tokenizer("</s>", "<|end|>", eos="</s>", template=MARKED_ON_A_LINE))
    sequence = dialogue.sequence("?", "a\n\nb", 1000)
    assert dialogue.tokenizer.decode(sequence.tokens[sequence.prompt_length :]) == "a\n\nb\n<|end|>"
    assert dialogue.tokenizer.convert_ids_to_tokens(dialogue.end_tokens) == ["</s>", "<|end|>"]


def test_a_template_that_marks_no_end_takes_the_end_of_sequence():
    dialogue = Dialogue(tokenizer("</s>", eos="</s>", template=LINES))
    sequence = dialogue.sequence("?", "a\n\nb", 1000)
    assert dialogue.tokenizer.decode(sequence.tokens) == "user: ?\n\nassistant: a\n\nb</s>"


def test_templates_are_optional():
    assert Dialogue(qwen(), chat_template=False).chat_template is False
    asked = Dialogue(qwen(), chat_template=False)
    assert asked.tokenizer.decode(asked.sequence("?", "a", 99).tokens) == "?a<|im_end|>"
    with pytest.raises(FedlitError, match=r"model\.chat_template is true, and the tokenizer has none"):
        Dialogue(tokenizer("</s>", eos="</s>"), chat_template=True)


def test_a_tokenizer_without_an_end_of_sequence():
    for made in (tokenizer(), tokenizer(template=LINES)):
        with pytest.raises(FedlitError, match="no eos_token"):
            Dialogue(made)
    assert Dialogue(qwen(eos=None)).end_tokens == [2]  # its template has a mark of its own


def test_what_is_too_long_loses_its_end():
    dialogue = Dialogue(tokenizer("</s>", eos="</s>"))
    whole = dialogue.sequence("12345", "abc", 99)
    assert (len(whole.tokens), whole.prompt_length, whole.cut) == (9, 5, 0)
    assert dialogue.sequence("12345", "abc", 9) == whole
    shorter = dialogue.sequence("12345", "abc", 7)
    assert (shorter.tokens, shorter.prompt_length, shorter.cut) == (whole.tokens[:7], 5, 2)
    assert shorter.supervised("completion") == range(5, 7)
    bare = dialogue.sequence("12345", "abc", 4)
    assert (bare.tokens, bare.prompt_length, bare.cut) == (whole.tokens[:4], 4, 5)
    assert not bare.supervised("completion")
    assert bare.supervised("both") == range(1, 4)


def test_transformers_says_nothing_of_long_texts(caplog):
    made = qwen()
    made.model_max_length = 8
    for chat_template in (True, False):
        Dialogue(made, chat_template).sequence("?" * 20, "a" * 20, 8)
    assert not caplog.records


def test_each_question_is_counted_once():
    cuts, whole, cut = Cuts(), TokenSequence((1, 2, 3), 1), TokenSequence((1, 2, 3), 1, 4)
    assert not cuts.note(("a", 0), whole)
    assert cuts.note(("a", 1), cut)
    assert not cuts.note(("a", 1), cut)
    assert cuts.note(("b", 1), TokenSequence((1, 2), 2, 5))
    assert cuts.counts() == {"seen": 3, "cut": 2, "cut_tokens": 9, "without_answer": 1}


SEQUENCES = [TokenSequence((11, 12, 13, 14), 2), TokenSequence((21,), 1), TokenSequence((31, 32, 33), 3)]


@pytest.mark.parametrize("loss_on", ["completion", "both"])
@pytest.mark.parametrize("packing", [False, True])
def test_rows(loss_on, packing):
    """What stands at a kept place is what comes before its target, and each question sees itself alone."""
    device = torch.device("cpu")
    rows = packed(SEQUENCES, loss_on, device) if packing else padded(SEQUENCES, loss_on, 0, device)
    tokens = rows.inputs["input_ids"]
    before = tokens[rows.row, rows.keep[rows.column]].tolist()
    pairs = list(zip(rows.sequence.tolist(), before, rows.target.tolist(), strict=True))
    learnt = [(0, 11, 12), (0, 12, 13), (0, 13, 14), (2, 31, 32), (2, 32, 33)]
    assert pairs == (learnt if loss_on == "both" else learnt[1:3])
    mask = rows.inputs["attention_mask"]
    if packing:
        assert tokens.tolist() == [[11, 12, 13, 14, 21, 31, 32, 33]]
        assert rows.inputs["position_ids"].tolist() == [[0, 1, 2, 3, 0, 0, 1, 2]]
        seen = [[token for token, one in zip(tokens[0].tolist(), row, strict=True) if one] for row in mask[0, 0]]
        own = [one.tokens[: i + 1] for one in SEQUENCES for i in range(len(one.tokens))]
        assert [tuple(row) for row in seen] == own
    else:
        assert tokens.tolist() == [[11, 12, 13, 14], [21, 0, 0, 0], [31, 32, 33, 0]]
        assert mask.tolist() == [[1, 1, 1, 1], [1, 0, 0, 0], [1, 1, 1, 0]]
