"""Sounds that a table names; the real recordings where they are at hand."""

from __future__ import annotations

import csv
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import soundfile
from jsonargparse import ArgumentParser

from fedlit.data import IID, BySite, Dirichlet, FederatedDataModule, PairwiseDirichlet
from fedlit.data.base.records import BadRecord
from fedlit.data.classification.tables import SoundTable
from fedlit.errors import FedlitError

SPLITS = ("train", "val", "test")
NAMED = {"path_column": "sound", "label_column": "code", "group_column": "who", "site_column": "ward"} | {
    "fold_column": "part",
    "id_column": "number",
}


def table(folder, count=24, **columns):
    (folder / "wav").mkdir()
    for i in range(count):
        values = 0.5 * np.sin(np.arange(2000) * (0.1 + i / 100))
        soundfile.write(str(folder / "wav" / f"{i}.wav"), values, 4000)
    rows = {"file": [f"wav/{i}.wav" for i in range(count)], "label": list("xy") * (count // 2)}
    pd.DataFrame(rows | columns).to_csv(folder / "index.csv", index=False)
    return folder / "index.csv"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("columns", "arguments"),
    [
        ({}, {"parity": True, "fraction": 0.3}),
        (NAMED, {"partition": BySite(clients=4)}),
        ({"label_separator": ";"}, {"partition": PairwiseDirichlet(6, 0.1)}),
    ],
)
def test_a_stand_in_is_read_back(columns, arguments, tmp_path):
    data = SoundTable("absent", seconds=0.25, **columns, **arguments)
    data.use_stand_in(tmp_path)
    assert data.describe()["stand_in"]
    assert len(data.clients) == getattr(arguments.get("partition"), "clients", 20)
    batch = data.dataset(data.clients, "test").__getitems__([0, 1])
    assert tuple(batch["x"].shape) == (2, 4000)


def test_a_table(tmp_path):
    path = table(tmp_path, who=[i // 2 for i in range(24)], ward=["A"] * 12 + ["B"] * 12)
    data = SoundTable(path, group_column="who", site_column="ward", seconds=0.5, rate=4000, padding="crop")
    data.setup()
    assert isinstance(data.usual_partition(), BySite)
    assert data.clients == ["site-A", "site-B"]
    example = next(e for e in data.examples if e.id == "wav/5.wav")
    assert (example.subject, example.site, example.label, example.rate, example.kind) == ("2", "A", "y", 4000, "audio")
    np.testing.assert_allclose(example.value, 0.5 * np.sin(np.arange(2000) * 0.15), atol=1e-4)
    assert data.config()["folder"] is None
    assert data.config()["seconds"] == 0.5
    moved = tmp_path / "else"
    moved.mkdir()
    path.rename(moved / "index.csv")
    assert len(SoundTable(moved / "index.csv", folder=tmp_path).read()) == 24


def test_tables_that_are_wrong(tmp_path):
    path = table(tmp_path)
    with pytest.raises(FedlitError, match=r"no column 'path', there are file, label: name the file's column"):
        SoundTable(path, path_column="path").setup()
    with pytest.raises(BadRecord, match="'wav/1.wav' has the label 'y', which is no class: there are x, z"):
        SoundTable(path, classes=["x", "z"]).setup()
    (tmp_path / "wav" / "3.wav").write_bytes((tmp_path / "wav" / "3.wav").read_bytes()[:1000])
    with pytest.raises(BadRecord, match=r"3.wav: ends 3044 bytes before the end .* data.exclude \['wav/3.wav'\]"):
        SoundTable(path, partition=IID(1)).setup()
    data = SoundTable(path, partition=IID(1), exclude=["wav/3.wav"], seconds=0.25)
    data.setup()
    assert len(data.examples) == 23
    (tmp_path / "wav" / "3.wav").unlink()
    with pytest.raises(BadRecord, match=r"row 4 names .*3.wav, and there is no such file: mend the path"):
        SoundTable(path).setup()


@pytest.mark.filterwarnings("ignore")
def test_the_real_cries(shared):
    """60 files of 17 instances of the app, counted here without the reader."""
    path = shared / "aud_donateacry" / "index.csv"
    if not path.is_file():
        pytest.skip(f"no {path}")
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    columns = {"group_column": "client", "site_column": "client"}
    data = SoundTable(path, partition=Dirichlet(3, 0.5, min_records=15), **columns)
    description = data.describe()
    assert (len(data.examples), len(rows)) == (60, 60)
    assert {e.subject for e in data.examples} == {row["client"] for row in rows}
    assert Counter(e.label for e in data.examples) == Counter(row["label"] for row in rows)
    assert data.classes == sorted({row["label"] for row in rows})
    assert description["leaks"]["subjects"] == 0
    row = rows[0]
    (example,) = [e for e in data.examples if e.id == row["file"]]
    raw, rate = soundfile.read(str(path.parent / row["file"]), dtype="float32")
    assert (rate, example.value.shape) == (8000, (128000,))
    # Every other sample of what was resampled from 8 kHz is the old one, within the filter's ripple; fades apart.
    middle = slice(8000, 8000 + 2 * (len(raw) - 8000 - 600), 2)
    old = raw[4000 : 4000 + len(example.value[middle])]
    assert np.corrcoef(example.value[middle], old)[0, 1] > 0.999
    # Then it begins anew.
    start = 2 * len(raw)
    np.testing.assert_array_equal(example.value[start : start + 4000], example.value[:4000])


@pytest.mark.filterwarnings("ignore")
def test_the_real_cries_by_the_app_that_sent_them(shared):
    """Who sent too few to split is left out by the partition; the group column is then of no use."""
    path = shared / "aud_donateacry" / "index.csv"
    if not path.is_file():
        pytest.skip(f"no {path}")
    by_app = {"site_column": "client", "partition": BySite(min_records=4)}
    data = SoundTable(path, seconds=1.0, **by_app)
    data.setup()
    counts = Counter(e.site for e in data.examples)
    assert len(data.clients) == sum(count >= 4 for count in counts.values()) > 1
    with pytest.raises(FedlitError, match=r"has 1 group\(s\), a split needs 3"):
        SoundTable(path, seconds=1.0, group_column="client", **by_app).setup()


def test_a_reader_from_a_config():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(FederatedDataModule, "data")
    arguments = {"root": "x.csv", "parity": True, "seconds": 4.0, "padding": "zeros", "label_separator": ";", **NAMED}
    given = {"class_path": "fedlit.data.classification.tables.SoundTable", "init_args": arguments}
    data = parser.instantiate(parser.parse_object({"data": given})).data
    assert type(data) is SoundTable
    assert data.config() | arguments == data.config()
