"""What a run works with, made once and handed to whoever needs a part of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import lightning as L  # noqa: N812

from fedlit.aggregators import Aggregator
from fedlit.backbones.lora import rank_stabilised
from fedlit.callbacks import CallbackHost
from fedlit.data import FederatedDataModule
from fedlit.engine.engine import Engine
from fedlit.errors import named
from fedlit.federation.plan import RoundPlan
from fedlit.federation.roster import Roster
from fedlit.runs.fingerprint import fingerprint
from fedlit.runs.folder import RunFolder
from fedlit.runs.settings import RunSettings
from fedlit.tasks.task import member
from fedlit.transports.base import Transport


@dataclass(frozen=True)
class Session:
    """The server half of a run.

    Attributes:
        settings: Of the run.
        fabric: Launched.
        task: The LightningModule.
        engine: The server's own, for its validation data and for models that are exported.
        roster: Who takes part.
        transport: Reaches them.
        rules: The run's rule under the empty name, and its baselines under ``baselines/<label>``.
        folder: The run folder.
        callbacks: Follow the run.
        server_data: The data module whose ``server_dataset`` the server holds, or None.
    """

    settings: RunSettings
    fabric: L.Fabric
    task: Any
    engine: Engine
    roster: Roster
    transport: Transport
    rules: Mapping[str, Aggregator]
    folder: RunFolder
    callbacks: CallbackHost
    server_data: FederatedDataModule | None = None

    @property
    def aggregator(self) -> Aggregator:
        """The run's own rule, to which the others are compared."""
        return self.rules[""]

    def run_folder(self, run: str) -> RunFolder:
        """The folder of one of the rules."""
        return RunFolder(self.folder.path / run) if run else self.folder

    def label(self, run: str) -> str:
        """A rule's name in tables: its class, with a number where several of one class are compared."""
        return run.rpartition("/")[2] or type(self.aggregator).__name__

    def plan(self, rule: Aggregator) -> RoundPlan:
        """Who trains by a rule, and when."""
        return RoundPlan(rule, self.roster.clients, self.settings, self.roster.examples, self.roster.batch_size)

    def fingerprint(self, rule: Aggregator) -> dict[str, Any]:
        """What must be equal for a run of a rule to be resumed."""
        return fingerprint(rule, self.settings, self.task, self.roster.frozen, self.roster.data)

    def partition(self) -> dict[str, Any]:
        """Contents of ``partition.json``."""
        local = self.transport.local
        return self.roster.partition() if local is None else local.partition()

    def about_task(self) -> dict[str, Any]:
        """What the task says of itself for reports; empty where it says nothing."""
        describe = member(self.task, "describe")
        return {} if describe is None else describe()

    def metrics(self, split: str) -> Any:
        """The task's metrics for a split."""
        return self.task.test_metrics if split == "test" else self.task.val_metrics


def suited(rules: Mapping[str, Aggregator], task: Any, tell: Callable[[str], None]) -> dict[str, Aggregator]:
    """Rules with what they take from the task's adapters, see :meth:`fedlit.aggregators.Aggregator.suited`.

    Args:
        rules: By the names of their runs.
        task: Whose network is loaded.
        tell: Takes what was taken, where it is not the usual.

    Raises:
        FedlitError: A setting of a rule contradicts the adapters.
    """
    stabilised, out = rank_stabilised(task), dict[str, Aggregator]()
    for run, rule in rules.items():
        with named(rule):
            out[run] = rule.suited(stabilised)
        if stabilised and out[run] != rule:
            name = type(rule).__name__
            tell(f"{name} scales adapters of any rank by alpha / sqrt(r), as model.adapter.use_rslora has it")
    return out


def labelled(aggregator: Aggregator, baselines: list[Aggregator]) -> dict[str, Aggregator]:
    """The run's rule and its baselines by the names of their runs; several of one class are numbered."""
    rules = {"": aggregator}
    seen = [type(aggregator)]
    for rule in baselines:
        number = seen.count(type(rule)) + 1
        rules[f"baselines/{type(rule).__name__}" + (f"-{number}" if number > 1 else "")] = rule
        seen.append(type(rule))
    return rules
