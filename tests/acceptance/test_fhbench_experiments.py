"""The experiments at the top of configs of arXiv 2504.10817, on their stand-ins: the commands as they stand."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fedlit.cli import app
from fedlit.sweep.grid import varied
from fedlit.sweep.plan import plan

FOLDER = Path(__file__).parents[2] / "configs" / "papers" / "2504.10817"
STAND_INS = {
    "images": ("organa", "organc", "organs"), "signals": ("adftd", "ptbxl"), "texts": ("med_abs", "pubmed_rct"),
    "sounds": ("icbhi", "sprsound"),
}  # fmt: skip
pytestmark = pytest.mark.filterwarnings("ignore:LightningCLI's args parameter")
KIND = {name: kind for kind, names in STAND_INS.items() for name in names}


def stacked(name: str) -> list[str]:
    """A config with the stand-in for its data and backbone on top."""
    return [f"--config={FOLDER / f'{name}.yaml'}", f"--config={FOLDER / f'stand_in_{KIND[name]}.yaml'}"]


def shown(name: str) -> Iterator[list[str]]:
    """The commands ``fedlit ... --config C ...`` in a config's comments, which may go on over several lines."""
    text = ""
    for line in (FOLDER / f"{name}.yaml").read_text().splitlines():
        if not line.startswith("#"):
            break
        text += line[1:].strip()
        if not text.startswith("fedlit ") or "--config C " not in text:
            text = ""
        elif not text.endswith("\\") and text.count("'") % 2 == 0:
            yield shlex.split(text)[1:]
            text = ""
        else:
            text = text.removesuffix("\\") + " "


def taken(arguments: list[str]) -> tuple[list[str], dict[str, list[str]]]:
    """The options of ``fedlit fit`` in a command, and the sweep's own: ``--vary``, ``--seeds``, ``--name``."""
    rest, own = [], {"--vary": [], "--seeds": [], "--name": [], "--config": []}  # type: ignore[var-annotated]
    pairs = iter(arguments)
    for option in pairs:
        if option in own:
            own[option].append(next(pairs))
        else:
            rest.append(option)
    return rest, own


def cells(name: str, command: list[str]) -> list[dict[str, Any]]:
    """The whole configuration of each run of a command, on stand-ins; nothing is run."""
    rest, own = taken(command[1:])
    return [cell.config for cell in plan(varied(own["--vary"]), [0], [*stacked(name), *rest], "shown").cells]


@pytest.mark.parametrize(
    "name",
    [name if name in ("organa", "ptbxl") else pytest.param(name, marks=pytest.mark.slow) for name in sorted(KIND)],
)
def test_a_stand_in_changes_data_and_backbone_and_leaves_clients_rules_and_optimizer(name):
    real, tried = (app.parsed(["fit", *configs]) for configs in (stacked(name)[:1], stacked(name)))
    assert tried.datamodule.simulated
    assert tried.model.backbone == "builtin" or tried.model.backbone.startswith("stand-in:")
    assert tried.datamodule.modality == real.datamodule.modality
    assert tried.datamodule.usual_partition() == real.datamodule.usual_partition()
    assert tried.datamodule.parity
    assert [type(tried.trainer.aggregator), *tried.trainer.baselines] == [
        type(real.trainer.aggregator), *real.trainer.baselines,
    ]  # fmt: skip
    for setting in ("adapter", "schedule", "schedule_over", "schedule_interval", "min_learning_rate"):
        assert getattr(tried.model, setting) == getattr(real.model, setting), setting


def test_commands_in_comments_are_found_whole():
    found = {own["--name"][0] if own["--name"] else command[0] for name in ("organa", "ptbxl")
             for command in shown(name) for _, own in [taken(command[1:])]}  # fmt: skip
    assert found == {"fit", *(f"fhbench_organa_{what}" for what in ("shared", "rank", "lam", "type", "head")),
                     *(f"fhbench_ptbxl_{what}" for what in ("psi", "pairs", "dirichlet"))}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("name", "number"), [(n, i) for n in ("organa", "ptbxl") for i in range(len([*shown(n)]))])
def test_a_command_in_the_comments_is_understood_on_stand_ins(name, number):
    command = [*shown(name)][number]
    found = cells(name, command)
    _, own = taken(command[1:])
    count = 1
    for values in varied(own["--vary"]).values():
        count *= len(values)
    assert len(found) == count
    assert len({json.dumps([c["aggregator"], c["model"], c["data"]], sort_keys=True) for c in found}) == count
    assert all(c["data"]["class_path"].startswith("fedlit.data.Simulated") for c in found)


def test_five_clients_reach_the_partition():
    (one,) = cells("organa", next(shown("organa")))
    assert one["data"]["init_args"]["partition"]["init_args"] == {"clients": 5, "alpha": 0.1, "by": "label"}


@pytest.mark.slow
def test_rules_and_alphas_of_sweeps_reach_their_cells():
    _, shared, *_ = shown("organa")
    rules = [cell["aggregator"] for cell in cells("organa", shared)]
    assert [rule["init_args"].get("share") for rule in rules[:2]] == [r"\.lora_A\.", "lora_"]
    _, pairs, *_ = shown("ptbxl")
    alphas = [cell["data"]["init_args"]["partition"]["init_args"]["alpha"] for cell in cells("ptbxl", pairs)]
    assert sorted({*alphas}) == [0.1, 1, 10]


@pytest.mark.slow
def test_an_experiment_runs_on_stand_ins(tmp_path):
    command = next(c for c in shown("organa") if "fhbench_organa_rank" in c)
    rest, own = taken(command[1:])
    small = ["--trainer.max_rounds=1", "--data.subjects=120", f"--trainer.default_root_dir={tmp_path}", "--seeds=1"]
    app.main(["sweep", *stacked("organa"), *rest, *small, f"--vary={own['--vary'][0]}", "--name=ranks"])
    found = [json.loads(path.read_text()) for path in tmp_path.glob("ranks/*/version_0/summary.json")]
    assert sorted(summary["model"]["adapter"]["r"] for summary in found) == [4, 8, 16]
    assert all(summary["clients"] == 20 and summary["simulated_data"] for summary in found)
