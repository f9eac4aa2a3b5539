"""Official layouts, written by hand to the byte: what is read is what was written.

The files are made here without the project's own writers.
"""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlit.data import IID, BratFolder, BySite, ConllFolder, I2B2Folder, JSONLDocuments, PubTatorFolder
from fedlit.data.documents.brat import parse_brat
from fedlit.data.documents.conll import parse_conll
from fedlit.data.documents.documents import Document, Entity, Relation
from fedlit.data.documents.i2b2 import parse_i2b2
from fedlit.data.documents.jsonl import parse_jsonl
from fedlit.data.documents.pubtator import parse_pubtator

WORDS = ("fever", "rash", "naïve", "e\u0301cole", "🫀", "👩‍⚕️", "a", "12.5", "שלום", "(x)")
BREAKS = (" ", "  ", "\n", "\r\n", "\t", " \n ")


@st.composite
def notes(draw, breaks=BREAKS, several=True):
    """Words with spaces between them, mentions of whole words that do not overlap, and links between them.

    Returns:
        The text; the mentions as (type, parts), in order; the links as (type, head, tail), by number.
    """
    words = draw(st.lists(st.sampled_from(WORDS), min_size=1, max_size=10))
    gaps = [draw(st.sampled_from(breaks)) for _ in words[1:]]
    text = words[0] + "".join(gap + word for gap, word in zip(gaps, words[1:], strict=True))
    places, at = [], 0
    for word in words:
        start = text.index(word, at)
        places.append((start, start + len(word)))
        at = start + len(word)
    mentions = []
    left = list(places)
    while left and draw(st.booleans()):
        count = min(draw(st.integers(1, 3)), len(left)) if several else 1
        own, left = left[:count], left[count + draw(st.integers(0, 1)) :]
        mentions.append((draw(st.sampled_from(["A", "B"])), tuple(own)))
    pairs = st.tuples(st.sampled_from("RS"), st.integers(0, len(mentions) - 1), st.integers(0, len(mentions) - 1))
    links = draw(st.lists(pairs, max_size=3, unique=True)) if mentions else []
    return text, mentions, links


def expected(id, text, mentions, links, names, **more):
    """The document as it should be read."""
    entities = [
        Entity(names[n], type, parts[0][0], parts[-1][1], parts if len(parts) > 1 else ())
        for n, (type, parts) in enumerate(mentions)
    ]
    relations = tuple(Relation(type, names[a], names[b]) for type, a, b in links)
    return Document(id, text, tuple(entities), relations, id, **more)


@settings(deadline=None, max_examples=100)
@given(notes())
def test_brat(note):
    text, mentions, links = note
    lines = []
    for n, (type, parts) in enumerate(mentions):
        spans = ";".join(f"{a} {b}" for a, b in parts)
        lines.append(f"T{n}\t{type} {spans}\t{' '.join(text[a:b] for a, b in parts)}")
    lines += [f"R{n}\t{type} Arg1:T{a} Arg2:T{b}\t" for n, (type, a, b) in enumerate(links)]
    own, ignored = parse_brat(text, "\n".join(lines), "n")
    assert (own, ignored) == (expected("n", *note, [f"T{n}" for n in range(len(mentions))]), {})


@settings(deadline=None, max_examples=100)
@given(st.lists(notes(), min_size=1, max_size=3), st.booleans())
def test_json_lines(many, ascii_only):
    lines, wanted = [], []
    for number, (text, mentions, links) in enumerate(many):
        rows = [
            {"id": f"m{n}", "type": type, "start": parts[0][0], "end": parts[-1][1]}
            | ({"fragments": [list(part) for part in parts]} if len(parts) > 1 else {})
            for n, (type, parts) in enumerate(mentions)
        ]
        relations = [{"type": type, "head": f"m{a}", "tail": f"m{b}"} for type, a, b in links]
        line = {"id": f"d{number}", "text": text, "entities": rows, "relations": relations}
        lines.append(json.dumps(line, ensure_ascii=ascii_only))
        wanted.append(expected(f"d{number}", text, mentions, links, [row["id"] for row in rows]))
    assert parse_jsonl("\n".join(lines)) == wanted


@settings(deadline=None, max_examples=100)
@given(notes(breaks=(" ", "  "), several=False), notes(breaks=(" ",), several=False))
def test_pubtator(title, abstract):
    shift = len(title[0]) + 1
    moved = [(type, tuple((a + shift, b + shift) for a, b in parts)) for type, parts in abstract[1]]
    mentions, text = [*title[1], *moved], f"{title[0]}\n{abstract[0]}"
    lines = [f"7|t|{title[0]}", f"7|a|{abstract[0]}"]
    for n, (type, ((start, stop),)) in enumerate(mentions):
        lines.append(f"7\t{start}\t{stop}\t{text[start:stop]}\t{type}\tD{n}")
    lines += [f"7\t{type}\tD{a}\tD{b}" for type, a, b in title[2]]
    (own,) = parse_pubtator("\n".join(lines) + "\n\n")
    wanted = expected("7", text, mentions, title[2], [f"T{n + 1}" for n in range(len(mentions))])
    assert [(e.id, e.type, e.start, e.stop) for e in own.entities] == [
        (e.id, e.type, e.start, e.stop) for e in wanted.entities
    ]
    assert [e.concept for e in own.entities] == [f"D{n}" for n in range(len(mentions))]
    assert (own.text, own.relations) == (text, wanted.relations)


@settings(deadline=None, max_examples=100)
@given(notes(breaks=(" ", "\n")))
def test_conll(note):
    text, mentions, _ = note
    tags, joined = {}, []
    for type, parts in mentions:
        if "\n" in text[parts[0][0] : parts[-1][1]]:
            parts = parts[:1]
        tags |= {start: f"{'I' if i else 'B'}-{type}" for i, (start, _) in enumerate(parts)}
        joined.append((type, ((parts[0][0], parts[-1][1]),)))
    rows = ["-DOCSTART- -X- O O", ""]
    for word in re.finditer(r"\S+|\n", text):
        rows.append("" if word[0] == "\n" else f"{word[0]} NN B-NP {tags.get(word.start(), 'O')}")
    (own,) = parse_conll("\n".join(rows) + "\n", stem="n")
    names = [f"T{n + 1}" for n in range(len(joined))]
    assert own == expected("n-1", text, joined, [], names, annotated=frozenset({"entities"}))


@settings(deadline=None, max_examples=100)
@given(notes())
def test_i2b2(note):
    text, mentions, links = note
    joined = [(type, ((parts[0][0], parts[-1][1]),)) for type, parts in mentions]

    def place(at):
        row = text.count("\n", 0, at)
        return f"{row + 1}:{len(text[:at].split(chr(10))[-1].split())}"

    def span(n):
        ((start, stop),) = joined[n][1]
        last = stop - len(re.split(r"\s", text[start:stop])[-1])
        return f'c="{" ".join(text[start:stop].split()).lower()}" {place(start)} {place(last)}'

    con = "".join(f'{span(n)}||t="{type}"\n' for n, (type, _) in enumerate(joined))
    rel = "".join(f'{span(a)}||r="{type}"||{span(b)}\n' for type, a, b in links)
    own = parse_i2b2(text, con, rel, id="n")
    assert own == expected("n", text, joined, links, [f"T{n + 1}" for n in range(len(joined))])


BC5CDR = """{n}|t|Lithium and nausea {n}
{n}|a|Nausea followed lithium. Tubular and glomerular damage too.
{n}\t0\t7\tLithium\tChemical\tD008094
{n}\t12\t18\tnausea\tDisease\tD009325
{n}\t47\t76\tTubular and glomerular damage\tDisease\tD007674|D007676\ttubular damage|glomerular damage
{n}\tCID\tD008094\tD009325

"""


def write(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode())


def bc5cdr(folder):
    for fold, letter in (("Training", "A"), ("Development", "B"), ("Test", "C")):
        write(folder, {f"CDR_{fold}Set.PubTator.txt": "".join(BC5CDR.format(n=f"{letter}{n}") for n in range(1, 7))})
    return PubTatorFolder(folder, split="fold", partition=IID(2)), {"train": 6, "val": 6, "test": 6}


def ncbi(folder):
    for fold in ("train", "devel", "test"):
        lines = [
            f"-DOCSTART- ({fold}{n})\tO\n\nNausea\tB-Disease\nfollowed\tO\nno\tO\n{n}\tO\n.\tO\n\n" for n in range(6)
        ]
        write(folder, {f"{fold}.tsv": "".join(lines)})
    return ConllFolder(folder, split="fold", partition=IID(2)), {"train": 6, "val": 6, "test": 6}


def i2b2(folder):
    for site in ("beth", "partners"):
        for n in range(8):
            write(folder, {
                f"{site}/txt/record-{n}.txt": f"Nausea followed Lithium {n} .\n",
                f"{site}/concept/record-{n}.con": 'c="nausea" 1:0 1:0||t="problem"\n'
                'c="lithium" 1:2 1:2||t="treatment"\n',
                f"{site}/rel/record-{n}.rel": 'c="lithium" 1:2 1:2||r="TrCP"||c="nausea" 1:0 1:0\n',
                f"{site}/ast/record-{n}.ast": 'c="nausea" 1:0 1:0||t="problem"||a="present"\n',
            })  # fmt: skip
    return I2B2Folder(folder, assertions=True), {"train": 10, "val": 2, "test": 4}


def brat(folder):
    for site in ("clinic-a", "clinic-b"):
        for fold in ("train", "dev", "test"):
            for n in range(3):
                write(folder, {
                    f"{site}/{fold}/{n}.txt": f"Nausea\r\nfollowed lithium {n}",
                    f"{site}/{fold}/{n}.ann": "T1\tDisease 0 6\tNausea\nT2\tChemical 17 24\tlithium\n"
                    "R1\tCID Arg1:T2 Arg2:T1\t\n#1\tAnnotatorNotes T1\tsure\n",
                    f"{site}/{fold}/._{n}.ann": "\0\0", f"{site}/.DS_Store": "\0",
                })  # fmt: skip
    return BratFolder(folder, split="fold"), {"train": 6, "val": 6, "test": 6}


def json_lines(folder):
    rows = [{"id": "T1", "type": "Disease", "start": 0, "end": 6}, {"id": "T2", "type": "Chemical"}]
    rows[1] |= {"start": 16, "end": 23, "text": "lithium"}
    more = {"entities": rows, "relations": [{"type": "CID", "head": "T2", "tail": "T1"}]}
    for site in ("clinic-a", "clinic-b"):
        lines = []
        for n in range(12):
            own = {"id": f"{site}-{n}", "text": f"Nausea followed lithium {n}.", "subject": f"{site}-{n // 2}"}
            own |= {"site": site, "fold": ["train", "dev", "test"][n // 2 % 3]}
            lines.append(json.dumps(own | more))
        write(folder, {f"{site}.jsonl": "\n".join(lines)})
    return JSONLDocuments(folder, split="fold", partition=BySite()), {"train": 8, "val": 8, "test": 8}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("layout", [bc5cdr, ncbi, i2b2, brat, json_lines])
def test_the_layouts_that_the_guide_names(layout, tmp_path):
    data, sizes = layout(tmp_path)
    data.setup()
    assert {split: len(data.dataset(data.clients, split)) for split in sizes} == sizes
    assert len(data.clients) == 2
    for own in data.documents:
        found = {own.mention(entity).lower() for entity in own.entities}
        assert found <= {"nausea", "lithium", "tubular and glomerular damage"}
        assert "nausea" in found
        assert [r.type for r in own.relations] == {ncbi: [], i2b2: ["TrCP"]}.get(layout, ["CID"])
    assert data.describe()["excluded"] == []
