"""What was looked for, by type: masks of clients, what files say, sets without a single relation, the server's."""

from __future__ import annotations

import json
import warnings

import pytest
from documents_in_memory import SPLITS, doc, everything, many, ready

from fedlit.data import IID, BratFolder, BySite, I2B2Folder, JSONLDocuments, PubTatorFolder
from fedlit.data.base.records import BadRecord
from fedlit.data.documents.documents import BOTH, Document, Entity
from fedlit.data.documents.generated import put
from fedlit.data.documents.jsonl import parse_jsonl, write_jsonl
from fedlit.data.documents.looked_for import LookedFor, masked, server_mask, without_any
from fedlit.errors import FedlitError

ILLS = {"site-b": {"entities": ["problem"]}}


def held(documents):
    return {entity.type for own in documents for entity in own.entities}, {
        relation.type for own in documents for relation in own.relations
    }


def test_a_client_looks_for_types():
    data = ready(many(), annotated=ILLS)
    for split in SPLITS:
        own = data.dataset("site-b", split).documents
        assert held(own) == ({"problem"}, set())
        assert {document.entity_types for document in own} == {frozenset({"problem"})}
        assert held(data.dataset("site-a", split).documents)[0] == {"drug", "problem", "test"}
    clients, types = data.describe()["clients"], data.describe()["types"]
    assert types["site-b"] == {"entities": ["problem"], "relations": []}
    assert types["site-a"] == {"entities": ["drug", "problem", "test"], "relations": ["shows", "treats"]}
    assert clients["site-b"]["looked_for"] == ["entities"]
    assert data.annotated == ILLS
    open_tests = ready(many(), annotated=ILLS, mask_test=False)
    assert held(open_tests.dataset("site-b", "test").documents)[0] == {"drug", "problem", "test"}
    assert held(open_tests.dataset("site-b", "val").documents)[0] == {"problem"}


def test_relations_by_type():
    both = {"site-b": {"entities": ["drug", "problem"], "relations": None}}
    described = ready(many(), annotated=both).describe()
    clients = described["clients"]
    assert described["types"]["site-b"] == {"entities": ["drug", "problem"], "relations": ["treats"]}
    assert clients["site-b"]["type_counts"]["train"]["relations"] == {"treats": 7}
    # Mentions are input where they were not looked for: those that a relation links stay.
    links = ready(many(), annotated={"site-b": {"relations": ["shows"]}})
    assert held(links.dataset("site-b", "train").documents) == ({"drug", "problem", "test"}, {"shows"})
    assert links.describe()["types"]["site-b"] == {"entities": [], "relations": ["shows"]}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"entities": ["illness"]}, "'site-b' names the type 'illness', which no mention has; there are drug, problem"),
        ({"relations": ["causes"]}, "names the type 'causes', which no relation has; there are shows, treats: mend it"),
        (
            {"entities": ["problem"], "relations": ["treats"]},
            "relations 'treats' link mentions that it did not look for.*add drug to its entities, or leave treats out",
        ),
        ({"entities": ["problem"], "relations": None}, "relations 'shows' link mentions that it did not look for"),
        ({"entities": []}, r"data.annotated of 'site-b' is .*: give entities, relations, or both, as \[entities"),
        ({"mentions": ["problem"]}, "give entities, relations, or both"),
        ({}, "give entities, relations, or both"),
    ],
)
def test_types_that_cannot_be(given, message):
    with pytest.raises(FedlitError, match=message):
        ready(many(), annotated={"site-b": given})


def test_a_file_says_its_types():
    line = {"id": "1", "text": "Fever after a drug.", "annotated": {"entities": ["Sign"], "relations": None}}
    line["entities"] = [{"id": "T1", "type": "Sign", "start": 0, "end": 5}]
    (own,) = parse_jsonl(json.dumps(line))
    assert (own.annotated, own.entity_types, own.relation_types) == (BOTH, frozenset({"Sign"}), None)
    assert parse_jsonl(write_jsonl([own])) == [own]
    assert json.loads(write_jsonl([own]))["annotated"] == line["annotated"]
    line["entities"][0]["type"] = "Drug"
    with pytest.raises(BadRecord, match="line 1: document '1' has a mention of the type 'Drug', which is not among"):
        parse_jsonl(json.dumps(line))
    line["annotated"] = {"entities": "Drug"}
    with pytest.raises(BadRecord, match="text: line 1 has .* as annotated that is none: give a list of entities"):
        parse_jsonl(json.dumps(line))


def test_masks_and_files_meet():
    own = Document("1", "ab c", (Entity("T1", "x", 0, 2), Entity("T2", "y", 3, 4)), entity_types=frozenset("xy"))
    left = masked(own, LookedFor(entity_types=frozenset("yz")))
    assert (left.entity_types, [entity.type for entity in left.entities]) == (frozenset("y"), ["y"])
    assert masked(own, LookedFor(entity_types=frozenset("z"))) is None
    assert masked(own, LookedFor(frozenset({"relations"}))).entities == own.entities


def test_a_type_that_one_client_never_marks_is_said():
    given = [d if d.site == "a" else Document(d.id, d.text, d.entities[1:2], site="b") for d in many()]
    message = (
        r"1 client\(s\) hold none of a type that others hold, and it is taught that there is none: site-b \(drug, "
        r"test, shows, treats\); if nobody looked for it there: data.annotated {site-b: {entities: \[problem\]}}"
    )
    with pytest.warns(UserWarning, match=message):
        data = ready(given)
    assert len(data.describe()["warnings"]) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ready(given, annotated=ILLS)  # the mend works
        ready(many())


def test_a_set_without_a_single_relation_was_not_looked_through(tmp_path):
    for i in range(12):
        put(tmp_path / "north" / f"n{i}.txt", f"Fever {i}")
        put(tmp_path / "north" / f"n{i}.ann", "T1\tSign 0 5\tFever\n")
        put(tmp_path / "south" / f"s{i}.txt", f"Fever hurt {i}")
        link = "R1\tR Arg1:T1 Arg2:T2\n" if i % 3 == 0 else ""
        put(tmp_path / "south" / f"s{i}.ann", f"T1\tSign 0 5\tFever\nT2\tSign 6 10\thurt\n{link}")
    data = BratFolder(tmp_path)
    with pytest.warns(UserWarning, match=r"not one relation in 12 document\(s\) of north: they count as not lo"):
        data.setup()
    clients = data.describe()["clients"]
    assert clients["site-north"]["looked_for"] == ["entities"]
    assert clients["site-south"]["looked_for"] == ["entities", "relations"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert BratFolder(tmp_path, annotated={"site-n*": ["entities"]}).describe()["warnings"] == []
    said = BratFolder(tmp_path, annotated={"*": ["entities", "relations"]})
    with pytest.warns(UserWarning, match="site-north .R."):
        said.setup()
    assert said.describe()["clients"]["site-north"]["annotated"]["train"] == {"entities": 7, "relations": 7}


def test_readers_whose_files_say_it_are_believed():
    assert not PubTatorFolder.says_what_was_looked_for
    assert not BratFolder.says_what_was_looked_for
    assert JSONLDocuments.says_what_was_looked_for
    assert I2B2Folder.says_what_was_looked_for
    none = [Document("2", "a", site="b"), Document("3", "a", site="c", annotated=frozenset({"entities"}))]
    assert without_any(none) == {"b": ["entities", "relations"], "c": ["entities"]}
    assert without_any([doc("1"), *none]) == {}  # so few that none is no surprise
    assert without_any([doc("1"), *none[:1] * 3, none[1]]) == {"b": ["entities", "relations"]}


def test_types_to_keep_and_types_that_were_looked_for():
    own = doc("1", entity_types=frozenset({"drug", "problem", "test"}), relation_types=frozenset({"treats", "shows"}))
    given = [own if d.id == "d1" else d for d in many()]
    data = ready(given, types=["drug", "problem", "treats"])
    (kept,) = (d for d in data.documents if d.id == "1")
    assert (kept.entity_types, kept.relation_types) == (frozenset({"drug", "problem"}), frozenset({"treats"}))
    assert (kept.annotated, data.describe()["types"]["site-a"]) == (
        BOTH,
        {"entities": ["drug", "problem"], "relations": ["treats"]},
    )
    # What is dropped was not looked for: a task is not taught that there is none.
    assert {d.entity_types for d in ready(many(), types=["drug"]).documents} == {frozenset({"drug"})}
    dropped = ready(many(), rename={"types": {"test": None}}).documents
    assert {d.entity_types for d in dropped} == {frozenset({"drug", "problem"})}
    assert {d.relation_types for d in dropped} == {frozenset({"treats"})}
    # Nothing can be found between mentions that are left out.
    assert {d.annotated for d in ready(many(), types=["drug", "treats"]).documents} == {frozenset({"entities"})}


def test_the_server_knows_what_the_site_of_its_documents_looked_for():
    ills = [Document(f"i{n}", f"ab {n}", (Entity("T1", "problem", 0, 2),), site="b") for n in range(12)]
    given = [d for d in many() if d.site == "a"] + ills
    data = ready(given, annotated=ILLS, server_examples=4)
    served = {own.site: own for own in data.server_dataset().documents}
    assert (served["b"].entity_types, served["b"].annotated) == (frozenset({"problem"}), frozenset({"entities"}))
    assert (served["a"].entity_types, served["a"].annotated) == (None, BOTH)
    # A mask of documents that hold more is of the client alone: the server has all that annotators found.
    masked_only = ready(many(), annotated=ILLS, server_examples=4).server_dataset().documents
    assert all(len(own.entities) == 3 and len(own.relations) == 2 for own in masked_only)
    assert server_mask([LookedFor(frozenset({"entities"})), LookedFor()], ills) == LookedFor()
    drawn = ready(many(), annotated={"client-2": ["entities"]}, partition=IID(2), server_examples=4)
    assert {own.annotated for own in drawn.server_dataset().documents} == {BOTH}


def test_a_document_of_other_types_than_its_client_is_left_out():
    given = [
        *many(),
        doc("x", site="b", annotated=frozenset({"entities"}), entity_types=frozenset({"drug", "test", "problem"})),
    ]
    given.append(Document("y", "ab", (Entity("T1", "drug", 0, 2),), site="b", entity_types=frozenset({"drug"})))
    data = ready(given, annotated=ILLS, partition=BySite())
    reasons = {row["record"]: row["reason"] for row in data.describe()["excluded"]}
    assert reasons == {"y": "nothing that client 'site-b' looks for was looked for in it"}
    assert {own.id for side in everything(data)["site-b"].values() for own in side} >= {"x"}
