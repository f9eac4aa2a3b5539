"""The table and plots of a sweep, against figures by hand."""

from __future__ import annotations

import csv
import importlib.util
import math
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fedlit.runs.folder import RunFolder
from fedlit.sweep import plots as sweep_plots
from fedlit.sweep.table import (
    Result,
    common_labels,
    groups,
    mean_and_deviation,
    metrics_of,
    named,
    number,
    show,
    title,
    write,
)


def result(rule: str, alpha: str, seed: int, mean: float, run: Path | None = None, **changes: Any) -> Result:
    """A finished run with two clients, ``mean - 0.1`` and ``mean + 0.1``."""
    rows = {"mean": mean, "weighted_mean": mean + 0.01, "worst": mean - 0.1, "std": 0.1}
    summary = {
        "test": {
            "personal": {"loss": rows, "accuracy": rows, "accuracy/step_1": rows},
            "global": {"accuracy": {**rows, "mean": 0.25}},
        },
        "labels": ["data: SIMULATED", "backbone: stand-in"],
        "bytes": {"up": 1_000_000, "down": 2_000_000},
        "rounds": 2,
        "seconds": 3.5,
        "seconds_from_round": 0,
        "clients": 2,
        "simulated_data": True,
        "model": {"class": "T", "backbone": "stand-in"},
        **changes,
    }
    values = {"aggregator": rule, "data.partition.alpha": alpha}
    return Result(values, seed, "finished", run, summary)


def failed(rule: str, alpha: str, seed: int) -> Result:
    return Result({"aggregator": rule, "data.partition.alpha": alpha}, seed, "failed", error="FedAvg: boom (log: x)")


RESULTS = [result("FedAvg", "0.1", 0, 0.5), result("FedAvg", "0.1", 1, 0.7), result("EPFL", "0.1", 0, 0.8),
           failed("EPFL", "0.1", 1)]  # fmt: skip


def test_mean_and_sample_deviation():
    assert mean_and_deviation([0.5, 0.7]) == pytest.approx((0.6, math.sqrt(0.02)))
    assert mean_and_deviation([1.0, 2.0, 4.0]) == pytest.approx((7 / 3, math.sqrt(7 / 3)))
    assert [math.isnan(x) for x in mean_and_deviation([2.0])] == [False, True]
    assert [math.isnan(x) for x in mean_and_deviation([])] == [True, True]
    assert [math.isnan(x) for x in mean_and_deviation([1.0, math.nan])] == [True, True]
    assert mean_and_deviation([1.0, math.inf])[0] == math.inf


def test_seeds_of_a_combination_stand_together():
    one, two = groups(RESULTS)
    assert one.spread("accuracy") == pytest.approx((0.6, 0.1414214), abs=1e-6)
    assert one.spread("accuracy", "worst") == pytest.approx((0.5, 0.1414214), abs=1e-6)
    assert (one.seeds, two.seeds, one.title) == ("2", "1 of 2 (1 failed)", "FedAvg, alpha=0.1")
    assert number(*two.spread("accuracy")) == "0.8000"
    assert number(math.nan) == "-"
    assert named({"model.lr": "0.1", "aggregator": "FedProx(mu=1)", "a.b": "null"}) == "lr=0.1, FedProx(mu=1), b=null"


def test_metrics_of_the_headline_come_first_and_those_of_steps_are_left_out():
    assert metrics_of(RESULTS, ["accuracy", "auroc"]) == ["accuracy", "loss"]
    assert metrics_of([failed("A", "1", 0)]) == []


def test_files_have_the_figures_and_say_what_they_are_of(tmp_path):
    write(RESULTS, ["accuracy"], tmp_path, "study")
    with open(tmp_path / "sweep.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["state"] for row in rows] == ["finished"] * 3 + ["failed"]
    first = rows[0]
    assert (first["aggregator"], first["data.partition.alpha"], first["seed"]) == ("FedAvg", "0.1", "0")
    assert [float(first[f"personal/accuracy/{row}"]) for row in ("mean", "worst", "weighted_mean", "std")] == [
        0.5, 0.4, 0.51, 0.1,
    ]  # fmt: skip
    assert float(first["global/accuracy/mean"]) == 0.25
    about = ("bytes_up", "bytes_down", "rounds", "seconds", "clients", "data", "backbone", "error")
    assert [first[name] for name in about] == ["1000000", "2000000", "2", "3.5", "2", "simulated", "stand-in", ""]
    assert (rows[3]["personal/accuracy/mean"], rows[3]["error"]) == ("", "FedAvg: boom (log: x)")
    text = (tmp_path / "sweep.md").read_text()
    assert "| FedAvg | 0.1 | 0.6000 ± 0.1414 | 0.5000 ± 0.1414 | 3 | 2 |" in text
    assert "| EPFL | 0.1 | 0.8000 | 0.7000 | 3 | 1 of 2 (1 failed) |" in text
    assert "- FedAvg: boom (log: x)" in text
    for said in ("the model each client serves (personal)", "after the last round", "all clients alike", "seeds 0, 1",
                 "sample standard deviation", "data: SIMULATED", "backbone: stand-in"):  # fmt: skip
        assert said in text


def test_figures_of_external_sites_have_columns_of_their_own(tmp_path):
    away = {"external": {"global": {"accuracy": {"mean": 0.3, "worst": 0.2, "weighted_mean": 0.3, "std": 0.1}}}}
    write([result("FedAvg", "1", 0, 0.5, **away), result("LocalOnly", "1", 0, 0.6)], ["accuracy"], tmp_path, "study")
    with open(tmp_path / "sweep.csv", newline="") as file:
        one, other = csv.DictReader(file)
    assert (one["external/accuracy/mean"], one["external/accuracy/worst"]) == ("0.3", "0.2")
    assert other["external/accuracy/mean"] == ""
    text = (tmp_path / "sweep.md").read_text()
    assert "external: the global model on sites that took no part" in text
    assert "| FedAvg | 1 | 0.5000 | 0.4000 | 0.3000 | 3 | 1 |" in text
    assert "| LocalOnly | 1 | 0.6000 | 0.5000 | - | 3 | 1 |" in text
    write(RESULTS, ["accuracy"], tmp_path, "study")
    assert "external" not in (tmp_path / "sweep.md").read_text() + (tmp_path / "sweep.csv").read_text()


def test_one_seed_has_no_spread():
    assert "one seed: 0" in title(RESULTS[:1])


def test_labels_that_differ_are_said_row_by_row(tmp_path):
    mixed = [*RESULTS, result("FedAvg", "1", 0, 0.5, labels=["data: real", "backbone: stand-in"])]
    assert common_labels(mixed) == (["backbone: stand-in"], True)
    write(mixed, ["accuracy"], tmp_path, "study")
    text = (tmp_path / "sweep.md").read_text()
    assert "other labels differ between rows" in text
    assert "| FedAvg | 1 | 0.5000 | 0.4000 | 3 | 1 | data: real |" in text


def test_the_table_fits_80_columns_and_reads_text_as_it_is(capsys):
    odd = [result("FedAvg", "[red]", 0, 0.5), *RESULTS]
    show(odd, ["accuracy", "loss"], Console(width=80))
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert "[red]" in out
    assert "0.6000 ± 0.1414" in out
    assert "loss" not in out
    show(odd, ["accuracy", "loss"], Console(width=140))
    assert "loss" in capsys.readouterr().out


def test_without_any_finished_cell_there_is_still_a_table(tmp_path):
    write([failed("EPFL", "0.1", 1)], [], tmp_path, "study")
    assert "0 of 1 (1 failed)" in (tmp_path / "sweep.md").read_text()


# -- plots -----------------------------------------------------------------------------------------------------------
@pytest.fixture
def drawn(tmp_path):
    """Two rules, two alphas, two seeds, with run folders."""
    out = []
    for rule, sent in (("FedAvg", 10**6), ("LocalOnly", 0)):
        for alpha in ("0.1", "10"):
            for seed in (0, 1):
                run = tmp_path / f"{rule}-{alpha}-{seed}"
                run.mkdir()
                mean = 0.5 + 0.2 * seed
                rows = [
                    (r, "after_aggregation", model, client, split, "accuracy", value, 5)
                    for r in (0, 2)
                    for model in ("personal", "global")
                    for split in ("val", "test")
                    for client, value in (("a", mean - 0.1 * r / 2), ("b", mean + 0.1 * r / 2), ("mean", mean))
                ]
                RunFolder(run).metrics.append(rows)
                out.append(result(rule, alpha, seed, mean, run, bytes={"up": sent, "down": 0}))
    return out


def test_only_numbers_that_vary_are_an_axis(drawn):
    assert sweep_plots.numeric(groups(drawn)) == ["data.partition.alpha"]
    assert sweep_plots.numeric(groups(RESULTS)) == []
    assert sweep_plots.numeric(groups([result("A", "null", 0, 1.0), result("A", "1", 0, 1.0)])) == []


def test_scores_of_clients_are_those_of_the_last_round(drawn):
    assert sweep_plots.of_clients(drawn[1], "accuracy") == pytest.approx([0.6, 0.8])
    assert sweep_plots.of_clients(failed("A", "1", 0), "accuracy") == []


def test_plots_are_written_and_show_the_figures(drawn, tmp_path):
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    paths = sweep_plots.draw([*drawn, failed("EPFL", "0.1", 0)], "accuracy", True, tmp_path)
    assert [path.name for path in paths] == ["sweep_data.partition.alpha.png", "sweep_bytes.png", "sweep_clients.png"]
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in paths)
    figure = sweep_plots._against(Figure, groups(drawn), "data.partition.alpha", "accuracy", "accuracy")
    mean, worst = figure.axes
    lines = [container.lines[0] for container in mean.containers]
    assert [list(line.get_xdata()) for line in lines] == [[0.1, 10.0]] * 2
    assert list(lines[0].get_ydata()) == pytest.approx([0.6, 0.6])
    assert list(worst.containers[0].lines[0].get_ydata()) == pytest.approx([0.5, 0.5])
    assert mean.get_xscale() == "log"
    sent = sweep_plots._bytes(Figure, groups(drawn), "accuracy", "accuracy").axes[0]
    assert [float(container.lines[0].get_xdata()[0]) for container in sent.containers] == [1.0, 1.0]
    assert "LocalOnly, alpha=0.1 (sends nothing)" in sent.get_legend_handles_labels()[1]


def test_looks_do_not_repeat_soon():
    looks = [tuple(sweep_plots._look(i).values()) for i in range(24)]
    assert len(set(looks)) == 24


def test_without_matplotlib_nothing_is_drawn(drawn, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert sweep_plots.draw(drawn, "accuracy", True, tmp_path) is None
    assert not list(tmp_path.glob("*.png"))
