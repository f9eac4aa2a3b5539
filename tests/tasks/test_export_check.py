"""What an export holds is the model that was scored, or nothing is put there."""

from __future__ import annotations

import json

import pytest
import torch
from asked import ready as causal
from colours import CLASSES
from safetensors.torch import load_file, save_file

from fedlit.backbones import LoRA
from fedlit.backbones.causal_lms import causal_stand_in, load_causal_lm
from fedlit.errors import FedlitError
from fedlit.tasks import ForecastingTask, TokenClassificationTask
from fedlit.tasks.classification import ClassificationTask
from fedlit.tasks.export_check import BOUND, TEXTS, outputs, same_outputs, same_tokens, staged


def forecasting(adapter):
    task = ForecastingTask("builtin", adapter)
    task.configure_model()
    return task


def classifying(adapter):
    task = ClassificationTask("stand-in:bert", adapter, classes=CLASSES)
    task.configure_model()
    return task


def tagging(adapter):
    from asked import Held

    task = TokenClassificationTask("stand-in:bert", adapter)
    task.take_data(Held())
    task.configure_model()
    return task


MADE = {"forecasts": forecasting, "classes": classifying, "tags": tagging, "answers": lambda a: causal(adapter=a)}


def stirred(task, size: float = 0.1):
    draws = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in task.parameters():
            if parameter.requires_grad:
                parameter.add_(size * torch.randn(parameter.shape, generator=draws).to(parameter.dtype))
    return task


def spoil(place):
    """Another value in each file of weights, but for heads of tasks."""
    for path in place.glob("*model*.safetensors"):
        held = load_file(path)
        save_file({name: value + 0.5 * value.abs().mean() for name, value in held.items()}, path, {"format": "pt"})


@pytest.mark.parametrize(("adapter", "merge"), [(LoRA(r=2), False), (LoRA(r=2), True), (None, False)])
@pytest.mark.parametrize("name", MADE)
def test_an_export_that_is_another_model_is_refused_and_nothing_is_put_there(name, adapter, merge, tmp_path):
    task, write = stirred(MADE[name](adapter)), type(MADE[name](adapter)).write

    def spoilt(self, folder, merge):
        write(self, folder, merge)
        spoil(folder)

    folder = tmp_path / "export"
    task.export(folder, merge=merge)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert before
    assert [path.name for path in tmp_path.iterdir()] == ["export"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(task), "write", spoilt)
        with pytest.raises(FedlitError, match=r"export: loaded anew it gives other outputs .*nothing was put there"):
            task.export(folder, merge=merge)
        with pytest.raises(FedlitError, match="other outputs"):
            task.export(tmp_path / "new", merge=merge)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


@pytest.fixture(scope="module")
def tied(tmp_path_factory):
    """Folders of tiny networks whose head is the input embeddings."""
    from transformers import AutoModelForCausalLM

    out = {}
    for kind in ("gpt2", "llama"):
        made = causal_stand_in(f"stand-in:{kind}", ["problem treatment none json"] * 3, vocabulary=300)
        config = made.network.config
        config.tie_word_embeddings = True
        torch.manual_seed(0)
        network = AutoModelForCausalLM.from_config(config)
        network.tie_weights()
        out[kind] = tmp_path_factory.mktemp(kind)
        network.save_pretrained(out[kind])
        made.family.tokenizer.save_pretrained(out[kind])
    return out


TIED = {
    "head": LoRA(r=2, target_modules=["lm_head"]),
    "head and layers": LoRA(r=2, target_modules=["lm_head", "c_attn", "q_proj"]),
    "head trained whole": LoRA(r=2, modules_to_save=["lm_head"]),
    "layers": LoRA(r=2),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("held", [None, "bfloat16"])
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("where", TIED)
def test_an_adapter_on_a_tied_head_is_merged_into_the_head_alone(where, kind, held, tied, tmp_path):
    adapter = TIED[where]
    if held is not None and adapter.modules_to_save:
        pytest.skip("what is trained whole must be in float32")
    if where == "head and layers":
        adapter = LoRA(r=2, target_modules=["lm_head", "c_attn" if kind == "gpt2" else "q_proj"])
    task = stirred(causal(str(tied[kind]), adapter=adapter, dtype=held))
    task.export(tmp_path / "merged", merge=True)
    again = load_causal_lm(str(tmp_path / "merged")).network
    wanted = outputs(task.network.float(), task.probe)
    torch.testing.assert_close(outputs(again, task.probe), wanted, rtol=0, atol=1e-4)
    config = json.loads((tmp_path / "merged" / "config.json").read_text())
    assert config["tie_word_embeddings"] is (where == "layers")
    assert config["dtype"] == "float32"
    before = load_causal_lm(str(tied[kind]), held=held).network.get_input_embeddings().weight
    assert torch.equal(again.get_input_embeddings().weight, before.float())


def test_settings_of_sampling_that_contradict_each_other_stop_no_export(tied, tmp_path):
    import shutil

    folder = tmp_path / "backbone"
    shutil.copytree(tied["gpt2"], folder)
    (folder / "generation_config.json").write_text('{"do_sample": false, "temperature": 0.7, "eos_token_id": 1}')
    task = causal(str(folder), adapter=LoRA(r=2))
    task.export(tmp_path / "adapter")
    with pytest.warns(UserWarning, match=r"generation_config.json of backbone .*temperature.*without settings"):
        task.export(tmp_path / "merged", merge=True)
    assert "temperature" not in json.loads((tmp_path / "merged" / "generation_config.json").read_text())


def test_a_broken_model_is_exported_as_it_is(tmp_path):
    task = forecasting(LoRA(r=2))
    with torch.no_grad():
        next(p for p in task.parameters() if p.requires_grad).fill_(torch.nan)
    task.export(tmp_path / "broken")
    assert (tmp_path / "broken" / "adapter_model.safetensors").exists()


def test_outputs_differ_by_rounding_at_most():
    ours = torch.tensor([1.0, -4.0, torch.nan, torch.inf])
    same_outputs(ours, torch.tensor([1.0 + 3 * BOUND, -4.0, torch.inf, torch.nan]), "x")
    for wrong in (
        [1.0 + 5 * BOUND, -4.0, torch.nan, torch.inf],
        [1.0, torch.nan, torch.nan, torch.inf],
        [1.0, -4.0, 0.0, 0.0],
    ):
        with pytest.raises(FedlitError, match="x: loaded anew it gives other outputs"):
            same_outputs(ours, torch.tensor(wrong), "x")
    same_outputs(torch.zeros(2), torch.zeros(2), "x")
    with pytest.raises(FedlitError):
        same_outputs(torch.zeros(2), torch.full((2,), 1e-6), "x")


def test_tokens_must_be_the_same():
    def first(text):
        return {"input_ids": list(text.encode())}

    same_tokens(first, first, "x")
    assert any("\u00b0" in text for text in TEXTS)
    with pytest.raises(FedlitError, match="x: the tokenizer loaded anew gives other tokens"):
        same_tokens(first, lambda text: {"input_ids": list(text.encode("ascii", "ignore"))}, "x")


def test_weights_of_an_earlier_export_do_not_stay_beside_the_new_ones(tmp_path):
    folder = tmp_path / "a" / "export"
    folder.mkdir(parents=True)
    for name in ("model-00001-of-00002.safetensors", "model.safetensors.index.json", "notes.txt"):
        (folder / name).write_text("old")
    with staged(folder) as place:
        (place / "model.safetensors").write_text("new")
        (place / "below").mkdir()
        (place / "below" / "config.json").write_text("{}")
    found = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert found == ["below/config.json", "model.safetensors", "notes.txt"]
    with pytest.raises(RuntimeError), staged(folder) as place:  # noqa: PT012
        (place / "model.safetensors").write_text("newer")
        raise RuntimeError
    assert (folder / "model.safetensors").read_text() == "new"
    assert [path.name for path in folder.parent.iterdir()] == ["export"]
