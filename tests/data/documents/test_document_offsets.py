"""What offsets count: checked by words, by what mentions cut, or said; mentions of white space."""

from __future__ import annotations

import json
import warnings

import pytest
from documents_in_memory import ready
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlit.data import IID, BratFolder, JSONLDocuments, PubTatorFolder
from fedlit.data.base.records import BadRecord
from fedlit.data.documents.documents import Document, Entity, without_margins
from fedlit.data.documents.jsonl import jsonl_pieces
from fedlit.data.documents.offsets import Doubts, Places, Ruler
from fedlit.errors import FedlitError

COUNTED = {
    "characters": len,
    "utf16": lambda text: len(text.encode("utf-16-le")) // 2,
    "bytes": lambda text: len(text.encode()),
}
"""How long a text is to each kind of tool."""
TEXT = "🫀 rash und Übelkeit, then 🤒 cough and 🩹 pain"
WORDS = {"rash": "Sign", "Übelkeit": "Sign", "cough": "Sign", "pain": "Sign"}


def line(unit, text=TEXT, id="1", words=False):
    size = COUNTED[unit]
    rows = []
    for n, (word, type) in enumerate(WORDS.items()):
        at = text.index(word)
        own = {"id": f"T{n}", "type": type, "start": size(text[:at]), "end": size(text[:at]) + size(word)}
        rows.append(own | ({"text": word} if words else {}))
    return json.dumps({"id": id, "text": text, "entities": rows})


def found(document):
    return [document.mention(entity) for entity in document.entities]


@pytest.mark.parametrize("unit", COUNTED)
def test_json_lines_that_say_what_they_count(unit, tmp_path):
    (tmp_path / "a.jsonl").write_text(line(unit))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (own,) = JSONLDocuments(tmp_path, offsets=unit).read()
    assert found(own) == list(WORDS)


@pytest.mark.parametrize("unit", ["utf16", "bytes"])
def test_mentions_that_cut_words_tell_what_is_counted(unit, tmp_path):
    lines = [line(unit, f"{TEXT}, and nothing else", id) for id in "12"]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    message = (
        rf"a.jsonl: line .: .*mentions cut a word or hold white space.*set data.offsets {unit}, or data.offsets ch"
    )
    with pytest.raises(FedlitError, match=message):
        JSONLDocuments(tmp_path).read()
    assert len(JSONLDocuments(tmp_path, offsets="characters").read()) == 2  # it is said: believed


@pytest.mark.parametrize("unit", ["utf16", "bytes"])
def test_mentions_outside_of_the_text_tell_what_is_counted(unit, tmp_path):
    (tmp_path / "a.jsonl").write_text(line(unit))
    message = (
        rf"line 1 has a mention at .. to .., outside of a text of 44 characters: .* set data.offsets {unit}: it fits"
    )
    with pytest.raises(BadRecord, match=message):
        JSONLDocuments(tmp_path).read()


def test_words_are_checked_and_the_error_names_the_unit(tmp_path):
    (tmp_path / "a.jsonl").write_text(line("characters", words=True))
    assert found(JSONLDocuments(tmp_path).read()[0]) == list(WORDS)
    (tmp_path / "a.jsonl").write_text(line("utf16", words=True))
    message = r"has a mention of 4 characters at 3 to 7.*set data.offsets utf16: it fits if they count UTF-16 units"
    with pytest.raises(BadRecord, match=message):
        JSONLDocuments(tmp_path).read()


def test_offsets_that_nothing_shows_are_said_with_their_line(tmp_path):
    rows = [{"id": "T1", "type": "Sign", "start": 0, "end": 5}, {"id": "T2", "type": "Sign", "start": 8, "end": 12}]
    for n in range(8):
        text = f"fever 🫀 rash {n}"
        (tmp_path / f"{n}.jsonl").write_text(json.dumps({"id": f"{n}", "text": text, "entities": rows}))
    data = JSONLDocuments(tmp_path, partition=IID(2))
    with pytest.warns(
        UserWarning, match=r"0.jsonl: line 1: from here on 8 mention\(s\) have no words to check their o"
    ):
        data.setup()
    assert any(
        "set data.offsets utf16 if so, else data.offsets characters" in said for said in data.describe()["warnings"]
    )
    assert JSONLDocuments(tmp_path, partition=IID(2), offsets="characters").describe()["warnings"] == []
    for n in range(8):  # words: nothing is in doubt
        text = f"fever 🫀 rash {n}"
        own = [rows[0] | {"text": "fever"}, rows[1] | {"text": "rash"}]
        (tmp_path / f"{n}.jsonl").write_text(json.dumps({"id": f"{n}", "text": text, "entities": own}))
    assert JSONLDocuments(tmp_path, partition=IID(2)).describe()["warnings"] == []


def test_line_breaks_that_a_browser_counts_as_one(tmp_path):
    text = "one\r\ntwo\r\nfever and cough"
    rows = [{"id": "T1", "type": "S", "start": 8, "end": 13}, {"id": "T2", "type": "S", "start": 18, "end": 23}]
    (tmp_path / "a.jsonl").write_text(json.dumps({"id": "1", "text": text, "entities": rows}))
    with pytest.raises(FedlitError, match=r"line 1: .*none if they count each line break as one: write the text's li"):
        JSONLDocuments(tmp_path).read()


def test_other_formats_of_tools_that_count_so(tmp_path):
    (tmp_path / "n.txt").write_text("🫀 fever")
    (tmp_path / "n.ann").write_text("T1\tSign 3 8\tfever\n")
    with pytest.raises(BadRecord, match="or set data.offsets utf16: it fits"):
        BratFolder(tmp_path).read()
    assert found(BratFolder(tmp_path, offsets="utf16").read()[0]) == ["fever"]
    (tmp_path / "n.PubTator").write_text("1|t|Ü fever\n1|a|b\n1\t3\t8\tfever\tSign\t-1\n")
    with pytest.raises(BadRecord, match="or set data.offsets bytes: it fits"):
        PubTatorFolder(tmp_path).read()
    assert found(PubTatorFolder(tmp_path, offsets="bytes").read()[0]) == ["fever"]
    for reader in (BratFolder, PubTatorFolder, JSONLDocuments):
        with pytest.raises(FedlitError, match="data.offsets is 'words': give one of characters, utf16, bytes"):
            reader(tmp_path, offsets="words")


def test_offsets_within_a_character():
    with pytest.raises(BadRecord, match="here has a mention at 1 to 2, outside of the text or within a character"):
        Places("🫀 a", "utf16").of("here", [(1, 2)], None)
    assert Ruler("🫀 a", "utf16").spans([(0, 2), (3, 4), (4, 5)]) is None
    assert Ruler("🫀 a", "utf16").spans([(0, 2), (3, 4)]) == [(0, 1), (2, 3)]
    assert Ruler("a\r\nb", "breaks").spans([(0, 1), (2, 3)]) == [(0, 1), (3, 4)]


PIECES = st.sampled_from(["fever", "a", " ", "\n", "\r\n", "é", "e\u0301", "ß", "🫀", "👩‍⚕️", "שלום", "\u2028", "𝒜"])
TEXTS = st.lists(PIECES, min_size=1, max_size=12).map("".join).filter(str.strip)


@settings(deadline=None, max_examples=150)
@given(TEXTS, st.data(), st.sampled_from(sorted(COUNTED)))
def test_any_offsets_are_read_back(text, data, unit):
    size = COUNTED[unit]
    rows, spans = [], []
    for n in range(data.draw(st.integers(0, 4))):
        bounds = data.draw(st.lists(st.integers(0, len(text)), min_size=2, max_size=4, unique=True).map(sorted))
        parts = list(zip(bounds[::2], bounds[1::2], strict=False))
        counted = [[size(text[:a]), size(text[:b])] for a, b in parts]
        rows.append({"id": f"{n}", "type": "S", "start": counted[0][0], "end": counted[-1][1], "fragments": counted})
        rows[-1]["text"] = " ".join(text[a:b] for a, b in parts)
        spans.append((f"{n}", tuple(parts)))
    content = json.dumps({"id": "1", "text": text, "entities": rows})
    (piece,) = jsonl_pieces(content, "n", offsets=unit)
    own = piece.parse()
    assert own.text == text
    assert sorted((e.id, e.fragments) for e in own.entities) == spans


def test_mentions_of_white_space_are_refused_and_margins_are_left_out(tmp_path):
    rows = [{"id": "T1", "type": "S", "start": 5, "end": 7}]
    (tmp_path / "a.jsonl").write_text(json.dumps({"id": "1", "text": "fever  and cough", "entities": rows}))
    with pytest.raises(BadRecord, match="a.jsonl: line 1: document '1' has the mention 'T1' of white space at 5 to 7"):
        JSONLDocuments(tmp_path).read()
    (tmp_path / "n.txt").write_text("fever \n and cough")
    (tmp_path / "n.ann").write_text("T1\tSign 5 8\t  \n")
    with pytest.raises(BadRecord, match="n.txt: document 'n' has the mention 'T1' of white space"):
        BratFolder(tmp_path).read()
    margins = [Document(f"{n}", f"a fever {n}", (Entity("T1", "S", 1, 8),), site="ab"[n % 2]) for n in range(16)]
    with pytest.warns(UserWarning, match=r"16 mention\(s\) began or ended with white space, which was left out"):
        data = ready(margins)
    assert {own.mention(own.entities[0]) for own in data.documents} == {"fever"}
    parts = Document("1", "a b c", (Entity("T", "S", 0, 5, ((0, 2), (3, 5))), Entity("U", "S", 0, 1)))
    left, count = without_margins(parts)
    assert (count, [(e.id, e.fragments) for e in left.entities]) == (1, [("U", ()), ("T", ((0, 1), (4, 5)))])


def test_doubts_need_more_than_one_mention_to_be_an_error():
    doubts = Doubts()
    doubts.note("here", "🫀 fever", [[(3, 8)]])
    assert doubts.fault() is None
    assert "here: from here on 1 mention(s) have no words" in doubts.warning()
    doubts.note("there", "🫀 fever", [[(3, 8)]])
    assert doubts.fault().startswith("here: from here on 2 of 2 mentions cut a word")
    german = Doubts()
    german.note("here", "Übelkeit und Fieber", [[(0, 8)], [(13, 19)], [(4, 8)]])
    assert (german.fault(), german.warning()) == (None, None)
