"""Configs of the papers against tables of what the papers and their code say, setting by setting.

A row of a table is wrong, or a config has drifted: look the fact up at its place before either is changed.
"""

from __future__ import annotations

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
    found, wanted = settings(paper, config), Facts(paper).wanted(config)
    assert {path: value for path, value in found.items() if path not in wanted} == {}, "look these up, and add a row"
    assert {path: value for path, value in wanted.items() if path not in found} == {}, "rows of no setting"
    differ = {path: (value, wanted[path]) for path, value in found.items() if not same(value, wanted[path])}
    assert differ == {}, "(of the config, of the table)"


def same(found: Any, wanted: Any) -> bool:
    """Equal, and both a truth value or neither."""
    return found == wanted and isinstance(found, bool) == isinstance(wanted, bool)


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
