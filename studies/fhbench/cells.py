"""The runs of the study: every cell is one rule on one data set, one seed."""

from __future__ import annotations

import csv
import json
import re
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from fedlit import tree
from fedlit.aggregators import (
    APFL,
    APPLE,
    EPFL,
    SCAFFOLD,
    Aggregator,
    Centralized,
    FedALA,
    FedAvg,
    FedLA,
    FedPer,
    FedProx,
    FedSALoRA,
    LocalOnly,
    OrthogonalDualLoRA,
    ZeroShot,
)
from fedlit.aggregators.orthogonal import READ
from fedlit.aggregators.parts import lora, overlap
from fedlit.engine.client_state import ClientStates
from fedlit.runs.folder import RunFolder
from fedlit.tasks import ClassificationTask
from fedlit.trainer import FederatedTrainer
from studies.fhbench.naive import PREDICTORS, score
from studies.fhbench.settings import EVEN, SETTINGS, SGD_TOO

CHOICE = ("accuracy", "micro_f1", "macro_f1", "auroc")
"""Metrics on validation data that are shown where learning rates are chosen."""
ROWS = ("mean", "weighted_mean", "worst")
"""Over clients, that the report shows."""
LAMBDAS = (0.1, 0.3, 1.0)
PENALTIES = ("rows", "updates", "representations")
ABLATED = {"ablation": ("images", "diagnoses"), "sketch": ("images",), "rank": ("images",), "orthogonal": ("images",)}
"""Parts of the study beside the main one, and the settings that they are run on."""
HOME = r"head\."
COSINE: dict[str, Any] = {
    "schedule": "cosine", "schedule_over": "run", "schedule_interval": "round", "min_learning_rate": 1e-6,
}  # fmt: skip
SGD_RULES: dict[str, Aggregator] = {"FedAvg": FedAvg(), "SCAFFOLD": SCAFFOLD(), "EPFL": EPFL()}
"""Run with FHBench's optimizer too, at a constant rate and by a cosine over the run."""


@dataclass(frozen=True)
class Cell:
    """One run.

    Attributes:
        part: Of the study: naive, main, published, sgd, cosine, ablation, rank, sketch, orthogonal or leakage.
        setting: Name in ``SETTINGS``.
        label: Of the rule, for the table.
        rule: The rule.
        seed: Of data, partition and training.
        rank: Of LoRA.
        data: Further arguments of the data module.
        learning_rate: In the place of the setting's.
        sgd: Plain SGD in the place of AdamW.
        cosine: The learning rate falls by a cosine over all rounds, one step a round, to 1e-6, as in FHBench.
    """

    part: str
    setting: str
    label: str
    rule: Aggregator
    seed: int
    rank: int = 8
    data: dict[str, Any] = field(default_factory=dict)
    learning_rate: float | None = None
    sgd: bool = False
    cosine: bool = False

    @property
    def key(self) -> str:
        """Name in the JSON file."""
        return f"{self.part} | {self.setting} | {self.label} | {self.seed}"

    @property
    def choices(self) -> dict[str, Any]:
        """What may have been chosen anew since a run was written to the file."""
        if self.part == "naive":
            return {}
        setting = SETTINGS[self.setting]
        rate = self.learning_rate or setting.rate(self.rule, self.sgd)
        optimizer = ("SGD" if self.sgd else "AdamW") + (", cosine" if self.cosine else "")
        return {"rounds": setting.rounds, "rate": rate, "optimizer": optimizer}


@dataclass(frozen=True)
class Alike(EPFL):
    """EPFL in which all other clients count alike: what similarity adds is the difference to it."""

    def mix(self, signatures: Sequence[Any], weights: Sequence[float]) -> torch.Tensor:
        others = max(1, len(signatures) - 1)
        rows = torch.full((len(signatures), len(signatures)), (1 - self.lam) / others, dtype=torch.float64)
        return rows.fill_diagonal_(self.lam if len(signatures) > 1 else 1.0)


def main_rules(rounds: int) -> dict[str, Aggregator]:
    """FHBench's rules; the last round of the fourth is an epoch at home."""
    return {
        "local": LocalOnly(),
        "centralised": Centralized(),
        "FedAvg": FedAvg(),
        "FedAvg, then an epoch at home": FedLA(fedavg_rounds=rounds - 1, adapt_rounds=1, mu=0.0),
        "FedProx": FedProx(mu=1e-3),
        "SCAFFOLD": SCAFFOLD(),
        "APFL": APFL(),
        "APPLE": APPLE(mu=1e-3),
        "FedALA": FedALA(),
        "EPFL": EPFL(),
    }


def published(rounds: int) -> dict[str, Aggregator]:
    """Baselines with the settings of FHBench's code, where the rules' own defaults are others.

    But for FedALA's last 26 tensors: all are mixed, as the smaller of these networks have fewer.
    """
    ala = FedALA(weighting="uniform", mix_share=1.0, mix_on_top=True, mix_rate=1.0)
    apple = APPLE(weighting="uniform", mu=1e-3, pull_rounds=rounds, mix_rate=1e-3)
    rules = {"APFL": APFL(weighting="uniform", alpha=1.0), "APPLE": apple, "FedALA": ala}
    return {f"{name}, as FHBench sets it": rule for name, rule in rules.items()}


def cells(seeds: list[int]) -> Iterator[Cell]:
    """All of the study; seed by seed, so that what there is at any time is whole for the seeds that are done."""
    for seed in seeds:
        for name, setting in SETTINGS.items():
            for label in PREDICTORS:
                yield Cell("naive", name, label, ZeroShot(), seed)
            for label, rule in main_rules(setting.rounds).items():
                yield Cell("main", name, label, rule, seed)
            for label, rule in published(setting.rounds).items():
                yield Cell("published", name, label, rule, seed)
            if name in SGD_TOO:
                for label, rule in SGD_RULES.items():
                    yield Cell("sgd", name, f"{label}, SGD", rule, seed, sgd=True)
                    yield Cell("cosine", name, f"{label}, SGD, cosine", rule, seed, sgd=True, cosine=True)
        for part, names in ABLATED.items():
            for name in names:
                for label, rule, rank in ablations(part):
                    yield Cell(part, name, label, rule, seed, rank)
        for name in ("hospitals", "diagnoses"):
            for split, early in (("recording", False), ("window", True)):
                for label, rule in (("local", LocalOnly()), ("FedAvg", FedAvg()), ("centralised", Centralized())):
                    arguments = {"partition": EVEN, "early": early}
                    yield Cell("leakage", name, f"{label}, split by {split}", rule, seed, data=arguments)


def ablations(part: str) -> Iterator[tuple[str, Aggregator, int]]:
    """Label, rule and rank of each row beside the main comparison."""
    if part == "ablation":
        yield "EPFL, psi first half", EPFL(psi="first_half"), 8
        yield "EPFL, psi second half", EPFL(psi="second_half"), 8
        yield "A mixed alike, own weight 0.5", Alike(), 8
        yield "A shared alike, B and head at home", FedSALoRA(weighting="uniform"), 8
        yield "A and B shared, head at home", FedPer(weighting="uniform"), 8
        yield "all shared alike", FedAvg(weighting="uniform"), 8
    elif part == "rank":
        for rank in (4, 16):
            yield f"EPFL, rank {rank}", EPFL(), rank
            yield f"FedAvg, rank {rank}", FedAvg(), rank
            yield f"local, rank {rank}", LocalOnly(), rank
    elif part == "sketch":
        for size in (16, 64, 256):
            yield f"EPFL, sketch {size}", EPFL(sketch=size), 8
    else:
        yield "lam 0", OrthogonalDualLoRA(lam=0.0, local=HOME), 16
        for penalty in PENALTIES:
            for lam in LAMBDAS:
                yield f"{penalty}, lam {lam:g}", OrthogonalDualLoRA(lam=lam, penalty=penalty, local=HOME), 16


def run(cell: Cell, root: Path, backbones: dict[str, str]) -> dict[str, Any]:
    """Final figures on test data of the models that clients serve, and of the one that all share where there is one."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    setting = SETTINGS[cell.setting]
    data = setting.make(root, cell.seed, **cell.data)
    if cell.part == "naive":
        return {
            "part": cell.part,
            "setting": cell.setting,
            "label": cell.label,
            "seed": cell.seed,
            **score(data, cell.label),
        }
    rate = cell.choices["rate"]
    task = ClassificationTask(
        backbones[setting.backbone], setting.adapter(cell.rank), max_length=setting.max_length,
        channels=setting.channels, learning_rate=rate, seed=cell.seed,
        optimizer=partial(torch.optim.SGD, lr=rate) if cell.sgd else None, **(COSINE if cell.cosine else {}),
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        trainer = FederatedTrainer(
            cell.rule, max_rounds=setting.rounds, local_epochs=1, check_val_every_n_rounds=setting.rounds,
            gradient_clip_val=1.0, evaluate_at=["after_aggregation"], default_root_dir=folder, seed=cell.seed,
            num_threads=1, enable_progress_bar=False, naive=False,
        )  # fmt: skip
        begin = time.process_time()
        done = trainer.fit(task, data)
        summary = json.loads((done.path / "summary.json").read_text())
        out: dict[str, Any] = {
            "part": cell.part, "setting": cell.setting, "label": cell.label, "seed": cell.seed, "rank": cell.rank,
            "rule": summary["aggregator"], **cell.choices, "seconds": round(time.process_time() - begin, 1),
            "bytes": summary["bytes"], "clients": len(data.clients),
            "tests": sum(len(data.dataset(c, "test")) for c in data.clients), "shared": shared_recordings(data),
            "trainable": summary["model"]["trainable"], "primary": "micro_f1" if data.multi_label else "accuracy",
        }  # fmt: skip
        choosing = cell.part == "choose"
        split, metrics = ("val", CHOICE) if choosing else ("test", (out["primary"], "balanced_accuracy"))
        figures: dict[str, dict[str, float]] = {}
        clients: list[float] = []
        with (done.path / "metrics.csv").open() as file:
            for row in csv.DictReader(file):
                if (row["split"], row["model"]) != (split, "personal"):
                    continue
                if row["metric"] in metrics and row["client"] in ROWS:
                    figures.setdefault(row["metric"], {})[row["client"]] = float(row["value"])
                elif row["metric"] == out["primary"] and row["client"] in data.clients:
                    clients.append(float(row["value"]))
        out[split] = {"personal": figures}
        if cell.part == "main":
            out["by_client"] = clients
        if cell.part == "orthogonal":
            assert isinstance(cell.rule, OrthogonalDualLoRA)
            out["overlap"] = overlaps(cell.rule, task, data, done)
    return out


def shared_recordings(data: Any) -> int:
    """Recordings of which a window is trained on and another tested, at any client."""
    train, test = (
        {example.id.split("/")[0] for client in data.clients for example in data.dataset(client, split).examples}
        for split in ("train", "test")
    )
    return len(train & test)


def overlaps(rule: OrthogonalDualLoRA, task: ClassificationTask, data: Any, folder: RunFolder) -> dict[str, float]:
    """Squared cosines of shared and personal adapters after the last round, mean over layers and clients.

    On ``rows`` of A, on the ``updates`` B A, and on the ``representations`` of each client's test data.
    """
    committed = folder.checkpoints.read()
    shared: Any = committed.state["params"]
    folder.states.restore(committed.meta)
    states = ClientStates(folder.client_states)
    found = lora.layers(shared, rule)
    sums = dict.fromkeys(PENALTIES, 0.0)
    tiny = 1e-12
    for client in data.clients:
        memory: Any = states.read(client, folder.states.names[client]).memory
        sums["rows"] += float(overlap.rows(shared, memory, found, tiny))
        sums["updates"] += float(overlap.updates(shared, memory, found, tiny))
        examples = data.dataset(client, "test")
        batch = data.collate(examples.__getitems__(list(range(min(32, len(examples))))))
        seen = heard(task, rule.model({"shared": shared, "personal": memory}, shared, memory), batch)
        sums["representations"] += float(overlap.representations(shared, memory, found, tiny, seen))
    return {name: value / len(data.clients) for name, value in sums.items()}


def heard(task: ClassificationTask, model: Any, batch: Any) -> dict[str, torch.Tensor]:
    """What the A of each layer puts out on a batch, by the module's name."""
    seen: dict[str, torch.Tensor] = {}
    hooks = [
        module.register_forward_hook(lambda _, __, output, name=name: seen.update({name: output}))
        for name, module in task.named_modules()
        if re.search(READ, name)
    ]
    with torch.no_grad():
        for name, value in tree.flatten(model).items():
            task.get_parameter(name if isinstance(name, str) else name[0]).copy_(value)
        task.eval()
        task.logits(batch)
    for hook in hooks:
        hook.remove()
    return seen
