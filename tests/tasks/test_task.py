"""The contract of a task: optional members, and constructor arguments in the fingerprint."""

from __future__ import annotations

import inspect
import json

import lightning
import pytest
import torch
from colours import CLASSES
from toys import Regression

from fedlit.backbones import LoRA
from fedlit.errors import FedlitError
from fedlit.tasks import ClassificationTask, ForecastingTask, InstructionTask, Task, TokenClassificationTask
from fedlit.tasks.task import arguments, member

METHODS = ("num_targets", "features", "logits", "prediction_columns", "export", "describe", "losses", "take_data")
TASKS = {
    ForecastingTask: {},
    ClassificationTask: {},
    TokenClassificationTask: {"backbone": "stand-in:bert"},
    InstructionTask: {"backbone": "stand-in:llama"},
}
OTHER_VALUES = {
    "backbone": "stand-in:gpt2", "adapter": LoRA(r=3), "prediction_length": 48, "learning_rate": 0.5,
    "season_length": 24, "weight_decay": 0.5, "schedule": ("constant", "linear"), "warmup": 0.25,
    "optimizer": lambda parameters: torch.optim.SGD(parameters, 0.5), "seed": 7, "gradient_checkpointing": True,
    "rmse_reduction": "batch_mean", "classes": CLASSES, "loss": "focal", "gamma": 0.5, "class_weights": "balanced",
    "max_length": 99, "channels": 2, "schema": "clinical", "relation_ends": "concept", "frozen": ["layer"],
    "together": "joint", "format": "json", "relations": "focus", "crossing": "drop", "wording": "brief",
    "lists": "asked",
    "given": "predicted", "loss_on": "both", "packing": True, "chat_template": True, "max_new_tokens": 9,
    "validation": "loss", "quantization": "nf4", "dtype": "bfloat16", "start_from": "somewhere",
    "prompt_date": "2030-05-08", "max_without_answer": 0.9,
    "schedule_over": "run", "schedule_interval": "round", "min_learning_rate": 1e-5,
}  # fmt: skip
TOGETHER_WITH = {"schedule_interval": {"schedule_over": "run"}}
CASES = [(cls, name) for cls in TASKS for name in arguments(cls)]


class Quiet(Task):
    """A task with nothing but what it must have."""


class Talkative(Task):
    def __init__(self, size=3, *, factor: float = 1.0, **kwargs):
        super().__init__(**kwargs)
        self.size, self.factor = size, factor

    def num_targets(self, batch):
        return 5

    def describe(self):
        return {"size": self.size}


class Forgetful(Talkative):
    def __init__(self, spin=1, **kwargs):
        super().__init__(**kwargs)


def test_members_left_at_their_default_are_none():
    assert {name: member(Quiet(), name) for name in METHODS} == dict.fromkeys(METHODS)
    task = Talkative()
    assert member(task, "num_targets")({}) == 5
    assert member(task, "describe")() == {"size": 3}
    assert member(task, "export") is None


def test_attributes_left_at_their_default_have_it():
    task = Quiet()
    assert (member(task, "tally"), member(task, "gradient_checkpointing")) == (None, False)
    assert member(task, "prediction_file") == "predictions.parquet"
    task.gradient_checkpointing = True
    assert member(task, "gradient_checkpointing")
    assert member(ForecastingTask(), "prediction_file") == "forecasts.parquet"
    assert member(InstructionTask("stand-in:llama"), "tally").rows == {}


def test_a_module_that_is_no_task_is_asked_in_the_same_way():
    plain = Regression()
    assert {name: member(plain, name) for name in ("export", "num_targets", "tally", "take_data")} == {
        "export": None, "num_targets": None, "tally": None, "take_data": None,
    }  # fmt: skip
    assert not member(plain, "gradient_checkpointing")
    plain.export = lambda folder: folder
    assert member(plain, "export")(3) == 3
    plain.export = None
    assert member(plain, "export") is None


def test_a_member_that_no_task_declares_is_a_mistake_of_the_caller():
    with pytest.raises(AttributeError):
        member(lightning.LightningModule(), "nonsense")


@pytest.mark.parametrize("cls", TASKS)
def test_every_member_of_the_contract_is_declared_with_a_default(cls):
    declared = {name for name in Task.__annotations__ | vars(Task) if not name.startswith("_")}
    asked = {"val_metrics", "test_metrics", "prediction_file", "tally", "gradient_checkpointing", *METHODS}
    assert asked <= declared
    for name in set(METHODS) - {"num_targets"}:  # absent where examples count
        ours, theirs = (inspect.signature(getattr(owner, name)) for owner in (Task, cls))
        assert list(ours.parameters) == list(theirs.parameters)


def test_arguments_are_those_of_the_signature_and_what_it_passes_on():
    assert arguments(Forgetful) == ["spin", "size", "factor"]
    assert Talkative(2, factor=0.5).config() == {"size": 2, "factor": 0.5}
    assert Quiet().config() == {}


def test_an_argument_that_is_not_kept_is_refused():
    with pytest.raises(FedlitError, match="Forgetful takes 'spin' and keeps no attribute of that name"):
        Forgetful().config()


@pytest.mark.parametrize(("cls", "name"), CASES)
def test_another_value_of_any_argument_is_another_fingerprint(cls, name):
    usual = {"adapter": LoRA()} | TASKS[cls] | TOGETHER_WITH.get(name, {})
    value = OTHER_VALUES[name]
    if isinstance(value, tuple):
        value = next(v for v in value if v != getattr(cls(**usual), name))
    here, there = cls(**usual).config(), cls(**(usual | {name: value})).config()
    assert {key for key in here.keys() | there.keys() if here[key] != there[key]} == {name}
    assert json.loads(json.dumps(there)) == there


@pytest.mark.parametrize("cls", TASKS)
def test_arguments_that_came_later_have_the_value_of_runs_without_them(cls):
    added = cls.added_arguments
    later = {"warmup": 0.0, "schedule_over": "round", "schedule_interval": "step", "min_learning_rate": 0.0}
    assert later.items() <= added.items()
    assert added.items() <= cls(**TASKS[cls]).config().items()


def test_shared_arguments_that_do_not_exist_are_refused():
    with pytest.raises(TypeError, match="lerning_rate"):
        ForecastingTask(lerning_rate=1.0)
