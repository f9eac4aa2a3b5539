"""What the command imports before it answers; seconds are measured by benchmarks/startup.py."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from fedlit.cli import build
from fedlit.cli.commands import OTHERS, RUNS, answer_early, overview, subcommands
from fedlit.errors import FedlitError

HEAVY = {"torch", "lightning", "transformers", "chronos", "peft", "torchmetrics", "numpy", "scipy", "pandas"}
LEFT_AT_EXIT = "import atexit, gc, sys; atexit.register(lambda: print(' '.join(sys.modules), gc.get_freeze_count()))\n"


def python(code: str, *args: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", LEFT_AT_EXIT + code, *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def heavy(done: subprocess.CompletedProcess) -> set[str]:
    return HEAVY & set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["--help"], 0, "usage: "),
        (["-h"], 0, "usage: "),
        ([], 1, "fedlit: error: give a subcommand: fit, validate, "),
        (["fitt"], 1, "fedlit: error: there is no subcommand 'fitt'; did you mean 'fit'?\n"),
        (["quite-else"], 1, "fedlit: error: there is no subcommand 'quite-else': fit, validate, "),
        (["sweep", "--help"], 0, "usage: fedlit sweep"),
    ],
)
def test_answered_without_heavy_imports(args, code, said):
    done = python("from fedlit.cli import main; main(sys.argv[1:])", *args)
    assert done.returncode == code, done.stderr
    assert (done.stderr if code else done.stdout).startswith(said)
    assert not heavy(done)


@pytest.mark.parametrize("module", ["fedlit", "fedlit.cli", "fedlit.errors", "fedlit.cli.commands"])
def test_imported_without_heavy_imports(module):
    assert not heavy(python(f"import {module}"))


def test_heavy_imports_are_seen():
    assert heavy(python("import fedlit.seeds")) >= {"torch"}


def test_the_help_is_that_of_the_parser_that_parses(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["fedlit"])
    shown = []
    for show in (lambda: build(["--help"]), lambda: overview().parse_args(["--help"])):
        with pytest.raises(SystemExit) as end:
            show()
        assert end.value.code == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1]
    for name, about in subcommands().items():
        assert f"\n    {name} " in shown[0]
        assert " ".join(about.split()) in " ".join(shown[0].split())


def test_every_subcommand_is_described():
    assert list(subcommands()) == [*RUNS, *OTHERS]
    assert all(len(about) > 20 for about in subcommands().values())


def test_a_subcommand_named_elsewhere_is_left_to_the_parser():
    assert answer_early([], ["FEDLIT_SUBCOMMAND"]) is None
    assert answer_early(["--config", "some.yaml", "fit"], []) is None
    with pytest.raises(FedlitError, match="give a subcommand"):
        answer_early([], ["HOME"])


def test_collection_goes_on_after_the_imports():
    code = "from fedlit.cli.start_up import without_collection\n"
    code += "try:\n  with without_collection():\n    assert not gc.isenabled()\n    import torch\n    1 / 0\n"
    code += "except ZeroDivisionError: print('seen', gc.isenabled())"
    done = python(code)
    assert done.stdout.splitlines()[0] == "seen True", done.stderr
    assert int(done.stdout.split()[-1]) > 100_000, "what was imported is passed over"


def test_collection_is_left_alone_once_lightning_is_there():
    import lightning  # noqa: F401

    from fedlit.cli.start_up import without_collection

    before = gc.get_freeze_count()
    with without_collection():
        assert gc.isenabled()
    assert gc.get_freeze_count() == before
