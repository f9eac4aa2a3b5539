"""What a rule is asked before the first round: does it suit the task, and does it trust the server?"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from toys import Classifier, Regression, ToyData

import fedlit.federation.dry_run
from fedlit.aggregators import (
    MOON,
    Aggregator,
    FedAvg,
    FedDAT,
    FedDPA,
    FedMedLoRAPlus,
    FlexLoRA,
    Krum,
    MetaFed,
    ModalityMean,
    MultiKrum,
    OrthogonalDualLoRA,
    QFedAvg,
    Stage,
    Staged,
    Stages,
    TrimmedMean,
    ZeroShot,
)  # fmt: skip
from fedlit.errors import FedlitError
from fedlit.trainer import FederatedTrainer

TRUSTS = "reads each client's update: this rule trusts the server"


class NoFeatures(Regression):
    """Has losses only."""


class NoLosses(Regression):
    losses = None


@pytest.mark.parametrize(
    ("rule", "settings", "message"),
    [
        (Krum(byzantine=1), {}, r"Krum\.byzantine is 1, which takes 5 clients in a round: there are 3.*clients_per"),
        (Krum(byzantine=1), {"clients": 6, "clients_per_round": 4}, r"takes 5 clients in a round: there are 4"),
        (FedMedLoRAPlus(), {}, r"FedMedLoRAPlus: this rule validates on the server, .*data\.server_records"),
        (MOON(), {}, r"MOON: this rule needs features, and NoFeatures gives none: write NoFeatures\.features\(batch\)"),
        (MetaFed(), {}, r"MetaFed: this rule needs features"),
        (QFedAvg(), {"task": NoLosses()}, r"QFedAvg: this rule needs losses, and NoLosses gives none"),
        (ModalityMean(groups={"client-00": "ecg"}), {}, r"ModalityMean\.groups has no group for client 'client-01'"),
        (ModalityMean(groups={f"client-0{i}": "ecg" for i in range(4)}), {}, r"ModalityMean\.groups .*'client-03'"),
        (Aggregator(), {}, r"Aggregator is no whole rule: it has no method `aggregate`"),
        (FlexLoRA(), {}, r"FlexLoRA needs LoRA adapters"),
        (FedDAT(), {"task": Classifier(rank=2), "logits": None}, r"FedDAT: this rule needs logits"),
        (FedDPA(), {"task": Classifier(rank=2), "local_steps": 1}, r"FedDPA .* at least 2 local steps"),
        (OrthogonalDualLoRA(penalty="representations"), {}, r"OrthogonalDualLoRA needs LoRA adapters"),
        (Stages([Stage(FedAvg(), 9), Stage(Krum(byzantine=1), 1)]), {"max_rounds": 12}, r"Krum\.byzantine is 1"),
        (FedAvg(), {"baselines": [ZeroShot(), FedMedLoRAPlus()]}, r"FedMedLoRAPlus: this rule validates on"),
    ],
    ids=lambda x: type(x).__name__ if isinstance(x, Aggregator) else "",
)
def test_refused_before_anything_is_trained_or_written(fit, tmp_path, monkeypatch, rule, settings, message):
    settings = dict(settings)
    task = settings.pop("task", NoFeatures())
    if "logits" in settings:
        monkeypatch.setattr(Classifier, "logits", settings.pop("logits"))
    data = ToyData(settings.pop("clients", 3), features=4 if isinstance(task, Classifier) else 3, classes=0)
    monkeypatch.setattr(type(task), "training_step", lambda *_: pytest.fail("a step was taken"))
    with pytest.raises(FedlitError, match=message) as refused:
        fit(rule, task, data, **settings)
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.rglob("*.yaml")) + list(tmp_path.rglob("*.json"))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_later_stage_that_reads_single_updates(fit, capsys):
    fit(Stages([Stage(FedAvg(), 9), Stage(TrimmedMean(), 1)]), max_rounds=10)
    assert f"Stages {TRUSTS}" in capsys.readouterr().out
    with pytest.warns(UserWarning, match="needs 10 rounds"):
        fit(Stages([Stage(FedAvg(), 9), Stage(TrimmedMean(), 1)]), max_rounds=2)  # it never gets there
    assert TRUSTS not in capsys.readouterr().out


def test_what_is_never_reached_is_not_asked_for(fit):
    with pytest.warns(UserWarning, match="needs 10 rounds"):
        fit(Stages([Stage(FedAvg(), 9), Stage(FedMedLoRAPlus(), 1)]), max_rounds=2)


def test_each_baseline_is_named(fit, capsys):
    fit(TrimmedMean(), baselines=[FedAvg(), TrimmedMean(trim=0.4)])
    said = [line for line in capsys.readouterr().out.splitlines() if TRUSTS in line]
    assert said == [f"TrimmedMean {TRUSTS}", f"TrimmedMean-2 {TRUSTS}"]


@dataclass(frozen=True)
class Sized(FedAvg):
    """Relies on a tensor's true size."""

    def finish(self, w: Any, down: Any, memory: Any, work: Any) -> tuple[Any, Any]:
        update, memory = super().finish(w, down, memory, work)
        return {**update, "net.0.weight": update["net.0.weight"].reshape(6, 5)}, memory

    def aggregate(self, state: Any, updates: Any, server: Any) -> Any:
        return state


def test_a_rule_that_cannot_be_tried_out_is_run_and_it_is_said(fit, capsys):
    fit(Sized(), Regression(features=6, hidden=5), ToyData(features=6))
    assert "Sized may read each client's update" in capsys.readouterr().out


@dataclass(frozen=True)
class Counting(FedAvg):
    seen: list[str] = field(default_factory=list)

    def init(self, params: Any) -> Any:
        self.seen.append(",".join(f"{name} {list(p.shape)}" for name, p in params.items() if "A" in name))
        return super().init(params)


def test_tensors_are_small_and_keep_lora_s_rank(fit):
    rule = Counting()
    fit(rule, Classifier(rank=5, features=9, width=8), ToyData(features=9, classes=3))
    assert any(re.search(r"first\.lora_A\.\S+ \[5, 4\]", text) for text in rule.seen)


def test_a_loss_that_is_made_up_reaches_every_parameter():
    params = {"a": torch.ones(3, requires_grad=True)}
    fedlit.federation.dry_run.Loss(Regression(), params, 0, 1)(params).backward()
    assert params["a"].grad.abs().min() > 0


@pytest.mark.parametrize(
    ("rule", "clients", "steps"),
    [
        (FedAvg(), 2, 1),
        (Krum(byzantine=1), 5, 1),
        (MultiKrum(byzantine=0, select=3), 3, 1),
        (Stages([Stage(Krum(byzantine=2), 1), Stage(FedAvg(), 1)]), 7, 1),
        (FedDPA(), 2, 2),
    ],
)
def test_a_quick_run_has_the_clients_and_steps_that_the_rule_needs(rule, clients, steps):
    trainer = FederatedTrainer(rule, fast_dev_run=True, accelerator="cpu")
    assert (trainer.clients_per_round, trainer.local_steps) == (clients, steps)
    trainer = FederatedTrainer(FedAvg(), baselines=[rule], fast_dev_run=True, accelerator="cpu")
    assert (trainer.clients_per_round, trainer.local_steps) == (clients, steps)


def test_a_base_of_rules_is_refused_in_a_quick_run_too():
    with pytest.raises(FedlitError, match="Staged is no whole rule: it has no method `plan`"):
        FederatedTrainer(Staged(), fast_dev_run=True, accelerator="cpu")


class Misread(FedAvg):
    """Takes a method of the loss for what it gives."""

    def objective(self, loss, w, down, memory):
        return loss(w) + loss.features.square().mean()


def test_what_ended_a_rehearsal_is_said(tmp_path):
    trainer = FederatedTrainer(
        Misread(), max_rounds=1, local_steps=1, default_root_dir=str(tmp_path), accelerator="cpu",
        enable_progress_bar=False,
    )  # fmt: skip
    said = "Misread, tried out .* AttributeError: .*has no attribute 'square'"
    with pytest.warns(UserWarning, match=said), pytest.raises(AttributeError):
        trainer.fit(Classifier(), ToyData(classes=3, features=4))
