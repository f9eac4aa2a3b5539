"""What sites say of themselves, as one: what must be equal is, and what differs is named."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fedlit.errors import FedlitError
from fedlit.federation.roster import Roster
from fedlit.transports import Description


def site(*clients: str, **changes) -> Description:
    said = Description(
        examples={client: {"train": 10, "val": 2, "test": 3} for client in clients},
        batch_size=4,
        facts={"classes": ["a", "b"], "class_counts": {client: {"a": 6, "b": 4} for client in clients}},
        data={"class": "Data", "records_sha256": "0" * 64},
        simulated=False,
        notes=(),
        frozen="f" * 64,
        initial="1" * 64,
        trains={"w": "float32[3]"},
        versions={"torch": "2"},
        jobs=("train",),
    )
    return replace(said, **changes)


def test_sites_as_one():
    roster = Roster.of([site("b", "a"), site("c", simulated=True, notes=["parity: as published"])])
    assert roster.clients == ("a", "b", "c")
    assert roster.examples["c"] == {"train": 10, "val": 2, "test": 3}
    assert roster.facts["class_counts"].keys() == {"a", "b", "c"}
    assert roster.simulated
    assert roster.notes == ["parity: as published"]
    assert roster.data.keys() == {"b, a", "c"}
    assert roster.partition()["clients"]["a"] == {"examples": {"train": 10, "val": 2, "test": 3}}


def test_one_site_keeps_its_order():
    assert Roster.of([site("b", "a")]).clients == ("b", "a")
    assert Roster.of([site("b", "a")]).data == {"class": "Data", "records_sha256": "0" * 64}


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (site("a"), "client 'a' is at two sites"),
        (site("c", batch_size=8), "sites differ in batch_size: a has 4, c has 8"),
        (site("c", frozen="e" * 64), "sites differ in frozen: a has f+, c has e+"),
        (site("c", initial="2" * 64), "sites differ in initial"),
        (site("c", trains={"w": "float32[4]"}), r"sites differ in trains: a has .*\[3\]'}, c has .*\[4\]'}"),
        (site("c", versions={"torch": "3"}), "sites differ in versions"),
        (site("c", facts={"classes": ["a", "z"]}), "sites differ in what their data are: a has .*'b'.*, c has .*'z'"),
    ],
)
def test_sites_that_do_not_fit_are_named_with_the_field(other, message):
    with pytest.raises(FedlitError, match=message):
        Roster.of([site("a"), other])


def test_no_site_at_all():
    with pytest.raises(FedlitError, match="no site answered"):
        Roster.of([])
