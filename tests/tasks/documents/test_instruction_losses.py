"""What an instruction task learns: its losses, token by token."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
import torch
from asked import NOTES, ready
from span_answers import batch

from fedlit.backbones.causal_lms import causal_stand_in
from fedlit.data.documents.documents import Document
from fedlit.errors import FedlitError
from fedlit.instructions.sequences import Dialogue
from fedlit.tasks import InstructionTask

FEW = [NOTES[0], replace(NOTES[1], annotated=frozenset({"entities"}), relations=()), NOTES[2],
       replace(NOTES[3], annotated=frozenset({"relations"}))]  # fmt: skip
EACH = [("completion", False), ("completion", True), ("both", False), ("both", True)]


@pytest.fixture(scope="module")
def task():
    return ready()


@pytest.fixture
def asked(task):
    """A function that sets the task; what is set does not outlive a test."""
    before = dict(vars(task))

    def set(**changes):
        names = {name for name in changes if hasattr(task.questions, name)}
        task.questions = replace(task.questions, **{name: changes[name] for name in names})
        for name in changes.keys() - names:
            setattr(task, name, changes[name])
        return task

    yield set
    for name in ("questions", "loss_on", "packing", "max_length"):
        setattr(task, name, before[name])
    task.tally = type(task.tally)()
    task._told.clear()


def by_hand(task, document):
    """Token after token, by the network's own figures for one question alone."""
    total, count = torch.zeros(()), 0
    for one in task.questions.instances(document):
        dialogue = task._model.dialogue
        prompt = dialogue.prompt(one.prompt)
        tokens = list(dialogue.sequence(one.prompt, one.target, task.max_length).tokens)
        logits = task.network(input_ids=torch.tensor([tokens])).logits[0]
        for place in range(len(prompt) if task.loss_on == "completion" else 1, len(tokens)):
            likelihood = torch.log_softmax(logits[place - 1].float(), dim=0)[tokens[place]]
            total, count = total - likelihood, count + 1
    return total / count


@pytest.mark.parametrize("together", ["separate", "joint"])
@pytest.mark.parametrize(("loss_on", "packing"), EACH)
def test_a_loss_is_the_mean_over_all_supervised_tokens_of_a_document(asked, loss_on, packing, together):
    task = asked(loss_on=loss_on, packing=packing, together=together)
    with torch.no_grad():
        losses = task.losses(batch(FEW))
        torch.testing.assert_close(losses, torch.stack([by_hand(task, one) for one in FEW]), rtol=1e-5, atol=1e-5)
        alone = torch.cat([task.losses(batch([one])) for one in FEW])
    torch.testing.assert_close(losses, alone, rtol=1e-5, atol=1e-5)
    assert len({round(one, 3) for one in losses.tolist()}) == 4


def gradients(task, documents):
    task.zero_grad()
    task.losses(batch(documents)).mean().backward()
    return {name: one.grad.clone() for name, one in task.named_parameters() if one.grad is not None}


@pytest.mark.parametrize("loss_on", ["completion", "both"])
def test_packing_changes_no_gradient(asked, loss_on):
    task = asked(loss_on=loss_on)
    padded = gradients(task, FEW)
    packed = gradients(asked(packing=True), FEW)
    alone = [gradients(task, [one]) for one in FEW]
    assert len(padded) > 10
    for name, value in padded.items():
        assert value.abs().max() > 1e-6
        scale = float(value.abs().max())
        torch.testing.assert_close(packed[name], value, rtol=1e-3, atol=1e-4 * scale)
        mean = torch.stack([one[name] for one in alone]).mean(dim=0)
        torch.testing.assert_close(mean, value, rtol=1e-3, atol=1e-4 * scale)


@pytest.mark.parametrize("architecture", ["gpt2", "gpt_neox", "qwen3", "mistral", "gemma"])
def test_packing_on_other_architectures(architecture):
    """Places are learnt in gpt2, where a row that counts on would show."""
    task = ready(f"stand-in:{architecture}", FEW)
    with torch.no_grad():
        padded = task.losses(batch(FEW[:2]))
        task.packing = True
        torch.testing.assert_close(task.losses(batch(FEW[:2])), padded, rtol=1e-5, atol=1e-5)
    assert padded[0] != padded[1]


def test_packing_is_refused_where_layers_look_less_far_back(tmp_path):
    made = causal_stand_in("stand-in:mistral", [one.text for one in NOTES])
    made.network.config.sliding_window = 32
    made.network.save_pretrained(tmp_path)
    made.family.save(tmp_path)
    with pytest.raises(FedlitError, match=r"model\.packing: layers of backbone .* look 32 tokens back"):
        ready(str(tmp_path), packing=True)
    with torch.no_grad():
        losses = ready(str(tmp_path)).losses(batch(FEW[:2]))
        made.network.config.sliding_window = None
        made.network.save_pretrained(tmp_path)
        whole = ready(str(tmp_path), packing=True).losses(batch(FEW[:2]))
    assert (losses - whole).abs().max() > 1e-3


def test_what_was_annotated_in_part_is_learnt_in_part(asked):
    task = asked()
    only = [replace(NOTES[0], annotated=frozenset({kind})) for kind in ("entities", "relations")]
    counts = [task.num_targets(batch([one])) for one in only]
    assert task.num_targets(batch([NOTES[0]])) == sum(counts)
    with torch.no_grad():
        entities, relations = (float(task.losses(batch([one]))) for one in only)
        whole = float(task.losses(batch([NOTES[0]])))
    assert whole == pytest.approx((entities * counts[0] + relations * counts[1]) / sum(counts), rel=1e-5)
    assert task.num_targets(batch(FEW)) == sum(task.num_targets(batch([one])) for one in FEW)


def test_supervised_tokens_are_those_of_the_answers_and_what_ends_them(asked):
    task = asked()
    tokenizer = task._model.family.tokenizer
    answers = [one.target for one in task.questions.instances(NOTES[0])]
    wanted = sum(len(tokenizer(one)["input_ids"]) + 1 for one in answers)
    assert task.num_targets(batch([NOTES[0]])) == wanted
    asked(loss_on="both")
    whole = sum(len(one.tokens) - 1 for one in task.sequences([NOTES[0]])[0])
    assert task.num_targets(batch([NOTES[0]])) == whole > wanted


def test_what_is_too_long_is_counted_once_and_told_once(asked):
    task = asked()
    lengths = [len(one.tokens) for one in task.sequences(NOTES[:6])[0]]
    task.tally = type(task.tally)()
    limit = sorted(lengths)[8]
    asked(max_length=limit)
    with pytest.warns(UserWarning, match=rf"longer than model\.max_length {limit} lose their end") as told:
        _ = [task.losses(batch(NOTES[:6])) for _ in range(3)]
    assert len([one for one in told if "max_length" in str(one.message)]) == 1
    counts = task.describe()["questions"]
    over = [one - limit for one in lengths if one > limit]
    assert counts == {"seen": 12, "cut": len(over), "cut_tokens": sum(over), "without_answer": 0}
    with torch.no_grad():
        torch.testing.assert_close(
            task.losses(batch(FEW)), torch.stack([by_hand(task, one) for one in FEW]), rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize(("loss_on", "packing"), EACH)
@pytest.mark.filterwarnings("ignore:questions longer than")
def test_nothing_left_to_learn_is_no_loss_and_no_gradient(asked, loss_on, packing):
    task = asked(max_length=1 if loss_on == "both" else 20, loss_on=loss_on, packing=packing)
    losses = task.losses(batch(FEW))
    assert losses.isnan().all()
    assert not task.supervised(batch(FEW)).any()
    task.zero_grad()
    step = task.training_step(batch(FEW), 0)
    assert step.item() == 0
    step.backward()
    grown = [one.grad for one in task.parameters() if one.requires_grad]
    assert all(one is not None and not one.any() for one in grown)
    assert task.num_targets(batch(FEW)) == 0
    assert task.describe()["questions"]["without_answer"] == 6


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.filterwarnings("ignore:questions longer than")
def test_a_document_with_nothing_left_beside_others(asked, packing):
    task = asked(packing=packing)
    whole = task.losses(batch([NOTES[0]]))
    limit = max(len(one.tokens) for one in task.sequences([NOTES[0]])[0])
    asked(max_length=limit)
    long = Document("long", "aspirin " * 400)
    losses = task.losses(batch([long, NOTES[0]]))
    assert losses[0].isnan()
    assert task.supervised(batch([long, NOTES[0]])).tolist() == [False, True]
    torch.testing.assert_close(losses[1:], whole, rtol=1e-5, atol=1e-5)
    task.zero_grad()
    step = task.training_step(batch([long, NOTES[0]]), 0)
    assert step.item() == losses[1].item()
    step.backward()
    assert all(torch.isfinite(one.grad).all() for one in task.parameters() if one.requires_grad)


def test_a_tokenizer_that_pads_with_its_end_changes_no_loss(asked):
    task = asked()
    tokenizer = task._model.family.tokenizer
    with torch.no_grad():
        before = task.losses(batch(FEW))
        own = tokenizer.pad_token
        try:
            tokenizer.pad_token = tokenizer.eos_token
            assert tokenizer.pad_token_id == tokenizer.eos_token_id
            assert torch.equal(task.losses(batch(FEW)), before)
        finally:
            tokenizer.pad_token = own


def test_dropout_is_the_adapters_alone():
    from fedlit.backbones import LoRA

    task = ready(adapter=LoRA(r=4, dropout=0.5))
    with torch.no_grad():
        assert torch.equal(task.losses(batch(FEW)), task.losses(batch(FEW)))
        task.train()
        assert not torch.equal(task.losses(batch(FEW)), task.losses(batch(FEW)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss_on": "prompt"}, r"model\.loss_on is 'prompt'"),
        ({"validation": "none"}, r"model\.validation is 'none'"),
        ({"max_length": 0}, r"model\.max_length is 0"),
        ({"max_new_tokens": 0}, r"model\.max_new_tokens is 0"),
        ({"dtype": "float16"}, r"model\.dtype is 'float16'"),
        ({"quantization": "int8"}, r"model\.quantization is 'int8'"),
        ({"adapter": None, "start_from": "x"}, r"model\.start_from needs an adapter"),
        ({"adapter": None, "quantization": "nf4"}, r"model\.quantization needs an adapter"),
        ({"warmup": 1.0}, r"model\.warmup is 1\.0"),
        ({"schedule": "step"}, "schedule 'step'"),
        ({"schema": "none"}, "schema none cannot be read"),
    ],
)
def test_bad_settings(changes, message):
    with pytest.raises(FedlitError, match=message):
        InstructionTask("stand-in:llama", **changes)


def test_other_data_are_refused(task):
    with pytest.raises(FedlitError, match="needs batches of documents, and the data's hold x, client"):
        task.losses({"x": torch.zeros(2), "client": ["a", "a"]})
    with pytest.raises(FedlitError, match="holds no annotated documents"):
        InstructionTask("stand-in:llama").take_data(object())
    with pytest.raises(FedlitError, match=r"call configure_model\(\) first"):
        InstructionTask("stand-in:llama").losses(batch(FEW))


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_the_learning_rate_rises_and_falls(task, schedule):
    task.schedule, task.warmup, task.num_training_steps = schedule, 0.3, 10
    made = task.configure_optimizers()
    optimizer, scheduler = made["optimizer"], made["lr_scheduler"]["scheduler"]
    rates = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the optimizer takes no step
        for _ in range(11):
            rates.append(optimizer.param_groups[0]["lr"] / task.learning_rate)
            scheduler.step()
    assert rates[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    later = {"constant": [1.0] * 7, "linear": [1 - i / 7 for i in range(1, 8)]}.get(schedule)
    if later is None:
        later = [0.5 + 0.5 * float(torch.cos(torch.tensor(torch.pi * i / 7))) for i in range(1, 8)]
    assert rates[4:] == pytest.approx(later, abs=1e-6)
    task.schedule, task.warmup = "constant", 0.0
    assert isinstance(task.configure_optimizers(), torch.optim.AdamW)


def test_more_tokens_than_the_window_has_are_refused(tmp_path):
    made = causal_stand_in("stand-in:llama")
    made.network.save_pretrained(tmp_path)
    made.family.save(tmp_path)
    long = InstructionTask(str(tmp_path), max_length=made.family.max_length + 1)
    with pytest.raises(FedlitError, match=f"sees {made.family.max_length} tokens: lower it"):
        long.configure_model()
    InstructionTask(str(tmp_path), max_length=made.family.max_length).configure_model()


def test_a_template_that_writes_the_date_gives_the_same_tokens_every_day():
    made = causal_stand_in("stand-in:llama")
    made.family.tokenizer.chat_template = (
        "{{ date_string if date_string is defined else strftime_now('%d %b %Y') }} {{ messages[0]['content'] }}"
        "{% if messages|length > 1 %}{{ messages[1]['content'] }}{{ eos_token }}{% endif %}"
    )
    dialogue = Dialogue(made.family.tokenizer)
    assert made.family.tokenizer.decode(dialogue.prompt("Which?")) == "26 Jul 2024 Which?"
