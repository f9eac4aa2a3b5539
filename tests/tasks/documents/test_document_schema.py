"""Whether the types in the data are those that are looked for."""

from __future__ import annotations

import pytest

from fedlit.errors import FedlitError
from fedlit.instructions import Schema
from fedlit.tasks.documents.schema import schema_of, take_schema

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
