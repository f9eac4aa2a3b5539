"""Rules one after the other: a combinator that is itself a rule, so the loop knows nothing of it."""

from __future__ import annotations

import copy
import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from fedlit import tree
from fedlit.aggregators.base import Aggregator, Loss, Tensors, Work, require
from fedlit.aggregators.server import Server, Update
from fedlit.errors import FedlitError

FAMILY = "combinator"

START, SEEN = "start", "seen"
"""Keys, beside a stage's, of the model that the stage before it ended with, and of the clients that have had it."""


@dataclass(frozen=True)
class Stage:
    """One part of a run.

    Args:
        aggregator: The rule in force.
        rounds: For how many rounds; the last stage goes on to the end of the run.
        trainable: Regular expression on parameter names; those that do not match stay as received. None: all train.
    """

    aggregator: Aggregator
    rounds: int
    trainable: str | None = None

    def __post_init__(self) -> None:
        require(self, self.rounds >= 1, "rounds", "at least 1")
        try:
            re.compile(self.trainable or "")
        except re.error:
            require(self, False, "trainable", "a regular expression")


class Staged(Aggregator):
    """Base of rules that follow a plan of stages.

    Everything that crosses between its methods is ``{"stage<i>": what stage i's rule made of it}``, so a client
    knows the stage from what it was sent. A stage starts from the global model of the one before. Where its rule has
    clients hold parameters that it does not send (a head in their memory, LoRA's A as the network has it), that model
    goes down to each client once, in its first round in the stage: ``down`` then has a key ``start`` too, and the
    state the names of the clients that have had it.
    """

    @property
    def plan(self) -> tuple[Stage, ...]:
        """The stages, in order."""
        raise NotImplementedError

    @property
    def second_order(self) -> bool:  # type: ignore[override] # here it depends on the plan
        return any(stage.aggregator.second_order for stage in self.plan)

    @property
    def measures(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(sorted({name for stage in self.plan for name in stage.aggregator.measures}))

    @property
    def min_rounds(self) -> int:
        return sum(stage.rounds for stage in self.plan[:-1]) + self.plan[-1].aggregator.min_rounds

    @property
    def min_clients(self) -> int:
        return max(stage.aggregator.min_clients for stage in self.plan)

    @property
    def min_steps(self) -> int:
        return max(stage.aggregator.min_steps for stage in self.plan)

    def participants(self, clients: Sequence[str], round: int) -> Sequence[str] | None:  # noqa: A002
        stage, first = self._in_force(round)
        return stage.aggregator.participants(clients, round - first)

    def local_steps(self, steps: int, round: int) -> int:  # noqa: A002
        stage, first = self._in_force(round)
        return stage.aggregator.local_steps(steps, round - first)

    def _in_force(self, round: int) -> tuple[Stage, int]:  # noqa: A002
        """The stage of a round, and its first round."""
        first = 0
        for stage in self.plan[:-1]:
            if round < first + stage.rounds:
                return stage, first
            first += stage.rounds
        return self.plan[-1], first

    def _open(self, box: Tensors) -> tuple[str, Stage, Any]:
        key = next(name for name in box if name not in (START, SEEN))
        return key, self.plan[int(key.removeprefix("stage"))], box[key]

    def _kept(self, down: Tensors, memory: Tensors) -> Any:
        """The memory for the stage in force; of a client new to it, by the model that the stage before ended with."""
        key, stage, _ = self._open(down)
        return stage.aggregator.init_memory(down[START]) if START in down else memory[key]

    def _rest(self, w: Tensors, down: Tensors, memory: Tensors) -> dict[str, Any]:
        """Parameters that the stage's rule leaves as they are, and that a stage before may have trained."""
        key, stage, inner = self._open(down)
        if START not in down:
            return memory.get(f"rest of {key}", {})  # type: ignore[no-any-return]
        known = stage.aggregator.model(w[key], inner, self._kept(down, memory))
        return {name: p for name, p in down[START].items() if name not in known}

    def init(self, params: Tensors) -> Any:
        for stage in self.plan:
            matches = stage.trainable is None or any(re.search(stage.trainable, name) for name in params)
            require(stage, matches, "trainable", f"an expression that matches some of {sorted(params)[:3]} ...")
        for i, stage in enumerate(self.plan[:-1]):
            model = stage.aggregator.global_model(stage.aggregator.init(params))
            if model is None:
                raise FedlitError(
                    f"{type(self).__name__}: stage {i}, {type(stage.aggregator).__name__}, has no global model for "
                    f"stage {i + 1} to start from: make it the last"
                )
            if not model.keys() <= params.keys():
                name = type(stage.aggregator).__name__
                raise FedlitError(
                    f"{type(self).__name__}: stage {i}, {name}, changes frozen weights, which stage {i + 1} would not "
                    "know: make it the last"
                )
        return {"stage0": self.plan[0].aggregator.init(params)}

    def init_memory(self, params: Tensors) -> Any:
        return {f"stage{i}": stage.aggregator.init_memory(params) for i, stage in enumerate(self.plan)}

    def down(self, state: Tensors, client: str) -> Any:
        key, stage, inner = self._open(state)
        sent = {key: stage.aggregator.down(inner, client)}
        return {**sent, START: state[START]} if START in state and client not in state[SEEN] else sent

    def start(self, down: Tensors, memory: Tensors) -> Any:
        key, stage, inner = self._open(down)
        return {key: stage.aggregator.start(inner, self._kept(down, memory))}

    def objective(self, loss: Loss, w: Tensors, down: Tensors, memory: Tensors) -> Tensor:
        key, stage, inner = self._open(down)
        trained = w[key]
        if stage.trainable is not None:
            trained = trainable(stage.trainable, self.model(w, down, memory), trained, tree.detach(trained))
        rest = self._rest(w, down, memory)
        return stage.aggregator.objective(Whole(loss, rest) if rest else loss, trained, inner, self._kept(down, memory))

    def own_rates(self, w: Tensors) -> Sequence[tuple[Any, float]]:
        _, stage, inner = self._open(w)
        return stage.aggregator.own_rates(inner)

    def finish(self, w: Tensors, down: Tensors, memory: Tensors, work: Work) -> tuple[Any, Any]:
        key, stage, inner = self._open(down)
        trained, before = w[key], self._kept(down, memory)
        if stage.trainable is not None:  # weight decay moves what has no gradient: put it back
            start, names = stage.aggregator.start(inner, before), self.model(w, down, memory)
            trained = trainable(stage.trainable, names, trained, start)
        upload, kept = stage.aggregator.finish(trained, inner, before, work)
        rest = self._rest(w, down, memory)
        return {key: upload}, {**memory, key: kept, **({f"rest of {key}": rest} if rest else {})}

    def weigh(self, num_examples: int, work: Work) -> float:
        return self.plan[0].aggregator.weigh(num_examples, work)

    def model(self, w: Tensors, down: Tensors, memory: Tensors) -> Any:
        key, stage, inner = self._open(down)
        model = stage.aggregator.model(w[key], inner, self._kept(down, memory))
        rest = self._rest(w, down, memory)
        return {**rest, **model} if rest else model

    def personal(self, down: Tensors, memory: Tensors) -> Any:
        key, stage, inner = self._open(down)
        model = stage.aggregator.personal(inner, self._kept(down, memory))
        rest = self._rest(self.start(down, memory), down, memory)
        return {**rest, **model} if rest else model

    def aggregate(self, state: Tensors, updates: Sequence[Update], server: Server) -> Any:
        key, stage, inner = self._open(state)
        opened = [
            Update(u.client, u.weight, lambda u=u: u._read()[key], u.metrics, u.sealed)  # type: ignore[misc]
            for u in updates
        ]
        index = int(key.removeprefix("stage"))
        first = sum(s.rounds for s in self.plan[:index])
        own = copy.copy(server)
        own.round = server.round - first  # rules count from their own first round
        inner = stage.aggregator.aggregate(inner, opened, own)
        if server.round + 1 < first + stage.rounds or index + 1 == len(self.plan):
            if START not in state:
                return {key: inner}
            here = {u.client: torch.tensor(True) for u in updates}
            return {key: inner, START: state[START], SEEN: {**state[SEEN], **here}}
        params = stage.aggregator.global_model(inner)
        after = self.plan[index + 1].aggregator
        switched = {f"stage{index + 1}": after.init(params)}
        return {**switched, START: params, SEEN: {}} if holds_parameters(after, params) else switched

    def global_model(self, state: Tensors) -> Any | None:
        _, stage, inner = self._open(state)
        return stage.aggregator.global_model(inner)


class Whole:
    """The loss of a rule that leaves parameters out, with the values that these have in its place."""

    def __init__(self, loss: Loss, rest: Mapping[str, Any]) -> None:
        self.loss, self.rest, self.step, self.steps = loss, rest, loss.step, loss.steps

    def __call__(self, params: Any) -> Tensor:
        return self.loss({**self.rest, **params})

    def features(self, params: Any) -> Tensor:
        return self.loss.features({**self.rest, **params})

    def logits(self, params: Any) -> Tensor:
        return self.loss.logits({**self.rest, **params})

    def outputs(self, params: Any, pattern: str) -> tuple[Tensor, dict[str, Tensor]]:
        return self.loss.outputs({**self.rest, **params}, pattern)

    def split(self, parts: int) -> list[Loss]:
        return [Whole(part, self.rest) for part in self.loss.split(parts)]


def trainable(pattern: str, names: Container[str], a: Any, b: Any, name: str = "") -> Any:
    """Leaves of ``a`` that match, or that are no parameter of the network but a rule's own; of ``b`` elsewhere."""
    if isinstance(a, Tensor):
        return a if name not in names or re.search(pattern, name) else b
    return {key: trainable(pattern, names, a[key], b[key], key) for key in a}


def holds_parameters(rule: Aggregator, params: Any) -> bool:
    """Whether clients start a rule with values of parameters that it does not send them."""
    low, high = (rule.init_memory(tree.map(like, params)) for like in (torch.zeros_like, torch.ones_like))
    memory, down = rule.init_memory(params), rule.down(rule.init(params), "any client")
    sent = rule.model(rule.start(down, memory), down, memory)
    return not tree.equal(low, high) or not params.keys() <= sent.keys()


@dataclass(frozen=True)
class Stages(Staged):
    """Rules one after the other, each for its number of rounds.

    Fed-LA, SLoRA and two-stage transfer are instances; see :class:`~fedlit.aggregators.local.FedLA`. All stages weigh
    clients as the first one does.

    Args:
        stages: The parts of the run, in order.
    """

    stages: list[Stage]

    def __post_init__(self) -> None:
        require(self, len(self.stages) > 0, "stages", "at least one stage")
        alone = all(type(s.aggregator).cohorts is Aggregator.cohorts for s in self.stages)
        require(self, alone, "stages", "rules in which every client trains on its own, so no reference rule")

    def suited(self, rank_stabilised: bool | None) -> Self:
        own = [replace(stage, aggregator=stage.aggregator.suited(rank_stabilised)) for stage in self.stages]
        return replace(self, stages=own)

    @property
    def plan(self) -> tuple[Stage, ...]:
        return tuple(self.stages)
