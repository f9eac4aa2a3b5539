"""Whether the types in the data are those that are looked for."""

from __future__ import annotations

import warnings

import pytest

from fedlit.data import SimulatedNotes
from fedlit.errors import FedlitError
from fedlit.instructions import EntityType, Schema
from fedlit.tasks import InstructionTask, TokenClassificationTask
from fedlit.tasks.documents.schema import UNKNOWN, load_schema, schema_file, schema_of, take_schema

SCHEMA = Schema.load("bc5cdr")


class Data:
    def __init__(self, entities, **relations):
        self.schema = {"entities": entities, "relations": relations}


def test_data_of_fewer_types_keep_the_schema():
    assert take_schema(SCHEMA, Data(["Disease"]), False) is SCHEMA
    assert take_schema(SCHEMA, Data(["Disease", "Chemical"], CID=[["Chemical", "Disease"]]), False) is SCHEMA


def test_stand_in_data_bring_their_own():
    data = Data(["drug", "test"], a=[["drug", "test"], ["drug", "drug"]], b=[["test", "drug"]])
    made = take_schema(SCHEMA, data, True)
    assert [one.name for one in made.entities] == ["drug", "test"]
    assert [(one.name, one.heads, one.tails) for one in made.relations] == [
        ("a", ("drug",), ("test", "drug")), ("b", ("test",), ("drug",))]  # fmt: skip
    assert Schema.from_dict(made.to_dict()) == made
    assert schema_of({"entities": ["drug"]}).relations == ()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (object(), "object holds no annotated documents"),
        (Data(["Chemical", "dose", "test"]), r"of dose, test, which schema 'bc5cdr' lacks \(Chemical, Disease\)"),
        (Data(["Chemical", "Disease"], CID=[["Disease", "Chemical"]]), "relations 'CID' from 'Disease' to 'Chemical'"),
        (Data(["Chemical", "Disease"], treats=[["Chemical", "Disease"]]), "relations 'treats'"),
    ],
)  # fmt: skip
def test_types_that_the_schema_lacks(data, message):
    with pytest.raises(FedlitError, match=message):
        take_schema(SCHEMA, data, False)


def test_the_schema_of_the_data(tmp_path):
    data = Data(["drug", "test"], a=[["drug", "test"]])
    made = take_schema(load_schema("data"), data, False)
    assert made == schema_of(data.schema)
    (tmp_path / "mine.yaml").write_text(schema_file(made))
    assert Schema.load(tmp_path / "mine.yaml") == made  # a file to edit
    with pytest.raises(FedlitError, match="lacks .*; model.schema data takes those of the data, and writes them"):
        take_schema(SCHEMA, data, False)
    with pytest.raises(FedlitError, match=r"entities.2nd is no usable name.*data.rename {types: {OLD: NEW}}"):
        take_schema(UNKNOWN, Data(["2nd"]), False)
    assert take_schema(made, Data(["drug"]), False) is made  # other data are checked against it


@pytest.mark.parametrize("task", [InstructionTask, TokenClassificationTask])
def test_a_task_of_the_schema_of_the_data(task):
    kind = "llama" if task is InstructionTask else "bert"
    made = task(f"stand-in:{kind}", schema="data")
    with pytest.raises(FedlitError, match="model.schema is data, and no data were seen: call take_data"):
        made.configure_model()
    data = SimulatedNotes(notes=24, sites=2)
    data.setup()
    made.take_data(data)
    assert [one.name for one in made.sought.entities] == ["Chemical", "Disease"]
    assert made.run_files()["schema.yaml"].startswith("# The types found in the data. Copy, describe or leave out")
    assert task(f"stand-in:{kind}").run_files() == {}


def test_relations_without_a_direction_in_the_data_have_none_in_the_schema():
    data = Data(["Chemical", "Disease"], CID=[["Chemical", "Disease"]])
    data.schema["symmetric"] = ["CID"]
    (cid,) = take_schema(SCHEMA, data, False).relations
    assert (cid.symmetric, cid.heads, cid.tails) == (True, ("Chemical", "Disease"), ("Chemical", "Disease"))
    assert schema_of(data.schema).relation["CID"].symmetric


def test_types_that_no_document_holds_and_all_are_asked_for_are_told():
    data = SimulatedNotes(notes=24, sites=2, types=["Disease"])
    data.setup()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        take_schema(SCHEMA, data, False)  # dropped by data.types: not asked for
    data = SimulatedNotes(notes=24, sites=2)
    data.setup()
    wide = Schema(SCHEMA.name, (*SCHEMA.entities, EntityType("Gene", "A gene.")), SCHEMA.relations)
    with pytest.warns(
        UserWarning, match="no document holds any Gene, which schema 'bc5cdr' asks for: it is taught that"
    ):
        take_schema(wide, data, False)
    assert "no document holds any Gene" in data.describe()["warnings"][-1]
