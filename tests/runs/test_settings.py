"""Settings of a run: which a resume must repeat, what is refused, and that the trainer has them all."""

from __future__ import annotations

import inspect
from dataclasses import FrozenInstanceError, fields

import pytest

from fedlit.aggregators import FedAvg
from fedlit.compression import Int8, TopK
from fedlit.errors import FedlitError
from fedlit.runs.settings import RunSettings
from fedlit.runs.stragglers import Stragglers
from fedlit.trainer import FederatedTrainer

NOT_REPEATED = {"max_rounds", "min_replies", "deadline_s", "naive", "name", "default_root_dir"}
"""A run may be made longer, waited for differently, compared with more, and moved."""
ELSEWHERE = {
    "self", "aggregator", "baselines", "logger", "callbacks", "enable_progress_bar", "accelerator", "devices",
    "num_nodes", "strategy",
}  # fmt: skip
"""The rules have a part of the fingerprint each; the others change no figure."""


def test_every_argument_of_the_trainer_is_a_setting_or_known_to_change_no_figure():
    arguments = inspect.signature(FederatedTrainer.__init__).parameters
    assert {f.name for f in fields(RunSettings)} == arguments.keys() - ELSEWHERE
    for f in fields(RunSettings):
        if f.name not in ("num_threads", "evaluate_at"):
            assert f.default == arguments[f.name].default, f.name


def test_a_resume_must_repeat_all_that_changes_figures():
    assert RunSettings().resumable.keys() == {f.name for f in fields(RunSettings)} - NOT_REPEATED


def test_settings_do_not_change():
    with pytest.raises(FrozenInstanceError):
        RunSettings().max_rounds = 3


def test_the_trainer_gives_its_settings_by_name():
    trainer = FederatedTrainer(FedAvg(), accelerator="cpu", max_rounds=3, compression=Int8())
    assert (trainer.max_rounds, trainer.local_epochs, trainer.compression) == (3, 1.0, [Int8()])
    with pytest.raises(AttributeError, match="FederatedTrainer has no attribute 'max_round'"):
        _ = trainer.max_round


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"min_replies": 0}, r"trainer\.min_replies is 0, expected a whole number from 1, or a share"),
        ({"min_replies": 1.5}, r"trainer\.min_replies is 1\.5"),
        ({"deadline_s": 0}, r"trainer\.deadline_s is 0, expected above 0"),
        ({"local_steps": 1, "local_epochs": 1.0}, "are both given: choose one"),
        ({"compression": [Int8(), TopK(0.2)]}, "Int8, which sends no values that could be compressed further"),
        ({"precision": "8"}, r"trainer\.precision is '8', expected one of"),
    ],
)
def test_what_is_out_of_range_is_refused_by_name(given, message):
    with pytest.raises(FedlitError, match=message):
        RunSettings(**given)
    with pytest.raises(FedlitError, match=message):
        FederatedTrainer(FedAvg(), **given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"drop_out": 1.5}, r"stragglers\.drop_out is 1\.5, expected a number from 0 to 1"),
        ({"drop_out": {"a": 0.5, "b": -0.1}}, r"stragglers\.drop_out is -0\.1"),
        ({"delay_s": -1.0}, r"stragglers\.delay_s is -1\.0, expected a number at least 0"),
    ],
)
def test_stragglers_out_of_range(given, message):
    with pytest.raises(FedlitError, match=message):
        Stragglers(**given)


@pytest.mark.parametrize("delay", [2.0, {"a": 0.0, "*": 1.0}])
def test_a_delay_that_no_deadline_looks_at_is_told(delay):
    with pytest.warns(UserWarning, match="delay_s changes nothing without a deadline: set trainer.deadline_s"):
        RunSettings(stragglers=Stragglers(delay_s=delay))


@pytest.mark.parametrize(
    "given", [{"deadline_s": 1.0, "stragglers": Stragglers(delay_s=2.0)}, {"stragglers": Stragglers(0.5)}]
)
def test_stragglers_that_count_are_not_warned_of(given, recwarn):
    RunSettings(**given)
    assert not recwarn.list
