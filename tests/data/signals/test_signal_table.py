import numpy as np
import pandas as pd
import pytest
from scipy.io import loadmat

from fedlit.data import BadRecord, BySubject, Modality, SignalTable
from fedlit.errors import FedlitError

SMALL = {"context_length": 40, "prediction_length": 10}
BOTH = {"ECG": "ecg", "ICG": "icg"}


def table(samples: int = 600, seed: int = 0) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    return pd.DataFrame({name: np.sin(np.arange(samples) / 9) + generator.normal(0, 0.1, samples) for name in BOTH})


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_files_are_subjects(tmp_path, suffix):
    for number in range(2):
        made = table(seed=number)
        path = tmp_path / "deep" / f"P{number}_N.{suffix}"
        path.parent.mkdir(exist_ok=True)
        made.to_csv(path, index=False) if suffix == "csv" else made.to_parquet(path)
    data = SignalTable(tmp_path, BOTH, 100.0, subject_pattern=r"P(\d)", site_pattern=r"_([NS])", **SMALL)
    data.setup()
    assert data.clients == ["subject-0", "subject-1"]
    assert [r.id for r in data.records] == ["P0_N-ECG", "P0_N-ICG", "P1_N-ECG", "P1_N-ICG"]
    assert {(r.site, r.rate) for r in data.records} == {("N", 100.0)}
    assert np.allclose(data.records[0].values, table()["ECG"], atol=1e-6)
    single = SignalTable(tmp_path / "deep" / f"P0_N.{suffix}", {"ECG": "ecg"}, 100.0, **SMALL)
    assert [(r.id, r.subject) for r in single.read()] == [("P0_N", "P0_N")]


def test_subjects_and_sites_in_columns(tmp_path):
    parts = [table().assign(who=f"p{n}", place=f"s{n % 2}") for n in range(4)]
    pd.concat(parts).to_csv(tmp_path / "all.csv", index=False)
    data = SignalTable(tmp_path, {"ECG": "ecg"}, 100.0, subject_column="who", site_column="place", **SMALL)
    assert [(r.id, r.subject, r.site, len(r.values)) for r in data.read()] == [
        (f"all-p{n}", f"p{n}", f"s{n % 2}", 600) for n in range(4)
    ]


def test_subjects_are_text(tmp_path):
    parts = [table(60).assign(who=who) for who in ("07", "7", "1.0")]
    pd.concat(parts).to_csv(tmp_path / "all.csv", index=False)
    data = SignalTable(tmp_path, {"ECG": "ecg"}, 100.0, subject_column="who", **SMALL)
    assert [(r.subject, len(r.values)) for r in data.read()] == [("07", 60), ("7", 60), ("1.0", 60)]


def test_commas_at_the_ends_of_rows_do_not_shift_the_columns(tmp_path):
    (tmp_path / "a.csv").write_text("ECG,ICG\n" + "1,2,\n3,4,\n")
    assert [r.values.tolist() for r in SignalTable(tmp_path, BOTH, 100.0).read()] == [[1, 3], [2, 4]]


def test_empty_cells_are_gaps(tmp_path):
    made = table()
    made.loc[100:119, "ECG"] = np.nan
    made.to_csv(tmp_path / "a.csv", index=False)
    described = SignalTable(tmp_path, BOTH, 100.0, **SMALL).describe()
    assert described["gaps"] == {"a-ECG": {"gaps": 1, "samples": 20}}


@pytest.mark.parametrize(
    ("text", "kwargs", "message"),
    [
        ("ECG\n1\n", {}, "a.csv: no column 'ICG', there are ECG"),
        ("ECG,ICG\n1,2\nx,3\n", {}, "a.csv: column 'ECG' is not all numbers"),
        ("ECG;ICG\n1,5;2\n", {}, "a.csv: cannot be read as a table"),
        (
            "ECG;ICG\n1;2\n",
            {},
            "a.csv: no column 'ECG', there are ECG;ICG .semicolons separate its columns.: set data.delimiter to .;.;",
        ),
        ("ECG,ICG\n1,2,3,4\n3,4\n", {}, "a.csv: cannot be read as a table .rows are longer than the header"),
        ("", {}, "a.csv: cannot be read as a table"),
        ("ECG,ICG,who\n1,2,a\n1,2,\n", {"subject_column": "who"}, "column 'who' has empty cells"),
        ("ECG,ICG,at\n1,2,a\n1,2,b\n", {"site_column": "at"}, "subject 'a' has 2 sites"),
        (
            "ECG,ICG,at\n1,2,\n1,2,\n",
            {"site_column": "at"},
            "column 'at' has empty cells, or NA: name every row's site",
        ),
        ("ECG,ICG\n1,2\n", {"subject_pattern": "(z)"}, "record 'a' does not match data.subject_pattern"),
    ],
)
def test_malformed_tables_are_named_or_skipped(tmp_path, text, kwargs, message):
    table().to_csv(tmp_path / "good_z.csv", index=False)
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(BadRecord, match=message + ".*data.exclude"):
        list(SignalTable(tmp_path, BOTH, 100.0, **kwargs, **SMALL).read())
    if "column" not in str(kwargs):
        data = SignalTable(tmp_path, BOTH, 100.0, on_bad_record="skip", **kwargs, **SMALL)
        with pytest.warns(UserWarning, match=r"1 bad record\(s\) skipped, 2 kept: a"):
            data.setup()


def test_arguments_and_folders(tmp_path):
    with pytest.raises(FedlitError, match="data.columns is empty"):
        SignalTable(tmp_path, {}, 100.0)
    with pytest.raises(FedlitError, match="data.table_rate is 0"):
        SignalTable(tmp_path, BOTH, 0)
    with pytest.raises(FedlitError, match="absent: No such file"):
        SignalTable(tmp_path / "absent", BOTH, 100.0).setup()
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(FedlitError, match=r"no table .*it holds 1 .txt"):
        SignalTable(tmp_path, BOTH, 100.0).setup()


@pytest.mark.parametrize("kwargs", [{}, {"subject_column": "who", "site_column": "at"}, {"subject_pattern": "(Q.)"}])
def test_stand_in(tmp_path, kwargs):
    data = SignalTable("absent", BOTH, 200.0, partition=BySubject(20), **kwargs)
    data.use_stand_in(tmp_path)
    data.setup()
    assert len(data.clients) == 20
    assert {r.kind for r in data.records} == {"ecg", "icg"}


def test_real_icg_and_ecg(shared, tmp_path):
    """The columns of the files are ECG (mV) and ICG (Ohm/s) at 1000 Hz."""
    for path in sorted((shared / "icg_ecg_biopac" / "ECG_ICG_Data").glob("*.mat")):
        matrix = next(value for name, value in loadmat(path).items() if not name.startswith("_"))
        cut = np.asarray(matrix, np.float32)[:60_000]
        pd.DataFrame(cut, columns=list(BOTH)).to_parquet(tmp_path / f"{path.stem}.parquet")
    data = SignalTable(
        tmp_path, BOTH, 1000.0, subject_pattern=r"Sample_(\d)", rate=100.0, partition=Modality(BySubject(), "icg"),
        context_length=256, prediction_length=64,
    )  # fmt: skip
    described = data.describe()
    assert {client: held["kinds"] for client, held in described["clients"].items()} == {
        "subject-1": ["ecg"], "subject-2": ["icg"],
    }  # fmt: skip
    assert described["gaps"] == {}
    assert described["clients"]["subject-1"]["seconds"] == 120
    assert all(count > 5 for held in described["clients"].values() for count in held["windows"].values())
