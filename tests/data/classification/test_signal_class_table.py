"""Signals in tables that another table names and labels."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from fedlit.data import IID, BySite, SignalClassTable
from fedlit.data.base.records import BadRecord
from fedlit.errors import FedlitError

pytestmark = pytest.mark.filterwarnings("ignore:.*count as a subject each")
WRITERS = {
    ".csv": lambda table, path: table.to_csv(path, index=False),
    ".csv.gz": lambda table, path: table.to_csv(path, index=False),
    ".tsv": lambda table, path: table.to_csv(path, index=False, sep="\t"),
    ".parquet": lambda table, path: table.to_parquet(path),
    ".jsonl": lambda table, path: table.to_json(path, orient="records", lines=True),
}


def signal(number, samples=200):
    generator = np.random.default_rng(number)
    return pd.DataFrame({name: generator.normal(size=samples).round(4) for name in ("I", "II", "V1")})


def labelled(folder, tables, write=WRITERS[".csv"], ending=".csv", **columns):
    folder.mkdir(parents=True, exist_ok=True)
    for number, table in enumerate(tables):
        write(table, folder / f"rec{number:02d}{ending}")
    rows = {"record": [f"rec{i:02d}" for i in range(len(tables))], "label": list("ab") * (len(tables) // 2)} | columns
    pd.DataFrame(rows).to_csv(folder / "labels.csv", index=False)
    return folder / "labels.csv"


def made(path, **arguments):
    given = {"columns": ["II", "I"], "table_rate": 100.0, "scale": "none", "partition": IID(1)} | arguments
    return SignalClassTable(path, **given)


@pytest.mark.parametrize("ending", WRITERS)
def test_what_pandas_writes_is_read_back(ending, tmp_path):
    tables = [signal(number) for number in range(12)]
    path = labelled(tmp_path, tables, WRITERS[ending], ending)
    data = made(path)
    data.setup()
    assert data.rate == 100
    for number, table in enumerate(tables):
        (example,) = [one for one in data.examples if one.id == f"rec{number:02d}"]
        assert np.array_equal(example.value, table[["II", "I"]].to_numpy(np.float32).T)
        assert example.label == "ab"[number % 2]


def test_sites_subjects_and_folds_of_the_table(tmp_path):
    tables = [signal(number) for number in range(24)]
    marks = {"who": [i // 2 for i in range(24)], "ward": ["A", "B", "A", "B"] * 6}
    marks["part"] = ["train"] * 12 + ["val"] * 6 + ["test"] * 6
    path = labelled(tmp_path, tables, **marks)
    by = {"group_column": "who", "site_column": "ward", "fold_column": "part", "partition": None}
    data = made(path, **by, window_seconds=0.5, rate=50.0)
    about = data.describe()
    assert isinstance(data.usual_partition(), BySite)
    assert data.clients == ["site-A", "site-B"]
    assert about["split"]["rule"] == "fold"
    assert about["official_test_in_training"] == 0
    dataset = data.dataset("site-A", "train")
    assert {name.partition("/")[0] for name in dataset.__getitems__(range(len(dataset)))["id"]} == {
        f"rec{i:02d}" for i in range(0, 12, 2)
    }
    assert dataset.__getitems__([0])["x"].shape == (1, 2, 25)
    assert about["clients"]["site-A"]["cut"] == {"unit": "s", "given": 24.0, "used": 24.0, "records": 0}


def test_each_recording_has_the_rate_of_its_clock_and_missing_rows_are_gaps(tmp_path):
    """A slow wave at 80 to 200 Hz: at 50 Hz they are all the same wave. Rows 100 to 104 of the first are missing."""
    tables = []
    for number in range(12):
        rate = 80 + 10 * number
        clock = np.arange(4 * rate) / rate
        table = pd.DataFrame({"t": clock, "II": np.sin(2 * np.pi * clock), "I": np.cos(2 * np.pi * clock)})
        tables.append(table.drop(index=range(100, 105)) if number == 0 else table)
    path = labelled(tmp_path, tables)
    clocked = {"table_rate": None, "time_column": "t", "time_unit": "s", "rate": 50.0, "window_seconds": 1.0}
    data = made(path, **clocked)
    with pytest.warns(UserWarning, match=r"1 window\(s\) with missing samples and 0 .* of 1 record\(s\): rec00"):
        about = data.describe()
    assert about["clock"]["unit"] == "s"
    assert about["signals"]["gaps"]["rec00"]["samples"] == 10
    assert about["clients"]["client-1"]["windows_left_out"] == {"missing": 1, "flat": 0}
    sine = np.sin(2 * np.pi * np.arange(50) / 50)
    for split in ("train", "val", "test"):
        dataset = data.dataset("client-1", split)
        for value in dataset.__getitems__(range(len(dataset)))["x"].numpy():
            assert value[0, 5:-5] == pytest.approx(sine[5:-5], abs=0.02)
    filled = made(path, **clocked, fill_gaps_seconds=0.1)
    with pytest.warns(UserWarning, match=r"10 missing sample\(s\) in 2 gap\(s\) are filled by straight lines"):
        assert "rec00" not in filled.describe()["signals"]["windows_left_out"]
    back = tables[3].iloc[[*range(50), *range(20, 300)]]
    labelled(tmp_path, [*tables[:3], back, *tables[4:]])
    with pytest.raises(BadRecord, match=r"rec03.csv: time column 't' runs back .*exclude \['rec03'\]"):
        made(path, **clocked).setup()


def test_a_clock_that_nobody_named_is_told(tmp_path):
    tables = [signal(number).assign(time=np.arange(200) / 50) for number in range(12)]
    with pytest.warns(UserWarning, match="12 recording.s. have a column that evidently is a clock.*50 Hz"):
        made(labelled(tmp_path, tables)).setup()


def test_european_csv_files(tmp_path):
    def write(table, path):
        table.to_csv(path, index=False, sep=";", decimal=",", encoding="latin-1")

    tables = [signal(number).rename(columns={"II": "µV II"}) for number in range(12)]
    path = labelled(tmp_path, tables, write)
    pd.read_csv(path).to_csv(path, index=False, sep=";")
    as_table = {"delimiter": ";", "decimal": ",", "encoding": "latin-1"}
    data = made(path, columns=["µV II"], **as_table)
    data.setup()
    assert np.array_equal(data.examples[0].value[0], tables[0]["µV II"].to_numpy(np.float32))
    with pytest.raises(FedlitError, match="labels.csv: no column 'record'.*set data.delimiter to ';'"):
        made(path, columns=["µV II"]).setup()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "rec03.csv").unlink(), "row 4 names .*rec03, and there is no such file"),
        (lambda f: (f / "rec03.tsv").write_text("II\tI\n"), "row 4 names .*there are rec03.csv, rec03.tsv: add the"),
        (lambda f: (f / "rec03.csv").write_text("I,II\n"), "rec03.csv: has no rows"),
        (lambda f: (f / "rec03.csv").write_text("I\n1\n"), "rec03.csv: no column 'II', there are I"),
        (lambda f: (f / "rec03.csv").write_text("I,II\n1,x\n"), "rec03.csv: column 'II' is not all numbers"),
        (lambda f: (f / "rec03.csv").write_text("I,II\n1,2\n1,2\n"), "rec03.csv: every channel is constant"),
        (lambda f: (f / "rec03.csv").write_text("I,II\n1,\n1,\n"), "rec03.csv: channel II has no sample that is not"),
        (lambda f: (f / "rec03.csv").write_text("I,II\n1,2\n,3\n4,5\n"), "rec03.csv: channel I has 1 missing sample"),
        (lambda f: (f / "rec03.csv").write_text("I,II\n1,2\n2,3\n4,5\n"), r"'rec03' is \(2, 3\), the others are"),
    ],
)
def test_recordings_that_are_wrong(change, message, tmp_path):
    path = labelled(tmp_path, [signal(number) for number in range(12)])
    change(tmp_path)
    with pytest.raises(BadRecord, match=rf"{message}.*exclude \['rec03'\]"):
        made(path).setup()
    data = made(path, on_bad_record="skip")
    with pytest.warns(UserWarning, match=r"1 bad record\(s\) skipped"):
        data.setup()
    assert len(data.examples) == 11


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"columns": []}, "data.columns is empty"),
        ({"columns": ["I", "I"]}, "data.columns is I, I: name each column once"),
        ({"table_rate": None}, "data.table_rate is not given: .*or data.time_column"),
        ({"table_rate": 0.0}, "data.table_rate is 0.0"),
        ({"time_column": "I"}, "data.time_column 'I' is in data.columns too"),
        ({"table_rate": None, "time_column": "t"}, "data.rate is not given"),
        ({"time_unit": "ms"}, "data.time_unit has no effect without data.time_column"),
        ({"max_windows": 3}, "data.max_windows needs windows"),
        ({"fill_gaps_seconds": 0.0}, "data.fill_gaps_seconds is 0.0"),
    ],
)
def test_arguments_that_are_none(arguments, message):
    with pytest.raises(FedlitError, match=message):
        made("labels.csv", **arguments)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"time_column": "t", "time_unit": "ms", "window_seconds": 1.0},
        {"delimiter": ";", "decimal": ",", "fold_column": "part", "group_column": "who"},
    ],
)
def test_stand_ins_are_read_back(arguments, tmp_path):
    data = made("absent.csv", columns=["II"], partition=IID(3), **arguments)
    data.use_stand_in(tmp_path)
    assert data.describe()["stand_in"]
    assert all(len(data.dataset(client, split)) for client in data.clients for split in ("train", "val", "test"))
