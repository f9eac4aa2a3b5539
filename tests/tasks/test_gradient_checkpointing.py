"""Checkpointed activations: the same run, whatever weights a rule takes its loss at, with less memory."""

from __future__ import annotations

import pytest
import torch
from toys import contents, memories

from fedlit.aggregators import APFL, OrthogonalDualLoRA, PerFedAvg
from fedlit.backbones import LoRA
from fedlit.data import SimulatedImages, SimulatedSignals, SimulatedVitals
from fedlit.tasks import ClassificationTask, ForecastingTask

SMALL = {"subjects": 24, "sites": 2, "per_subject": 2, "mix": 5.0, "batch_size": 4}
KINDS = {
    "stand-in:vit": SimulatedImages,
    "builtin": SimulatedSignals,
}
RULES = [
    APFL(),
    OrthogonalDualLoRA(penalty="representations", local="head"),
    OrthogonalDualLoRA(penalty="rows", gradient="personal", local="head"),
]


def committed(folder):
    """State and what clients keep, after the last round."""
    last = contents(folder.path / "checkpoints" / "last")
    return {name: blob for name, blob in last.items() if name.endswith(".safetensors")} | memories(folder)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{type(rule).__name__}-{getattr(rule, 'penalty', '')}")
@pytest.mark.parametrize("backbone", KINDS)
def test_a_run_gives_the_same_bytes_with_checkpointing(fit, tmp_path, rule, backbone):
    """APFL takes its loss at mixed weights, the others at halves put together: none are the network's own."""
    runs = []
    for on in (False, True):
        task = ClassificationTask(backbone, LoRA(r=4, dropout=0.2), learning_rate=1e-2, gradient_checkpointing=on)
        runs.append(committed(fit(rule, task, KINDS[backbone](**SMALL), default_root_dir=str(tmp_path / str(on)))))
    assert runs[0] == runs[1]
    assert len(runs[0]) == 3


def test_second_derivatives_go_through_checkpoints(fit, tmp_path):
    runs = []
    for on in (False, True):
        task = ClassificationTask("stand-in:vit", LoRA(r=2), gradient_checkpointing=on)
        runs.append(
            committed(fit(PerFedAvg(), task, SimulatedImages(**SMALL), default_root_dir=str(tmp_path / str(on))))
        )
    assert runs[0] == runs[1]


def test_forecasts_too(fit, tmp_path):
    runs = []
    for on in (False, True):
        data = SimulatedVitals(tmp_path / "cache", subjects=6, sites=2, seconds=20.0, context_length=128, batch_size=4)
        task = ForecastingTask(adapter=LoRA(r=2), gradient_checkpointing=on)
        runs.append(committed(fit(APFL(), task, data, default_root_dir=str(tmp_path / str(on)))))
    assert runs[0] == runs[1]


def test_less_is_kept_for_the_backward_pass():
    kept = []
    for on in (False, True):
        task = ClassificationTask("stand-in:vit", LoRA(r=2), classes=["a", "b"], gradient_checkpointing=on)
        task.configure_model()
        task.train()
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, s=sizes: (s.append(t.numel()), t)[1], lambda t: t):
            task.losses({"x": torch.zeros(8, 32, 32, 3, dtype=torch.uint8), "label": torch.zeros(8).long()})
        kept.append(sum(sizes))
        task.eval()
        assert not any(module.training for module in task.loaded_network().modules())
    assert kept[1] < 0.5 * kept[0]
