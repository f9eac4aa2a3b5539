"""Of every rule a run says before the first round whether it trusts the server, and no figure depends on the asking."""

from __future__ import annotations

from typing import Any

import pytest

from fedlit.aggregators import Sealed, Update
from fedlit.transports import admission

TRUSTS = "reads each client's update: this rule trusts the server"

pytestmark = pytest.mark.filterwarnings("ignore:.*to come to its last part")  # these runs are short


def test_it_is_said_of_those_that_sealed_updates_stop(fit, row, monkeypatch, capsys):
    def sealed(*arguments: Any) -> Update:
        return Update(*arguments, sealed=True)

    monkeypatch.setattr(admission, "Update", sealed)
    data, stopped = row.kind.data(num_clients=row.clients), False
    try:
        fit(row.rule, row.kind.task(), data, max_rounds=3, clients_per_round=row.per_round)
    except Sealed:
        stopped = True
    assert (TRUSTS in capsys.readouterr().out) == stopped


def test_the_figures_are_those_of_a_run_without_it(fit, row, monkeypatch):
    def metrics() -> bytes:
        data = row.kind.data(num_clients=row.clients)
        folder = fit(row.rule, row.kind.task(), data, clients_per_round=row.per_round)
        return (folder.path / "metrics.csv").read_bytes()

    first = metrics()
    monkeypatch.setattr("fedlit.federation.loop.rehearse", lambda *_: False)
    assert metrics() == first
