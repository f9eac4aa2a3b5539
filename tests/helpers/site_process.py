"""The process of one site: started by :mod:`subprocess_sites` with a socket and a description of the run."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L  # noqa: N812
import torch
from courses import Downhill
from subprocess_sites import serve
from torch.utils.data import Dataset
from toys import Classifier, Regression, ToyData

import fedlit.aggregators
import fedlit.compression
from fedlit.aggregators import Stage, Stages
from fedlit.engine.serial import SerialEngine
from fedlit.engine.vectorized.engine import VectorizedEngine
from fedlit.federation.session import labelled
from fedlit.runs.settings import RunSettings
from fedlit.transports import LocalSites

TASKS = {"Regression": Regression, "Classifier": Classifier, "Downhill": Downhill}


class OwnData(ToyData):
    """The data of one client of :class:`ToyData`, as a site has it; any other client's are not even made."""

    def __init__(self, client: str, **arguments: Any) -> None:
        super().__init__(**{**arguments, "server": False})
        self.own = client

    def setup(self, stage: str | None = None) -> None:
        super().setup(stage)
        self.clients = [self.own]
        self.parts = {key: part for key, part in self.parts.items() if key[0] == self.own}


class ServersData(ToyData):
    """What the server of :class:`ToyData` holds, and no client's data."""

    def setup(self, stage: str | None = None) -> None:
        super().setup(stage)
        self.held = self.parts[self.clients[0], "val"] if self.server else None
        self.clients, self.parts = [], {}

    def server_dataset(self) -> Dataset[Any] | None:
        return self.held


def rule_of(spec: dict[str, Any]) -> Any:
    """A rule out of its name and arguments; ``stages`` is a list of (rule, rounds)."""
    if spec["name"] == "Stages":
        return Stages([Stage(rule_of(rule), rounds) for rule, rounds in spec["stages"]])
    return getattr(fedlit.aggregators, spec["name"])(**spec.get("arguments", {}))


def compression_of(spec: list[dict[str, Any]]) -> Any:
    return [getattr(fedlit.compression, t["name"])(**t.get("arguments", {})) for t in spec] or None


def task_of(spec: dict[str, Any]) -> Any:
    return TASKS[spec["task"]](**spec.get("task_arguments", {}))


def settings_of(spec: dict[str, Any], rules: list[Any]) -> RunSettings:
    settings = RunSettings.given({**spec["settings"], "compression": compression_of(spec["compression"])}, rules)
    return replace(settings, num_threads=1)


def main(descriptor: int, spec: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    data = OwnData(spec["client"], **spec["data"])
    data.setup("fit")
    rules = labelled(rule_of(spec["rule"]), [rule_of(rule) for rule in spec["baselines"]])
    settings = settings_of(spec, [*rules.values()])
    task = task_of(spec)
    fabric = L.Fabric(accelerator="cpu", devices=1)
    engine = VectorizedEngine(SerialEngine(task, fabric, settings.gradient_clip_val, settings.accumulate_grad_batches))
    sites = LocalSites(data, engine, rules, settings, Path(spec["folder"]))
    for fault, client in spec.get("faults", {}).items():
        if client == spec["client"]:
            spoil(sites, fault, Path(spec["folder"]))
    serve(socket.socket(fileno=descriptor), sites)


def spoil(sites: LocalSites, fault: str, folder: Path) -> None:
    """Once, in round 2: its state is written, and then the process ``dies`` by SIGKILL, or ``sleeps`` for 9 s."""
    inner, done = sites.train, folder / "spoilt"

    def train(jobs: list[Any]) -> Any:
        replies = list(inner(jobs))
        if jobs[0].round == 1 and not done.exists():
            done.touch()
            if fault == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(9)
        return iter(replies)

    sites.train = train  # type: ignore[method-assign]


if __name__ == "__main__":
    main(int(sys.argv[1]), json.loads(sys.argv[2]))
