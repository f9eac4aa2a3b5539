"""Scores of what needs no network: computed where the data are, the same whatever the run is, in no rule's files."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import pytest
import torch
from site_process import OwnData
from toys import Regression, ToyData

from fedlit.aggregators import FedAvg, LocalOnly
from fedlit.engine.serial import SerialEngine
from fedlit.errors import FedlitError
from fedlit.federation.session import labelled
from fedlit.trainer import FederatedTrainer
from fedlit.transports import LocalSites
from fedlit.transports.wire import pack, unpack, unpack_jobs

CLIENTS = ["client-00", "client-01", "client-02"]


class Compared(Regression):
    """A task with predictors that need no network: the mean of the training targets, and 0."""

    def naive(self, training):
        mean = torch.cat([batch[1] for batch in training]).double().mean()
        return {
            "mean target": lambda batch, metrics: metrics.update(mean.expand(len(batch[1])), batch[1]),
            "zero": lambda batch, metrics: metrics.update(torch.zeros_like(batch[1]), batch[1]),
        }


def rows(folder):
    with open(folder.path / "naive.csv", newline="") as file:
        return list(csv.DictReader(file))


def value(folder, model, client, metric="mse"):
    (found,) = [r for r in rows(folder) if (r["model"], r["client"], r["metric"]) == (model, client, metric)]
    assert (found["round"], found["stage"], found["split"]) == ("0", "start", "test")
    return float(found["value"])


def files(folder):
    return {name: (folder.path / name).read_bytes() for name in ("metrics.csv", "ledger.csv", "comparison.csv")}


def test_they_are_scored_on_the_test_data_by_the_tasks_metrics(fit, capsys):
    folder = fit(FedAvg(), task=Compared(), baselines=[LocalOnly()])
    data = ToyData()
    data.setup()
    means = []
    for client in data.clients:
        train, test = ([data.dataset(client, s)[i][1] for i in range(len(data.dataset(client, s)))]
                       for s in ("train", "test"))  # fmt: skip
        mean = sum(map(float, train)) / len(train)
        means.append(sum((float(y) - mean) ** 2 for y in test) / len(test))
        assert value(folder, "naive: mean target", client) == pytest.approx(means[-1], rel=1e-6)
    assert value(folder, "naive: mean target", "mean") == pytest.approx(sum(means) / len(means))
    assert value(folder, "naive: mean target", "worst") == pytest.approx(max(means))
    with open(folder.path / "comparison.csv", newline="") as file:
        compared = list(csv.DictReader(file))
    assert [*compared[0]][2:] == ["naive: mean target", "naive: zero", "LocalOnly", "FedAvg"]
    mean = next(r for r in compared if (r["client"], r["metric"]) == ("mean", "mse"))
    summary = json.loads((folder.path / "summary.json").read_text())
    assert float(mean["naive: mean target"]) == summary["naive"]["naive: mean target"]["mse"]["mean"]
    assert "naive" not in json.loads((folder.path / "baselines" / "LocalOnly" / "summary.json").read_text())
    out = capsys.readouterr().out
    assert "FedAvg beats naive: " in out
    assert ": sent per client" in out
    assert "naive: zero: sent" not in out


def test_nothing_else_changes_where_they_are_off(fit, tmp_path):
    on, off = (fit(FedAvg(), task=Compared(), naive=naive, default_root_dir=str(tmp_path / str(naive)))
               for naive in (True, False))  # fmt: skip
    plain = fit(FedAvg(), default_root_dir=str(tmp_path / "plain"))
    assert not (off.path / "naive.csv").exists()
    assert files(off) == files(plain)
    assert {n: b for n, b in files(on).items() if n != "comparison.csv"} == {
        n: b for n, b in files(off).items() if n != "comparison.csv"
    }
    assert [*json.loads((off.path / "summary.json").read_text())] == [
        name for name in json.loads((on.path / "summary.json").read_text()) if name != "naive"
    ]


def test_scores_are_the_same_however_clients_are_trained_and_after_a_resume(fit, tmp_path):
    one = fit(FedAvg(), task=Compared(), default_root_dir=str(tmp_path / "one"))
    several = fit(FedAvg(), task=Compared(), clients_at_once=2, default_root_dir=str(tmp_path / "two"))
    before = (one.path / "naive.csv").read_bytes()
    assert (several.path / "naive.csv").read_bytes() == before
    longer = fit(FedAvg(), task=Compared(), max_rounds=3, ckpt_path=str(one.path))
    assert (longer.path / "naive.csv").read_bytes() == before


def test_a_run_without_them_is_resumed_with_them(fit):
    short = fit(FedAvg(), task=Compared(), naive=False)
    resumed = fit(FedAvg(), task=Compared(), max_rounds=3, ckpt_path=str(short.path))
    assert value(resumed, "naive: mean target", "client-00") > 0


def test_those_named_are_taken_and_others_refused_before_a_round(fit, tmp_path):
    folder = fit(FedAvg(), task=Compared(), naive=["mean target"])
    assert {r["model"] for r in rows(folder)} == {"naive: mean target"}
    for task, known in ((Compared(), "mean target, zero"), (Regression(), "none")):
        with pytest.raises(FedlitError, match=f"trainer.naive names 'persistence', and this task has: {known}; take"):
            fit(FedAvg(), task=task, naive=["persistence"], default_root_dir=str(tmp_path / known))
        assert not [*(tmp_path / known).rglob("metrics.csv")]


class Apart:
    """Sites that hold one client each; jobs and replies cross as bytes."""

    local = None

    def __init__(self, trainer, folder, jobs=None):
        self.sites = {}
        for client in CLIENTS:
            data = OwnData(client, num_clients=3)
            data.setup()
            engine = SerialEngine(Compared(), trainer.fabric)
            rules = labelled(trainer.aggregator, [])
            self.sites[client] = LocalSites(data, engine, rules, trainer.settings, folder / client)
        self.jobs = jobs

    def describe(self):
        found = [site.describe()[0] for site in self.sites.values()]
        return found if self.jobs is None else [replace(each, jobs=self.jobs) for each in found]

    def run(self, jobs, deadline_s=None):
        for job in jobs:
            (there,) = unpack_jobs(pack([job]))
            yield from unpack(pack(self.sites[job.client].run([there])))


def apart(root, jobs=None):
    trainer = FederatedTrainer(FedAvg(), max_rounds=1, local_steps=1, default_root_dir=str(root), accelerator="cpu",
                               enable_progress_bar=False)  # fmt: skip
    return trainer.fit(Compared(), transport=Apart(trainer, root / "sites", jobs))


def test_sites_elsewhere_give_the_same_scores(fit, tmp_path):
    folder = apart(tmp_path / "apart")
    together = fit(FedAvg(), task=Compared(), data=ToyData(num_clients=3), default_root_dir=str(tmp_path / "together"))
    assert rows(folder) == rows(together)
    assert {r["model"] for r in rows(folder)} == {"naive: mean target", "naive: zero"}


def test_sites_that_know_no_such_jobs_are_not_asked(tmp_path):
    folder = apart(tmp_path, jobs=("train", "evaluate", "export", "predict"))
    assert not (folder.path / "naive.csv").exists()
    assert (folder.path / "comparison.csv").exists()
