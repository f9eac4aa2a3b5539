"""The run folder is a contract: every file, column, stage and summary row of it."""

from __future__ import annotations

import csv
import json
import statistics

import pyarrow.parquet as pq
import pytest
from toys import Regression, ToyData

from fedlit import codec
from fedlit.aggregators import FedAvg, FedLA, LocalOnly, ZeroShot
from fedlit.runs.folder import LEDGER, METRICS, SUMMARY_ROWS


@pytest.fixture
def folder(fit):
    return fit(
        FedLA(fedavg_rounds=2, mu=0.5),
        max_rounds=3,
        evaluate_at=["start", "after_local", "after_aggregation"],
        monitor="val/personal/mse",
        baselines=[ZeroShot(), LocalOnly()],
    )


def table(path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_files(folder):
    here = {p.name for p in folder.path.iterdir()}
    assert here == {
        "metrics.csv",
        "ledger.csv",
        "summary.json",
        "partition.json",
        "checkpoints",
        "baselines",
        "comparison.csv",
    }
    assert {p.name for p in (folder.path / "checkpoints").iterdir()} >= {"last", "best"}
    for name in ("ZeroShot", "LocalOnly"):
        assert (folder.path / "baselines" / name / "summary.json").exists()
    header = (folder.path / "metrics.csv").read_text().splitlines()[0]
    assert header == "round,stage,model,client,split,metric,value,num_examples" == ",".join(METRICS)
    header = (folder.path / "ledger.csv").read_text().splitlines()[0]
    assert header == "round,client,direction,parameters,bytes,dtype" == ",".join(LEDGER)


def test_metrics(folder):
    rows = table(folder.path / "metrics.csv")
    clients = ["client-00", "client-01", "client-02"]
    scored = [r for r in rows if r["metric"] == "mse"]
    found = {(r["round"], r["stage"], r["model"], r["split"]) for r in scored}
    wanted = {("0", "start", m, "val") for m in ("global", "personal")}
    for n in "123":
        wanted |= {(n, "after_local", "personal", "val")}
        wanted |= {(n, "after_aggregation", m, "val") for m in ("global", "personal")}
    wanted |= {("3", "after_aggregation", m, "test") for m in ("global", "personal")}
    assert found == wanted
    for key in wanted:
        group = [r for r in scored if (r["round"], r["stage"], r["model"], r["split"]) == key]
        assert [r["client"] for r in group] == [*clients, *SUMMARY_ROWS]
        values = [float(r["value"]) for r in group[:3]]
        summary = {r["client"]: float(r["value"]) for r in group[3:]}
        assert summary["mean"] == pytest.approx(statistics.fmean(values))
        assert summary["worst"] == max(values)
        assert summary["std"] == pytest.approx(statistics.pstdev(values))
        assert {r["num_examples"] for r in group[:3]} == {"6" if key[3] == "test" else "5"}
    losses = [r for r in rows if r["metric"] == "loss"]
    assert [(r["round"], r["client"]) for r in losses] == [(n, c) for n in "123" for c in clients]
    assert [r["num_examples"] for r in losses[:3]] == ["10", "11", "12"]
    assert {(r["stage"], r["split"], r["model"]) for r in losses} == {("after_local", "train", "personal")}


def test_global_and_personal_models_are_told_apart(folder):
    rows = [r for r in table(folder.path / "metrics.csv") if r["metric"] == "mse" and r["client"] == "mean"]
    value = {(r["round"], r["stage"], r["model"], r["split"]): r["value"] for r in rows}
    shared = ("after_aggregation", "global", "val"), ("after_aggregation", "personal", "val")
    assert len({value["2", *key] for key in shared}) == 1  # the personal model of FedAvg is the global one
    assert len({value["3", *key] for key in shared}) == 2
    assert value["3", *shared[0]] == value["2", *shared[0]]  # the shared model rests while clients adapt
    assert value["3", *shared[1]] == value["3", "after_local", "personal", "val"]  # what adapted is what is served


def test_ledger(folder):
    rows = table(folder.path / "ledger.csv")
    order = [(r["round"], r["client"], r["direction"]) for r in rows]
    assert order == [(n, f"client-0{i}", d) for n in "123" for i in range(3) for d in ("down", "up")]
    task = Regression()
    model = {name: p.detach() for name, p in task.named_parameters()}
    for r in rows:
        stage = "stage0" if r["round"] in "12" else "stage1"
        sent = {stage: {} if stage == "stage1" and r["direction"] == "up" else model}
        assert int(r["bytes"]) == len(codec.encode(sent)), r
        assert int(r["parameters"]) == (4 if sent[stage] else 0)
        assert r["dtype"] == ("F32" if sent[stage] else "none")
    assert table(folder.path / "baselines" / "ZeroShot" / "ledger.csv") == []


def test_summary(folder):
    summary = json.loads((folder.path / "summary.json").read_text())
    fields = {"fedavg_rounds": 2, "adapt_rounds": 10, "mu": 0.5, "weighting": "examples"}
    assert summary["aggregator"] == {"class": "FedLA", **fields}
    assert (summary["rounds"], summary["seed"], summary["clients"], summary["world_size"]) == (3, 0, 3, 1)
    assert summary["simulated_data"] is True
    assert summary["labels"] == ["data: SIMULATED"]
    assert summary["seconds"] > 0
    assert summary["peak_memory_bytes"]["host"] > 1 << 20
    assert {"python", "torch", "lightning", "fedlit"} <= summary["versions"].keys()
    assert "git_revision" in summary
    ledger = table(folder.path / "ledger.csv")
    assert summary["bytes"] == {d: sum(int(r["bytes"]) for r in ledger if r["direction"] == d) for d in ("down", "up")}
    rows = table(folder.path / "metrics.csv")
    for model, metrics in summary["test"].items():
        for metric, by_row in metrics.items():
            for name, value in by_row.items():
                (row,) = [
                    r
                    for r in rows
                    if (r["split"], r["model"], r["metric"], r["client"]) == ("test", model, metric, name)
                ]
                assert float(row["value"]) == value


def test_comparison(folder):
    rows = table(folder.path / "comparison.csv")
    assert list(rows[0]) == ["client", "metric", "ZeroShot", "LocalOnly", "FedLA"]
    mean = next(r for r in rows if (r["client"], r["metric"]) == ("mean", "mse"))
    for name in ("ZeroShot", "LocalOnly"):
        baseline = json.loads((folder.path / "baselines" / name / "summary.json").read_text())
        assert float(mean[name]) == baseline["test"]["personal"]["mse"]["mean"]


def test_partition(folder):
    assert json.loads((folder.path / "partition.json").read_text())["simulated"] is True


def test_two_rules_of_one_class_are_told_apart(fit):
    folder = fit(FedAvg(), baselines=[FedAvg(lr=0.5), FedAvg(lr=0.25)])
    assert {p.name for p in (folder.path / "baselines").iterdir()} == {"FedAvg-2", "FedAvg-3"}


def test_the_global_model_is_not_scored_where_there_is_none(fit):
    rows = table(fit(LocalOnly()).path / "metrics.csv")
    assert {r["model"] for r in rows} == {"personal"}


def test_sampling_and_rare_evaluation(fit):
    folder = fit(FedAvg(), data=ToyData(num_clients=6), clients_per_round=0.5, max_rounds=5, check_val_every_n_rounds=2)
    rows = table(folder.path / "metrics.csv")
    assert {r["round"] for r in rows if r["split"] == "val"} == {"0", "2", "4", "5"}
    chosen = {n: [r["client"] for r in rows if r["metric"] == "loss" and r["round"] == n] for n in "12345"}
    assert all(len(names) == 3 == len(set(names)) for names in chosen.values())
    assert len({tuple(names) for names in chosen.values()}) > 1


def test_predict_writes_the_documented_columns(tmp_path, capsys, monkeypatch):
    """The real task, on stand-ins: fit, then predict and test from its folder."""
    import sys

    from fedlit.cli import main

    monkeypatch.setattr(sys, "argv", ["fedlit"])
    args = [
        "--model",
        "ForecastingTask",
        "--model.backbone",
        "amazon/chronos-bolt-tiny",
        "--data",
        "SimulatedVitals",
        "--trainer.fast_dev_run",
        "true",
        "--trainer.default_root_dir",
        str(tmp_path),
        "--trainer.accelerator",
        "cpu",
        "--trainer.enable_progress_bar",
        "false",
        "--aggregator",
        "FedLA",
        "--aggregator.fedavg_rounds",
        "1",
    ]
    main(["fit", *args])
    folder = tmp_path / "fedlit" / "version_0"
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["model"]["stand_in"] is True
    assert any("stand-in" in label.lower() for label in summary["labels"])
    assert (folder / "adapters" / "global" / "adapter_config.json").exists()
    assert (folder / "config.yaml").exists()
    metrics = {r["metric"] for r in table(folder / "metrics.csv") if r["split"] == "test"}
    assert {"rmse", "mae", "smape", "mase", "wql", "rmse/step_01"} <= metrics
    main(["predict", *args, "--ckpt_path", "last"])
    forecasts = pq.read_table(folder / "forecasts.parquet")
    levels = [f"q0.{i}" for i in range(1, 10)]
    assert forecasts.column_names == ["client", "record", "start", "horizon_step", "target", *levels]
    frame = forecasts.to_pandas()
    assert set(frame["horizon_step"]) == set(range(1, 65))
    assert frame.notna().all().all()
    counts = {
        r["client"]: int(r["num_examples"])
        for r in table(folder / "metrics.csv")
        if r["metric"] == "rmse" and r["split"] == "test"
    }
    assert {c: n // 64 for c, n in frame["client"].value_counts().items()} == {
        c: n for c, n in counts.items() if c not in SUMMARY_ROWS
    }


PEAK = """
import json, sys, torch
torch.set_num_threads(1)
from toys import Regression, ToyData
from fedlit.aggregators import LocalOnly, FedAvg
from fedlit.trainer import FederatedTrainer
clients = int(sys.argv[1])
rule = {"FedAvg": FedAvg(), "LocalOnly": LocalOnly()}[sys.argv[2]]
trainer = FederatedTrainer(rule, max_rounds=1, local_steps=1, default_root_dir=sys.argv[3], accelerator="cpu",
                           enable_progress_bar=False, evaluate_at=["after_aggregation"])
folder = trainer.fit(Regression(features=100, hidden=3000), ToyData(num_clients=clients, examples=1, features=100))
print(json.loads((folder.path / "summary.json").read_text())["peak_memory_bytes"]["host"])
"""


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["FedAvg", "LocalOnly"])
def test_memory_does_not_grow_with_the_number_of_clients(tmp_path, rule):
    """Each client's update has 1.2 MB: 300 of them would be 360 MB."""
    import os
    import subprocess
    import sys
    from pathlib import Path

    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "helpers"), "OMP_NUM_THREADS": "1"}
    peak = {}
    for clients in (100, 300):
        command = [sys.executable, "-c", PEAK, str(clients), rule, str(tmp_path / str(clients))]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        peak[clients] = int(done.stdout.split()[-1])
    assert peak[300] < 1.1 * peak[100], peak


def test_times_are_of_the_rounds_they_name(fit):
    def summary(folder):
        return json.loads((folder.path / "summary.json").read_text())

    rules = {"rule": FedAvg(), "baselines": [LocalOnly()]}
    first = summary(fit(**rules))
    assert first["seconds_from_round"] == 0
    assert summary(fit(**rules, ckpt_path="last")) == first, "a finished rule keeps its times"
    longer = summary(fit(**rules, ckpt_path="last", max_rounds=3))
    assert (longer["rounds"], longer["seconds_from_round"]) == (3, 2)
    path = fit(**rules, ckpt_path="last", max_rounds=3).path / "summary.json"
    path.write_text(json.dumps({**longer, "rounds": 2}))  # as of a run killed in between
    assert summary(fit(**rules, ckpt_path="last", max_rounds=3))["rounds"] == 3
