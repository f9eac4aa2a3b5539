"""No cell of a table of texts or samples is in an error, a warning or what is reported."""

from __future__ import annotations

import json
import warnings

import pandas as pd
import pytest

from fedlit.data import IID, ImageTable
from fedlit.data.base.table_format import TableFormat
from fedlit.data.base.tables import read_columns, read_table
from fedlit.data.classification.tables import TextTable
from fedlit.data.classification.texts import PubMedRCT
from fedlit.errors import FedlitError

SECRET = "Tezzaquine"
SENTENCE = f"{SECRET} was given again and again to no avail at all"
ROWS = [f"{SENTENCE} {i},{'xy'[i % 2]},p{i},train" for i in range(12)]
TABLE = "\n".join(["text,label,patient,part", *ROWS]) + "\n"
BREAKS = {
    "no header": TABLE.partition("\n")[2],
    "a number in the place of a header": "1,2,3,4\n" + TABLE.partition("\n")[2],
    "a text in the fold's column": TABLE.replace("p3,train", f"p3,{SECRET}"),
    "a text in the label's column": TABLE.replace(" 3,y,", f" 3,{SENTENCE},"),
    "a longer row": TABLE.replace("p3,train", f"p3,train,{SECRET}"),
    "an open quote": TABLE.replace(f"{SENTENCE} 3", f'"{SENTENCE} 3'),
    "another delimiter": TABLE.replace(",", ";"),
    "a title above": f"{SENTENCE}\n{TABLE}",
    "a comment above": f"# {SENTENCE}\n{TABLE}",
    "half a byte": TABLE.replace(" 3,", " \udcff3,"),
}


def quotes(message):
    return any(SECRET.lower()[i : i + 4] in message.lower() for i in range(len(SECRET) - 3))


@pytest.mark.parametrize("case", BREAKS)
def test_a_table_of_texts(case, tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(BREAKS[case], encoding="utf-8", errors="surrogateescape")
    named = {"label_column": "label", "group_column": "patient", "fold_column": "part", "classes": ["x", "y"]}
    with pytest.raises(FedlitError) as caught:
        TextTable(path, **named).setup()
    assert not quotes(f"{caught.value} {caught.value.__cause__ or ''}")
    assert "t.csv" in str(caught.value) or "'row-" in str(caught.value)
    if "column" in case and "fold" in case or "label's" in case:
        data = TextTable(path, **named, on_bad_record="skip", partition=IID(1), split="record")
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            data.setup()
        told = json.dumps(data.describe(), default=str)
        assert not quotes("".join([told, *(str(warning.message) for warning in said)]))
        assert len(data.describe()["excluded"]) == 1


@pytest.mark.parametrize(
    "line",
    [f'{{"text": "{SECRET}", "label": }}', f'["{SECRET}"]', f'{{"text": "{SECRET}\\x"}}', f'"{SECRET}"', SECRET],
    ids=range(5),
)
def test_json_lines(line, tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text(f'{{"text": "{SECRET}", "label": "x"}}\n{line}\n', encoding="utf-8")
    with pytest.raises(FedlitError, match="t.jsonl: line 2 is no") as caught:
        read_table(path)
    assert not quotes(f"{caught.value} {caught.value.__cause__ or ''}")


@pytest.mark.parametrize("name", ["t.csv", "t.parquet", "t.csv.gz"])
@pytest.mark.parametrize("format", [None, TableFormat(), TableFormat(encoding="utf-16")])
def test_what_is_no_table(name, format, tmp_path):
    path = tmp_path / name
    path.write_text(f"{SENTENCE}\n\n{SENTENCE}, {SENTENCE}\n", encoding="utf-8")
    with pytest.raises(FedlitError) as caught:
        read_columns(path, ["text"], "name it", format)
    assert not quotes(f"{caught.value} {caught.value.__cause__ or ''}")


@pytest.mark.parametrize("line", [SENTENCE, f"{SENTENCE}\tx", f"###\n{SENTENCE}", f"METHODS {SENTENCE}"], ids=range(4))
def test_abstracts(line, tmp_path):
    for part in ("train", "dev", "test"):
        (tmp_path / f"{part}.txt").write_text(f"###1\n{line}\nMETHODS\tx\n\n", encoding="utf-8")
    with pytest.raises(FedlitError) as caught:
        PubMedRCT(tmp_path).setup()
    assert not quotes(f"{caught.value}")


def test_a_text_in_the_column_of_paths_names_no_record(tmp_path):
    text = "The patient Zwickelmann was seen. " * 10
    pd.DataFrame({"path": [text] * 6, "label": list("ababab")}).to_csv(tmp_path / "t.csv", index=False)
    data = ImageTable(tmp_path / "t.csv", size=8, partition=IID(1), on_bad_record="skip")
    with pytest.raises(FedlitError) as error:
        data.setup()
    assert "Zwickelmann" not in str(error.value)
    assert "row-1" in str(error.value)
