"""Every command in docs/papers.md and in the comments of the papers' configs is one that ``fedlit`` takes."""

from __future__ import annotations

import re
from typing import Any

import pytest
from shown_commands import ROOT, in_config, in_document, joined, without_stand_in, written_out

from fedlit.cli import app
from fedlit.cli.commands import OTHERS, RUNS
from fedlit.sweep import command as sweeps
from fedlit.sweep.grid import seeds, varied
from fedlit.sweep.plan import plan

PAGE = ROOT / "docs" / "papers.md"
CONFIGS = sorted((ROOT / "configs" / "papers").glob("*/*.yaml"))
ON_PAGE = in_document(PAGE)
ALL = [
    list(words)
    for words in dict.fromkeys(map(tuple, [*ON_PAGE, *(one for path in CONFIGS for one in in_config(path))]))
]
REAL = [words for one in ON_PAGE if (words := without_stand_in(one)) is not None and words not in ALL]
"""As the page says it: a command without its stand-in is the one for the real thing."""


def test_commands_are_found_wherever_they_are_shown():
    text = "#      fedlit sweep --config C --vary a='x,\n#          {y: 1}' --seeds 3 \\\n#          --name n"
    (line,) = joined([one.removeprefix("#").strip() for one in text.splitlines()])
    wanted = ["fedlit", "sweep", "--config", "c.yaml", "--vary", "a=x, {y: 1}", "--seeds", "3", "--name", "n"]
    assert written_out(line, {"C": "c.yaml"}) == wanted
    real = without_stand_in(["fedlit", "fit", "--config", "c.yaml", "--config", "a/stand_in_b.yaml", "--x", "1"])
    assert real == ["fedlit", "fit", "--config", "c.yaml", "--x", "1", "--data.root", "FOLDER"]
    for path in CONFIGS:
        assert in_config(path) or "stand_in" in path.stem, f"{path.name} does not say how it is run"


def test_every_config_that_a_command_names_is_there():
    options = [pair for words in ALL for pair in zip(words, words[1:], strict=False) if pair[0] == "--config"]
    named = {file for _, file in options if not file.startswith("RUN/")}
    assert len(named) > 10
    assert [file for file in named if not (ROOT / file).is_file()] == []
    assert {words[1] for words in ALL} <= {*RUNS, *OTHERS}


TAKEN = [words for words in [*ALL, *REAL] if words[1] == "sweep" or words[1] in RUNS]
"""Those that can be read without doing what they say; others, such as ``fedlit backbones``, do it at once."""


@pytest.mark.slow
@pytest.mark.parametrize("words", [pytest.param(words, id=" ".join(words)[:150]) for words in TAKEN])
def test_every_command_is_taken(words, tmp_path, monkeypatch):
    """All options and values are read and the objects are made; no data are read, and nothing is trained."""
    monkeypatch.chdir(ROOT)
    arguments = words[1:]
    if arguments[0] == "sweep":
        taken: list[Any] = []
        monkeypatch.setattr(sweeps, "sweep", lambda *given: taken.append(given))
        sweeps.main(arguments[1:])
        ((vary, chosen, options, name, *_),) = taken
        values = varied(vary)
        for number in range(max(map(len, values.values()), default=1)):
            one = {key: [each[min(number, len(each) - 1)]] for key, each in values.items()}
            planned = plan(one, seeds(chosen)[:1], [*options, f"--trainer.default_root_dir={tmp_path}"], name)
            assert len(planned.cells) == 1
    else:
        command = app.parsed(arguments)
        assert command.trainer.aggregator is not None
        assert command.datamodule is not None


def test_every_config_of_a_paper_is_on_the_page():
    text = PAGE.read_text()
    assert [path.name for path in CONFIGS if not re.search(rf"\b{path.stem}\b", text)] == []
