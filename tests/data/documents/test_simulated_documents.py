"""Notes that are made up."""

from __future__ import annotations

import json

import pytest

from fedlit.data import IID, SimulatedNotes
from fedlit.data.documents.documents import document_fault
from fedlit.data.documents.simulated import APART, CAUSED, CHEMICALS, DISEASES
from fedlit.engine.batches import evaluation_loader
from fedlit.errors import FedlitError


def test_notes_say_what_is_annotated():
    notes = SimulatedNotes(notes=40, sites=4, sentences=3).read()
    assert not any(document_fault(one) for one in notes)
    assert len({one.subject for one in notes}) == 40
    for note in notes:
        assert len(note.entities) == 6
        assert {note.mention(e) for e in note.entities if e.type == "Chemical"} <= set(CHEMICALS)
        assert {note.mention(e) for e in note.entities if e.type == "Disease"} <= set(DISEASES)
        pairs = {(link.head, link.tail) for link in note.relations}
        by_id, chemicals = note.by_id(), [e for e in note.entities if e.type == "Chemical"]
        for drug in chemicals:  # each sentence links its own two, or does not, and says so
            begin = note.text.rfind(". ", 0, drug.start) + 2
            sentence = note.text[begin : note.text.index(".", drug.start)]
            ends = next(e for e in note.entities if e.type == "Disease" and begin <= e.start < begin + len(sentence))
            phrase = sentence.replace(note.mention(drug), "{c}").replace(note.mention(ends), "{d}")
            assert phrase in (CAUSED if (drug.id, ends.id) in pairs else APART)
        assert {by_id[head].type for head, _ in pairs} <= {"Chemical"}
    linked = sum(len(one.relations) for one in notes)
    assert 40 < linked < 80  # of 120, one in two


def test_a_seed_gives_the_same_notes_and_sites_differ():
    one, two, other = (SimulatedNotes(notes=40, simulation_seed=seed).read() for seed in (0, 0, 1))
    assert one == two
    assert not {note.text for note in one} & {note.text for note in other}
    data = SimulatedNotes(notes=80, sites=2)
    data.setup()
    assert data.clients == ["site-1", "site-2"]
    words = []
    for client in data.clients:
        held = [own for split in ("train", "val", "test") for own in data.dataset(client, split).documents]
        assert len(held) == 40
        said = [own.mention(e) for own in held for e in own.entities if e.type == "Chemical"]
        words.append({word: said.count(word) / len(said) for word in CHEMICALS})
    apart = sum(abs(words[0][word] - words[1][word]) for word in CHEMICALS) / 2
    assert apart > 0.3  # total variation; two draws from one site have about 0.15


def test_what_is_said_of_them():
    data = SimulatedNotes(notes=24, sites=2, annotated={"site-2": ["entities"]}, server_examples=4, seed=3)
    described = data.describe()
    assert described["simulated"] is True
    assert len(described["server"]) == 4
    assert described["schema"] == {
        "entities": ["Chemical", "Disease"], "relations": {"CID": [["Chemical", "Disease"]]}}  # fmt: skip
    assert described["clients"]["site-2"]["looked_for"] == ["entities"]
    assert not any(own.relations for own in data.dataset("site-2", "train").documents)
    config = data.config()
    assert (config["notes"], config["sites"], config["server_examples"]) == (24, 2, 4)
    json.dumps([config, described])


@pytest.mark.parametrize(
    "arguments", [{"notes": 3, "sites": 4}, {"sites": 0}, {"sentences": 0}, {"notes": 0, "sites": 0}], ids=str
)
def test_bad_sizes(arguments):
    with pytest.raises(FedlitError, match=r"data\.notes is .*, data\.sites .*, data\.sentences"):
        SimulatedNotes(**arguments)


@pytest.mark.parametrize(
    "arguments",
    [{}, {"server_examples": 30}, {"sites": 10, "notes": 1000}, {"partition": IID(12)}, {"notes": 4, "sites": 4}],
    ids=str,
)
def test_stand_ins_have_notes_for_everyone(arguments, tmp_path):
    data = SimulatedNotes(**arguments)
    data.use_stand_in(tmp_path)
    described = data.describe()
    assert described["stand_in"]
    assert data.notes <= 200
    assert len(described["server"]) == arguments.get("server_examples", 0)
    for client in data.clients:
        assert all(len(data.dataset(client, split)) for split in ("train", "val", "test"))


@pytest.mark.filterwarnings("ignore:there is one client")
def test_batches_to_score_may_be_larger():
    data = SimulatedNotes(notes=40, sites=1, batch_size=2, eval_batch_size=5, seed=0)
    data.setup()
    held = data.dataset("site-1", "test")
    sizes = [len(batch["document"]) for batch in evaluation_loader(data, held)]
    assert sizes[0] == 5
    assert sum(sizes) == len(held) == 10
    assert [len(batch["document"]) for batch in evaluation_loader(data, held, limit=1)] == [5]
    data.eval_batch_size = None
    assert {len(batch["document"]) for batch in evaluation_loader(data, held)} == {2}
    with pytest.raises(FedlitError, match=r"data\.eval_batch_size is 0"):
        SimulatedNotes(eval_batch_size=0)
