"""What the documents show works: every YAML is accepted, the rule and the script run, every link leads somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from fedlit.cli import main

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
CONFIG = ROOT / "configs" / "ecg_fedavg.yaml"


def blocks(language: str) -> list[tuple[str, str]]:
    """``(document, text)`` of the fenced blocks in a language."""
    fence = re.compile(rf"^```{language}\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    return [(path.name, text) for path in DOCUMENTS for text in fence.findall(path.read_text())]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with the README's rule in it."""
    monkeypatch.chdir(tmp_path)
    rule = next(text for _, text in blocks("python") if text.startswith("# mypkg.py"))
    (tmp_path / "mypkg.py").write_text(rule)
    return tmp_path


@pytest.mark.parametrize(("document", "text"), blocks("yaml"))
def test_every_yaml_is_accepted(document, text, here, capsys):
    (here / "shown.yaml").write_text(text)
    with pytest.raises(SystemExit) as end:
        main(["fit", "--config", str(CONFIG), "--config", "shown.yaml", "--print_config"])
    shown = capsys.readouterr()
    assert end.value.code == 0, f"{document}: {shown.err}"
    chosen = re.findall(r"class_path: (?:\w+\.)*(\w+)", text)
    assert chosen
    assert [name for name in chosen if name not in shown.out] == []


def test_the_rule_of_the_readme_runs(here):
    command = [sys.executable, "-c", "from fedlit.cli import main; main()", "fit", "--config", str(CONFIG)]
    rule = ["--aggregator", "mypkg.Bounded", "--aggregator.bound", "0.5", "--trainer.fast_dev_run", "true"]
    done = subprocess.run([*command, *rule], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Bounded" in done.stdout


@pytest.mark.slow
def test_the_script_of_the_readme_runs(here):
    script = next(text for _, text in blocks("python") if "FederatedTrainer" in text)
    (here / "script.py").write_text(script)
    done = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (here / "runs" / "fedlit" / "version_0" / "comparison.csv").exists()


def dangling(path: Path) -> list[str]:
    links = [link for link in re.findall(r"\]\(([^)#\s]+)\)", path.read_text()) if not link.startswith("http")]
    return [link for link in links if link != "..." and not (path.parent / link).exists()]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(path):
    assert [link for link in dangling(path) if "results/" not in link] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_anchor_is_a_heading(path):
    """Headings become anchors as GitHub makes them: in lower case, without punctuation, with dashes for spaces."""
    for file, anchor in re.findall(r"\]\(([^)#\s]*)#([^)\s]+)\)", path.read_text()):
        target = path.parent / file if file else path
        if file.startswith("http") or not target.exists():
            continue  # of the web, or told by the test above
        headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
        anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
        assert anchor in anchors, f"{file or path.name} has no heading #{anchor}"


@pytest.mark.slow  # results take long runs to make, so they are asked for where the whole is checked
def test_every_result_that_is_linked_is_there():
    assert [link for path in DOCUMENTS for link in dangling(path)] == []


def test_the_rules_that_the_readme_shows_are_there():
    """All of them are in docs/aggregators.md, whose table `tests/reports/test_aggregators.py` holds to the classes."""
    from fedlit.cli.aggregators import rules

    shown = re.findall(r"^\| `(\w+)` \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert shown
    assert set(shown) <= set(rules())


@pytest.mark.parametrize("document", ["CONTRIBUTING.md", "docs/design.md"])
def test_files_that_a_document_names_exist(document):
    """Such as ``fedlit/tree.py``, or by the end of the path alone; ``<name>`` is for the reader to fill in."""
    folders = ("fedlit", "tests", "docs", "configs", "studies", "benchmarks", "examples")
    found = [path for name in folders for path in (ROOT / name, *(ROOT / name).rglob("*"))]
    there = [f"/{path.relative_to(ROOT)}" + "/" * path.is_dir() for path in found]
    named = re.findall(r"`((?:[\w.]+/)*[\w.]+\.(?:py|md|yaml)|(?:[\w.]+/)+)`", (ROOT / document).read_text())
    assert len(named) > 10
    assert [name for name in named if not any(path.endswith(f"/{name}") for path in there)] == []
