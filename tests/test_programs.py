"""Studies, benchmarks and scripts: each can be started, and says how."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROGRAMS = [
    path.relative_to(ROOT)
    for folder in ("studies", "benchmarks", "scripts")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if "ArgumentParser(" in (text := path.read_text()) and '__name__ == "__main__"' in text
]


@pytest.mark.parametrize("path", PROGRAMS, ids=str)
def test_it_answers_help(path, monkeypatch, capsys):
    """In this process, for it starts in a moment; studies run as modules from the root, the others as files."""
    is_study = path.parts[0] == "studies"
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    monkeypatch.syspath_prepend(ROOT if is_study else ROOT / path.parent)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / path), run_name="__main__")
    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert told.startswith("usage: ")
    if is_study:
        assert f"python -m {'.'.join(path.with_suffix('').parts)} " in told
