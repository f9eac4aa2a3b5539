"""The example of a custom rule: its arithmetic by hand, and that it runs both ways that it names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from fedlit import seeds
from fedlit.aggregators import Server, Update
from fedlit.cli import main
from fedlit.errors import FedlitError

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs" / "ecg_fedavg.yaml"


@pytest.fixture
def rule(monkeypatch: pytest.MonkeyPatch) -> type:
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(str(ROOT))
    from examples.custom_aggregator import TrimmedMean

    return TrimmedMean


def step(rule: object, values: list[list[float]]) -> list[float]:
    """The model after one round from [1, 1], with one client for each row of updates."""
    updates = [Update(f"client-{i}", 1.0, lambda v=v: {"w": torch.tensor(v)}) for i, v in enumerate(values)]
    server = Server(0, seeds.generator(0, "test"))
    return rule.aggregate({"params": {"w": torch.ones(2)}}, updates, server)["params"]["w"].tolist()


def test_each_coordinate_drops_its_own_extremes(rule):
    updates = [[0.0, 90.0], [1.0, 4.0], [2.0, 2.0], [3.0, 3.0], [-80.0, -70.0]]
    # trim 0.2 of 5 drops one at each end: {0, 1, 2} are left of the first coordinate, {2, 3, 4} of the second.
    assert step(rule(trim=0.2), updates) == [1 + 1, 1 + 3]
    # trim 0.4 drops two: the median.
    assert step(rule(trim=0.4), updates) == [1 + 1, 1 + 3]
    assert step(rule(trim=0.4, lr=0.5), updates) == [1 + 0.5, 1 + 1.5]


def test_without_trimming_it_is_the_plain_mean(rule):
    updates = [[0.0, 8.0], [2.0, 4.0]]
    assert step(rule(trim=0.0), updates) == [1 + 1, 1 + 6]
    assert step(rule(trim=0.4), updates) == [1 + 1, 1 + 6]  # 0.4 of 2 is less than one client
    assert step(rule(trim=0.4), updates[:1]) == [1.0, 9.0]


@pytest.mark.parametrize("wrong", [{"trim": 0.5}, {"trim": -0.1}, {"weighting": "examples"}])
def test_refuses_what_it_cannot_do(rule, wrong):
    with pytest.raises(FedlitError, match=f"TrimmedMean.{next(iter(wrong))}"):
        rule(**wrong)


def test_runs_by_the_command_line_and_is_saved_by_its_importable_name(rule, tmp_path, capsys):
    main(
        ["fit", "--config", str(CONFIG), "--aggregator", "examples.custom_aggregator.TrimmedMean"]
        + ["--trainer.fast_dev_run", "true", "--trainer.default_root_dir", str(tmp_path)]
    )
    assert "TrimmedMean" in capsys.readouterr().out
    saved = yaml.safe_load((tmp_path / "ecg_fedavg" / "version_0" / "config.yaml").read_text())
    assert saved["aggregator"]["class_path"] == "examples.custom_aggregator.TrimmedMean"
    assert saved["aggregator"]["init_args"]["trim"] == 0.2


def test_the_current_folder_can_be_imported_from(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from dataclasses import dataclass\nfrom fedlit.aggregators import FedAvg\n\n\n"
        "@dataclass(frozen=True)\nclass Mine(FedAvg):\n    strength: float = 2.0\n"
    )
    fedlit = [sys.executable, "-c", "import sys; sys.path.pop(0); from fedlit.cli import main; main()"]
    arguments = ["fit", "--config", str(CONFIG), "--aggregator", "mine.Mine", "--print_config"]
    done = subprocess.run([*fedlit, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "strength: 2.0" in done.stdout


@pytest.mark.slow
def test_runs_as_a_script(tmp_path):
    script = ROOT / "examples" / "custom_aggregator.py"
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    summary = (tmp_path / "runs" / "trimmed_mean" / "version_0" / "summary.json").read_text()
    assert '"rounds": 2' in summary


def test_is_under_40_lines():
    assert len((ROOT / "examples" / "custom_aggregator.py").read_text().splitlines()) < 40
