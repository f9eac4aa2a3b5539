"""How many clients train at once, where that is to be tried out."""

from __future__ import annotations

import json

import pytest
import torch
from toys import Regression, ToyData

from fedlit.aggregators import FedAvg, PerFedAvg
from fedlit.errors import FedlitError
from fedlit.federation import autotune as trial
from fedlit.trainer import FederatedTrainer


class Timed:
    """Stands in for an engine; a group of k takes ``seconds[k]``, or does not fit."""

    def __init__(self, seconds, why=None):
        self.seconds, self.why, self.tried = seconds, why, []

    def why_not(self, rule, work):
        return self.why

    def measure(self, together, rule, work, batch_size):
        self.tried.append(len(work))
        if self.seconds.get(len(work)) is None:
            raise torch.OutOfMemoryError("no room")
        return self.seconds[len(work)]


def fastest(monkeypatch, seconds, count, why=None):
    fake = Timed(seconds, why)
    monkeypatch.setattr(trial, "_seconds", fake.measure)
    return trial.fastest(fake, FedAvg(), [None] * count, 4), fake.tried


def test_numbers_that_are_tried():
    assert [trial.candidates(n) for n in (1, 2, 3, 8, 20)] == [
        [1],
        [1, 2],
        [1, 2, 3],
        [1, 2, 4, 8],
        [1, 2, 4, 8, 16, 20],
    ]


def test_the_least_time_for_a_client_wins(monkeypatch):
    (count, seconds), tried = fastest(monkeypatch, {1: 1.0, 2: 1.2, 4: 2.0, 6: 2.4}, 6)
    assert (count, tried) == (6, [1, 1, 2, 4, 6])
    assert seconds == {1: 1.0, 2: 0.6, 4: 0.5, 6: pytest.approx(0.4)}


def test_a_number_that_is_slower_ends_the_trial(monkeypatch):
    (count, _), tried = fastest(monkeypatch, {1: 1.0, 2: 1.0, 4: 2.8, 8: 0.1}, 16)
    assert (count, tried) == (2, [1, 1, 2, 4])


def test_a_number_that_does_not_fit_ends_the_trial(monkeypatch):
    (count, _), tried = fastest(monkeypatch, {1: 1.0, 2: 1.0}, 16)
    assert (count, tried) == (2, [1, 1, 2, 4])


def test_one_client_that_does_not_fit_is_an_error(monkeypatch):
    with pytest.raises(torch.OutOfMemoryError):
        fastest(monkeypatch, {}, 4)


def test_clients_that_cannot_train_at_once_are_not_tried(monkeypatch):
    (count, seconds), tried = fastest(monkeypatch, {1: 1.0, 2: 0.1}, 4, "a reason")
    assert (count, seconds, tried) == (1, {}, [1])


def test_the_number_is_recorded_and_a_resumed_run_keeps_it(fit, monkeypatch, capsys):
    monkeypatch.setattr(trial, "fastest", lambda *given: (3, {1: 0.5, 3: 0.2}))
    folder = fit(FedAvg(), max_rounds=1, clients_at_once="auto")
    assert "clients at once: 3 (tried, 2 steps of a client: 1: 500 ms, 3: 200 ms)" in capsys.readouterr().out
    assert json.loads((folder.path / "summary.json").read_text())["clients_at_once"] == 3
    monkeypatch.setattr(trial, "fastest", lambda *given: pytest.fail("tried again"))
    resumed = fit(FedAvg(), max_rounds=2, clients_at_once="auto", ckpt_path="last")
    assert json.loads((resumed.path / "summary.json").read_text())["clients_at_once"] == 3
    with pytest.raises(FedlitError, match="clients_at_once: 3 -> 2"):
        fit(FedAvg(), max_rounds=3, clients_at_once=2, ckpt_path="last")


def test_a_trial_changes_nothing(fit):
    def state(**settings):
        folder = fit(FedAvg(), Regression(hidden=4, dropout=0.2), ToyData(num_clients=1), max_rounds=2, **settings)
        return (folder.path / "checkpoints" / "last" / "state.safetensors").read_bytes()

    assert state(clients_at_once="auto") == state(clients_at_once=1)


def test_a_rule_that_trains_one_after_the_other_says_so(fit, capsys):
    fit(PerFedAvg(), max_rounds=1, clients_at_once="auto")
    assert "clients at once: 1\n" in capsys.readouterr().out


@pytest.mark.parametrize("value", [0, True, "most", 1.5])
def test_other_values_are_refused(value):
    with pytest.raises(FedlitError, match=r"trainer\.clients_at_once is .*expected a number or auto"):
        FederatedTrainer(FedAvg(), clients_at_once=value)


def test_a_run_too_short_to_pay_for_compiling_is_not_compiled(fit, capsys):
    folder = fit(FedAvg(), max_rounds=1, clients_at_once=2, compile="auto")
    assert "compile: no (" in capsys.readouterr().out
    with pytest.raises(FedlitError, match="trainer.compile: False -> True"):
        fit(FedAvg(), max_rounds=2, clients_at_once=2, compile=True, ckpt_path=str(folder.path))


@pytest.mark.parametrize(("slower", "compiled"), [(10.0, True), (0.5, False)])
def test_compiling_is_measured(fit, monkeypatch, capsys, slower, compiled):
    class Fake:
        used, why_not = 1, None

    def seconds(together, rule, work, batch_size):
        return 1.0 if together.passes.compiled else slower

    monkeypatch.setattr(trial, "_compiled", lambda trainer: Fake())
    monkeypatch.setattr(trial, "_seconds", seconds)
    monkeypatch.setattr(trial, "LEAST_WARM_UP", 0.0)
    monkeypatch.setattr(
        Fake, "__call__", lambda self, plain, batch, layout, names, values: plain(values), raising=False
    )
    fit(FedAvg(), max_rounds=3, clients_at_once=2, compile="auto")
    assert f"compile: {'yes' if compiled else 'no'} (tried: " in capsys.readouterr().out
