"""Classifiers as users load them."""

from __future__ import annotations

import json

import pytest
import torch
from colours import BERT, BOLT, CLASSES, VIT, batch, fit, tiny
from peft import PeftModel
from safetensors.torch import load_file

from fedlit.backbones import LoRA
from fedlit.backbones.encoders.loading import encoder_stand_in
from fedlit.errors import FedlitError
from fedlit.tasks import load_classifier
from fedlit.tasks.classification import ClassificationTask


@pytest.mark.parametrize("name", [VIT, BERT])
@pytest.mark.parametrize("adapter", [LoRA(r=4), LoRA(r=2, use_dora=True)])
def test_an_adapter_loads_by_peft_and_with_its_head(name, adapter, tmp_path):
    task = tiny(name, adapter)
    fit(task, steps=3, name=name)
    task.export(tmp_path)
    assert not list(tmp_path.rglob("*.bin"))
    one = batch(name)
    fresh = encoder_stand_in(name)
    network = PeftModel.from_pretrained(fresh.network, tmp_path).eval()
    head = load_file(tmp_path / "head.safetensors")
    with torch.no_grad():
        ours, theirs = task.logits(one), fresh.family.features(network, one["x"]) @ head["weight"].T + head["bias"]
        torch.testing.assert_close(theirs, ours)
        again = load_classifier(tmp_path)
        assert torch.equal(again.logits(one), ours)
        assert (tiny(name, adapter).logits(one) - ours).abs().max() > 1e-3
    assert (again.classes, again.multi_label) == (CLASSES, False)


@pytest.mark.parametrize("name", [VIT, BERT, BOLT])
@pytest.mark.parametrize("adapter", [LoRA(r=4), None])
def test_a_whole_export_loads_as_a_backbone_and_with_its_head(name, adapter, tmp_path):
    task = tiny(name, adapter)
    fit(task, steps=3, name=name)
    task.multi_label = True
    task.export(tmp_path, merge=True)
    one = batch(name)
    again = load_classifier(tmp_path)
    assert again.multi_label
    with torch.no_grad():
        torch.testing.assert_close(again.logits(one), task.logits(one), rtol=0, atol=1e-5)
        under_another = ClassificationTask(str(tmp_path), classes=["x", "y"])
        under_another.configure_model()
        torch.testing.assert_close(under_another.eval().features(one), task.features(one), rtol=0, atol=1e-5)
    assert under_another.head.out_features == 2


def test_exports_that_cannot_be_loaded(tmp_path):
    with pytest.raises(FedlitError, match=r"holds no classifier\.json"):
        load_classifier(tmp_path)
    tiny().export(tmp_path)
    settings = json.loads((tmp_path / "classifier.json").read_text())
    (tmp_path / "classifier.json").write_text(json.dumps({**settings, "classes": ["x", "y"]}))
    with pytest.raises(FedlitError, match=r"head\.safetensors is not the head"):
        load_classifier(tmp_path)
    (tmp_path / "classifier.json").write_text(json.dumps({**settings, "backbone": BERT}))
    with pytest.raises(FedlitError, match=r"adapter_model\.safetensors does not fit backbone 'some/bert-base'"):
        load_classifier(tmp_path)
    (tmp_path / "head.safetensors").unlink()
    (tmp_path / "classifier.json").write_text(json.dumps(settings))
    with pytest.raises(FedlitError, match=r"head\.safetensors cannot be read"):
        load_classifier(tmp_path)
