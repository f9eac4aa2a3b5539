"""One ICG client among nineteen ECG clients: which rule keeps it from being averaged away, at what cost to the others?

Run: python -m studies.chronos_ecg.modality [--data ../shared/data] [--seeds 0 1 2] [--json FILE]
     python -m studies.chronos_ecg.modality --choose     (the share of ModalityMean, on other simulated subjects)

Simulated: 20 subjects of SimulatedVitals, the last with ICG alone. Real, where --data is given: 19 patients of PTB-XL
and one BIOPAC subject, as in strategy 3 of ``strategies.py``. All weights of the built-in stand-in backbone train;
every rule takes the same local steps on the same windows. The JSON file is written after every run.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.workload import header
from fedlit.aggregators import Aggregator, FedAvg, FedProx, LocalOnly, ZeroShot
from fedlit.aggregators.modality import ModalityMean
from fedlit.aggregators.similarity import SimilarityAggregator
from fedlit.data import BySubject, Modality, SignalDataModule, SimulatedVitals
from fedlit.engine.naive import naive_scores
from fedlit.tasks import ForecastingTask
from fedlit.trainer import FederatedTrainer
from studies.chronos_ecg.strategies import ECGAndICG

ROUNDS, STEPS, BATCH, HORIZON = 8, 5, 8, 64
WINDOWS: dict[str, Any] = {"prediction_length": HORIZON, "batch_size": BATCH, "stride": 16, "eval_windows": 32}
SHRINKS = (0.5, 0.3, 0.1, 0.0, 1.0)
MODALITY = "ModalityMean, groups given"


def rules(clients: Sequence[str], kinds: dict[str, str]) -> dict[str, Aggregator]:
    """The rules compared, by the name in the table."""
    return {
        "ZeroShot": ZeroShot(),
        "LocalOnly": LocalOnly(),
        "FedAvg": FedAvg(),
        "FedProx": FedProx(mu=1.0),
        "SimilarityAggregator": SimilarityAggregator(signature="update", distance="frobenius"),
        "ModalityMean, groups found": ModalityMean(),
        MODALITY: ModalityMean(groups={client: kinds[client] for client in clients}),
    }


def make_data(kind: str, seed: int, root: Path | None) -> SignalDataModule:
    """Nineteen ECG clients and one ICG client; simulated subjects differ by seed, real ones by nothing."""
    if kind == "simulated":
        return SimulatedVitals(
            subjects=20, sites=5, seconds=60.0, kinds=["ecg", "icg"], simulation_seed=seed, rate=100.0,
            partition=Modality(BySubject(), "icg"), split="time", context_length=256, seed=seed, **WINDOWS,
        )  # fmt: skip
    assert root is not None
    return ECGAndICG(root, split="time", rate=500.0, context_length=512, seed=seed, **WINDOWS)


def run(rule: Aggregator, data: SignalDataModule, seed: int) -> dict[str, Any]:
    """Final figures of the models that clients serve: root mean squared error by split and client."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = FederatedTrainer(
            rule, max_rounds=ROUNDS, local_steps=STEPS, check_val_every_n_rounds=ROUNDS, gradient_clip_val=1.0,
            evaluate_at=["after_aggregation"], default_root_dir=folder, seed=seed, num_threads=1,
            enable_progress_bar=False,
        )  # fmt: skip
        begin = time.process_time()
        done = trainer.fit(ForecastingTask(adapter=None, learning_rate=1e-3, seed=seed), data)
        out: dict[str, Any] = {"seconds": round(time.process_time() - begin, 1), "val": {}, "test": {}, "groups": []}
        with (done.path / "metrics.csv").open() as file:
            for row in csv.DictReader(file):
                if row["metric"] == "groups":
                    out["groups"].append(int(float(row["value"])))
                of_client = row["metric"] == "rmse" and row["client"] in data.clients
                if of_client and row["model"] == "personal" and row["split"] in out:
                    out[row["split"]][row["client"]] = float(row["value"])
    return out


def naive(data: SignalDataModule) -> dict[str, dict[str, Any]]:
    """Test figures of forecasts without a network, by their names and by client."""
    task, found = ForecastingTask(adapter=None), {}
    for name in ("last value", "context mean", "last period"):
        scores = {client: naive_scores(task, data, client, "test", (name,), None)[0] for client in data.clients}
        found[f"naive: {name}"] = {client: next(iter(own.values()))["rmse"] for client, own in scores.items()}
    return {name: {"seconds": 0.0, "val": {}, "test": test, "groups": []} for name, test in found.items()}


def kinds_of(data: SignalDataModule) -> dict[str, str]:
    """What each client records; the ICG client is the last of the simulated and called so among the real."""
    last = data.clients[-1]
    named = [client for client in data.clients if "icg" in client]
    return {client: "icg" if client == (named[0] if named else last) else "ecg" for client in data.clients}


def means(figures: dict[str, float], kinds: dict[str, str]) -> tuple[float, float]:
    """Mean over the ECG clients, and the ICG client's."""
    ecg = statistics.fmean(value for client, value in figures.items() if kinds[client] == "ecg")
    return ecg, next(value for client, value in figures.items() if kinds[client] == "icg")


def study(
    seeds: Sequence[int], datasets: Sequence[str], root: Path | None, only: Sequence[str] | None, path: Path | None
) -> list[dict[str, Any]]:
    """Every rule on every seed, and forecasts without a network; what the file has else stays."""
    rows: list[dict[str, Any]] = json.loads(path.read_text())["rows"] if path and path.exists() else []
    for seed in seeds:
        for kind in datasets:
            data = make_data(kind, seed, root)
            data.setup()
            kinds = kinds_of(data)
            without = naive(data)
            for name, rule in {**dict.fromkeys(without), **rules(data.clients, kinds)}.items():
                if only and not any(part in name for part in only):
                    continue
                found = without[name] if rule is None else run(rule, make_data(kind, seed, root), seed)
                ecg, icg = means(found["test"], kinds)
                new = {"data": kind, "seed": seed, "rule": name, "ecg": ecg, "icg": icg, **found}
                rows = [row for row in rows if any(row[key] != new[key] for key in ("data", "seed", "rule"))] + [new]
                print(f"{kind} {seed} {name}: ECG {ecg:.4f}, ICG {icg:.4f}, {found['seconds']} s", flush=True)
                if path:
                    path.write_text(json.dumps({"header": about(), "rows": rows}, indent=1) + "\n")
    return rows


def about() -> dict[str, Any]:
    """What was run, for the JSON file."""
    sizes = {"rounds": ROUNDS, "steps": STEPS, **WINDOWS}
    return {**header(), "data": "simulated, and real where a row says so", **sizes}


def table(rows: list[dict[str, Any]]) -> str:
    """Mean and standard deviation over seeds, and the change against FedAvg within each seed, in markdown."""
    lines = []
    for kind in ("simulated", "real"):
        here = [row for row in rows if row["data"] == kind]
        base = {row["seed"]: row for row in here if row["rule"] == "FedAvg"}
        if not base:
            continue
        lines += [f"### {kind.capitalize()}, {len(base)} seeds", ""]
        lines += ["| rule | ECG rmse | against FedAvg | ICG rmse | against FedAvg |", "|---|---|---|---|---|"]
        for name in dict.fromkeys(row["rule"] for row in here):
            mine = [row for row in here if row["rule"] == name and row["seed"] in base]
            cells = [name]
            for part in ("ecg", "icg"):
                values = [row[part] for row in mine]
                spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
                change = ", ".join(f"{100 * (row[part] / base[row['seed']][part] - 1):+.1f}" for row in mine)
                cells += [f"{statistics.fmean(values):.4f}{spread}", f"{change} %"]
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def choose() -> None:
    """Validation error of ModalityMean at some shares of the mean of all, on subjects that the study does not use."""
    data = make_data("simulated", 100, None)
    data.setup()
    kinds = kinds_of(data)
    rule = rules(data.clients, kinds)[MODALITY]
    assert isinstance(rule, ModalityMean)
    for shrink in SHRINKS:
        ecg, icg = means(run(replace(rule, shrink=shrink), make_data("simulated", 100, None), 100)["val"], kinds)
        print(f"shrink {shrink}: validation, ECG {ecg:.4f}, ICG {icg:.4f}", flush=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with ecg_ptbxl_mini and icg_ecg_biopac; none: simulated only")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--rules", nargs="*", help="only those whose name has one of these parts")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--choose", action="store_true")
    parser.add_argument("--only", choices=["simulated", "real"], help="only these data")
    args = parser.parse_args()
    if args.choose:
        choose()
        return
    datasets = [args.only] if args.only else ["simulated", "real"] if args.data else ["simulated"]
    print(table(study(args.seeds, datasets, args.data, args.rules, args.json)))


if __name__ == "__main__":
    main()
