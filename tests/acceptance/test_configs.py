"""The configurations that ship: each runs offline on stand-ins, and they keep what they promise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from facts import names
from shown_commands import STAND_IN, in_config

from fedlit import codec, tree
from fedlit.backbones.loading import load_backbone
from fedlit.cli import app as cli
from fedlit.sweep.grid import varied
from fedlit.sweep.plan import plan

CONFIGS = Path(__file__).parents[2] / "configs"
SMALL = ["--trainer.max_rounds", "2", "--trainer.local_steps", "2", "--trainer.check_val_every_n_rounds", "2",
         "--data.subjects", "9", "--data.sites", "3", "--data.seconds", "20"]  # fmt: skip


def fit(root: Path, config: str, *more: str) -> Path:
    """Run a configuration; its run folder."""
    name = f"--trainer.default_root_dir={root}"
    cli.main(["fit", "--config", str(CONFIGS / config), name, "--trainer.enable_progress_bar=false", *more])
    (folder,) = root.glob("*/version_0")
    return folder


def state(folder: Path) -> bytes:
    return (folder / "checkpoints" / "last" / "state.safetensors").read_bytes()


def drift(folder: Path) -> float:
    """Distance of the shared model from where it began: all adapters' B are zero there, so the norm of B."""
    params: Any = codec.decode(state(folder))[0]
    return float(tree.sq(tree.pick(params["params"], "lora_B")).sqrt())


def configs_of(paper: str) -> list[str]:
    """Configs of a paper that are whole; others, such as stand-ins, are stacked on one of them."""
    return [f"{name}.yaml" for name in names(paper)]


def marked(name: str) -> Any:
    """A configuration; the nine of FHBench take a minute together."""
    return pytest.param(name, marks=pytest.mark.slow) if name.startswith("fhbench_") else name


@pytest.mark.parametrize("config", [marked(name) for name in sorted(p.name for p in CONFIGS.glob("*.yaml"))])
def test_a_small_config_runs_on_stand_ins(tmp_path, monkeypatch, config):
    monkeypatch.setenv("FEDLIT_CACHE", str(tmp_path / "cache"))
    folder = fit(tmp_path / "runs", config, "--trainer.fast_dev_run", "2")
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["simulated_data"]
    assert any("stand-in" in label for label in summary["labels"])
    scores = summary["test"]["personal"]
    primary = next(n for n in ("rmse", "balanced_accuracy", "macro_f1", "entity_strict_f1") if n in scores)
    assert 0 <= scores[primary]["mean"] < 100


@pytest.mark.slow
@pytest.mark.parametrize("config", configs_of("2504.10817"))
def test_a_config_of_fhbench_runs_offline_on_stand_ins(tmp_path, config):
    folder = fit(tmp_path / "runs", f"papers/2504.10817/{config}", "--trainer.fast_dev_run", "1")
    rules = {"LocalOnly", "FedAvg", "FedProx", "SCAFFOLD", "APFL", "APPLE", "FedALA"}
    assert {p.name for p in (folder / "baselines").iterdir()} == rules
    partition = json.loads((folder / "partition.json").read_text())
    assert len(partition["clients"]) == 20
    assert partition["parity"]
    assert partition["partition"]["class"] == "PairwiseDirichlet"
    summary = json.loads((folder / "summary.json").read_text())
    assert any("parity" in label and "leak" in label for label in summary["labels"])


@pytest.mark.slow
@pytest.mark.parametrize("config", configs_of("2601.22124"))
def test_a_config_of_fed_medlora_runs_offline_on_stand_ins(tmp_path, config):
    folder = fit(tmp_path / "runs", f"papers/2601.22124/{config}", "--trainer.fast_dev_run", "1")
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["simulated_data"]
    assert summary["model"]["stand_in"]
    assert {"entity_strict_f1", "relation_lenient_f1"} <= summary["test"]["personal"].keys()
    adapter = summary["model"]["adapter"]
    if config == "bert.yaml":
        assert adapter is None
    else:
        assert (adapter["r"], adapter["alpha"], adapter["dropout"], len(adapter["target_modules"])) == (16, 64, 0.05, 7)


FEDOPAL = CONFIGS / "papers" / "2510.12741"


@pytest.mark.slow
@pytest.mark.parametrize("config", configs_of("2510.12741"))
def test_a_config_of_fedopal_runs_offline_on_stand_ins(tmp_path, config):
    folder = fit(tmp_path / "runs", f"papers/2510.12741/{config}", "--trainer.fast_dev_run", "1")
    partition = json.loads((folder / "partition.json").read_text())
    assert len(partition["clients"]) == 6
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["model"]["stand_in"]
    rules = {p.name for p in (folder / "baselines").iterdir()}
    if config == "fed_isic_baselines.yaml":
        assert rules == {"LocalOnly", "FedAvg", "FedPer", "FedSALoRA", "FFALoRA", "FedDPA", "FedDAT"}
    else:
        assert rules == {"LocalOnly", "MedDualLoRA"}


ON_STAND_IN = [f"--config={FEDOPAL / name}" for name in ("fed_isic_weights.yaml", "stand_in.yaml")]


@pytest.mark.parametrize(
    ("vary", "cells"),
    [
        (["aggregator.lam=0,0.1"], 2),
        (["aggregator.local=head,null"], 2),
        (["model.loss=cross_entropy,focal", "model.class_weights=none,balanced"], 4),
    ],
)
def test_the_experiments_of_fedopal_stack_on_their_stand_in(tmp_path, vary, cells):
    planned = plan(varied(vary), [0, 1, 2], [*ON_STAND_IN, f"--trainer.default_root_dir={tmp_path}"], "experiment")
    assert len(planned.cells) == 3 * cells
    for cell in planned.cells:
        assert cell.config["data"]["class_path"].endswith("SimulatedImages")
        assert cell.config["model"]["init_args"]["backbone"] == "stand-in:dinov2"
        assert cell.config["aggregator"]["class_path"].endswith("OrthogonalDualLoRA")


@pytest.mark.slow
def test_an_experiment_of_fedopal_runs_on_its_stand_in(tmp_path):
    small = ["--trainer.max_rounds=1", "--trainer.local_steps=1", "--trainer.local_epochs=null"]
    small += ["--trainer.check_val_every_n_rounds=1", f"--trainer.default_root_dir={tmp_path}"]
    cli.main(["sweep", *ON_STAND_IN, "--vary=aggregator.lam=0,0.1", *small, "--name=experiment"])
    summaries = [json.loads(path.read_text()) for path in tmp_path.glob("experiment/*/version_0/summary.json")]
    assert len(summaries) == 2
    assert all(summary["simulated_data"] for summary in summaries)
    assert any("stand-in for dinov2" in label for label in summaries[0]["labels"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "path", [pytest.param(p, id=f"{p.parent.name}-{p.stem}") for p in sorted(CONFIGS.glob("papers/*/stand_in*.yaml"))]
)
def test_a_stand_in_runs_offline_as_its_own_comments_say(tmp_path, monkeypatch, path):
    monkeypatch.chdir(CONFIGS.parent)
    command = next(words for words in in_config(path) if words[1] == "fit" and any(map(STAND_IN.search, words)))
    cli.main([*command[1:], "--trainer.fast_dev_run=1", f"--trainer.default_root_dir={tmp_path}"])
    (written,) = tmp_path.glob("*/version_0/summary.json")
    summary = json.loads(written.read_text())
    assert summary["simulated_data"]
    assert summary["model"]["stand_in"]


@pytest.mark.slow
@pytest.mark.parametrize("config", configs_of("2502.09744"))
def test_a_config_of_the_paper_runs_offline_on_stand_ins(tmp_path, config):
    folder = fit(tmp_path / "runs", f"papers/2502.09744/{config}", "--trainer.fast_dev_run", "1")
    assert {p.name for p in (folder / "baselines").iterdir()} == {"ZeroShot", "LocalOnly", "FedProx", "FedLA"}
    partition = json.loads((folder / "partition.json").read_text())
    assert len(partition["clients"]) == 20
    assert partition["parity"]
    kinds = [kind for client in partition["clients"].values() for kind in client["kinds"]]
    assert kinds.count("icg") == (1 if "19_1" in config else 0)


def test_fedprox_with_mu_0_gives_the_bytes_of_fedavg_and_with_mu_1_drifts_less(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDLIT_CACHE", str(tmp_path / "cache"))
    average = fit(tmp_path / "average", "ecg_fedavg.yaml", *SMALL)
    alone = ["--trainer.baselines", "[]"]
    zero = fit(tmp_path / "zero", "ecg_fedprox.yaml", "--aggregator.mu", "0", *alone, *SMALL)
    strong = fit(tmp_path / "strong", "ecg_fedprox.yaml", "--aggregator.mu", "1", *alone, *SMALL)
    assert state(zero) == state(average)
    assert (zero / "metrics.csv").read_bytes() == (average / "metrics.csv").read_bytes()
    assert 0 < drift(strong) < drift(average)


def test_the_adapter_of_a_run_loads_with_peft_and_forecasts_the_same(tmp_path, monkeypatch):
    from peft import PeftModel

    from fedlit.tasks import ForecastingTask

    monkeypatch.setenv("FEDLIT_CACHE", str(tmp_path / "cache"))
    folder = fit(tmp_path / "runs", "ecg_fedavg.yaml", *SMALL)
    task = ForecastingTask()
    task.configure_model()
    params: Any = codec.decode(state(folder))[0]
    with torch.no_grad():
        for name, value in params["params"].items():
            task.get_parameter(name).copy_(value)
    base = load_backbone("builtin")
    loaded = PeftModel.from_pretrained(base.network, folder / "adapters" / "global")
    assert set(loaded.state_dict()) == set(task.network.state_dict())
    context = torch.sin(torch.arange(256.0) / 9)[None].repeat(2, 1)
    assert torch.equal(base.family.forecast(loaded, context, 64, task.quantiles), task.forecast(context))
