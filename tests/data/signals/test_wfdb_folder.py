import os
import shutil
import warnings

import numpy as np
import pytest
import wfdb

from fedlit.data import BadRecord, BySite, WFDBFolder
from fedlit.data.files.wfdb import read_channels, write_channels
from fedlit.errors import FedlitError

SMALL = {"context_length": 40, "prediction_length": 10, "val_fraction": 0.0, "test_fraction": 0.4}


def wave(samples: int = 300, size: float = 1.0) -> np.ndarray:
    return size * np.sin(np.arange(samples) / 5)


def write(folder, name, unit="mV", size=1.0, comments=(), **channels):
    folder.mkdir(parents=True, exist_ok=True)
    channels = channels or {"II": wave(size=size)}
    write_channels(folder, name, 100.0, channels, dict.fromkeys(channels, unit), comments)


def edit(folder, name, old, new):
    path = folder / f"{name}.hea"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_what_is_written_is_what_wfdb_reads(tmp_path):
    holed = wave()
    holed[50:91] = np.nan
    write(tmp_path, "A1", comments=["Dx: 1,2"], II=holed, ICG=wave(size=2), V1=wave(size=1e6))
    record = wfdb.rdrecord(str(tmp_path / "A1"), physical=False)
    assert record.calc_checksum() == [checksum % 65536 for checksum in record.checksum]
    assert [int(d) for d in record.d_signal[0]] == record.init_value
    assert record.comments == ["Dx: 1,2"]
    assert (record.fs, record.units, record.adc_gain) == (100, ["mV"] * 3, [1000.0] * 3)
    read = read_channels(tmp_path / "A1", ["icg", "ii"])
    assert read.values["ii"].dtype == np.float32
    assert np.isnan(read.values["ii"]).sum() == 41
    assert np.nanmax(np.abs(read.values["ii"] - holed)) < 5.1e-4
    assert np.abs(read.values["icg"] - wave(size=2)).max() < 5.1e-4
    assert np.nanmax(read_channels(tmp_path / "A1", ["V1"]).values["V1"]) == pytest.approx(32.767)


@pytest.mark.parametrize("unit", ["mV", "mv", "uV", "V"])
def test_units_are_made_millivolts(tmp_path, unit):
    write(tmp_path, "A1", unit=unit)
    read = read_channels(tmp_path / "A1.hea", ["II"])
    factor = {"mv": 1, "uv": 1e-3, "v": 1e3}[unit.lower()]
    assert read.units == {"II": "mV"}
    assert np.abs(read.values["II"] - factor * wave()).max() < 6e-4 * factor


def test_other_units_stay(tmp_path):
    write(tmp_path, "A1", unit="Ohm/s")
    assert read_channels(tmp_path / "A1", ["II"]).units == {"II": "Ohm/s"}


def test_challenge_mat_files(tmp_path):
    write(tmp_path, "HR1")
    (tmp_path / "HR1.mat").write_bytes(b"\0" * 24 + (tmp_path / "HR1.dat").read_bytes())
    (tmp_path / "HR1.dat").unlink()
    edit(tmp_path, "HR1", "HR1.dat 16 1000(0)/mV", "HR1.mat 16x1+24 1000.0(0)/mV")
    assert np.abs(read_channels(tmp_path / "HR1.mat", ["II"]).values["II"] - wave()).max() < 6e-4


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("A1 1 100", "A1.mat 1 100", r"A1.hea: malformed header, its first line names the record 'A1.mat': write 'A1'"),
        ("A1 1 100 300", "A1", r"A1.hea: malformed header .*its first line is 'A1'"),
        ("A1 1 100 300", "A1 one 100 300", "A1.hea: malformed header .*mend that line"),
        (" II", " V9", "A1.hea: no channel 'II', there are V9"),
        ("A1.dat", "B1.dat", "A1.hea: signals cannot be read .*B1.dat"),
        ("A1 1 100 300", "A1 1 100 90000", "A1.hea: signals cannot be read"),
    ],
)
def test_malformed_headers_are_named_or_skipped(tmp_path, old, new, message):
    for number in range(4):
        write(tmp_path / "deep" if number else tmp_path, f"A{number + 1}")
    edit(tmp_path, "A1", old, new)
    with pytest.raises(BadRecord, match=message + ".*data.exclude"):
        WFDBFolder(tmp_path, **SMALL).setup()
    data = WFDBFolder(tmp_path, on_bad_record="skip", **SMALL)
    with pytest.warns(UserWarning, match=r"1 bad record\(s\) skipped, 3 kept: A1"):
        data.setup()
    assert str(tmp_path / "A1.hea") in data.describe()["excluded"][0]["reason"]
    WFDBFolder(tmp_path, exclude=["A1"], **SMALL).setup()


def test_an_empty_header(tmp_path):
    write(tmp_path, "A1")
    (tmp_path / "A1.hea").write_text("")
    with pytest.raises(BadRecord, match="A1.hea: header is absent or empty"):
        WFDBFolder(tmp_path, **SMALL).setup()


def test_sites_by_prefix_and_by_pattern(tmp_path):
    for name in ("A1", "A2", "HR1", "HR2"):
        write(tmp_path, name, comments=["Age: 3", "Dx: 426783006,1"])
    data = WFDBFolder(tmp_path, **SMALL)
    data.setup()
    assert data.clients == ["site-A", "site-HR"]
    assert {r.label for r in data.records} == {"426783006"}
    assert {r.subject for r in data.records} == {"A1", "A2", "HR1", "HR2"}
    data = WFDBFolder(tmp_path, site_pattern=r"(\d)", subject_pattern=r"^([A-Z]+)", **SMALL)
    data.setup()
    assert data.clients == ["site-1", "site-2"]
    assert {r.subject for r in data.records} == {"A", "HR"}
    with pytest.raises(BadRecord, match="record 'A1' does not match data.site_pattern"):
        WFDBFolder(tmp_path, site_pattern=r"^(HR)", **SMALL).setup()


def test_sites_by_a_table(tmp_path):
    for number in range(4):
        write(tmp_path / "signals", f"A{number}")
    table = tmp_path / "table.csv"
    table.write_text("record,site,subject,label\n" + "".join(f"A{n},s{n % 2},p{n},x\n" for n in range(4)))
    data = WFDBFolder(tmp_path / "signals", table=table, **SMALL)
    data.setup()
    assert data.clients == ["site-s0", "site-s1"]
    assert {(r.subject, r.label) for r in data.records} == {(f"p{n}", "x") for n in range(4)}
    table.write_text("name,site\n")
    with pytest.raises(FedlitError, match="no column 'record'"):
        WFDBFolder(tmp_path / "signals", table=table, **SMALL).setup()


def test_what_a_table_leaves_open_is_said(tmp_path):
    for number in range(4):
        write(tmp_path / "signals", f"A{number}")
    table = tmp_path / "table.csv"
    table.write_text("record,site,subject\n" + "".join(f"A{n},s,p{n}\n" for n in range(3)))
    data = WFDBFolder(tmp_path / "signals", table=table, **SMALL)
    with pytest.warns(UserWarning, match="table.csv: 1 of 4 records have no row: A3"):
        list(data.read())
    table.write_text("record,hospital\nA0,s\n")
    with pytest.raises(FedlitError, match="no column 'site', there are record, hospital: name a column site, subject"):
        list(WFDBFolder(tmp_path / "signals", table=table, **SMALL).read())
    table.write_text("record,site\nA0,s\nA0,t\n")
    with pytest.raises(FedlitError, match="record 'A0' is listed more than once"):
        list(WFDBFolder(tmp_path / "signals", table=table, **SMALL).read())


def test_records_that_count_as_subjects_are_said(tmp_path):
    for name in ("A1_1", "A1_2", "A2_1", "A2_2"):
        write(tmp_path, name)
    data = WFDBFolder(tmp_path, **SMALL)
    with pytest.warns(UserWarning, match=r"4 record\(s\) count as a subject each.*set data.subject_pattern"):
        data.setup()
    assert "subject_pattern" in str(data.describe()["warnings"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        WFDBFolder(tmp_path, subject_pattern="^(A.)", **SMALL).setup()
        WFDBFolder(tmp_path, subject_pattern="(.+)", **SMALL).setup()
        WFDBFolder(tmp_path, split="time", **SMALL).setup()


def test_a_folder_that_cannot_be_listed_is_never_passed_over(tmp_path, monkeypatch):
    for name in ("A1", "A2"):
        write(tmp_path / name, name)
    listed = os.scandir

    def scandir(path):
        if str(path).endswith("A2"):
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(FedlitError, match="A2: Permission denied: make the folder readable"):
        WFDBFolder(tmp_path, **SMALL).setup()


def test_a_gain_that_is_wrong_in_several_headers(tmp_path):
    for number in range(8):
        write(tmp_path, f"A{number}", size=0.4 if number == 6 else 1.0)
        if number >= 5:
            edit(tmp_path, f"A{number}", "1000(0)", "200(0)")
    with pytest.warns(UserWarning, match="gain 200 in the header have 5 times the median amplitude .*A5, A6, A7"):
        WFDBFolder(tmp_path, **SMALL).setup()


def test_several_channels(tmp_path):
    for name in ("A1", "A2"):
        write(tmp_path, name, II=wave(), ICG=wave(size=3))
    data = WFDBFolder(tmp_path, {"ii": "ecg", "icg": "icg"}, exclude=["A2-icg"], **SMALL)
    assert [(r.id, r.kind, r.subject) for r in data.read()] == [
        ("A1-ii", "ecg", "A1"),
        ("A1-icg", "icg", "A1"),
        ("A2-ii", "ecg", "A2"),
    ]


def test_a_channel_named_twice():
    with pytest.raises(FedlitError, match="data.channels names a channel twice: II, ii"):
        WFDBFolder("x", {"II": "ecg", "ii": "ecg"})


def test_folders_that_cannot_be_read(tmp_path):
    for folder, message in ((tmp_path / "absent", "absent: No such file"), (tmp_path, "folder is empty")):
        with pytest.raises(FedlitError, match=message + ".*set data.root"):
            WFDBFolder(folder).setup()
    (tmp_path / "file").write_text("")
    with pytest.raises(FedlitError, match=r"no WFDB record \(.hea\), it holds 1 without ending"):
        WFDBFolder(tmp_path).setup()
    with pytest.raises(FedlitError, match="file: Not a directory"):
        WFDBFolder(tmp_path / "file").setup()


@pytest.mark.parametrize(("pattern", "message"), [("(", "no regular expression"), ("A", "has no group")])
def test_patterns(pattern, message):
    with pytest.raises(FedlitError, match=f"data.site_pattern '.*' .*{message}|{message}"):
        WFDBFolder("x", site_pattern=pattern)


def test_stand_in(tmp_path):
    data = WFDBFolder("absent", {"V5": "ecg", "Z": "icg"}, site_pattern="^(clinic-.)", partition=BySite())
    data.use_stand_in(tmp_path)
    data.setup()
    assert data.clients == [f"site-{name}" for name in ("A", "E", "HR", "JS", "Q", "S")]
    assert data.simulated
    assert data.describe()["root"] == str(tmp_path)


def sites(data) -> dict[str, int]:
    data.setup()
    return {client: len(indices) for client, indices in data.assignment.items()}


@pytest.mark.filterwarnings("ignore:.*amplitude")
def test_real_hospital_systems_by_site(shared):
    folder = shared / "ecg_cinc_multisite" / "records"
    data = WFDBFolder(folder, rate=100.0, partition=BySite(min_records=3))
    assert sites(data) == {"site-A": 10, "site-E": 20, "site-HR": 22, "site-JS": 20, "site-Q": 28}
    assert data.describe()["excluded"] == [{"record": "S0001", "reason": "left out by the partition"}]


def test_real_gains_five_times_too_large_are_named(shared):
    folder = shared / "ecg_cinc_multisite" / "records"
    data = WFDBFolder(folder, subject_pattern="(.+)", rate=100.0, partition=BySite(min_records=3))
    with pytest.warns(UserWarning, match="check the gain in the header") as said:
        data.setup()
    assert any("HR00002 (" in str(one.message) for one in said)
    assert "HR0600" not in " ".join(str(one.message) for one in said)
    by_gain = next(str(one.message) for one in said if "gain 200 in the header" in str(one.message))
    wrong = [f"HR{number:05d}" for number in (*range(2, 11), 599, 20715)]
    assert all(name in by_gain for name in ["HR00001", *wrong])


@pytest.mark.filterwarnings("ignore:.*amplitude")
@pytest.mark.parametrize("lead", ["V2", "v4", "V6"])
def test_real_flat_leads_are_refused(shared, tmp_path, lead):
    for name in ("JS20003", "JS20004", "JS20005", "JS20006"):
        for suffix in ("hea", "mat"):
            shutil.copy(shared / "ecg_cinc_multisite" / "records" / f"{name}.{suffix}", tmp_path)
    with pytest.raises(BadRecord, match="'JS20004' is flat"):
        WFDBFolder(tmp_path, {lead: "ecg"}, rate=100.0).setup()
    assert sites(WFDBFolder(tmp_path, {lead: "ecg"}, rate=100.0, exclude=["JS20004"])) == {"site-JS": 3}


def test_real_malformed_headers(shared):
    folder = shared / "ecg_cinc_multisite" / "malformed"
    with pytest.raises(BadRecord, match=r"E00001.hea: malformed header.*'E00001.mat': write 'E00001'"):
        WFDBFolder(folder).setup()
    with pytest.raises(FedlitError, match="no record left to use in .*: 5 left out"):
        WFDBFolder(folder, on_bad_record="skip").setup()


def test_real_units_in_lower_case(shared):
    read = read_channels(shared / "ecg_cinc_multisite" / "records" / "HR06000", ["II"])
    assert read.units == {"II": "mV"}
    assert 0.3 < np.ptp(read.values["II"]) < 5
