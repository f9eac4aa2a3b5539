"""Hyperparameters out of range are refused by the field's name, when the rule is made."""

from __future__ import annotations

import dataclasses
import inspect

import pytest

import fedlit.aggregators as rules
from fedlit.aggregators import Aggregator, Centralized, FedAdam, FedAvg, FedLA, FedProx, LocalAdaptation, Stage, Stages
from fedlit.errors import FedlitError


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: FedAvg(lr=0), "FedAvg.lr"),
        (lambda: FedAvg(lr=float("nan")), "FedAvg.lr"),
        (lambda: FedAvg(lr=float("inf")), "FedAvg.lr"),
        (lambda: FedAvg(weighting="size"), "FedAvg.weighting"),
        (lambda: FedProx(mu=-1), "FedProx.mu"),
        (lambda: FedProx(mu=float("nan")), "FedProx.mu"),
        (lambda: FedProx(lr=-1), "FedProx.lr"),
        (lambda: FedAdam(lr=0), "FedAdam.lr"),
        (lambda: FedAdam(beta1=1), "FedAdam.beta1"),
        (lambda: FedAdam(beta2=-0.1), "FedAdam.beta2"),
        (lambda: FedAdam(tau=0), "FedAdam.tau"),
        (lambda: FedLA(fedavg_rounds=0), "FedLA.fedavg_rounds"),
        (lambda: FedLA(adapt_rounds=0), "FedLA.adapt_rounds"),
        (lambda: FedLA(mu=-0.5), "FedLA.mu"),
        (lambda: FedLA(weighting="size"), "FedLA.weighting"),
        (lambda: LocalAdaptation(mu=float("inf")), "LocalAdaptation.mu"),
        (lambda: Stages([]), "Stages.stages"),
        (lambda: Stage(FedAvg(), 0), "Stage.rounds"),
        (lambda: Stage(FedAvg(), 1, "lora_("), "Stage.trainable"),
        (lambda: Stages([Stage(Centralized(), 1)]), "Stages.stages"),
    ],
)
def test_refused_by_name(make, field):
    with pytest.raises(FedlitError, match=field.replace(".", r"\.")):
        make()


def test_every_rule_is_a_frozen_dataclass_with_documented_fields():
    for name in rules.__all__:
        cls = getattr(rules, name)
        if (
            not (isinstance(cls, type) and issubclass(cls, Aggregator))
            or inspect.isabstract(cls)
            or name in ("Aggregator", "Staged")
        ):
            continue
        assert dataclasses.is_dataclass(cls), name
        assert cls.__dataclass_params__.frozen, name
        documented = "".join(inspect.getdoc(c) or "" for c in cls.__mro__[:-1])
        for field in dataclasses.fields(cls):
            assert f"{field.name}:" in documented, f"{name}.{field.name} is not documented"
