"""Stand-ins for FHBench's data and backbones (arXiv 2504.10817), and the experiments that its configs show on them."""

from __future__ import annotations

import json

import pytest
from shown_commands import ROOT, STAND_IN, in_config

from fedlit.cli import app

pytestmark = pytest.mark.filterwarnings("ignore:LightningCLI's args parameter")
FOLDER = ROOT / "configs" / "papers" / "2504.10817"
KIND = {
    "organa": "images", "organc": "images", "organs": "images", "adftd": "signals", "ptbxl": "signals",
    "med_abs": "texts", "pubmed_rct": "texts", "icbhi": "sounds", "sprsound": "sounds",
}  # fmt: skip
SOME = [name if name in ("organa", "ptbxl") else pytest.param(name, marks=pytest.mark.slow) for name in KIND]


def offline(config: str, word: str) -> list[str]:
    """The command on a stand-in that has a word, of those in a config's comments."""
    commands = [words for words in in_config(FOLDER / f"{config}.yaml") if word in words]
    (found,) = [words for words in commands if any(map(STAND_IN.search, words))]
    return found[1:]


@pytest.mark.parametrize("name", SOME)
def test_a_stand_in_changes_data_and_backbone_and_leaves_clients_rules_and_schedule(name):
    stacked = [f"--config={FOLDER / f'{name}.yaml'}", f"--config={FOLDER / f'stand_in_{KIND[name]}.yaml'}"]
    real, tried = (app.parsed(["fit", *configs]) for configs in (stacked[:1], stacked))
    assert tried.datamodule.simulated
    assert tried.model.backbone == "builtin" or tried.model.backbone.startswith("stand-in:")
    assert tried.datamodule.modality == real.datamodule.modality
    assert tried.datamodule.usual_partition() == real.datamodule.usual_partition()
    assert tried.datamodule.parity
    assert tried.trainer.aggregator == real.trainer.aggregator
    assert tried.trainer.baselines == real.trainer.baselines
    for setting in ("adapter", "schedule", "schedule_over", "schedule_interval", "min_learning_rate"):
        assert getattr(tried.model, setting) == getattr(real.model, setting), setting


def test_five_clients_reach_the_partition(monkeypatch):
    monkeypatch.chdir(ROOT)
    found = app.parsed(offline("organa", "--data.partition.clients"))
    assert (found.datamodule.partition.clients, found.datamodule.partition.alpha) == (5, 0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "sweep", "runs"),
    [("organa", "fhbench_organa_rank", [4, 8, 16]), ("organa", "fhbench_organa_type", [8, None])],
)
def test_an_experiment_runs_on_its_stand_in(tmp_path, monkeypatch, config, sweep, runs):
    monkeypatch.chdir(ROOT)
    words = offline(config, sweep)
    words[words.index("--seeds") + 1] = "1"
    small = ["--trainer.max_rounds=1", "--data.subjects=120", f"--trainer.default_root_dir={tmp_path}"]
    app.main([*words, *small])
    summaries = [json.loads(path.read_text()) for path in tmp_path.glob(f"{sweep}/*/version_0/summary.json")]
    assert sorted(str((s["model"]["adapter"] or {}).get("r")) for s in summaries) == sorted(map(str, runs))
    assert all(summary["clients"] == 20 and summary["simulated_data"] for summary in summaries)
