"""The tables at the end of a run: who is best where, and what a reader is told beside the figures."""

from __future__ import annotations

import json

import pytest
from toys import ToyData

from fedlit.aggregators import FedAvg, LocalOnly
from fedlit.reports.comparison import comparison
from fedlit.runs.folder import RunFolder


class Metrics:
    def __init__(self, higher_is_better):
        self.higher_is_better = higher_is_better

    def __getitem__(self, name):
        raise KeyError(name)


def rows(**values):
    return [(1, "after_aggregation", "personal", client, "test", "score", v, 5) for client, v in values.items()]


@pytest.mark.parametrize(
    ("higher", "best", "wins"),
    [(True, ["Mine", "Other", "Other Mine"], 1), (False, ["Other", "Mine", "Other Mine"], 1)],
)
def test_best_follows_the_way_that_the_metric_points(tmp_path, capsys, higher, best, wins):
    nan = float("nan")
    results = {"Mine": rows(a=0.9, b=0.2, c=0.5, d=nan), "Other": rows(a=0.1, b=0.3, c=0.5, d=0.4)}
    comparison(results, RunFolder(tmp_path), ["data: SIMULATED"], Metrics(higher))
    out = capsys.readouterr().out
    shown = {
        own[1].strip(): " ".join(name for name, cell in zip(("Other", "Mine"), own[2:4], strict=True) if "*" in cell)
        for own in (line.split("│") for line in out.splitlines() if line.count("│") == 4)
    }
    assert [shown[c] for c in "abc"] == best
    assert shown["d"] == "Other"
    assert f"Mine beats Other in score at {wins} of 3 clients" in out


def test_titles_say_what_the_figures_rest_on(fit, capsys):
    folder = fit(
        FedAvg(), data=ToyData(num_clients=4), baselines=[LocalOnly()], limit_eval_clients=2, limit_eval_batches=1
    )
    out = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for said in ("after the last round", "personal", "clients alike", "one seed: 0", "data: SIMULATED"):
        assert said in out
    limits = ["scored at the first 2 of 4 clients only", "scored on at most 1 batch of each client"]
    assert json.loads((folder.path / "summary.json").read_text())["labels"] == ["data: SIMULATED", *limits]
    assert all(limit in out for limit in limits)


def test_parity_is_said(fit):
    data = ToyData()
    data.parity = True
    (label,) = json.loads((fit(FedAvg(), data=data).path / "summary.json").read_text())["labels"][1:]
    assert label.startswith("parity: ")
