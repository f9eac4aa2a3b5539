"""Tables that grow by rounds, versions, and summary rows over clients."""

from __future__ import annotations

import math
import statistics

import pytest

from fedlit.errors import FedlitError
from fedlit.runs.folder import METRICS, RunFolder, Table, last_version, next_version, summary_rows


def test_summary_rows_by_hand():
    rows = summary_rows({"a": (1.0, 10), "b": (4.0, 30), "c": (2.0, 60)}, higher_is_better=False)
    assert rows["mean"] == (pytest.approx(7 / 3), 100)
    assert rows["weighted_mean"] == (pytest.approx((10 + 120 + 120) / 100), 100)
    assert rows["worst"] == (4.0, 30)
    assert rows["std"] == (pytest.approx(statistics.pstdev([1, 4, 2])), 100)


def test_the_worst_depends_on_which_way_the_metric_points():
    values = {"a": (0.2, 5), "b": (0.9, 7)}
    assert summary_rows(values, higher_is_better=True)["worst"] == (0.2, 5)
    assert summary_rows(values, higher_is_better=False)["worst"] == (0.9, 7)


def test_clients_without_a_value_are_left_out():
    rows = summary_rows({"a": (1.0, 10), "b": (math.nan, 99)}, higher_is_better=False)
    assert rows["mean"] == (1.0, 10)
    assert rows["std"] == (0.0, 10)
    nothing = summary_rows({"b": (math.nan, 99)}, higher_is_better=False)
    assert all(math.isnan(value) and count == 0 for value, count in nothing.values())
    assert summary_rows({}, False).keys() == nothing.keys()


def test_an_infinite_value_is_the_worst_and_shows():
    rows = summary_rows({"a": (1.0, 10), "b": (math.inf, 10)}, higher_is_better=False)
    assert rows["worst"] == (math.inf, 10)
    assert rows["mean"][0] == math.inf


def test_tables_keep_every_digit_and_can_be_cut_back(tmp_path):
    table = Table(tmp_path / "metrics.csv", METRICS)
    table.append([])
    header = table.size()
    assert table.path.read_bytes() == (",".join(METRICS) + "\n").encode()
    table.append([(1, "after_local", "personal", "a", "val", "rmse", 0.1 + 0.2, 5)])
    kept = table.size()
    table.append([(2, "after_local", "personal", "a", "val", "rmse", math.nan, 5)])
    table.cut(kept)
    assert [float(row["value"]) for row in table.read()] == [0.1 + 0.2]
    table.cut(header)
    assert table.read() == []
    table.cut(10**9)
    assert table.size() == header


def test_versions(tmp_path):
    assert next_version(tmp_path, "x").name == "version_0"
    for n in (0, 2, 10):
        (tmp_path / "x" / f"version_{n}").mkdir(parents=True)
    (tmp_path / "x" / "version_old").mkdir()
    assert next_version(tmp_path, "x").name == "version_11"
    with pytest.raises(FedlitError, match="no run with a committed round"):
        last_version(tmp_path, "x")
    RunFolder(tmp_path / "x" / "version_2").checkpoints.commit(0, {}, {})
    assert last_version(tmp_path, "x").name == "version_2"


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FedlitError, match="file/run"):
        RunFolder(tmp_path / "file" / "run").make()
    with pytest.raises(FedlitError, match="summary.json"):
        RunFolder(tmp_path / "absent").write_json("summary.json", {})
