"""Who may import whom: each room of the package imports rooms below it, and no file imports one that imports it.

Every import counts, also one within a function or for type checkers only.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).parents[1] / "fedlit"
FLOORS = (
    ("tree", "seeds", "codec", "errors", "strict_yaml"), ("aggregators", "data.base"),
    ("compression", "data.files", "data.generated"), ("data.signals", "data.documents"), ("data.classification",),
    ("data", "instructions", "backbones"), ("metrics", "runs"), ("callbacks",), ("tasks",), ("engine",),
    ("transports",), ("federation",), ("reports",), ("trainer",), ("cli",), ("sweep",), ("",),
)  # fmt: skip
"""Rooms, modules or packages within fedlit, from the ground up; the last is the package's own face."""
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
FOR_SOME_ONLY = {"jsonargparse": {"cli", "strict_yaml"}, "lightning.pytorch.cli": {"cli", "tasks"}}
"""Libraries, or parts of them, that only some rooms may import."""
RULES_MAY = {*sys.stdlib_module_names, "torch", "fedlit.tree", "fedlit.errors", "fedlit.aggregators"}
"""All that aggregators import: a rule is run at a site, at a server and in a test alike."""


class Import(NamedTuple):
    """One import: the module that does it, what it imports, and where, as ``file:line``."""

    source: str
    target: str
    where: str


def imports(package: Path) -> list[Import]:
    """Every import of every file of a package."""
    root = package.parent
    files = {".".join(f.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): f
             for f in sorted(package.rglob("*.py"))}  # fmt: skip
    found = []
    for source, file in files.items():
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names if alias.name != package.name]
            elif isinstance(node, ast.ImportFrom):
                inside = source.split(".")[: None if file.name == "__init__.py" else -1]
                above = inside[: len(inside) + 1 - node.level] if node.level else []
                module = ".".join([*above, *([node.module] if node.module else [])])
                whole = [f"{module}.{alias.name}" for alias in node.names]
                targets = [name if name in files else module for name in whole]
            else:
                continue
            found += [Import(source, t, f"{file.relative_to(root)}:{node.lineno}") for t in dict.fromkeys(targets)]
    return found


def room(module: str) -> str | None:
    """The room of a module of fedlit; None for another package's, and where no room is listed."""
    top, *parts = module.split(".")
    names = [".".join(parts[:n]) for n in range(min(2, len(parts)), 0, -1)] if parts else [""]
    return next((name for name in names if name in FLOOR), None) if top == "fedlit" else None


def reachable(start: str, arrows: dict[str, set[str]]) -> set[str]:
    """All that is imported by something, also by way of others."""
    seen, left = set(), [start]
    while left:
        for target in arrows.get(left.pop(), set()) - seen:
            seen.add(target)
            left.append(target)
    return seen


def faults(found: list[Import]) -> list[str]:
    """What is wrong with each import, with its file and line."""
    out = []
    ours = [each for each in found if each.target.split(".")[0] == "fedlit"]
    arrows: dict[str, set[str]] = {}
    for source, target, where in ours:
        if (homeless := next((m for m in (source, target) if room(m) is None), None)) is not None:
            out.append(f"{where}: {homeless} is in no room: name its room in FLOORS")
        elif FLOOR[room(target) or ""] > FLOOR[room(source) or ""]:
            out.append(f"{where}: {room(source)} imports {target}, which is above it")
        arrows.setdefault(source, set()).add(target)
        if room(source) != room(target):
            arrows.setdefault(f"room {room(source)}", set()).add(f"room {room(target)}")
    for source, target, where in ours:
        if source in reachable(target, arrows):
            out.append(f"{where}: {target} imports {source} as well, itself or by way of others")
        elif room(source) != room(target) and f"room {room(source)}" in reachable(f"room {room(target)}", arrows):
            out.append(f"{where}: {room(target)} imports {room(source)} as well, itself or by way of others")
    for source, target, where in found:
        if room(source) == "aggregators" and not any(f"{target}.".startswith(f"{name}.") for name in RULES_MAY):
            out.append(f"{where}: aggregators import {target}")
        for library, rooms in FOR_SOME_ONLY.items():
            if f"{target}.".startswith(f"{library}.") and room(source) not in rooms:
                out.append(f"{where}: {room(source)} imports {library}, which is for {', '.join(sorted(rooms))} only")
    return out


def test_imports_go_down_and_never_in_a_circle():
    wrong = faults(imports(PACKAGE))
    assert not wrong, "\n" + "\n".join(wrong)


def made_up(folder: Path, **files: str) -> list[str]:
    """Faults of a package with these files; in names two underscores part folders."""
    for name, text in {"__init__": "", **files}.items():
        file = folder / "fedlit" / f"{name.replace('__', '/') if name != '__init__' else name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return faults(imports(folder / "fedlit"))


def test_what_is_in_order_has_no_fault(tmp_path):
    files = {"tree": "import torch", "aggregators__base": "from fedlit import tree\nimport fedlit"}
    assert made_up(tmp_path, **files, trainer="from fedlit.aggregators.base import Aggregator") == []


def test_an_import_upwards_is_found(tmp_path):
    upwards = "import os\n\nfrom fedlit.trainer import FederatedTrainer"
    assert made_up(tmp_path, engine__serial=upwards, trainer="") == [
        "fedlit/engine/serial.py:3: engine imports fedlit.trainer, which is above it"
    ]


def test_an_import_for_type_checkers_or_within_a_function_counts(tmp_path):
    checked = "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    from fedlit.trainer import FederatedTrainer"
    within = "def late():\n    from fedlit import trainer"
    assert made_up(tmp_path, runs__folder=checked, tasks__task=within, trainer="") == [
        "fedlit/runs/folder.py:4: runs imports fedlit.trainer, which is above it",
        "fedlit/tasks/task.py:2: tasks imports fedlit.trainer, which is above it",
    ]


def test_a_circle_of_files_or_of_rooms_is_found(tmp_path):
    files = {
        "engine__a": "from . import b",
        "engine__b": "from .c import x",
        "engine__c": "from fedlit.engine import a",
    }
    assert len(made_up(tmp_path / "files", **files)) == 3
    rooms = {"metrics__a": "from fedlit.runs import b", "runs__b": "", "runs__c": "from fedlit.metrics import d"}
    assert made_up(tmp_path / "rooms", **rooms, metrics__d="") == [
        "fedlit/metrics/a.py:1: runs imports metrics as well, itself or by way of others",
        "fedlit/runs/c.py:1: metrics imports runs as well, itself or by way of others",
    ]


def test_libraries_out_of_place_and_files_without_a_room_are_found(tmp_path):
    files = {
        "aggregators__base": "import numpy as np",
        "engine__a": "import jsonargparse",
        "spare": "import fedlit.tree",
    }
    assert made_up(tmp_path, **files, tree="", cli__app="import jsonargparse") == [
        "fedlit/spare.py:1: fedlit.spare is in no room: name its room in FLOORS",
        "fedlit/aggregators/base.py:1: aggregators import numpy",
        "fedlit/engine/a.py:1: engine imports jsonargparse, which is for cli, strict_yaml only",
    ]
