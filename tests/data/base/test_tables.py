"""Tables in the forms that programs write them: read back equal, or refused with what to set."""

import gzip
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedlit.data.base.records import BadRecord
from fedlit.data.base.table_format import TableFormat, is_table
from fedlit.data.base.tables import numbers, read_columns, read_rows, read_table
from fedlit.errors import FedlitError

GERMAN = "zeit;druck_größe\n0,00;100,5\n0,02;\n0,04;101,25\n"
WANTED = [100.5, math.nan, 101.25]
SEMICOLON = TableFormat(delimiter=";", decimal=",")

FORMS = {
    "semicolon": ("a.csv", GERMAN.encode(), SEMICOLON),
    "byte order mark": ("a.csv", GERMAN.encode("utf-8-sig"), SEMICOLON),
    "sep= line": ("a.csv", b"sep=;\r\n" + GERMAN.encode(), TableFormat(decimal=",")),
    "sep= line behind a mark": ("a.csv", ("sep=;\r\n" + GERMAN).encode("utf-8-sig"), TableFormat(decimal=",")),
    "sep= line in UTF-16": ("a.csv", ("sep=;\r\n" + GERMAN).encode("utf-16"), TableFormat(decimal=",")),
    "UTF-16": ("a.csv", GERMAN.encode("utf-16"), SEMICOLON),
    "UTF-16, big-endian": ("a.csv", b"\xfe\xff" + GERMAN.encode("utf-16-be"), SEMICOLON),
    "Latin-1": ("a.csv", GERMAN.encode("latin-1"), TableFormat(";", ",", "latin-1")),
    "tabs": ("a.tsv", GERMAN.replace(";", "\t").encode(), TableFormat(decimal=",")),
    "packed": ("a.csv.gz", gzip.compress(GERMAN.encode()), SEMICOLON),
    "packed tabs": ("a.tsv.gz", gzip.compress(GERMAN.replace(";", "\t").encode()), TableFormat(decimal=",")),
    "blanks round names": ("a.csv", GERMAN.replace(";", " ; ").encode(), SEMICOLON),
    "carriage returns": ("a.csv", GERMAN.replace("\n", "\r\n").encode(), SEMICOLON),
    "JSON lines": (
        "a.jsonl",
        '{"zeit": 0, "druck_größe": 100.5}\n\n{"zeit": 1}\n{"druck_größe": 101.25}'.encode(),
        None,
    ),
    "JSON null": ("a.jsonl", '{"druck_größe": 100.5}\n{"druck_größe": null}\n{"druck_größe": 101.25}'.encode(), None),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_same_numbers_in_every_form(form, tmp_path):
    name, content, format = FORMS[form]
    path = tmp_path / name
    path.write_bytes(content)
    assert is_table(path)
    table = read_table(path, format, text=[])
    np.testing.assert_array_equal(numbers(path, table, "druck_größe", format), WANTED)


def test_parquet(tmp_path):
    path = tmp_path / "a.parquet"
    pd.DataFrame({"druck_größe": WANTED, "id": ["007", None, "8"]}).to_parquet(path)
    table = read_table(path, text=["id"])
    np.testing.assert_array_equal(numbers(path, table, "druck_größe"), WANTED)
    assert [row for _, row in read_columns(path, ["id"], "")] == [{"id": "007"}, {"id": ""}, {"id": "8"}]


REFUSED = {
    "semicolons, commas": (GERMAN, TableFormat(), "semicolons separate.*delimiter to ';' and data.decimal to ','"),
    "semicolons": ("a;ECG\n0;1\n", TableFormat(), "semicolons separate its columns.*data.delimiter to ';'$"),
    "no setting": ("a;ECG\n0;1\n", None, "semicolons separate its columns.*: separate the columns by commas"),
    "tabs": ("a\tECG\n0\t1\n", TableFormat(), "tabs separate its columns.*data.delimiter to a tab"),
    "decimal comma": ("a;ECG\n0;1,5\n", TableFormat(";"), "1 cell.*row 2: decimals.*data.decimal to ','"),
    "units": ("a,ECG\n(s),(mV)\n0,1\n1,2\n", TableFormat(), "row 2: row 2 holds units or a second header: delete it"),
    "one cell": ("a,ECG\n0,1\n0,bad\n1,2\n", TableFormat(), "1 cell.*the first in row 3: mend the cell"),
    "comment": ("# device 7, 50 Hz\na,ECG\n0,1\n", TableFormat(), "line 1 is no header.*delete the lines above"),
    "title": ("device 7\na,ECG\n0,1\n", TableFormat(), "line 1 is no header.*delete the lines above"),
    "twice": ("ECG,ECG\n0,1\n", TableFormat(), "2 columns are named 'ECG': say which one by 'ECG#1' or 'ECG#2'"),
    "thousands": ("a;ECG\n0;1.234\n1;0,5\n", TableFormat(";", ","), "row 2: they hold points, and data.decimal is"),
    "longer rows": ("a,ECG\n0,1,2,3\n", TableFormat(), "rows are longer than the header"),
    "empty": ("", TableFormat(), "it has no header"),
}  # fmt: skip


@pytest.mark.parametrize("form", REFUSED)
def test_what_cannot_be_read_says_what_to_set_or_to_mend(form, tmp_path):
    content, format, said = REFUSED[form]
    path = tmp_path / "a.csv"
    path.write_text(content)
    with pytest.raises(BadRecord, match=said) as error:
        numbers(
            path, read_table(path, format, text=[]), "ECG" if "ECG" in content or not content else "druck_größe", format
        )
    assert str(path) in str(error.value)
    assert "bad" not in str(error.value).replace(str(path), "")


def test_the_mend_for_another_encoding_helps(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes("größe\n1\n".encode("latin-1"))
    with pytest.raises(BadRecord, match="not UTF-8.: set data.encoding, perhaps to latin-1"):
        read_table(path, TableFormat())
    with pytest.raises(BadRecord, match="not UTF-8.: save it in UTF-8"):
        read_table(path)
    assert list(read_table(path, TableFormat(encoding="latin-1")).columns) == ["größe"]


def test_one_of_two_columns_of_a_name(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("ECG,x,ECG\n1,5,3\n2,6,4\n")
    table = read_table(path, text=[])
    assert numbers(path, table, "ECG#1").tolist() == [1, 2]
    assert numbers(path, table, "ECG#2").tolist() == [3, 4]


def test_text_stays_text(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("id,label,x\n007,NA,1\n1.0,,2\n")
    assert [row for _, row in read_columns(path, ["id", "label"], "")] == [
        {"id": "007", "label": "NA"},
        {"id": "1.0", "label": ""},
    ]
    assert read_table(path, text=["id"])["id"].tolist() == ["007", "1.0"]
    assert read_rows(path, "id")["007"]["label"] == "NA"
    (tmp_path / "b.jsonl").write_text('{"id": 7, "label": "NA"}\n{"id": "007", "label": null}\n')
    assert [row["id"] for _, row in read_columns(tmp_path / "b.jsonl", ["id"], "")] == ["7", "007"]


def test_half_a_character_is_told_with_its_row(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "whole"}\n{"text": "half \\ud83d"}\n')
    with pytest.raises(BadRecord, match="half a character .* in row 2, column 'text'"):
        read_columns(path, ["text"], "")


def test_lines_of_json_end_at_line_feeds_alone(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one\u2028two\x85"}\n{"text": "three"}\n', encoding="utf-8")
    assert [row["text"] for _, row in read_columns(path, ["text"], "")] == ["one\u2028two\x85", "three"]


def test_the_encoding_of_json_lines_is_not_to_be_set(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes('{"größe": 1}\n'.encode("latin-1"))
    with pytest.raises(BadRecord, match="not UTF-8.: save it in UTF-8"):
        read_table(path, TableFormat(encoding="cp1252"))
    path.write_bytes('{"größe": 1}\n'.encode("utf-16"))
    assert list(read_table(path, TableFormat()).columns) == ["größe"]


def test_lists_in_the_cells_of_parquet_are_no_numbers(tmp_path):
    pd.DataFrame({"ECG": [[1.0, 2.0], [3.0, 4.0]]}).to_parquet(tmp_path / "a.parquet")
    table = read_table(tmp_path / "a.parquet", text=[])
    with pytest.raises(BadRecord, match="not all numbers, 2 cell"):
        numbers(tmp_path / "a.parquet", table, "ECG")


@pytest.mark.parametrize(
    ("lines", "said"), [('{"a": 1}\n{"a": \n', "line 2 is not JSON"), ('{"a": 1}\n[1]\n', "line 2 is no object")]
)
def test_json_lines_that_are_none(lines, said, tmp_path):
    (tmp_path / "a.jsonl").write_text(lines)
    with pytest.raises(BadRecord, match=said):
        read_table(tmp_path / "a.jsonl")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"delimiter": "::"}, "data.delimiter is '::'"),
        ({"decimal": ""}, "data.decimal is ''"),
        ({"delimiter": ","} | {"decimal": ","}, "both ','"),
        ({"encoding": "utf-9"}, "data.encoding 'utf-9' is unknown: give utf-8, cp1252, latin-1 or utf-16"),
        ({"encoding": "rot13"}, "data.encoding 'rot13' is unknown"),
    ],
)
def test_formats_that_cannot_be(given, said):
    with pytest.raises(FedlitError, match=said):
        TableFormat(**given)


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cc",)), min_size=1, max_size=12).map(str.strip)
ROWS = st.lists(st.tuples(st.floats(allow_nan=False, allow_infinity=False, width=32), TEXT), min_size=1, max_size=20)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS, mark=st.sampled_from([",", ";", "\t", "|"]), decimal=st.sampled_from([".", ","]),
       encoding=st.sampled_from(["utf-8", "utf-16", "utf-8-sig"]),
       ending=st.sampled_from(["a.csv", "a.csv.gz"]))  # fmt: skip
def test_what_pandas_writes_is_read_back(rows, mark, decimal, encoding, ending, tmp_path):
    if mark == decimal:
        decimal = "."
    path = tmp_path / ending
    table = pd.DataFrame({"x": [x for x, _ in rows], "word": [word for _, word in rows]})
    table.to_csv(path, index=False, sep=mark, decimal=decimal, encoding=encoding)
    format = TableFormat(mark, decimal if decimal != mark else ".", encoding)
    back = read_table(path, format, text=["word"])
    np.testing.assert_array_equal(numbers(path, back, "x", format).astype(np.float32), np.float32(table["x"]))
    assert [cell["word"] for _, cell in read_columns(path, ["word"], "", format)] == table["word"].tolist()
