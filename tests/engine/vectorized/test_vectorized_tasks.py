"""Every task and stand-in, several clients at once against one after the other: LoRA, and the network whole."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import pytest
import torch

from fedlit import data, tree
from fedlit.aggregators import FedAvg
from fedlit.backbones import LoRA
from fedlit.engine.vectorized.passes import SharedPasses
from fedlit.runs.checkpoint import read
from fedlit.tasks import ClassificationTask, ForecastingTask, InstructionTask, TokenClassificationTask

pytestmark = pytest.mark.filterwarnings("ignore")

BOUND = 3e-6
"""In float32; a network that takes another client's values is wrong by 1e-3 and more."""


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.1)  # AdamW would blow up what is nothing but rounding


def forecasting(adapter: Any) -> tuple[Any, Any]:
    task = ForecastingTask("builtin", adapter, optimizer=sgd, schedule="constant", prediction_length=16)
    return task, data.SimulatedVitals(prediction_length=16, context_length=64)


def classification(backbone: str, source: str) -> Any:
    return lambda adapter: (
        ClassificationTask(backbone, adapter, optimizer=sgd), getattr(data, source)(batch_size=4)
    )  # fmt: skip


def tags(adapter: Any) -> tuple[Any, Any]:
    task = TokenClassificationTask("stand-in:bert", adapter, optimizer=sgd, schedule="constant")
    return task, data.SimulatedNotes(batch_size=2)


def notes(adapter: Any, **arguments: Any) -> tuple[Any, Any]:
    task = InstructionTask(
        "stand-in:llama", adapter, optimizer=sgd, schedule="constant", validation="loss", **arguments
    )
    return task, data.SimulatedNotes(batch_size=2)


TASKS = {
    "forecasting": forecasting,
    "vit": classification("stand-in:vit", "SimulatedImages"),
    "dinov2": classification("stand-in:dinov2", "SimulatedImages"),
    "bert": classification("stand-in:bert", "SimulatedTexts"),
    "roberta": classification("stand-in:roberta", "SimulatedTexts"),
    "wav2vec2": classification("stand-in:wav2vec2", "SimulatedSounds"),
    "ast": classification("stand-in:ast", "SimulatedSounds"),
    "signals": classification("builtin", "SimulatedSignals"),
    "tags": tags,
    "notes": notes,
}
TEXTS = ("bert", "roberta", "tags", "notes")
"""Filled up to the longest text of all clients together: other numbers are dropped than one after the other."""


def adapter(name: str, way: str) -> LoRA | None:
    return LoRA(r=4, dropout=0.0 if name in TEXTS else 0.1) if way == "lora" else None


def trained(make: Any, at_once: int, root: Any, monkeypatch: Any) -> tuple[dict[str, torch.Tensor], int, str]:
    from fedlit.trainer import FederatedTrainer

    folded, real = [], SharedPasses.folded
    monkeypatch.setattr(SharedPasses, "folded", lambda *given: (real(*given), folded.append(1))[0])
    torch.manual_seed(0)
    task, source = make()
    trainer = FederatedTrainer(
        FedAvg(), max_rounds=1, local_steps=2, clients_per_round=3, limit_eval_clients=1, limit_eval_batches=1,
        accelerator="cpu", default_root_dir=str(root), enable_progress_bar=False, clients_at_once=at_once,
        evaluate_at=["after_aggregation"],
    )  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()) as out:
        trainer.fit(task, source)
    monkeypatch.setattr(SharedPasses, "folded", real)
    state = read(trainer.folder.path / "checkpoints" / "last").state
    return tree.flatten(state), len(folded), out.getvalue()


APART = [("forecasting", "whole"), ("signals", "whole")]
"""Chronos-Bolt looks up its positions' distances in a table that trains with it, once for all rows."""
WHOLE = ("vit", "dinov2", "bert", "roberta", "tags")
CASES = [(task, "lora") for task in TASKS] + [(task, "whole") for task in WHOLE]


@pytest.mark.parametrize(("name", "way"), CASES, ids=[f"{name}-{way}" for name, way in CASES])
def test_tasks(name, way, tmp_path, monkeypatch):
    make = lambda: TASKS[name](adapter(name, way))  # noqa: E731
    one, none, _ = trained(make, 1, tmp_path / "one", monkeypatch)
    several, folded, told = trained(make, 3, tmp_path / "several", monkeypatch)
    assert none == 0
    assert "one after the other" not in told, told
    assert folded >= 2
    assert one.keys() == several.keys()
    assert max(float((one[n] - several[n]).abs().max()) for n in one) <= BOUND


@pytest.mark.parametrize(("name", "way"), APART, ids=[f"{name}-{way}" for name, way in APART])
def test_networks_that_train_one_after_the_other(name, way, tmp_path, monkeypatch):
    make = lambda: TASKS[name](adapter(name, way))  # noqa: E731
    one, _, _ = trained(make, 1, tmp_path / "one", monkeypatch)
    several, folded, told = trained(make, 3, tmp_path / "several", monkeypatch)
    assert folded == 0
    assert "one after the other: an input has" in told
    assert all(torch.equal(one[n], several[n]) for n in one)


def test_packed_notes_train_one_after_the_other(tmp_path, monkeypatch):
    make = lambda: notes(LoRA(r=4), packing=True)  # noqa: E731
    one, _, _ = trained(make, 1, tmp_path / "one", monkeypatch)
    several, folded, told = trained(make, 3, tmp_path / "several", monkeypatch)
    assert folded == 0
    assert "one after the other: a row of the network holds several examples" in told
    assert all(torch.equal(one[n], several[n]) for n in one)
