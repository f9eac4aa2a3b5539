"""PTB-XL's records by diagnosis."""

from __future__ import annotations

import csv
from collections import Counter

import numpy as np
import pytest
from jsonargparse import ArgumentParser

from fedlit.data import IID, BySite, FederatedDataModule, PairwiseDirichlet
from fedlit.data.base.records import BadRecord
from fedlit.data.classification.ptbxl import SUPERCLASSES, PTBXLClasses
from fedlit.data.signals.ptbxl import read_statements, write_database
from fedlit.errors import FedlitError

SPLITS = ("train", "val", "test")
ROWS = [
    # patient, statements, and what follows: superclass, with parity, superclasses, with likelihood from 50
    (1, "{'NORM': 80.0, 'SR': 0.0}", "NORM", "NORM", "NORM", "NORM"),
    (1, "{'SR': 0.0, 'NORM': 100.0}", "NORM", "NORM", "NORM", "NORM"),
    (2, "{'IMI': 35.0, 'LVH': 100.0, 'NDT': 100.0}", "HYP", "HYP", "MI STTC HYP", "STTC HYP"),
    (3, "{'AFIB': 100.0, 'IMI': 50.0}", "MI", "", "MI", "MI"),
    (4, "{'NDT': 0.0}", "STTC", "STTC", "STTC", ""),
    (5, "{'SR': 0.0, 'AFIB': 0.0}", "", "", "", ""),
    (6, "{'IMI': 100.0}", "MI", "", "MI", "MI"),
    (6, "{'NORM': 100.0}", "NORM", "", "NORM", "NORM"),
    (7, "{'LAFB': 100.0, 'IMI': 100.0, 'SR': 0.0}", "CD", "CD", "MI CD", "MI CD"),
    (8, "{'LAFB': 15.0, 'ABQRS': 100.0}", "CD", "", "CD", ""),
]
CODES = {"NORM": "NORM", "IMI": "MI", "NDT": "STTC", "LAFB": "CD", "LVH": "HYP", "SR": "", "AFIB": "", "ABQRS": ""}


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """A stand-in with 500 Hz records, 40 patients at four sites."""
    folder = tmp_path_factory.mktemp("ptbxl")
    write_database(folder, 4, 10, 500.0, 10.0)
    return folder


@pytest.fixture
def rows(official, tmp_path):
    """``ROWS`` as a data set, over the stand-in's first records."""
    (tmp_path / "records500").symlink_to(official / "records500")
    with (official / "ptbxl_database.csv").open(newline="") as file:
        table = list(csv.DictReader(file))[: len(ROWS)]
    for row, (patient, codes, *_) in zip(table, ROWS, strict=True):
        row |= {"patient_id": float(patient), "scp_codes": codes}
    with (tmp_path / "ptbxl_database.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, table[0])
        writer.writeheader()
        writer.writerows(table)
    lines = [f"{code},{1.0 if name else ''},{name}" for code, name in CODES.items()]
    (tmp_path / "scp_statements.csv").write_text("\n".join([",diagnostic,diagnostic_class", *lines]) + "\n")
    return tmp_path


def test_records_that_are_not_listed_are_told_and_one_that_is_absent_can_be_skipped(rows):
    with pytest.warns(UserWarning, match=r"30 record\(s\) are not in ptbxl_database.csv, and not read: "):
        PTBXLClasses(rows).read()
    table = (rows / "ptbxl_database.csv").read_text().replace("00003_hr", "00999_hr")
    (rows / "ptbxl_database.csv").write_text(table)
    arguments = {"partition": IID(1), "split": "record", "val_fraction": 0.0}
    with pytest.raises(BadRecord, match=r"00999_hr.*exclude \['00003'\]"):
        PTBXLClasses(rows, **arguments).setup()
    data = PTBXLClasses(rows, **arguments, on_bad_record="skip")
    with pytest.warns(UserWarning, match=r"1 bad record\(s\) skipped, 8 kept: 00003"):
        data.setup()


def labels(folder, **arguments):
    return {int(e.id): " ".join(e.labels) for e in PTBXLClasses(folder, rate=500, **arguments).read()}


def expected(column):
    return {i: row[column] for i, row in enumerate(ROWS, 1) if row[column]}


@pytest.mark.filterwarnings("ignore:.*left out")
def test_labels(rows):
    assert labels(rows) == expected(2)
    assert labels(rows, parity=True) == expected(3)
    assert labels(rows, labels="superclasses") == expected(4)
    assert labels(rows, labels="superclasses", min_likelihood=50) == expected(5)
    everything = labels(rows, labels="statements")
    assert everything[3] == "IMI LVH NDT"
    assert everything[6] == "SR AFIB"
    assert len(everything) == len(ROWS)
    assert labels(rows, labels="statements", min_likelihood=1)[1] == "NORM"


def test_what_is_left_out_is_counted(rows):
    data = PTBXLClasses(rows, rate=500)
    with pytest.warns(UserWarning, match=r"1 record\(s\) without a statement that counts are left out: 00006"):
        data.read()
    assert data._left_out == {"00006": "has no statement that counts"}
    data = PTBXLClasses(rows, rate=500, parity=True)
    with pytest.warns(UserWarning, match=r"4 patient\(s\) .* are left out with 5 record\(s\): 00004, 00006, 00007"):
        data.read()


def test_classes_in_the_official_order(official):
    data = PTBXLClasses(official, rate=500, partition=IID(2))
    data.setup()
    assert data.classes == list(SUPERCLASSES) == ["NORM", "MI", "STTC", "CD", "HYP"]
    data = PTBXLClasses(official, rate=500, partition=IID(2), labels="statements")
    data.setup()
    assert data.classes == list(read_statements(official / "scp_statements.csv"))
    batch = data.dataset(data.clients, "train").__getitems__([0, 1, 2])
    assert batch["label"].shape == (3, 6)
    assert batch["label"][:, 5].tolist() == [1, 1, 1]
    assert data.multi_label


def test_whole_records_of_all_or_some_leads(official):
    data = PTBXLClasses(official, rate=250, partition=BySite(min_records=3))
    data.setup()
    assert data.clients == ["site-0", "site-1", "site-2", "site-3"]
    x = data.dataset(data.clients, "train").__getitems__(range(8))["x"].numpy()
    assert x.shape == (8, 12, 2500)
    assert np.abs(x.mean(axis=2)).max() < 1e-5
    assert np.abs(x.std(axis=2) - 1).max() < 1e-4
    some = PTBXLClasses(official, rate=250, partition=BySite(min_records=3), leads=["v1", "II"])
    some.setup()
    assert np.array_equal(some.dataset(some.clients, "train").__getitems__(range(8))["x"].numpy(), x[:, [6, 1]])
    example = data.examples[0]
    assert (example.id, example.subject, example.site, example.kind, example.fold) == (
        ("00001", "10000", "0", "ecg", "train")
    )


def test_windows_of_a_patient_stay_together(official):
    data = PTBXLClasses(official, rate=250, partition=IID(2), window_seconds=1.0)
    description = data.describe()
    sides = {}
    for client in data.clients:
        for split in SPLITS:
            for example in data.dataset(client, split).examples:
                sides.setdefault(example.subject, []).append((client, split))
                assert example.value.shape == (12, 250)
    assert {len(own) for own in sides.values()} == {10}
    assert all(len(set(own)) == 1 for own in sides.values())
    assert description["leaks"] == {"subjects": 0, "duplicates": 0}


@pytest.mark.filterwarnings("ignore:parity")
def test_parity_deals_out_windows_and_reads_a_record_twice_at_most(official, monkeypatch):
    count = Counter()
    read = PTBXLClasses.read_signals

    def counted(self, path):
        count[path] += 1
        return read(self, path)

    monkeypatch.setattr(PTBXLClasses, "read_signals", counted)
    arguments = {"rate": 250, "window_seconds": 1.0, "scale": "window", "fraction": 0.5}
    data = PTBXLClasses(official, parity=True, partition=PairwiseDirichlet(4, 1.0), **arguments)
    description = data.describe()
    assert len(data.examples) == 200
    assert description["leaks"]["subjects"] > 30
    assert max(count.values()) == 2
    assert len(count) == 40
    assert all(example.values.shape == (12, 250) for example in data.examples)
    assert data.config()["scale"] == "window"


def test_the_scale_of_a_record_shows_in_its_windows(official):
    made = {}
    for scale in ("record", "window"):
        data = PTBXLClasses(official, rate=500, partition=IID(2), window_seconds=2.0, scale=scale)
        data.setup()
        made[scale] = data.dataset(data.clients, "train").__getitems__(range(5))["x"].numpy()
    assert np.abs(made["window"].std(axis=2) - 1).max() < 1e-3
    assert np.abs(made["record"].std(axis=2) - 1).max() > 0.01
    # five windows of one record make it up
    joined = made["record"].transpose(1, 0, 2).reshape(12, 5000)
    assert np.abs(joined.std(axis=1) - 1).max() < 1e-4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": "class"}, "data.labels is 'class': give one of superclass, superclasses, statements"),
        ({"min_likelihood": 101}, "data.min_likelihood is 101"),
        ({"leads": ["II", "ii"]}, "data.leads is II, ii: name each channel once"),
    ],
)
def test_arguments_that_are_wrong(arguments, message):
    with pytest.raises(FedlitError, match=message):
        PTBXLClasses("x", **arguments)


@pytest.mark.filterwarnings("ignore:.*left out")
def test_data_that_are_wrong(official, rows):
    with pytest.raises(BadRecord, match=r"no channel 'V9', there are I, II, .*data.exclude"):
        PTBXLClasses(official, rate=500, leads=["V9"]).setup()
    for old, new, message in (
        ("'NDT': 0.0", "'XYZ': 0.0", "'00005' has the label 'XYZ', which is no class: there are NORM, IMI"),
        ("'NDT': 0.0", "'NDT': high", "row of ecg_id 5 cannot be read"),
        ("{'NDT': 0.0}", "[]", "row of ecg_id 5 cannot be read"),
        ("{'NDT': 0.0}", "5", "row of ecg_id 5 cannot be read"),
        ("scp_codes", "codes", "no column 'scp_codes'"),
    ):
        table = rows / "ptbxl_database.csv"
        before = table.read_text()
        assert old in before
        table.write_text(before.replace(old, new, 1))
        with pytest.raises(FedlitError, match=message):
            PTBXLClasses(rows, rate=500, labels="statements", partition=IID(1)).setup()
        table.write_text(before)
    (rows / "records500").unlink()
    with pytest.raises(FedlitError, match="records500 is absent, it is needed for data.rate 500"):
        PTBXLClasses(rows, rate=500).setup()
    (rows / "records500" / "00000").mkdir(parents=True)
    with pytest.raises(BadRecord, match=r"00001_hr.hea: header is absent.*data.exclude"):
        PTBXLClasses(rows, rate=500).setup()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"partition": BySite(clients=20, min_records=10)},
        {"parity": True, "rate": 250, "window_seconds": 1.0, "fraction": 0.2},
        {"parity": True, "rate": 250},
        {"labels": "superclasses", "split": "fold", "server_examples": 10, "partition": IID(4)},
    ],
)
def test_stand_in(tmp_path, arguments):
    data = PTBXLClasses("absent", **arguments)
    data.use_stand_in(tmp_path)
    assert data.describe()["simulated"]
    assert len(data.clients) == getattr(arguments.get("partition"), "clients", 20)
    assert data.classes == list(SUPERCLASSES)
    assert all(len(data.dataset(client, split)) for client in data.clients for split in SPLITS)


def test_from_a_config():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(FederatedDataModule, "data")
    arguments = {"root": "data", "labels": "statements", "min_likelihood": 50.0, "fraction": 0.5, "window_seconds": 2.0}
    made = {"data": {"class_path": "fedlit.data.PTBXLClasses", "init_args": arguments}}
    data = parser.instantiate(parser.parse_object(made)).data
    assert data.config() | arguments == data.config()


@pytest.mark.filterwarnings("ignore:parity")
@pytest.mark.filterwarnings("ignore:.*records100 is absent")
def test_the_real_records(shared):
    """21 records; superclasses as DATASETS.md counts them, of all statements."""
    folder = shared / "ecg_ptbxl_mini"
    if not (folder / "records500").is_dir():
        pytest.skip(f"no {folder}")
    several = PTBXLClasses(folder, labels="superclasses", partition=IID(2))
    several.setup()
    count = Counter(name for example in several.examples for name in example.labels)
    assert count == {"NORM": 18, "STTC": 2, "MI": 1, "CD": 1, "HYP": 1}
    x = several.dataset(several.clients, "train").__getitems__([0])["x"]
    assert x.shape == (1, 12, 1000)
    assert len(PTBXLClasses(folder, labels="statements").read()) == 21
    assert len(read_statements(folder / "scp_statements.csv")) == 71
    parity = PTBXLClasses(folder, parity=True, rate=250, window_seconds=1.0, partition=IID(2, unit="record"))
    parity.setup()
    assert len(parity.examples) == 210
