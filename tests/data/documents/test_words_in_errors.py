"""No word of a document is in an error, a warning or what is reported, whatever is wrong with its file."""

from __future__ import annotations

import json
import re
import traceback
import warnings
from functools import partial

import pytest

from fedlit.data import IID
from fedlit.data.base.records import BadRecord
from fedlit.data.documents.brat import parse_brat
from fedlit.data.documents.conll import parse_conll
from fedlit.data.documents.i2b2 import parse_i2b2
from fedlit.data.documents.jsonl import parse_jsonl
from fedlit.data.documents.pubtator import parse_pubtator
from fedlit.data.documents.readers import BratFolder, ConllFolder, I2B2Folder, JSONLDocuments, PubTatorFolder

SECRET = "Tezzaquine"
PARTS = [SECRET.lower()[i : i + 4] for i in range(len(SECRET) - 3)]
TEXT = f"{SECRET} then\n{SECRET} again."
PUBTATOR = f"""7|t|{SECRET} then
7|a|{SECRET} again.
7\t0\t10\t{SECRET}\tDrug\tD1|D2\t{SECRET}|{SECRET}
7\t16\t26\t{SECRET}\tDrug\tD3
7\tCID\tD1\tD3\t{SECRET}
"""
CONLL = f"###7\n{SECRET}\tNN\tB-Drug\nthen\tRB\tO\n\n{SECRET}\tNN\tS-Drug\nagain\tRB\tO\n.\t.\tO\n"
ANN = f"""T1\tDrug 0 10\t{SECRET}
T2\tDrug 16 21;21 26\tTezza quine
E1\tDrug:T1 Theme:T2
R1\tLinks Arg1:T1 Arg2:T2
*\tSame T1 T2
N1\tReference T1 UMLS:C1\t{SECRET}
#1\tNotes T1\t{SECRET}
"""
CON = f'c="{SECRET}" 1:0 1:0||t="problem"\nc="{SECRET}" 2:0 2:0||t="treatment"\n'
REL = f'c="{SECRET}" 1:0 1:0||r="TrAP"||c="{SECRET}" 2:0 2:0\n'
AST = f'c="{SECRET}" 1:0 1:0||t="problem"||a="absent"\n'
OBJECT = {
    "id": "7",
    "text": TEXT,
    "entities": [
        {"id": "a", "type": "drug", "start": 0, "end": 10, "text": SECRET, "concept": "D1"},
        {"id": "b", "type": "drug", "start": 16, "end": 26, "text": "Tezza quine", "fragments": [[16, 21], [21, 26]]},
    ],
    "relations": [{"type": "same", "head": "a", "tail": "b", "concepts": [["D1", "D2"]], "symmetric": True}],
    "subject": "p",
    "site": "s",
    "fold": "train",
    "annotated": {"entities": ["drug"], "relations": ["same"]},
    "meta": {"said": SECRET},
}
NAMED = {"id", "type", "subject", "site"}
"""Fields whose text is a name, which errors may quote."""
_NAMED = re.compile(rf"^[^|\t\n]*{SECRET[:4]}[^|\t\n]*\|t\||^###.*{SECRET[:4]}", re.MULTILINE)
"""A document's id."""


def broken(content):
    """Contents with one thing wrong: lines, cells and characters that lack, are twice, moved or others."""
    lines = content.splitlines(keepends=True)
    for i, line in enumerate(lines):
        before, after = "".join(lines[:i]), "".join(lines[i + 1 :])
        bare = line.rstrip("\n")
        cells = re.split(r"(\t|\|\|| )", bare)
        others = ["", line * 2, f"{SECRET}\n", f"{SECRET} {line}", f"{bare}\t{SECRET}\n", bare[::-1] + "\n"]
        others += [bare[:k] + "\n" for k in range(len(bare))] + [bare[k:] + "\n" for k in range(1, len(bare))]
        others += [bare[:k] + bare[k + 1 :] + "\n" for k in range(len(bare))]
        others += [f"{bare[: m.start()]}{new}{bare[m.end() :]}\n" for m in re.finditer(r"\d+", bare) for new in "089x"]
        for k in range(0, len(cells), 2):
            others += ["".join([*cells[:k], new, *cells[k + 1 :]]) + "\n" for new in (SECRET, "", "-1")]
            others += ["".join([*cells[:k], *cells[k + 2 :]]) + "\n"]
        for k in range(0, len(cells) - 2, 2):
            moved = [*cells[:k], cells[k + 2], cells[k + 1], cells[k], *cells[k + 3 :]]
            others.append("".join(moved) + "\n")
        contents = (before + other + after for other in others)
        yield from (content for content in contents if not _NAMED.search(content))


def broken_json(value, key=""):
    """Values with one field lacking, too many, or of another kind."""
    odd = [None, True, 3, [SECRET], {SECRET: SECRET}, [[SECRET, SECRET, SECRET]], *([] if key in NAMED else [SECRET])]
    yield from odd
    if isinstance(value, dict):
        yield value | {SECRET: 1}
        for own, inner in value.items():
            yield {name: other for name, other in value.items() if name != own}
            yield from (value | {own: other} for other in broken_json(inner, own))
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield value[:i] + value[i + 1 :]
            yield from ([*value[:i], other, *value[i + 1 :]] for other in broken_json(inner, key))


def broken_lines():
    line = json.dumps(OBJECT)
    yield from (json.dumps(other) for other in broken_json(OBJECT))
    yield from (line[:k] for k in range(len(line)))
    yield from (line[:k] + line[k + 1 :] for k in range(len(line)))


def quotes(message):
    return any(part in message.lower() for part in PARTS)


def conll(content):
    return parse_conll(content, "f", raw=TEXT)


CASES = {
    "pubtator": (parse_pubtator, lambda: broken(PUBTATOR)),
    "conll": (parse_conll, lambda: broken(CONLL)),
    "conll of a raw text": (conll, lambda: broken(CONLL)),
    "conll with a wrong column": (partial(parse_conll, tag_column=0), lambda: [CONLL]),
    "brat": (lambda ann: parse_brat(TEXT, ann, "n"), lambda: broken(ANN)),
    "brat in bytes": (lambda ann: parse_brat("é" + TEXT, ann, "n", offsets="bytes"), lambda: broken(ANN)),
    "brat's text": (lambda text: parse_brat(text, ANN, "n"), lambda: broken(TEXT)),
    "i2b2 concepts": (lambda con: parse_i2b2(TEXT, con, REL, AST), lambda: broken(CON)),
    "i2b2 relations": (lambda rel: parse_i2b2(TEXT, CON, rel, AST), lambda: broken(REL)),
    "i2b2 assertions": (lambda ast: parse_i2b2(TEXT, CON, REL, ast), lambda: broken(AST)),
    "i2b2's text": (lambda text: parse_i2b2(text, CON, REL, AST), lambda: broken(TEXT)),
    "json lines": (parse_jsonl, broken_lines),
}


@pytest.mark.parametrize("case", CASES)
def test_no_error_of_a_parser_quotes_a_word(case):
    parse, contents = CASES[case]
    told = set()
    for content in contents():
        try:
            parse(content)
        except BadRecord as error:
            said = "".join(traceback.format_exception_only(error))
            said += str(error.__cause__ or "") + str(error.__context__ or "")
            assert not quotes(said), f"{said}\n{content}"
            told.add(re.sub(r"\d+", "0", str(error)))
    assert len(told) >= (1 if "column" in case else 2)


@pytest.mark.parametrize("name", ["pubtator", "conll", "brat", "i2b2", "json"])
def test_no_report_of_a_reader_quotes_a_word(name, tmp_path):
    def put(file, content):
        (tmp_path / file).write_text(content, encoding="utf-8")

    if name == "pubtator":
        reader, good, bad = PubTatorFolder, PUBTATOR, PUBTATOR.replace("\t0\t10", "\t1\t11")
        for i in range(12):
            put(f"{i}.PubTator", (bad if i % 4 == 0 else good).replace("7|", f"{i}|").replace("7\t", f"{i}\t"))
    elif name == "conll":
        reader, good, bad = ConllFolder, CONLL, CONLL.replace("B-Drug", SECRET)
        for i in range(12):
            put(f"{i}.conll", (bad if i % 4 == 0 else good).replace("###7", f"###n{i}"))
    elif name == "brat":
        reader, good, bad = BratFolder, ANN, ANN.replace("0 10", "1 10")
        for i in range(12):
            put(f"{i}.txt", TEXT)
            put(f"{i}.ann", bad if i % 4 == 0 else good)
    elif name == "i2b2":
        reader, good, bad = I2B2Folder, CON, CON.replace("||t=", "|t=")
        for i in range(12):
            put(f"{i}.txt", TEXT)
            put(f"{i}.con", bad if i % 4 == 0 else good)
    else:
        reader, good, bad = JSONLDocuments, OBJECT, OBJECT | {"fold": SECRET, "annotated": [SECRET]}
        put("a.jsonl", "\n".join(json.dumps((bad if i % 4 == 0 else good) | {"id": f"n{i}"}) for i in range(12)))
    with pytest.raises(BadRecord) as caught:
        reader(tmp_path).setup()
    assert not quotes(str(caught.value))
    data = reader(tmp_path, on_bad_record="skip", partition=IID(1), merge_duplicates=False, split="record")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        data.setup()
        told = json.dumps(data.describe(), default=str)
    assert not quotes("".join([told, *(str(warning.message) for warning in said)]))
    assert len(data.describe()["excluded"]) == 3
