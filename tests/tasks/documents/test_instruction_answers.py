"""What an instruction task answers once it has learnt, and what it writes down."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace

import pytest
import torch
from asked import NOTES, STAND_IN, WHOLE, learn, ready
from span_answers import HEADLINE, assert_learnt, assert_predicts, batch, scores

from fedlit.backbones import LoRA
from fedlit.backbones.causal_lms import causal_stand_in
from fedlit.data.documents.documents import Document
from fedlit.errors import FedlitError
from fedlit.tasks import InstructionTask
from fedlit.tasks.documents.language_model import LanguageModel
from fedlit.tasks.task import arguments

FEW = NOTES[:6]


@pytest.fixture(scope="module")
def learned():
    return learn(ready(documents=FEW, adapter=WHOLE, max_new_tokens=160), FEW, steps=55, rate=1e-2)


@pytest.fixture
def model(learned):
    """Of the task; what is changed does not outlive a test."""
    before = learned._model
    learned._model = LanguageModel(before.network, before.family, None)
    yield learned._model
    learned._model, learned.max_new_tokens = before, 160
    learned._told.clear()


def test_it_learns_what_is_in_the_notes(learned):
    found = assert_learnt(learned, FEW)
    assert not [name for name, value in found.items() if name.startswith("answers_") and value]
    assert scores(learned, NOTES[12:16])["entity_strict_f1"] < 1  # learnt by heart


@pytest.mark.parametrize(
    ("count", "ways"),
    [
        (3, {"format": "html", "together": "joint"}),
        (2, {"format": "html", "relations": "focus", "given": "predicted"}),
        (2, {"format": "json", "together": "joint", "packing": True, "loss_on": "both"}),
    ],
    ids=str,
)
def test_every_way_of_asking_can_be_learnt(count, ways):
    own = NOTES[:count]
    task = learn(ready(documents=own, adapter=WHOLE, max_new_tokens=300, **ways), own, steps=45, rate=1.2e-2)
    found = scores(task, own)
    assert [found[name] for name in HEADLINE] == [1.0] * 4


def test_an_answer_does_not_hang_on_what_is_asked_beside_it(learned):
    asked = [one.prompt for note in NOTES[:4] for one in learned.questions.instances(note)]
    assert len({len(one) for one in asked}) > 4
    assert learned.generate(asked) == [learned.generate([one])[0] for one in asked]


def test_settings_of_the_base_for_generating_do_not_count(learned):
    asked = [one.prompt for one in learned.questions.instances(FEW[0])]
    before, own = learned.generate(asked), learned.network.generation_config
    own.repetition_penalty, own.no_repeat_ngram_size, own.temperature = 3.0, 2, 0.1
    try:
        assert learned.generate(asked) == before
        assert learned.network.generation_config.repetition_penalty == 3.0  # kept, for an export
    finally:
        own.repetition_penalty, own.no_repeat_ngram_size, own.temperature = None, None, None


def test_what_one_may_write_does_not_hang_on_longer_questions(learned, model):
    asked = [one.prompt for note in FEW for one in learned.questions.instances(note)]
    lengths = [len(model.dialogue.prompt(one)) for one in asked]
    whole = learned.generate(asked)
    written = [len(model.family.tokenizer(one)["input_ids"]) for one in whole]
    long = lengths.index(max(lengths))
    window = lengths[long] + 3
    fits = [i for i in range(len(asked)) if lengths[i] + written[i] < window]
    assert len(fits) > 2
    model.family = replace(model.family, max_length=window)
    cut = learned.generate(asked)
    assert [cut[i] for i in fits] == [whole[i] for i in fits]
    assert len(cut[long]) < len(whole[long])
    assert whole[long].startswith(cut[long])


@pytest.mark.filterwarnings("ignore:questions longer than model.max_length")
def test_a_question_longer_than_the_window_has_no_answer(learned, model):
    model.family = replace(model.family, max_length=420)
    long = replace(FEW[0], id="long", text=FEW[0].text + " and so on" * 400)
    with pytest.warns(UserWarning, match="longer than the window of 420 tokens get no answer"):
        found = scores(learned, [long])
    assert (found["answers_unparsable"], found["entity_strict_f1"], found["relation_strict_f1"]) == (1.0, 0.0, 0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # told once
        found = scores(learned, [long, FEW[1]])
    assert found["answers_unparsable"] == 0.5
    assert found["entity_strict_precision"] == 1.0
    assert 0 < found["entity_strict_recall"] < 1


def test_answers_that_are_cut_are_counted(learned, model):
    learned.max_new_tokens = 10
    found = scores(learned, FEW[:3])
    assert found["answers_truncated"] + found["answers_unparsable"] >= 1.0
    assert found["entity_strict_recall"] < 1


@pytest.mark.parametrize("format", ["html", "json"])
def test_a_model_that_writes_nothing_finds_nothing(format):
    task = ready(documents=FEW, format=format, max_new_tokens=4)
    torch.nn.init.zeros_(task.network.get_base_model().lm_head.weight)  # the first token, which is padding
    assert set(task.generate([one.prompt for one in task.questions.instances(FEW[0])])) == {""}
    found = scores(task, [one for one in FEW if one.relations])
    assert [found[name] for name in HEADLINE] == [0.0] * 4
    assert found["entity_strict_precision"] == 0.0
    assert found["answers_unparsable"] == 1.0


def test_validation_by_loss_alone_generates_nothing(learned, monkeypatch):
    def refuse(*_):
        raise AssertionError("generated")

    monkeypatch.setattr(learned, "validation", "loss")
    monkeypatch.setattr(learned, "generate", refuse)
    learned.val_metrics.reset()
    learned.validation_step(batch(FEW[:3]), 0)
    with torch.no_grad():
        loss = float(learned.losses(batch(FEW[:3])).mean())
    values = learned.val_metrics.compute()
    learned.val_metrics.reset()
    assert {name: float(value) for name, value in values.items()} == {"loss": pytest.approx(loss)}
    with pytest.raises(AssertionError, match="generated"):
        learned.test_step(batch(FEW[:3]), 0)
    learned.test_metrics.reset()


def test_an_empty_note_is_asked_about_and_nothing_is_found(learned):
    blank = Document("blank", "  \n")
    found = scores(learned, [FEW[0], blank])
    assert found["entity_strict_recall"] == 1.0
    assert torch.isfinite(learned.losses(batch([blank]))).all()


def test_predictions_are_columns_without_text_and_can_be_scored(learned):
    assert_predicts(learned, FEW[:3])


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder as one is published."""
    folder = tmp_path_factory.mktemp("base")
    made = causal_stand_in(STAND_IN, [one.text for one in NOTES])
    made.network.save_pretrained(folder)
    made.family.save(folder)
    return str(folder)


@pytest.mark.parametrize("adapter", [LoRA(r=4, alpha=8), LoRA(r=4, alpha=8, modules_to_save=["lm_head"])])
def test_an_exported_adapter_is_the_model(base, adapter, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    task = ready(base, adapter=adapter)
    losses = task.losses(batch(FEW[:3]))
    task.export(tmp_path / "adapter")
    network = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(tmp_path / "adapter")).eval()
    language = LanguageModel(network, task._model.family, None)
    sequences, owners = task.sequences(FEW[:3])
    again = language.losses(sequences, owners, 3, "completion", False)
    torch.testing.assert_close(again, losses, rtol=1e-5, atol=1e-5)
    fresh = ready(base, adapter=adapter, stirred=False)
    assert (fresh.losses(batch(FEW[:3])) - losses).abs().max() > 1e-3
    started = ready(base, adapter=adapter, stirred=False, start_from=str(tmp_path / "adapter"))
    torch.testing.assert_close(started.losses(batch(FEW[:3])), losses, rtol=0, atol=0)
    assert started.config()["start_from"] == str(tmp_path / "adapter")
    task.export(tmp_path / "merged", merge=True)
    merged = ready(str(tmp_path / "merged"), adapter=LoRA(r=2), stirred=False)
    torch.testing.assert_close(merged.losses(batch(FEW[:3])), losses, rtol=1e-4, atol=1e-4)
    assert merged.describe()["source"] == str(tmp_path / "merged")
    torch.testing.assert_close(task.losses(batch(FEW[:3])), losses, rtol=0, atol=0)  # merging left it as it was


def test_a_network_trained_whole_is_exported_with_its_tokenizer(base, tmp_path):
    task = learn(ready(base, adapter=None), FEW[:2], steps=2)
    task.export(tmp_path)
    again = ready(str(tmp_path), stirred=False)
    torch.testing.assert_close(again.losses(batch(FEW[:3])), task.losses(batch(FEW[:3])), rtol=1e-5, atol=1e-5)


def test_adapters_that_do_not_fit(base, tmp_path):
    ready(base).export(tmp_path / "adapter")
    start = str(tmp_path / "adapter")
    with pytest.raises(FedlitError, match="does not fit backbone 'stand-in:gpt2' .it was made on"):
        ready("stand-in:gpt2", start_from=start)
    for adapter, message in (
        (LoRA(r=2), "does not fit backbone"),
        (LoRA(r=4, target_modules=["q_proj"]), "does not fit backbone"),
        (LoRA(r=4, alpha=99), "says lora_alpha 16, and the adapter here has 99"),
    ):
        with pytest.raises(FedlitError, match=message):
            ready(base, adapter=adapter, start_from=start)
    with pytest.raises(FedlitError, match=r"adapter_model\.safetensors cannot be read"):
        ready(base, start_from=str(tmp_path / "nowhere"))


def test_more_tokens_than_the_backbone_sees(base, tmp_path):
    made = causal_stand_in(STAND_IN, [one.text for one in NOTES])
    made.network.config.max_position_embeddings = 128
    made.network.save_pretrained(tmp_path)
    made.family.save(tmp_path)
    with pytest.raises(FedlitError, match=r"model\.max_length is 800, and backbone .* sees 128 tokens: lower it"):
        InstructionTask(str(tmp_path)).configure_model()
    assert ready(str(tmp_path), max_length=128).describe()["questions"]["seen"] == 0
    assert ready(base, max_length=2048).max_length == 2048


def test_what_is_said_of_it(base):
    about = ready(base, adapter=LoRA(r=4)).describe()
    assert (about["backbone"], about["family"], about["stand_in"]) == (base, "llama", False)
    assert about["schema"]["name"] == "bc5cdr"
    assert 0 < about["trainable"] < about["parameters"]
    config = ready(base, format="html", dtype="float32").config()
    json.dumps([about, config])
    assert (config["format"], config["dtype"], config["max_length"], config["wording"]) == (
        "html",
        "float32",
        800,
        "brief",
    )
    given = set(arguments(InstructionTask))
    assert given - config.keys() == set()


def test_a_trial_takes_the_types_of_its_data():
    task = InstructionTask("meta-llama/Llama-3.1-8B-Instruct", LoRA(r=2), schema="clinical", quantization=None)
    task.use_stand_in()

    class Other:
        clients = ("a",)
        schema = {"entities": ["Chemical", "Disease"], "relations": {"CID": [["Chemical", "Disease"]]}}  # noqa: RUF012

        def dataset(self, clients, split):
            return type("Documents", (), {"documents": NOTES})

    task.take_data(Other())
    task.configure_model()
    assert task.losses(batch(NOTES[:2])).isfinite().all()
    assert (task.max_new_tokens, task.describe()["stand_in"]) == (32, True)
    with pytest.raises(FedlitError, match="comes before configure_model"):
        task.use_stand_in()
