"""Configs of the papers against tables of what the papers and their code say, setting by setting.

A row of a table is wrong, or a config has drifted: look the fact up at its place before either is changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from derived import DERIVED, learning_rates
from facts import CONFIGS, KEYS, Facts, command, comments, names, settings

PAPERS = ["2502.09744", "2504.10817", "2510.12741", "2601.22124"]
ALL = [(paper, name) for paper in PAPERS for name in names(paper)]


@pytest.fixture(scope="module", params=PAPERS)
def facts(request: pytest.FixtureRequest) -> Facts:
    return Facts(request.param)


@pytest.mark.parametrize(("paper", "config"), ALL)
def test_every_setting_is_the_one_of_the_table_and_no_setting_is_without_a_row(paper, config):
    assert unlike(settings(paper, config), Facts(paper).wanted(config)) == {}, "(of the config, of the table)"


NO_ROW, NO_SETTING = "no row: look it up, and add one", "no such setting"


def unlike(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Settings whose value is another one in the table, or that are in one of both alone."""
    both = {path: (found.get(path, NO_SETTING), wanted.get(path, NO_ROW)) for path in {**found, **wanted}}
    return {path: (one, other) for path, (one, other) in both.items() if not same(one, other)}


def same(found: Any, wanted: Any) -> bool:
    """Equal, and both a truth value or neither."""
    return bool(found == wanted) and isinstance(found, bool) == isinstance(wanted, bool)


def test_a_drift_a_new_setting_and_a_row_of_none_are_seen():
    found, wanted = dict(settings("2504.10817", "organa")), Facts("2504.10817").wanted("organa")
    found |= {"trainer.max_rounds": 100, "trainer.baselines.APFL.adaptive": 1, "model.new": None}
    del found["data.size"]
    assert unlike(found, wanted) == {
        "trainer.max_rounds": (100, 200), "trainer.baselines.APFL.adaptive": (1, True), "model.new": (None, NO_ROW),
        "data.size": (NO_SETTING, 224),
    }  # fmt: skip


@pytest.mark.parametrize(("paper", "config"), ALL)
def test_what_follows_from_the_settings_is_as_in_the_table(paper, config):
    facts = Facts(paper)
    for name in DERIVED.keys() & facts.derived.keys():
        values = facts.by_config(facts.derived[name])
        if config in values:
            found, wanted = DERIVED[name](command(paper, config)), values[config]
            if isinstance(wanted, dict):
                found = {key: found.get(key) for key in wanted}
            assert found == wanted, name


@pytest.mark.parametrize(("paper", "config"), ALL)
def test_the_learning_rate_takes_the_course_of_the_table(paper, config):
    """A row gives rates by round, alike in all steps, or with ``at`` by step, alike in all rounds."""
    facts = Facts(paper)
    row = facts.derived["learning_rates"]
    rates, at = facts.by_config(row)[config], row.get("at", range(row["steps"]))
    for number, index in enumerate(row["rounds"]):
        found = learning_rates(command(paper, config), index, row["steps"])
        wanted = rates if "at" in row else [rates[number]] * row["steps"]
        assert [found[step] for step in at] == pytest.approx(wanted, rel=2e-5), f"round {index}"


def test_every_row_says_where_it_is_from(facts):
    for path, row in {**facts.rows, **facts.derived, **facts.beside}.items():
        assert set(row) <= KEYS | {"rounds", "steps", "at"}, path
        assert (("value" in row) + ("each" in row)) == (path not in facts.beside), f"{path}: a value, or one by config"
        assert row.get("source") or row.get("ours"), f"{path}: give its place, or why it is ours"
        assert ("theirs" in row) == ("why" in row) == ("said" in row), f"{path}: what they have, why we differ, where"
        assert "said" in row or path not in facts.beside, path
    assert facts.derived.keys() <= DERIVED.keys() | {"learning_rates"}, "facts that nothing computes"


def test_what_differs_on_purpose_is_named_by_the_config(facts):
    for path, row in {**facts.rows, **facts.derived, **facts.beside}.items():
        for name, words in facts.by_config(row, "said").items() if "said" in row else ():
            file = CONFIGS / facts.paper / f"{name}.yaml"
            assert words in comments(file), f"{file.name} does not name how {path} differs from: {row['theirs']}"
