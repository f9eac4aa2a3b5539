"""Sites that take no part: nothing of theirs is trained on, drawn, dealt or held by the server."""

from __future__ import annotations

from dataclasses import replace

import pytest
from documents_in_memory import Given, doc, everything, many, ready

from fedlit.data import BySite, SimulatedTexts, SimulatedVitals
from fedlit.data.documents.documents import BOTH
from fedlit.data.documents.partitions import RareTagBalanced
from fedlit.errors import FedlitError
from fedlit.runs.fingerprint import data_fingerprint

SITES = ("a", "b", "away")


def told(data):
    return data_fingerprint(data, data.describe())


@pytest.mark.parametrize("pattern", ["away", "site-away", "*wa*"])
def test_a_site_that_is_set_apart_has_test_data_alone_and_changes_nothing_for_the_others(pattern):
    apart = ready(many(30, SITES), external_sites=[pattern], server_examples=4)
    without = ready([own for own in many(30, SITES) if own.site != "away"], server_examples=4)
    assert apart.clients == without.clients == ["site-a", "site-b"]
    assert apart.external == ["site-away"]
    assert everything(apart) == everything(without)
    assert apart.server_dataset().documents == without.server_dataset().documents
    held = {split: apart.dataset("site-away", split).documents for split in ("train", "val", "test")}
    assert {split: len(own) for split, own in held.items()} == {"train": 0, "val": 0, "test": 10}
    assert {own.site for own in held["test"]} == {"away"}
    assert apart.example_counts("site-away") == {"train": 0, "val": 0, "test": 10}
    assert apart.describe()["external"] == {"site-away": [own.id for own in held["test"]]}


def test_a_partition_that_deals_out_documents_deals_none_of_an_external_site():
    data = ready(many(30, SITES), external_sites=["away"], partition=RareTagBalanced(3))
    dealt = [own for parts in everything(data).values() for own in (*parts["train"], *parts["val"], *parts["test"])]
    assert len(dealt) == 20
    assert {own.site for own in dealt} == {"a", "b"}


def test_without_the_argument_nothing_is_said_of_it_so_that_runs_made_before_go_on():
    data = ready(many())
    assert data.external == []
    assert "external" not in data.describe()
    assert "external_sites" not in told(data)
    assert told(ready(many(30, SITES), external_sites=["away"]))["external_sites"] == ["away"]


@pytest.mark.parametrize(
    ("patterns", "said"),
    [
        (["aways"], r"no site is named like 'aways'; there are a, away, b: mend it"),
        (["*"], r"names all sites \(a, away, b\), so that none is left to train on"),
    ],
)
def test_a_name_that_sets_nothing_or_everything_apart_is_refused(patterns, said):
    with pytest.raises(FedlitError, match=said):
        ready(many(30, SITES), external_sites=patterns)


def test_what_an_external_site_shares_with_the_others_is_left_out_and_told():
    away = [doc("x1", site="away", subject="d0"), doc("x2", text="aB d1 ", site="away"), doc("x3", site="away")]
    given = [*many(24), *away]
    with pytest.warns(UserWarning, match=r"2 record\(s\) are of subjects, or copies of records"):
        data = ready(given, external_sites=["away"])
    assert [own.id for own in data.dataset("site-away", "test").documents] == ["x3"]
    left_out = {row["record"]: row["reason"] for row in data.describe()["excluded"]}
    assert left_out.keys() == {"x1", "x2"}
    assert "external site" in left_out["x1"]
    with pytest.raises(FedlitError, match=r"all 2 record\(s\) of 'site-away' are of subjects"):
        ready(given[:-1], external_sites=["away"])


def test_what_an_external_site_looked_for_can_be_said_like_that_of_a_client():
    kinds = {"site-away": ["entities"]}
    data = ready(many(30, SITES), external_sites=["away"], annotated=kinds)
    assert {own.annotated for own in data.dataset("site-away", "test").documents} == {frozenset({"entities"})}
    whole = ready(many(30, SITES), external_sites=["away"], annotated=kinds, mask_test=False)
    assert {own.annotated for own in whole.dataset("site-away", "test").documents} == {BOTH}


def test_an_external_site_without_a_relation_was_not_looked_through_for_any_where_files_cannot_say():
    class Silent(Given):
        says_what_was_looked_for = False

    given = [own if own.site != "away" else replace(own, relations=()) for own in many(30, SITES)]
    data = Silent(given, partition=BySite(), external_sites=["away"], seed=0)
    data.setup()
    assert {own.annotated for own in data.dataset("site-away", "test").documents} == {frozenset({"entities"})}


def test_signals_and_texts_are_set_apart_too():
    signals = SimulatedVitals(subjects=16, sites=4, seconds=20, external_sites=["site-4"], seed=0)
    texts = SimulatedTexts(external_sites=["site-1"], seed=0)
    for data, away in ((signals, "site-4"), (texts, "site-1")):
        data.setup()
        assert data.external == [away]
        assert away not in data.clients
        assert away not in {record.site for record in data.records}
        assert len(data.dataset(away, "test")) > 0
        assert len(data.dataset(away, "train")) == 0


def test_generated_files_of_a_dry_run_have_other_sites_which_is_said(tmp_path):
    data = SimulatedTexts(external_sites=["site-1"], seed=0)
    data.use_stand_in(tmp_path)
    with pytest.warns(UserWarning, match="data.external_sites sets none of them apart"):
        data.setup()
    assert data.external == []
