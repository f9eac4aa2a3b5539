"""Experiments of arXiv 2601.22124 on the stand-in: external sites, part of the sites, a new site."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from fedlit.cli import app as cli

FOLDER = Path(__file__).parents[2] / "configs" / "papers" / "2601.22124"
SMALL = ["--trainer.max_rounds=1", "--trainer.local_steps=1", "--trainer.local_epochs=null", "--trainer.devices=1",
         "--trainer.limit_eval_batches=1", "--trainer.enable_progress_bar=false", "--trainer.naive=false",
         "--data.notes=100", "--model.max_new_tokens=4"]  # fmt: skip
HOME, AWAY = ["site-mimic", "site-mtsamples", "site-utp"], ["site-i2b2", "site-ynhh"]


def stacked(*names: str) -> list[str]:
    return [f"--config={FOLDER / f'{name}.yaml'}" for name in (*names, "stand_in")]


def fit(root: Path, *options: str) -> tuple[Path, dict[str, Any]]:
    """Run a stack of configs; its folder and its summary."""
    cli.main(["fit", *options, *SMALL, f"--trainer.default_root_dir={root}"])
    folder = max(root.glob("*/version_*"), key=lambda path: path.stat().st_mtime)
    return folder, json.loads((folder / "summary.json").read_text())


def test_i2b2_and_ynhh_take_no_part_and_the_global_model_is_scored_there(tmp_path):
    folder, summary = fit(tmp_path, *stacked("medlora", "external"))
    partition = json.loads((folder / "partition.json").read_text())
    assert sorted(partition["clients"]) == HOME
    assert sorted(partition["external"]) == AWAY
    held = {name for parts in partition["clients"].values() for ids in parts["documents"].values() for name in ids}
    assert not {name for ids in partition["external"].values() for name in ids} & (held | {*partition["server"]})
    assert len(partition["server"]) == 5
    assert "entity_strict_f1" in summary["external"]["global"]
    with open(folder / "external.csv", newline="") as file:
        assert [*dict.fromkeys(row["site"] for row in csv.DictReader(file))][:2] == AWAY
    assert summary["simulated_data"]
    assert summary["model"]["stand_in"]


@pytest.mark.slow
@pytest.mark.parametrize("config", ["medlora_plus", "centralized", "zero_shot"])
def test_other_rules_are_scored_on_external_sites_by_the_same_file(tmp_path, config):
    _, summary = fit(tmp_path, *stacked(config, "external"))
    assert "relation_strict_f1" in summary["external"]["global"]


@pytest.mark.slow
def test_a_sweep_over_sites_has_one_two_and_three_of_them_and_one_over_annotations_has_its_cells(tmp_path):
    apart = "[mtsamples,utp,i2b2,ynhh],[utp,i2b2,ynhh],[i2b2,ynhh]"
    given = [*stacked("medlora", "external"), *SMALL, f"--trainer.default_root_dir={tmp_path}"]
    cli.main(["sweep", *given, "--name=sites", f"--vary=data.external_sites={apart}"])
    kinds = "{},{site-utp: [entities]}"
    cli.main(["sweep", *given, "--name=kinds", "--data.mask_test=false", f"--vary=data.annotated={kinds}"])
    with open(tmp_path / "sites" / "sweep.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["state"], row["clients"]) for row in rows] == [("finished", n) for n in "123"]
    assert all(row["external/entity_strict_f1/mean"] for row in rows)
    with open(tmp_path / "kinds" / "sweep.csv", newline="") as file:
        assert [row["state"] for row in csv.DictReader(file)] == ["finished"] * 2


@pytest.mark.slow
def test_a_new_site_starts_from_the_federated_adapter_or_from_the_backbone(tmp_path):
    backbone, _ = fit(tmp_path, *stacked("zero_shot", "external"), "--model.adapter=null", "--trainer.name=backbone")
    shared = f"--model.backbone={backbone / 'adapters' / 'global'}"
    federated, summary = fit(tmp_path, *stacked("medlora", "external"), shared)
    assert summary["clients"] == 3
    # So small a rate moves nothing to speak of: what a site is scored by is what it began with.
    still = ["--model.learning_rate=1e-12", shared]
    adapter = federated / "adapters" / "global"
    from_it, begun = fit(tmp_path, *stacked("medlora", "new_site"), *still, f"--model.start_from={adapter}")
    _, afresh = fit(tmp_path, *stacked("medlora", "new_site"), *still)
    assert json.loads((from_it / "partition.json").read_text())["clients"].keys() == {"site-ynhh"}
    losses = [own["test"]["personal"]["loss"]["mean"] for own in (begun, afresh)]
    assert losses[0] < losses[1]
