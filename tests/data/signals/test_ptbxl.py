import numpy as np
import pytest

from fedlit.data import PTBXL, BadRecord, BySite, Dirichlet, Record, statistics
from fedlit.data.signals.ptbxl import COLUMNS, read_database, superclass_of
from fedlit.errors import FedlitError

SMALL = {"context_length": 64, "prediction_length": 16}


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """A stand-in with 100 Hz records."""
    folder = tmp_path_factory.mktemp("ptbxl")
    PTBXL(folder).write_stand_in(folder)
    return folder


@pytest.fixture(scope="module")
def official500(tmp_path_factory):
    """A stand-in with 500 Hz records."""
    folder = tmp_path_factory.mktemp("ptbxl500")
    PTBXL(folder, rate=500).write_stand_in(folder)
    return folder


def change(folder, target, old, new):
    """A copy of the folder's tables with links to its records, one text replaced."""
    for path in folder.iterdir():
        if path.is_dir():
            (target / path.name).symlink_to(path)
        else:
            text = path.read_text()
            (target / path.name).write_text(text.replace(old, new, 1) if path.name == "ptbxl_database.csv" else text)
    return target


def test_stand_in_has_the_official_layout(official):
    assert len(COLUMNS) == 28
    entries = read_database(official / "ptbxl_database.csv", official / "scp_statements.csv")
    assert len(entries) == 80
    assert entries[0].id == "00001"
    assert {entry.fold for entry in entries} == {"train", "val", "test"}
    assert {entry.label for entry in entries} == {"NORM", "MI", "STTC", "CD", "HYP"}
    assert (official / "records100" / "00000" / "00001_lr.dat").stat().st_size == 1000 * 12 * 2


@pytest.mark.parametrize("split", ["subject", "fold", "record", "time"])
def test_twenty_sites(official, split):
    data = PTBXL(official, split=split, **SMALL)
    data.setup()
    assert len(data.clients) == 20
    assert data.clients[:2] == ["site-00", "site-01"]
    assert {len(r.values) for r in data.records} == {1000}
    assert {r.unit for r in data.records} == {"mV"}
    assert data.describe()["warnings"] == []


def test_lead_in_any_case(official):
    data = PTBXL(official, lead="avr")
    assert next(iter(data.read())).values.mean() < 0.1


def test_falls_back_to_records500_and_says_so(official500):
    data = PTBXL(official500, **SMALL)
    with pytest.warns(UserWarning, match="records100 is absent: its signals are resampled from records500"):
        data.setup()
    assert {(r.rate, len(r.values)) for r in data.records} == {(100.0, 1000)}
    assert "records100 is absent" in data.describe()["warnings"][0]


@pytest.mark.parametrize(("rate", "samples"), [(500.0, 5000), (250.0, 2500), (None, 5000)])
def test_other_rates_come_from_records500(official500, rate, samples):
    data = PTBXL(official500, rate=rate, partition=BySite(2), **SMALL)
    data.setup()
    assert {len(r.values) for r in data.records} == {samples}
    assert data.describe()["warnings"] == []


def test_rate_500_without_its_records(official):
    with pytest.raises(FedlitError, match="records500 is absent, it is needed for data.rate 500.*set data.rate to 100"):
        PTBXL(official, rate=500.0).setup()


def test_parity_with_many_records_a_site(tmp_path):
    data = PTBXL("absent", rate=500.0, context_length=512, parity=True, split="record", partition=BySite(20, 10))
    data.use_stand_in(tmp_path)
    data.setup()
    assert len(data.clients) == 20
    assert {len(indices) for indices in data.assignment.values()} == {10}


def test_a_site_that_is_not_known(official, tmp_path):
    folder = change(official, tmp_path, ",10000.0,,,,,,0.0,", ",10000.0,,,,,,,")
    records = list(PTBXL(folder).read())
    assert records[0].site == "site-unknown"
    assert list(BySite().assign(records, 0))[-1] == "site-unknown"


@pytest.mark.parametrize(
    ("old", "new", "error", "message"),
    [
        ("patient_id", "patient", FedlitError, "no column 'patient_id'"),
        ("ecg_id,", "id,", FedlitError, "no column 'ecg_id'"),
        ("{'NORM'", "{NORM'", FedlitError, "row of ecg_id 1 cannot be read"),
        ("{'NORM': 100.0, 'SR': 0.0}", "['NORM']", FedlitError, "row of ecg_id 1 cannot be read"),
        ("\n2,", "\n1,", FedlitError, "ecg_id '1' is listed more than once"),
        ("00001_lr", "99999_lr", BadRecord, "99999_lr.hea: header is absent.*data.exclude"),
    ],
)
def test_tables_that_are_not_as_published(official, tmp_path, old, new, error, message):
    with pytest.raises(error, match=message):
        PTBXL(change(official, tmp_path, old, new)).setup()


def test_folder_absent_or_without_tables(tmp_path):
    with pytest.raises(FedlitError, match="No such file or directory: set data.root"):
        PTBXL(tmp_path / "absent").setup()
    (tmp_path / "records100").mkdir()
    with pytest.raises(FedlitError, match="scp_statements.csv"):
        PTBXL(tmp_path).setup()


def test_superclass_is_that_of_the_likeliest_diagnosis():
    classes = {"NORM": "NORM", "IMI": "MI", "ASMI": "MI", "NDT": "STTC"}
    assert superclass_of({"SR": 100.0, "NDT": 50.0, "IMI": 80.0}, classes) == "MI"
    assert superclass_of({"NORM": 0.0, "IMI": 0.0}, classes) == "NORM"
    assert superclass_of({"SR": 0.0}, classes) is None


def test_real_records(shared):
    folder = shared / "ecg_ptbxl_mini"
    data = PTBXL(folder, partition=BySite(2), **SMALL)
    with pytest.warns(UserWarning, match="records100 is absent"):
        data.setup()
    assert {client: len(indices) for client, indices in data.assignment.items()} == {"site-0": 12, "site-1": 7}
    labels = [r.label for r in data.records]
    assert {label: labels.count(label) for label in set(labels)} == {"NORM": 18, "STTC": 1, "MI": 1, "HYP": 1}
    assert {(r.rate, len(r.values)) for r in data.records} == {(100.0, 1000)}
    with pytest.raises(FedlitError, match=r"client 'site-2' has 2 subject\(s\)"):
        PTBXL(folder, rate=500, **SMALL).setup()


def test_real_sites_of_3028_rows(shared):
    folder = shared / "ecg_ptbxl_mini"
    entries = read_database(folder / "metadata_only" / "ptbxl_database_subset3028.csv", folder / "scp_statements.csv")
    assert len(entries) == 3028
    empty = np.zeros(0, np.float32)
    records = [Record(e.id, e.subject, e.site, "ecg", 100.0, empty, "mV", e.label, e.fold) for e in entries]
    sites = BySite().assign(records, 0)
    sizes = sorted((len(indices) for indices in sites.values()), reverse=True)
    assert sizes[:4] == [1222, 875, 726, 65]
    assert sum(sizes) == 3028
    assert len(BySite(min_records=10).assign(records, 0)) < len(sites)
    known = [record for record in records if record.label is not None]
    mixes = statistics(known, Dirichlet(20, 0.1).assign(known, 0))
    assert mixes["label"]["total_variation"] > 0.4
