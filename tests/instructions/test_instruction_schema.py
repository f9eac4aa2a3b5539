"""Schemas: what a file must say, and how an error names the field."""

from __future__ import annotations

import copy

import pytest
from drawn_documents import SCHEMA

from fedlit.data.documents.documents import Document, Entity, Relation
from fedlit.errors import FedlitError
from fedlit.instructions import EntityType, RelationType, Schema

GIVEN = {
    "name": "s",
    "entities": {"drug": "A medicine.", "problem": "What is wrong."},
    "relations": {"for": {"heads": ["drug"], "tails": ["problem"], "description": "Given against it."}},
    "modifiers": {"dosage": {"of": ["drug"], "description": "How much of it."}},
}


def test_a_modifier_is_an_entity_type_and_the_relation_to_it():
    schema = Schema.from_dict(GIVEN)
    assert schema.entity["dosage"] == EntityType("dosage", "How much of it.", modifier=True)
    assert schema.relation["dosage"] == RelationType("dosage", ("drug",), ("dosage",), "How much of it.")
    assert [one.name for one in schema.main] == ["drug", "problem"]
    assert schema.fits("for", "drug", "problem")
    assert not schema.fits("for", "problem", "drug")
    assert not schema.fits("against", "drug", "problem")
    assert Schema.from_dict(schema.to_dict()) == schema
    assert schema.to_dict() == GIVEN


def test_shipped_schemas():
    small, clinical = Schema.load("bc5cdr"), Schema.load("clinical")
    assert [one.name for one in small.entities] == ["Chemical", "Disease"]
    assert (small.relation["CID"].heads, small.relation["CID"].tails) == (("Chemical",), ("Disease",))
    assert [one.name for one in clinical.main] == ["problem", "treatment", "test", "drug"]
    of = {main.name: {r.name for r in clinical.relations if main.name in r.heads} for main in clinical.main}
    always = {"temporal", "negation"}
    assert of == {
        "problem": {"severity", "condition", "uncertain", "subject", "bodyloc", "course", *always},
        "treatment": always,
        "drug": {"strength", "dosage", "duration", "form", "frequency", "route", *always},
        "test": {"labvalue", "reference_range", *always},
    }
    assert len(clinical.modifiers) == 16
    assert all(Schema.from_dict(one.to_dict()) == one for one in (small, clinical))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("name",), 3, "schema given: name is 3, expected text"),
        (("entities",), {}, "schema 's': entities is empty"),
        (("entities", "drug"), "", "entities.drug.description is empty or of several lines"),
        (("entities", "drug"), ["a"], r"entities.drug is \['a'\], expected its description"),
        (("entities", "a drug"), "A.", "entities.a drug is no usable name"),
        (("entities", "None"), "A.", "entities.None is no usable name"),
        (("entities", "Drug"), "A.", "entities holds 'drug' and 'Drug': rename one"),
        (("entities", "dosage"), "A.", "entities holds 'dosage' and 'dosage': rename one"),
        (("relations", "for", "heads"), [], "relations.for.heads is empty"),
        (("relations", "for", "heads"), "drug", "relations.for: heads is 'drug', expected a list of names"),
        (("relations", "for", "tails"), ["illness"], "relations.for.tails holds 'illness', which is not among the"),
        (("relations", "for", "note"), "x", "relations.for has an unknown field 'note'"),
        (("relations", "for"), None, "relations.for is None, expected the fields"),
        (("modifiers", "dosage", "of"), ["pill"], "modifiers.dosage.of holds 'pill'"),
        (("more",), 1, "schema given has an unknown field 'more'"),
    ],
)
def test_errors_name_the_field(path, value, message):
    given = copy.deepcopy(GIVEN)
    inner = given
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    with pytest.raises(FedlitError, match=message):
        Schema.from_dict(given)


def test_a_missing_field_and_a_lone_modifier():
    with pytest.raises(FedlitError, match="schema given lacks the field 'entities'"):
        Schema.from_dict({"name": "s"})
    with pytest.raises(FedlitError, match="modifier 'm' has no relation of its name"):
        Schema("s", (EntityType("a", "A."), EntityType("m", "M.", modifier=True)))


def test_files(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("name: own\nentities: {a: An a.}\n", encoding="utf-8")
    assert Schema.load(path) == Schema("own", (EntityType("a", "An a."),))
    path.write_text("name: own\nname: other\n", encoding="utf-8")
    with pytest.raises(FedlitError, match=r"own\.yaml is no YAML: .*'name' is given twice"):
        Schema.load(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FedlitError, match="is no YAML"):
        Schema.load(path)
    with pytest.raises(FedlitError, match=r"cannot be read .* shipped are \['bc5cdr', 'clinical'\]"):
        Schema.load("nowhere")


def test_documents_of_other_types():
    mentions = (Entity("a", "Chemical", 0, 1), Entity("b", "Disease", 2, 3))
    document = Document("n", "x y", mentions, (Relation("CID", "a", "b"),))
    assert SCHEMA.fault(document) is None
    assert "relation 'CID' from 'Disease' to 'Chemical'" in (
        SCHEMA.fault(Document("n", "x y", mentions, (Relation("CID", "b", "a"),))) or ""
    )
    assert "type 'Gene', which schema 'drawn' lacks (Chemical, Disease, severity)" in (
        SCHEMA.fault(Document("n", "x", (Entity("a", "Gene", 0, 1),))) or ""
    )
