"""Configs of the papers against tables of what the papers and their code say, setting by setting.

A row of a table is wrong, or a config has drifted: look the fact up at its place before either is changed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from facts import CONFIGS, KEYS, Facts, command, comments, names, settings

from fedlit.backbones.known import KNOWN, sketch
from fedlit.backbones.lora import LoRA, attach

PAPERS = ["2504.10817"]
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
    """Equal, and of one type, but for whole numbers where any number will do."""
    return found == wanted and isinstance(found, bool) == isinstance(wanted, bool)


def test_every_row_says_where_it_is_from(facts):
    for path, row in {**facts.rows, **facts.derived, **facts.beside}.items():
        assert set(row) <= KEYS | {"rounds", "steps"}, path
        assert (("value" in row) + ("each" in row)) == (path not in facts.beside), f"{path}: a value, or one by config"
        assert row.get("source") or row.get("ours"), f"{path}: give its place, or why it is ours"
        assert ("theirs" in row) == ("why" in row) == ("said" in row), f"{path}: what they have, why we differ, where"
        assert "said" in row or path not in facts.beside, path
    assert set(facts.derived) <= set(DERIVED) | {"learning_rates"}, "facts that nothing computes"


def test_what_differs_on_purpose_is_named_by_the_config(facts):
    for path, row in {**facts.rows, **facts.derived, **facts.beside}.items():
        for name, words in facts.by_config(row, "said").items() if "said" in row else ():
            file = CONFIGS / facts.paper / f"{name}.yaml"
            assert words in comments(file), f"{file.name} does not name how {path} differs from: {row['theirs']}"


def partition(run: Any) -> dict[str, Any]:
    """The partition in force, given or the data's own."""
    found: dict[str, Any] = (run.datamodule.partition or run.datamodule.usual_partition()).config()
    return found


def shares(run: Any) -> dict[str, float]:
    """Of each client's examples."""
    found = run.datamodule.protocol.describe()
    val, test = found["val_fraction"], found["test_fraction"]
    return {"train": round(1 - val - test, 6), "val": val, "test": test}


def classes(run: Any) -> int:
    return len(run.datamodule.class_names)


def attached(run: Any) -> Any:
    """The published network without its weights, with the config's adapters on it."""
    import torch

    task = run.model
    adapter: LoRA = task.adapter
    drawn = sketch(task.backbone)
    with torch.device("meta"):
        network, targets = drawn.network, drawn.family.targets(pretrained=True)
        if run.model.__class__.__name__ == "ClassificationTask" and "chronos" in task.backbone:
            from fedlit.backbones.encoders.signal import BoltEncoder

            network, targets = BoltEncoder.build(**KNOWN[task.backbone]), BoltEncoder.pretrained_targets
        return attach(network, adapter, targets, 0, task.backbone)


def targets(run: Any) -> list[str]:
    """Ends of the names of the layers that have an adapter."""
    modules = attached(run).named_modules()
    return sorted({name.rsplit(".", 1)[-1] for name, module in modules if hasattr(module, "lora_A")})


def adapted(run: Any) -> int:
    """Weights in the adapters."""
    return sum(p.numel() for name, p in attached(run).named_parameters() if "lora_" in name)


DERIVED: dict[str, Callable[[Any], Any]] = {
    "partition": partition, "shares": shares, "classes": classes, "targets": targets, "adapted": adapted,
}  # fmt: skip
"""What follows from a config's settings, by its name in the tables."""


@pytest.mark.parametrize(("paper", "config"), ALL)
def test_what_follows_from_the_settings_is_as_in_the_table(paper, config):
    facts = Facts(paper)
    for name, row in facts.derived.items():
        values = facts.by_config(row)
        if config in values and name in DERIVED:
            found, wanted = DERIVED[name](command(paper, config)), values[config]
            if isinstance(wanted, dict):
                found = {key: found.get(key) for key in wanted}
            assert found == wanted, name
