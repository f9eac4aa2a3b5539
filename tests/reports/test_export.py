"""Models of a run as users load them, for rules that change more than the adapter."""

from __future__ import annotations

import copy

import pytest
import torch
from lightning.fabric import Fabric
from peft import PeftModel
from toys import Classifier, ToyData

from fedlit.aggregators.lora_exact import FedExLoRA, FedSALoRA, FFALoRA
from fedlit.backbones import LoRA, load_backbone
from fedlit.data import SimulatedVitals
from fedlit.engine.serial import SerialEngine
from fedlit.errors import FedlitError
from fedlit.runs.checkpoint import read
from fedlit.tasks import ForecastingTask

TOLERANCE = 1e-5


@pytest.fixture
def vitals(tmp_path):
    return SimulatedVitals(tmp_path / "cache", subjects=9, sites=3, seconds=20.0, context_length=128)


def forecast_of_merged(folder, context):
    task = ForecastingTask(str(folder), adapter=None)
    task.configure_model()
    return task.eval().forecast(context)


def test_a_changed_backbone_is_exported_with_its_change(fit, vitals):
    vitals.setup("fit")
    small = vitals.clients[1]
    rule = FedExLoRA(ranks={small: 2})
    task = ForecastingTask(adapter=LoRA(r=4, alpha=64), learning_rate=3e-2)
    folder = fit(rule, task, vitals, max_rounds=2, local_steps=6).path
    state = read(folder / "checkpoints" / "last").state
    fresh = ForecastingTask(adapter=LoRA(r=4, alpha=64))
    fresh.configure_model()
    engine = SerialEngine(fresh, Fabric(accelerator="cpu", devices=1))
    fresh.eval()
    context = torch.sin(torch.arange(128.0) / 9)[None].repeat(2, 1)
    models = {"global": rule.global_model(state)}
    down = rule.down(state, small)
    models[f"clients/{small}"] = rule.personal(down, {})
    for name, model in models.items():
        engine.load(model)
        ours = fresh.forecast(context)
        torch.testing.assert_close(
            forecast_of_merged(folder / "adapters" / name, context), ours, rtol=0, atol=TOLERANCE
        )
        engine.load({n: p for n, p in model.items() if "base_layer" not in n})
        assert (fresh.forecast(context) - ours).abs().max() > 10 * TOLERANCE  # what an adapter alone would have lost
    assert not (folder / "adapters" / "global" / "adapter_config.json").exists()


@pytest.mark.parametrize(("rule", "own"), [(FFALoRA(), False), (FedSALoRA(), True)])
def test_a_client_gets_a_folder_where_its_model_is_its_own(rule, own, fit, vitals):
    folder = fit(rule, ForecastingTask(learning_rate=3e-2), vitals, max_rounds=1, local_steps=1).path / "adapters"
    assert (folder / "global").exists() is not own
    assert (folder / "clients").exists() is own
    for path in folder.glob("clients/*"):
        network = load_backbone("builtin").network
        start = copy.deepcopy(network.state_dict())
        loaded = PeftModel.from_pretrained(network, path).merge_and_unload().state_dict()
        assert any(not torch.equal(loaded[key], value) for key, value in start.items())


def test_a_task_that_would_lose_the_change_is_refused(fit):
    class Exporting(Classifier):
        def export(self, folder):
            folder.mkdir(parents=True)

    data = ToyData(classes=3, features=4)
    fit(FFALoRA(), Exporting(rank=2), data)
    with pytest.raises(FedlitError, match="FedExLoRA changed frozen weights, which Exporting.export would leave out"):
        fit(FedExLoRA(), Exporting(rank=2), data)
