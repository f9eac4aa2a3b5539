"""WFDB records to classify by diagnosis or by name."""

from __future__ import annotations

import warnings
from collections import Counter

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from signal_files import write_wfdb

from fedlit.data import IID, BySite, Dirichlet, FederatedDataModule, PairwiseDirichlet
from fedlit.data.base.records import BadRecord
from fedlit.data.classification.wfdb import WFDBLabels
from fedlit.errors import FedlitError

SPLITS = ("train", "val", "test")
THREE = ["I", "II", "V1"]
SMALL = {"channels": THREE, "window_seconds": 2.0, "subject_pattern": "(.+)"}
CODES = ("1", "1,22", "22", "333,1")
PREFIX = "^([A-Z]+)"


@pytest.fixture
def folder(tmp_path):
    """Twelve records of two hospitals, in folders; 333 is in three of them, 4444 in one."""
    for number in range(12):
        codes = CODES[number % 4] + (",4444" if number == 5 else "")
        line = ("Dx: ", "dx:", " Dx:  ")[number % 3] + codes
        write_wfdb(tmp_path / "abc"[number % 3], f"{'EA'[number % 2]}{number:02d}", ["Age: 3", line, "Rx: Unknown"])
    return tmp_path


def labels(data):
    return {example.id: example.labels for example in data.read()}


def test_diagnoses(folder):
    data = WFDBLabels(folder, **SMALL)
    data.setup()
    assert data.classes == ["1", "22", "333", "4444"]
    assert data.clients == ["site-A", "site-E"]
    assert data.multi_label
    assert labels(data)["A05"] == ("1", "22", "4444")
    batch = data.dataset(data.clients, "train").__getitems__(range(10))
    assert batch["x"].shape == (10, 3, 200)
    assert batch["x"].dtype == torch.float32
    for name, row in zip(batch["id"], batch["label"].tolist(), strict=True):
        own = CODES[int(name[1:3]) % 4].split(",") + (["4444"] if name.startswith("A05") else [])
        assert row == [float(code in own) for code in data.classes]


def test_which_diagnoses_are_classes(folder):
    data = WFDBLabels(folder, min_count=3, **SMALL)
    with pytest.warns(UserWarning, match=r"1 diagnoses \(1 times\) are no classes: 4444"):
        found = labels(data)
    assert found["A05"] == ("1", "22")
    assert data.class_names == ["1", "22", "333"]
    data = WFDBLabels(folder, classes=["333", "9"], **SMALL)
    with pytest.warns(UserWarning, match="no record has 9; there are 1, 22, 333, 4444"):
        data.setup()
    assert data.classes == ["333", "9"]
    assert Counter(example.label for example in data.examples) == {"333": 3, "none": 9}
    assert data.config()["classes"] == ["333", "9"]
    with pytest.raises(FedlitError, match="no diagnosis is in data.min_count = 10 records, at most 9: lower it"):
        WFDBLabels(folder, min_count=10, **SMALL).read()


def test_codes_of_one_name_are_one_class(folder):
    named = {"1": "sinus rhythm", "333": "other", "4444": "other", "22": "other"}
    data = WFDBLabels(folder, names=named, **SMALL)
    data.setup()
    assert data.classes == ["other", "sinus rhythm"]
    assert labels(data)["A05"] == ("sinus rhythm", "other")
    assert labels(data)["A03"] == ("other", "sinus rhythm")


@pytest.mark.parametrize("line", ["Dx:", "Dx: ", "Dx: Unknown", "Hx: 1", "Dx: ,"])
def test_records_without_a_diagnosis_are_left_out_and_counted(folder, line):
    write_wfdb(folder, "A99", [line])
    data = WFDBLabels(folder, **SMALL)
    with pytest.warns(UserWarning, match=r"1 record\(s\) without a diagnosis in the header \(Dx\) are left out: A99"):
        data.setup()
    assert data.describe()["excluded"] == [{"record": "A99", "reason": "is without a diagnosis in the header (Dx)"}]


def test_labels_from_names(folder):
    write_wfdb(folder, "A99")
    data = WFDBLabels(folder, label_pattern=PREFIX, partition=IID(2), **SMALL)
    data.setup()
    assert data.classes == ["A", "E"]
    assert not data.multi_label
    assert Counter(example.label for example in data.examples) == {"A": 7, "E": 6}
    batch = data.dataset(data.clients, "train").__getitems__(range(8))
    assert batch["label"].tolist() == [int(name[0] == "E") for name in batch["id"]]
    assert isinstance(data.usual_partition(), Dirichlet)
    assert isinstance(WFDBLabels(folder).usual_partition(), BySite)
    with pytest.raises(BadRecord, match=r"record 'A99' does not match data.label_pattern '\^\(E\)'"):
        WFDBLabels(folder, label_pattern="^(E)", partition=IID(2), **SMALL).read()


def test_sites_and_subjects(folder):
    arguments = SMALL | {"subject_pattern": r"(\d)$", "site_pattern": r"^.(\d)", "partition": IID(2)}
    data = WFDBLabels(folder, **arguments)
    assert {(e.id, e.site, e.subject) for e in data.read()} >= {("A11", "1", "1"), ("A01", "0", "1")}
    data = WFDBLabels(folder, **SMALL | {"subject_pattern": None})
    with pytest.warns(UserWarning, match=r"12 record\(s\) count as a subject each"):
        data.read()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        WFDBLabels(folder, **SMALL).setup()


def test_rates_and_lengths(folder):
    write_wfdb(folder, "A50", ["Dx: 1"], rate=400.0, seconds=9.0)
    data = WFDBLabels(folder, **SMALL)
    data.setup()
    held = [e for c in data.clients for s in SPLITS for e in data.dataset(c, s).examples]
    assert Counter(Counter(e.id.split("/")[0] for e in held).values()) == {2: 12, 4: 1}
    assert {e.value.shape for e in held} == {(3, 200)}
    whole = SMALL | {"window_seconds": None}
    with pytest.raises(BadRecord, match=r"'A50' is \(3, 900\), the others are \(3, 400\)"):
        WFDBLabels(folder, **whole).setup()
    data = WFDBLabels(folder, exclude=["A50"], **whole)
    data.setup()
    assert data.dataset(data.clients, "train").__getitems__([0])["x"].shape == (1, 3, 400)
    with pytest.raises(BadRecord, match=r"E00.hea: 4 s long, shorter than data.window_seconds 5"):
        WFDBLabels(folder, **SMALL | {"window_seconds": 5.0}, exclude=["A*"]).setup()


@pytest.mark.parametrize("scale", ["record", "window", "none"])
def test_constant_leads_are_zero_and_counted(folder, scale):
    write_wfdb(folder, "A50", ["Dx: 1"], flat=("I", "V1"))
    data = WFDBLabels(folder, scale=scale, **SMALL)
    done = "left as they are" if scale == "none" else "scaled to 0"
    with pytest.warns(UserWarning, match=rf"1 record\(s\) have constant channels, which are {done}: A50 \(I, V1\)"):
        data.setup()
    assert data.describe()["signals"]["constant_channels"] == {"A50": ["I", "V1"]}
    held = [e for c in data.clients for s in SPLITS for e in data.dataset(c, s).examples]
    for example in held:
        assert np.isfinite(example.value).all()
        zero = [not row.any() for row in example.value]
        assert zero == ([True, False, True] if example.id.startswith("A50") else [False] * 3)


def test_gains_that_are_wrong(folder):
    for number in range(3):
        write_wfdb(folder, f"A5{number}", ["Dx: 1"])
        header = folder / f"A5{number}.hea"
        header.write_text(header.read_text().replace("1000(0)", "200(0)"))
    with pytest.warns(UserWarning, match=r"gain 200 in the header have 5 times the median .*record: A50, A51, A52"):
        WFDBLabels(folder, scale="none", **SMALL).setup()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = WFDBLabels(folder, scale="record", **SMALL)
        data.setup()
    held = {e.id: e.value for e in data.examples}
    assert np.abs(held["A50"].std(axis=1) - 1).max() < 1e-3


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("E00 3 200", "E00.mat 3 200", r"E00.hea: malformed header.*'E00.mat': write 'E00' there"),
        ("E00 3 200", "three leads", r"E00.hea: malformed header \(.*its first line is 'three leads"),
        (" V1\n", " V7\n", r"E00.hea: no channel 'V1', there are I, II, V7: name one of them"),
        ("E00.dat", "E77.dat", r"E00.hea: signals cannot be read"),
        ("200 800", "200 90000", r"E00.hea: signals cannot be read"),
    ],
)
def test_records_that_are_wrong(folder, old, new, message):
    header = folder / "a" / "E00.hea"
    assert old in header.read_text()
    header.write_text(header.read_text().replace(old, new))
    with pytest.raises(BadRecord, match=message + ".*data.exclude"):
        WFDBLabels(folder, **SMALL).setup()
    data = WFDBLabels(folder, on_bad_record="skip", **SMALL)
    with pytest.warns(UserWarning, match=r"1 bad record\(s\) skipped, 11 kept: E00"):
        data.setup()
    WFDBLabels(folder, exclude=["E00"], **SMALL).setup()


def test_missing_samples_and_empty_files(folder):
    write_wfdb(folder, "A50", ["Dx: 1"])
    path = folder / "A50.dat"
    steps = np.fromfile(path, "<i2")
    steps[3:9:3] = -32768
    steps.tofile(path)
    with pytest.raises(BadRecord, match=r"A50.hea: channel I has 2 missing sample\(s\) in 1 gap\(s\) of up to 0.01 s"):
        WFDBLabels(folder, **SMALL | {"window_seconds": None}).setup()
    (folder / "A50.hea").write_text("")
    with pytest.raises(BadRecord, match="A50.hea: header is absent or empty"):
        WFDBLabels(folder, **SMALL).setup()
    (folder / "empty").mkdir()
    (folder / "empty" / "x").write_text("")
    with pytest.raises(FedlitError, match=r"no WFDB record \(.hea\), it holds"):
        WFDBLabels(folder / "empty").setup()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"min_count": 0}, "data.min_count is 0"),
        ({"label_pattern": "A"}, "data.label_pattern 'A' has no group"),
        ({"site_pattern": "("}, r"data.site_pattern '\(' is no regular expression"),
        ({"label_pattern": "(A)", "names": {"1": "x"}}, "data.names is of diagnoses"),
        ({"channels": ["II", "ii"]}, "data.channels is II, ii"),
    ],
)
def test_arguments_that_are_wrong(arguments, message):
    with pytest.raises(FedlitError, match=message):
        WFDBLabels("x", **arguments)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"label_pattern": "^(x)", "channels": ["II", "Z"], "rate": 50.0},
        {"classes": ["7", "8", "9"], "window_seconds": None},
        {"names": {"7": "x", "8": "y", "9": "y"}, "partition": BySite(6), "split": "record", "min_count": 100},
        {"parity": True, "window_seconds": 1.0, "partition": PairwiseDirichlet(6, 0.1), "label_pattern": PREFIX},
        {"partition": Dirichlet(8, 0.1, min_records=12), "server_examples": 6},
    ],
)
def test_stand_in(tmp_path, arguments):
    data = WFDBLabels("absent", **arguments)
    data.use_stand_in(tmp_path)
    assert data.describe()["simulated"]
    assert all(len(data.dataset(client, split)) for client in data.clients for split in SPLITS)
    if not arguments:
        assert data.clients == [f"site-{name}" for name in ("A", "E", "HR", "JS", "Q", "S")]


def test_from_a_config():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(FederatedDataModule, "data")
    arguments = {"root": "data", "classes": ["1", "2"], "names": {"3": "1"}, "min_count": 2, "rate": 50.0}
    made = {"data": {"class_path": "fedlit.data.WFDBLabels", "init_args": arguments}}
    data = parser.instantiate(parser.parse_object(made)).data
    assert data.config() | arguments == data.config()


@pytest.fixture
def real(shared):
    folder = shared / "ecg_cinc_multisite"
    if not (folder / "records").is_dir():
        pytest.skip(f"no {folder}")
    return folder


@pytest.mark.filterwarnings("ignore")
def test_real_diagnoses_with_the_hospitals_as_clients(real):
    """74 of 101 records have a diagnosis; counted here from the headers' lines."""
    count, with_one = Counter(), 0
    for path in (real / "records").glob("*.hea"):
        line = next(line for line in path.read_text().splitlines() if "Dx:" in line).split(":")[1].strip()
        with_one += bool(line)
        count.update(line.split(",") if line else [])
    data = WFDBLabels(real / "records", subject_pattern="(.+)")
    description = data.describe()
    assert data.clients == ["site-E", "site-HR", "site-JS", "site-Q"]
    assert len(data.examples) == with_one == 74
    assert set(data.classes) == set(count)
    assert Counter(name for e in data.examples for name in e.labels) == count
    zero = ["V2", "V4", "V6"]
    assert description["signals"]["constant_channels"] == {"JS20004": zero, "JS20008": zero}
    # E07509 and E07510 hold the same signals
    assert description["duplicates"] == {"values": 1, "repeats": 1, "with_different_labels": 0, "merged": True}
    x = data.dataset(data.clients, "train").__getitems__(range(40))["x"]
    assert x.shape == (40, 12, 1000)
    assert bool(torch.isfinite(x).all())


@pytest.mark.filterwarnings("ignore")
def test_real_hospital_systems(real):
    data = WFDBLabels(real / "records", label_pattern=PREFIX, subject_pattern="(.+)", partition=IID(2))
    data.setup()
    assert data.classes == ["A", "E", "HR", "JS", "Q", "S"]
    assert Counter(e.label for e in data.examples) == {"E": 20, "HR": 22, "JS": 20, "Q": 28, "A": 10, "S": 1}


@pytest.mark.filterwarnings("ignore:.*count as a subject")
def test_real_gains_five_times_too_large_are_named_where_they_count(real):
    data = WFDBLabels(real / "records", label_pattern=PREFIX, scale="none", exclude=["[EJQAS]*"], partition=IID(1))
    with pytest.raises(FedlitError, match="only label is HR"):
        data.setup()
    data = WFDBLabels(real / "records", label_pattern=PREFIX, scale="none", exclude=["[EQAS]*"], partition=IID(1))
    with pytest.warns(UserWarning, match="gain 200 in the header have .*: HR00001, HR00002"):
        data.setup()


@pytest.mark.filterwarnings("ignore")
def test_real_malformed_headers(real):
    with pytest.raises(BadRecord, match=r"E00001.hea: malformed header.*'E00001.mat': write 'E00001'"):
        WFDBLabels(real).setup()
    data = WFDBLabels(real, on_bad_record="skip", subject_pattern="(.+)")
    data.setup()
    assert len(data.examples) == 74
    assert sum("malformed" in one["reason"] for one in data.describe()["excluded"]) == 5
