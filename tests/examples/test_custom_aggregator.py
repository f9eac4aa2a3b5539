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
    from examples.custom_aggregator import SignMajority

    return SignMajority


def vote(
    rule: object, changes: list[list[float]], sealed: bool = False, dtype: torch.dtype = torch.float64
) -> list[float]:
    """The model after one round from [1, 1], with one client for each row of what its training changed."""
    down = {"w": torch.ones(2, dtype=dtype)}
    updates = []
    for i, change in enumerate(changes):
        upload, _ = rule.finish({"w": down["w"] + torch.tensor(change, dtype=dtype)}, down, {}, None)
        updates.append(Update(f"client-{i}", rule.weigh(10 * i + 1, None), lambda u=upload: u, sealed=sealed))
    return rule.aggregate({"params": down}, updates, Server(0, seeds.generator(0, "test")))["params"]["w"].tolist()


@pytest.mark.parametrize("sealed", [False, True])
def test_each_parameter_moves_with_the_majority(rule, sealed):
    changes = [[0.5, -9.0], [-100.0, 0.1], [0.001, 0.2]]
    assert vote(rule(step_size=0.25), changes, sealed) == [1.25, 1.25]
    assert vote(rule(step_size=0.25), [[-a, b] for a, b in changes], sealed) == [0.75, 1.25]
    assert vote(rule(step_size=0.25), changes[:1]) == [1.25, 0.75]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("pairs", [1, 3, 5, 24])
def test_a_tie_moves_nothing_and_one_vote_more_does(rule, pairs, dtype):
    changes = [[1.0, -1.0], [-1.0, 1.0]] * pairs
    assert vote(rule(step_size=0.25), changes, dtype=dtype) == [1.0, 1.0]
    assert vote(rule(step_size=0.25), [*changes, [1.0, -1.0]], dtype=dtype) == [1.25, 0.75]
    assert vote(rule(step_size=0.25), [*changes, [0.0, 0.0]], dtype=dtype) == [1.0, 1.0]  # no change is no vote


@pytest.mark.parametrize("wrong", [{"step_size": 0.0}, {"step_size": float("nan")}])
def test_refuses_what_it_cannot_do(rule, wrong):
    with pytest.raises(FedlitError, match=f"SignMajority.{next(iter(wrong))}"):
        rule(**wrong)


def test_runs_by_the_command_line_and_is_saved_by_its_importable_name(rule, tmp_path, capsys):
    main(
        ["fit", "--config", str(CONFIG), "--aggregator", "examples.custom_aggregator.SignMajority"]
        + ["--trainer.fast_dev_run", "true", "--trainer.default_root_dir", str(tmp_path)]
    )
    assert "SignMajority" in capsys.readouterr().out
    saved = yaml.safe_load((tmp_path / "ecg_fedavg" / "version_0" / "config.yaml").read_text())
    assert saved["aggregator"]["class_path"] == "examples.custom_aggregator.SignMajority"
    assert saved["aggregator"]["init_args"]["step_size"] == 0.001


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
    summary = (tmp_path / "runs" / "fedlit" / "version_0" / "summary.json").read_text()
    assert '"rounds": 2' in summary


def test_is_under_40_lines():
    assert len((ROOT / "examples" / "custom_aggregator.py").read_text().splitlines()) < 40
