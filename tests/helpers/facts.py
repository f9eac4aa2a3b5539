"""Papers' configs as the command line reads them, and the tables of facts in ``tests/acceptance/papers``."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from fedlit import strict_yaml
from fedlit.cli import app

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs" / "papers"
TABLES = ROOT / "tests" / "acceptance" / "papers"
KEYS = {"value", "each", "only", "source", "ours", "theirs", "why", "said"}


@cache
def names(paper: str) -> list[str]:
    """Configs of a paper; files that only change another one, such as ``stand_in.yaml``, are left out."""
    paths = sorted((CONFIGS / paper).glob("*.yaml"))
    return [path.stem for path in paths if {"model", "data"} <= whole(path).keys() and "stand_in" not in path.stem]


def whole(path: Path) -> Any:
    return strict_yaml.load(path.read_text())


def comments(path: Path) -> str:
    """All comments of a file as one line of text."""
    lines = [line.partition("#")[2].strip() for line in path.read_text().splitlines() if "#" in line]
    return " ".join(" ".join(lines).split())


@cache
def command(paper: str, config: str) -> Any:
    """``fedlit fit`` with a config, parsed and instantiated; nothing is read or run."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return app.parsed(["fit", "--config", str(CONFIGS / paper / f"{config}.yaml")])


def settings(paper: str, config: str) -> Mapping[str, Any]:
    """Every setting by its path (``trainer.baselines.FedProx.mu``), defaults too; an object is its class's name."""
    return dict(flat("", strict_yaml.load(command(paper, config).trainer.config_yaml)))


def flat(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Paths and values below ``value``; ``init_args`` are left out of paths, as they are on the command line."""
    dot = f"{path}." if path else ""
    if isinstance(value, Mapping) and "class_path" in value:
        yield path, short(value)
        for name, one in (value.get("init_args") or {}).items():
            yield from flat(f"{dot}{name}", one)
    elif isinstance(value, Mapping):
        for name, one in value.items():
            yield from flat(f"{dot}{name}", one)
    elif isinstance(value, Sequence) and value and all(isinstance(one, Mapping) for one in value):
        yield path, [short(one) for one in value]
        for one in value:
            for name, argument in (one.get("init_args") or {}).items():
                yield from flat(f"{dot}{short(one)}.{name}", argument)
    else:
        yield path, value


def short(chosen: Mapping[str, Any]) -> str:
    return str(chosen["class_path"]).rsplit(".", 1)[-1]


class Facts:
    """A paper's table: for each setting its value, with its source, and what differs from paper or code on purpose.

    A row has either ``value``, the same in all configs (or in those of ``only``), or ``each``: values by config or by
    group of configs. It has either ``source``, where paper or code says so, or ``ours``: why the value is so where
    neither says anything, or where we differ. ``theirs`` and ``said`` come together: what paper or code have, and words
    of the config's own comments that name the difference.

    Three parts: ``settings``; ``derived``, which follow from settings and defaults; ``beside``, differences from paper
    or code that no setting holds.
    """

    def __init__(self, paper: str) -> None:
        table: Any = whole(TABLES / f"{paper.replace('.', '_')}.yaml")
        usual: Any = whole(TABLES / "usual.yaml")
        self.paper = paper
        self.groups: Mapping[str, list[str]] = {**table.get("groups", {}), **{name: [name] for name in names(paper)}}
        self.rows: Mapping[str, Mapping[str, Any]] = {**usual["settings"], **table["settings"]}
        self.usual = set(usual["settings"]) - set(table["settings"])
        self.derived: Mapping[str, Any] = table["derived"]
        self.beside: Mapping[str, Any] = table.get("beside", {})

    def members(self, wanted: str | Sequence[str]) -> list[str]:
        """Configs of groups or by name."""
        found = [wanted] if isinstance(wanted, str) else wanted
        return [name for one in found for name in self.groups[one]]

    def by_config(self, row: Mapping[str, Any], what: str = "value") -> dict[str, Any]:
        """Value by config, of a row that has ``value`` or ``each``; or what is given by group in another key."""
        each = row.get("each") if what == "value" else row[what]
        if isinstance(each, Mapping):
            return {name: value for group, value in each.items() for name in self.members(group)}
        return dict.fromkeys(self.members(row.get("only", names(self.paper))), row.get(what))

    def wanted(self, config: str) -> dict[str, Any]:
        """The settings that a config must have, by path."""
        rows = {path: self.by_config(row) for path, row in self.rows.items()}
        return {path: values[config] for path, values in rows.items() if config in values}
