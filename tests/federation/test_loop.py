"""What a rule may ask of the round loop: who trains, figures of its own, the scaling of LoRA layers."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from toys import Classifier, Regression, ToyData, contents

from fedlit import tree
from fedlit.aggregators import FedAvg, Stage, Stages
from fedlit.errors import FedlitError
from fedlit.runs.checkpoint import read


@dataclass(frozen=True)
class Ring(FedAvg):
    """One client trains in each round, in turn."""

    def participants(self, clients: Any, round: int) -> Any:  # noqa: A002
        return [clients[round % len(clients)]]


def rows(folder: Any, **wanted: str) -> list[dict[str, str]]:
    with open(folder.path / "metrics.csv") as file:
        return [row for row in csv.DictReader(file) if all(row[k] == v for k, v in wanted.items())]


def who_trained(folder: Any) -> list[tuple[str, str]]:
    return [(row["round"], row["client"]) for row in rows(folder, metric="loss", split="train")]


def test_the_rule_decides_who_trains(fit):
    folder = fit(Ring(), data=ToyData(num_clients=3), max_rounds=4, clients_per_round=2)
    assert who_trained(folder) == [
        ("1", "client-00"), ("2", "client-01"), ("3", "client-02"), ("4", "client-00")
    ]  # fmt: skip
    with open(folder.path / "ledger.csv") as file:
        crossed = {(row["round"], row["client"]) for row in csv.DictReader(file)}
    assert crossed == set(who_trained(folder))


def test_a_stage_decides_for_itself_from_its_own_first_round(fit):
    folder = fit(Stages([Stage(FedAvg(), 2), Stage(Ring(), 1)]), data=ToyData(num_clients=3), max_rounds=4)
    assert who_trained(folder)[6:] == [("3", "client-00"), ("4", "client-01")]


def test_who_trains_in_a_resumed_round_is_who_would_have(fit):
    whole = fit(Ring(), data=ToyData(num_clients=3), max_rounds=4)
    cut = fit(Ring(), data=ToyData(num_clients=3), max_rounds=2)
    resumed = fit(Ring(), data=ToyData(num_clients=3), max_rounds=4, ckpt_path=str(cut.path))
    assert who_trained(resumed) == who_trained(whole)
    assert contents(resumed.path / "checkpoints" / "last") == contents(whole.path / "checkpoints" / "last")


@pytest.mark.parametrize("chosen", [[], ["nobody"], ["client-00", "client-00"]], ids=["none", "unknown", "twice"])
def test_a_choice_that_cannot_be_is_refused(fit, chosen):
    @dataclass(frozen=True)
    class Wrong(FedAvg):
        def participants(self, clients: Any, round: int) -> Any:  # noqa: A002
            return chosen

    with pytest.raises(FedlitError, match=r"Wrong\.participants gives .* for round 1, expected some of the 3 clients"):
        fit(Wrong(), data=ToyData(num_clients=3))


@dataclass(frozen=True)
class Telling(FedAvg):
    """Logs a figure, under a name that may be taken."""

    name: str = "update_norm"

    def aggregate(self, state: Any, updates: Any, server: Any) -> Any:
        mean = server.mean(updates)
        server.log(self.name, tree.sq(mean).sqrt())
        server.log("a_second", torch.tensor(2.0))
        return self.step(state, mean)


def test_figures_of_the_rule_are_rows_and_values_of_loggers(fit, tmp_path):
    logger = CSVLogger(str(tmp_path / "log"), flush_logs_every_n_steps=1)
    start = {name: p.detach().clone() for name, p in Regression().named_parameters()}
    folder = fit(Telling(), logger=logger, max_rounds=1)
    (row,) = rows(folder, metric="update_norm")
    assert {k: row[k] for k in ("round", "stage", "model", "client", "split", "num_examples")} == {
        "round": "1", "stage": "after_aggregation", "model": "global", "client": "server", "split": "train",
        "num_examples": "0",
    }  # fmt: skip
    after = read(folder.path / "checkpoints" / "last").state["params"]
    moved = sum(float((after[n] - start[n]).square().sum()) for n in start) ** 0.5
    assert float(row["value"]) == pytest.approx(moved, rel=1e-5)
    assert [r["value"] for r in rows(folder, metric="a_second")] == ["2.0"]
    with open(f"{logger.log_dir}/metrics.csv") as file:
        logged = [r["train/update_norm"] for r in csv.DictReader(file) if r.get("train/update_norm")]
    assert [float(value) for value in logged] == [float(row["value"])]


def test_figures_of_the_rule_can_be_monitored(fit):
    folder = fit(Telling(), monitor="train/update_norm", max_rounds=3)
    norms = [float(row["value"]) for row in rows(folder, metric="update_norm")]
    assert read(folder.path / "checkpoints" / "best").round == 1 + norms.index(min(norms))


def test_figures_of_the_rule_are_the_same_after_a_resume(fit):
    whole = fit(Telling(), max_rounds=4)
    cut = fit(Telling(), max_rounds=2)
    resumed = fit(Telling(), max_rounds=4, ckpt_path=str(cut.path))
    assert (resumed.path / "metrics.csv").read_bytes() == (whole.path / "metrics.csv").read_bytes()
    assert len(rows(resumed, metric="update_norm")) == 4


@pytest.mark.parametrize("name", ["loss", "bytes", "refused"])
def test_a_figure_may_not_take_the_place_of_the_trainer_s(fit, name):
    with pytest.raises(FedlitError, match=rf"Telling logs '{name}', which is a figure of the trainer's own"):
        fit(Telling(name=name), max_rounds=1)


@pytest.mark.usefixtures("unrehearsed")
@pytest.mark.parametrize(
    ("settings", "factor"),
    [({"rank": 4, "alpha": 8.0}, 2.0), ({"rank": 4, "alpha": 8.0, "use_rslora": True}, 4.0), ({"rank": 0}, None)],
    ids=["alpha / r", "alpha / sqrt(r)", "no adapter"],
)
def test_the_rule_is_told_how_lora_layers_scale(fit, settings, factor):
    seen = []

    @dataclass(frozen=True)
    class Scaled(FedAvg):
        def aggregate(self, state: Any, updates: Any, server: Any) -> Any:
            seen.append(server.scaling)
            return super().aggregate(state, updates, server)

    fit(Scaled(), Classifier(**settings), ToyData(classes=3, features=4), max_rounds=1)
    layers = ("network.first", "network.second")
    assert seen == [{} if factor is None else dict.fromkeys(layers, factor)]


@pytest.mark.usefixtures("unrehearsed")
def test_the_server_knows_how_many_clients_there_are_and_its_losses(fit):
    seen = []

    @dataclass(frozen=True)
    class Asking(FedAvg):
        def aggregate(self, state: Any, updates: Any, server: Any) -> Any:
            seen.append((server.num_clients, len(updates), server.round, server.validate(state["params"])))
            seen.append(server.losses(state["params"]))
            return super().aggregate(state, updates, server)

    data, task = ToyData(num_clients=5, server=True), Regression()
    data.setup()
    batch = data.server_dataset().tensors
    expected = task.losses(batch).detach().double()
    fit(Asking(), task, data, max_rounds=1, clients_per_round=2)
    (clients, updates, index, mean), each = seen
    assert (clients, updates, index) == (5, 2, 0)
    assert mean == pytest.approx(float(expected.mean()), rel=1e-6)
    assert each.dtype == torch.float64
    torch.testing.assert_close(each, expected, rtol=1e-6, atol=1e-7)
