"""Predictors without a network in a run: scored at clients on the windows of the models, and nothing else changes."""

import csv

import numpy as np
import pytest

from fedlit.aggregators import ZeroShot
from fedlit.data import SimulatedVitals
from fedlit.tasks import ForecastingTask
from fedlit.trainer import FederatedTrainer


def data():
    return SimulatedVitals(
        subjects=12, sites=2, seconds=20.0, rate=50, context_length=64, prediction_length=16, eval_windows=6
    )


def run(folder, **settings):
    trainer = FederatedTrainer(ZeroShot(), max_rounds=1, default_root_dir=str(folder), num_threads=1,
                               enable_progress_bar=False, **settings)  # fmt: skip
    return trainer.fit(ForecastingTask(prediction_length=16), data())


def table(folder):
    with open(folder.path / "comparison.csv") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return [run(tmp_path_factory.mktemp(str(naive)), naive=naive) for naive in (True, False)]


def test_they_are_columns_of_the_comparison_and_of_no_other_file(runs):
    with_them, without = runs
    assert list(table(with_them)[0]) == [
        "client", "metric", "naive: last value", "naive: context mean", "naive: last period", "ZeroShot",
    ]  # fmt: skip
    assert list(table(without)[0]) == ["client", "metric", "ZeroShot"]
    for name in ("metrics.csv", "ledger.csv", "partition.json"):
        assert (with_them.path / name).read_bytes() == (without.path / name).read_bytes()


def test_figures_are_those_of_a_loop_of_its_own(runs):
    module = data()
    module.setup()
    found = {(row["client"], row["metric"]): row for row in table(runs[0])}
    for client in module.clients:
        windows = module.dataset(client, "test")
        batch = windows[0] if not len(windows) else windows.__getitems__(range(len(windows)))
        context, target = batch["context"].numpy().astype(float), batch["target"].numpy().astype(float)
        rmse = {
            "naive: last value": np.sqrt(np.mean((target - context[:, -1:]) ** 2)),
            "naive: context mean": np.sqrt(np.mean((target - context.mean(1, keepdims=True)) ** 2)),
        }
        for name, value in rmse.items():
            assert float(found[client, "rmse"][name]) == pytest.approx(value, rel=1e-6)


def test_the_setting_is_no_part_of_what_a_resume_must_repeat(runs, tmp_path):
    trainer = FederatedTrainer(ZeroShot(), max_rounds=1, default_root_dir=str(runs[1].path.parents[1]), num_threads=1,
                               enable_progress_bar=False, naive=True)  # fmt: skip
    again = trainer.fit(ForecastingTask(prediction_length=16), data(), ckpt_path=str(runs[1].path))
    assert table(again) == table(runs[0])
