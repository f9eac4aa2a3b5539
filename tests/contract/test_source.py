"""What the source of rules promises: short, known by name to nobody else, and no way round the guards."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest
from table import rules_of

import fedlit.aggregators as aggregators

PACKAGE = Path(aggregators.__file__).parents[1]
FAMILIES = sorted((PACKAGE / "aggregators").rglob("*.py"))
BLIND = [PACKAGE / "trainer.py"]
BLIND += [
    path
    for folder in ("engine", "federation", "transports", "runs")
    for path in sorted((PACKAGE / folder).rglob("*.py"))
]
LIMIT = 40


def dataclasses_in(source: str) -> dict[str, int]:
    """``{class: lines}`` of the dataclasses, from the decorator to the last line, without the docstring."""
    found = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef) and any("dataclass" in ast.unparse(d) for d in node.decorator_list):
            lines = (node.end_lineno or 0) - node.decorator_list[0].lineno + 1
            if ast.get_docstring(node) is not None:
                lines -= (node.body[0].end_lineno or 0) - node.body[0].lineno + 1
            found[node.name] = lines
    return found


def test_lines_are_counted_as_a_person_would():
    source = '@dataclass(frozen=True)\nclass Rule(Aggregator):\n    """One\n\n    two."""\n\n    lr: float = 1.0\n'
    assert dataclasses_in(source + "\n\nclass Other:\n    pass\n") == {"Rule": 4}


@pytest.mark.parametrize("path", FAMILIES, ids=lambda path: path.stem)
def test_every_rule_is_under_40_lines(path):
    assert {name: lines for name, lines in dataclasses_in(path.read_text()).items() if lines >= LIMIT} == {}


def test_no_rule_escapes_the_count():
    counted = {name for path in FAMILIES for name in dataclasses_in(path.read_text())}
    assert set(rules_of(aggregators)) <= counted


@pytest.mark.parametrize("path", BLIND, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_trainer_engine_and_transport_know_no_rule_by_name(path):
    words = set(re.findall(r"\w+", path.read_text()))
    assert words & set(rules_of(aggregators)) == set()


@pytest.mark.parametrize("path", FAMILIES, ids=lambda path: path.stem)
def test_rules_read_updates_by_the_guarded_way_only(path):
    if path.stem in ("server", "stages"):
        pytest.skip("the guarded way itself, and the combinator that hands its updates on sealed as they are")
    assert "._read" not in path.read_text()


@pytest.mark.parametrize("name", rules_of(aggregators))
def test_every_rule_is_of_a_family(name):
    module = sys.modules[getattr(aggregators, name).__module__]
    assert isinstance(module.FAMILY, str)
