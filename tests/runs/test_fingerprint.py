"""What a run was made of, and where two runs differ."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

import fedlit.aggregators as aggregators
from fedlit.aggregators import FedAdam, FedAvg, FedLA, FedProx, Stage, Stages
from fedlit.backbones import LoRA
from fedlit.data import SimulatedImages
from fedlit.data.base.module import FederatedDataModule
from fedlit.errors import FedlitError
from fedlit.runs.fingerprint import check_same, data_fingerprint, describe, differences
from fedlit.tasks import ClassificationTask


def test_rules_are_described_with_class_and_fields():
    assert describe(FedProx(mu=0.5)) == {"class": "FedProx", "lr": 1.0, "weighting": "examples", "mu": 0.5}
    staged = describe(Stages([Stage(FedLA(), 2, "lora_A")]))
    assert staged["stages"][0] == {
        "class": "Stage",
        "aggregator": describe(FedLA()),
        "rounds": 2,
        "trainable": "lora_A",
    }
    json.dumps(staged)


def test_objects_are_described_by_their_config_or_name():
    class WithConfig:
        def config(self):
            return {"size": (1, 2), "function": len}

    @dataclass
    class Holder:
        thing: object

    assert describe(Holder(WithConfig())) == {
        "class": "Holder", "thing": {"class": "WithConfig", "size": [1, 2], "function": "len"},
    }  # fmt: skip
    assert describe(object()) == "object"


def test_differences_name_the_field():
    old, new = (
        describe({"aggregator": FedProx(mu=0.5), "seed": 1}),
        describe({"aggregator": FedProx(mu=1.0), "seed": 1}),
    )
    assert differences(old, new) == ["aggregator.mu: 0.5 -> 1.0"]
    assert differences(old, old) == []
    assert differences({"a": 1}, {"b": 1}) == ["a: 1 -> None", "b: None -> 1"]
    assert differences({"pair": [1, 2]}, {"pair": (1, 2)}) == []
    stages = [describe(Stages([Stage(FedProx(mu=mu), 2), Stage(FedLA(), 1)])) for mu in (0.5, 1.0)]
    back = json.loads(json.dumps(stages[0], sort_keys=True))
    assert differences(back, stages[0]) == []
    assert differences(back, stages[1]) == ["stages.0.aggregator.mu: 0.5 -> 1.0"]
    assert differences({"a": 1}, {"a": 1.0}) == ["a: 1 -> 1.0"]


def test_runs_made_before_an_argument_of_a_rule_go_on_at_what_they_did():
    for now, changed in (
        (FedAdam(), FedAdam(bias_correction=True)),
        (Stages([Stage(FedAdam(), 1), Stage(FedAvg(), 1)]), Stages([Stage(FedAdam(bias_correction=True), 1)] * 2)),
    ):
        new = {"aggregator": describe(now)}
        early = json.loads(json.dumps(new).replace(', "bias_correction": false', ""))
        assert early != new
        check_same(early, new, Path("run"), rule=now)
        with pytest.raises(FedlitError, match=r"bias_correction: False -> True"):
            check_same(early, {"aggregator": describe(changed)}, Path("run"), rule=changed)


@pytest.mark.parametrize("cls", [c for c in vars(aggregators).values() if getattr(c, "added_arguments", None)])
def test_arguments_of_rules_that_came_later_keep_what_was_done_before(cls):
    usual = {field.name: field.default for field in dataclasses.fields(cls)}
    assert {name: usual[name] for name in cls.added_arguments} == cls.added_arguments


def test_a_run_goes_on_though_its_cache_has_moved(fit, tmp_path):
    def task():
        return ClassificationTask("stand-in:vit", LoRA(r=2))

    def data(name):
        return SimulatedImages(subjects=24, sites=2, per_subject=2, mix=5.0, cache_folder=tmp_path / name)

    folder = fit(FedAvg(), task(), data("here"), max_rounds=1)
    longer = fit(FedAvg(), task(), data("there"), max_rounds=2, ckpt_path=str(folder.path))
    assert longer.path == folder.path
    assert {row["round"] for row in longer.metrics.read()} == {"0", "1", "2"}


def test_a_backbone_that_changed_between_fit_and_resume_is_refused(fit, tmp_path):
    """The folder's path is the same, one frozen weight in it is not."""
    import pytest
    import torch
    from safetensors.torch import load_file, save_file

    from fedlit.backbones.encoders.loading import encoder_stand_in
    from fedlit.errors import FedlitError

    backbone = tmp_path / "backbone"
    loaded = encoder_stand_in("stand-in:vit")
    loaded.network.save_pretrained(str(backbone))
    loaded.family.save(backbone)

    def run(**settings):
        data = SimulatedImages(subjects=24, sites=2, per_subject=2, mix=5.0, cache_folder=tmp_path / "cache")
        return fit(FedAvg(), ClassificationTask(str(backbone), LoRA(r=2)), data, **settings)

    folder = run(max_rounds=1)
    assert run(max_rounds=2, ckpt_path=str(folder.path)).path == folder.path
    weights = load_file(backbone / "model.safetensors")
    name = next(n for n, t in weights.items() if t.dim() == 2)
    weights[name][0, 0] += torch.tensor(1e-3)
    save_file(weights, backbone / "model.safetensors", {"format": "pt"})
    with pytest.raises(FedlitError, match=r"model\.frozen_sha256: '[0-9a-f]{64}' -> '[0-9a-f]{64}'"):
        run(max_rounds=3, ckpt_path=str(folder.path))


def test_a_run_made_before_digests_were_kept_goes_on(fit):
    folder = fit(FedAvg(), max_rounds=1)
    meta = folder.path / "checkpoints" / "last" / "meta.json"
    held = json.loads(meta.read_text())
    del held["fingerprint"]["model"]["frozen_sha256"], held["fingerprint"]["trainer"]["stragglers"]
    meta.write_text(json.dumps(held))
    assert fit(FedAvg(), max_rounds=2, ckpt_path=str(folder.path)).checkpoints.read().round == 2


def test_facts_of_clients_that_came_later_do_not_refuse_older_runs():
    class Older(FederatedDataModule):
        def setup(self, stage=None): ...
        def dataset(self, clients, split): ...

    class Data(Older):
        added_facts: ClassVar = {"channel_seconds": "seconds", "windows_flat": None}

    old = {"clients": {"a": {"records": ["r"], "seconds": 20.0}}}
    new = {"clients": {"a": {"records": ["r"], "seconds": 10.0, "channel_seconds": 20.0, "windows_flat": 3}}}
    other = {"clients": {"a": {"records": ["s"], "seconds": 10.0, "channel_seconds": 20.0, "windows_flat": 3}}}
    seen = [
        data_fingerprint(kind(), facts)["records_sha256"] for kind, facts in ((Older, old), (Data, new), (Data, other))
    ]
    assert seen[0] == seen[1] != seen[2]
