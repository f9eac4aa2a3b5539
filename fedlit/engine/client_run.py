"""One client's local training: what comes before the first step and after the last one, for every engine."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from fedlit import tree
from fedlit.aggregators import Aggregator, Work
from fedlit.engine.batches import Batch, batch_length
from fedlit.engine.engine import Assignment, Trained
from fedlit.engine.network import Network
from fedlit.tasks.task import member
from fedlit.tree import Tree


@dataclass(eq=False)
class ClientRun:
    """Local training of one client, under way.

    Attributes:
        network: The network that is trained.
        rule: The rule whose client half is run.
        assignment: What the client is to do.
        down, memory: What it received and kept, on the device.
        w: What it trains.
        start_loss: Mean loss on all its data before the first step; NaN unless the rule measures it.
        num_targets: The task's method of that name; None where it has none, and examples count.
        examples, targets: Seen so far.
    """

    network: Network
    rule: Aggregator
    assignment: Assignment
    down: Tree
    memory: Tree
    w: Tree
    start_loss: float
    num_targets: Callable[[Batch], int] | None
    examples: int = 0
    targets: int = 0

    def count(self, batch: Batch, batch_size: int) -> None:
        """Count a batch's examples and targets; ``batch_size`` examples where it does not tell its length."""
        length = batch_length(batch, batch_size)
        self.examples += length
        self.targets += length if self.num_targets is None else int(self.num_targets(batch))


@torch.no_grad()
def begin(network: Network, rule: Aggregator, assignment: Assignment) -> ClientRun:
    """A client before its first step."""
    device = network.fabric.device
    down, memory = tree.to(assignment.down, device), tree.to(assignment.memory, device)
    w, start_loss = rule.start(down, memory), math.nan
    if "start_loss" in rule.measures:
        start_loss = network.mean_loss(rule.model(w, down, memory), assignment.everything)
    return ClientRun(network, rule, assignment, down, memory, w, start_loss, member(network.task, "num_targets"))


@torch.no_grad()
def end(run: ClientRun, w: Tree, travel: float, loss: float) -> Trained:
    """What a client gives after its last step.

    Args:
        run: The client.
        w: What it trained; copied.
        travel: Sum of the learning rates.
        loss: Mean of the objective.
    """
    rule, down, memory = run.rule, run.down, run.memory
    trained, end_loss = tree.clone(w), math.nan
    model = rule.model(trained, down, memory)
    if "end_loss" in rule.measures:
        end_loss = run.network.mean_loss(model, run.assignment.everything)
    done = (run.assignment.steps, run.examples, travel, run.targets, run.start_loss, end_loss)
    work = Work(*(torch.tensor(float(x), dtype=torch.float64) for x in done))
    upload, kept = rule.finish(trained, down, memory, work)
    return Trained(tree.to(upload, "cpu"), tree.to(kept, "cpu"), model, work, loss)
