"""The page of the ECG study is made from run folders alone."""

import csv
import json

import pytest

from studies.chronos_ecg.page import NAIVE, RULES, collect, comparisons, tables, write

COLUMNS = ["round", "stage", "model", "client", "split", "metric", "value", "num_examples"]


def written(path, models, error):
    """Figures of three clients; an earlier round, validation and means over clients are there too."""
    rows = []
    for model in models:
        for place, client in enumerate(("a", "b", "c")):
            for metric in ("rmse", "mae", "smape"):
                rows.append([0, "start", model, client, "test", metric, 9.0, 4])
                rows.append([2, "after_aggregation", model, client, "test", metric, error(model) + place, 4])
                rows.append([2, "after_local", model, client, "test", metric, 7.0, 4])
                rows.append([2, "after_aggregation", model, client, "val", metric, 8.0, 4])
        rows.append([2, "after_aggregation", model, "mean", "test", "rmse", 6.0, 4])
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])


@pytest.fixture
def runs(tmp_path):
    for seed in (0, 1):
        folder = tmp_path / "steps-5" / f"strategy3-seed{seed}" / "version_0"
        for number, rule in enumerate(RULES):
            own = folder if rule == "FedAvg" else folder / "baselines" / rule
            written(own / "metrics.csv", ["personal", "global"], lambda model, n=number: n + 0.5 * (model == "global"))
            said = {"seconds": 1.5, "versions": {"torch": "2"}, "git_revision": "abc", "precision": "32-true",
                    "labels": ["data: real", "backbone: built-in stand-in"], "rounds": 2}  # fmt: skip
            (own / "summary.json").write_text(json.dumps(said))
        written(folder / "naive.csv", NAIVE, lambda model, s=seed: 10 + 0.1 * s)
        clients = {client: {"windows": {"test": 4}, "kinds": ["icg" if client == "c" else "ecg"]} for client in "abc"}
        (folder / "partition.json").write_text(json.dumps({"clients": clients}))
    (tmp_path / "steps-5" / "strategy1-seed0" / "version_0").mkdir(parents=True)  # one that was cut off
    return tmp_path


def test_the_served_models_last_test_figures_are_collected_by_client(runs):
    found = collect(runs)
    assert [(run["strategy"], run["steps"], run["seed"]) for run in found["runs"]] == [(3, 5, 0), (3, 5, 1)]
    assert found["header"]["data"] == "real"
    assert found["header"]["backbone"] == "built-in stand-in"
    first = found["runs"][0]["rules"]
    assert set(first) == {*RULES, *NAIVE}
    assert {client: own["rmse"] for client, own in first["FedAvg"].items()} == {"a": 2.0, "b": 3.0, "c": 4.0}
    assert first["naive: last value"]["b"] == {"rmse": 11.0, "mae": 11.0, "smape": 11.0}


def test_the_tables_have_the_naive_rows_and_both_modalities(runs):
    text = tables(collect(runs)["runs"])
    assert "seeds 0, 1." in text
    assert "| naive: context mean | 11.0500 ± 0.0707 | 12.0500 ± 0.0707 |" in text
    assert text.splitlines()[-1].endswith("| 4.5000 ± 0.0000 | 6.0000 ± 0.0000 |")


def test_pairs_are_tested_over_clients(runs):
    rows = [line.split(" | ") for line in comparisons(collect(runs)["runs"]).splitlines()[2:]]
    better = {row[1]: (row[2], row[3]) for row in rows}
    assert better["FedAvg against ZeroShot"] == ("+200.00, +200.00 %", "0 of 3")
    assert better["FedAvg against naive: context mean"][1] == "3 of 3"


def test_page_and_json_are_written_by_one_call(runs, tmp_path):
    page = tmp_path / "page.md"
    marks = "".join(
        f"<!-- {name} -->\nold\n<!-- end of {name} -->\nkept {name}\n" for name in ("tables", "comparisons")
    )
    page.write_text(marks)
    write(runs, page)
    text = page.read_text()
    assert "old" not in text
    assert "kept tables" in text
    assert "kept comparisons" in text
    assert json.loads(page.with_suffix(".json").read_text()) == collect(runs)
    write(runs, page)
    assert page.read_text() == text
