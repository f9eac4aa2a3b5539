"""Runs of the network that rules request, gathered from several clients before the network is run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fedlit import tree
from fedlit.engine.batches import Batch, split_batch
from fedlit.tree import Tree


@dataclass(frozen=True)
class Request:
    """One run of the network for one client.

    Attributes:
        method: ``losses``, ``features`` or ``logits`` of the task, or ``outputs`` of modules.
        params: The model, a flat dict.
        batch: The examples.
        pattern: Regular expression for the names of the modules, for ``outputs``.
        graph: Whether the result will be differentiated.
        step: Index of the local step.
    """

    method: str
    params: Any
    batch: Batch
    pattern: str = ""
    graph: bool = False
    step: int = 0

    def form(self) -> tuple[Any, ...]:
        """Requests of one form can be run together."""
        flat = self.params if isinstance(self.params, dict) else {}
        shapes = tuple((name, getattr(t, "shape", None), getattr(t, "dtype", None)) for name, t in flat.items())
        return self.method, self.graph, shapes


class Unanswered(BaseException):
    """An objective needs an answer that is not there yet; once it is, the objective is run again from its start.

    Not an ``Exception``, so that a rule that catches those does not catch this.
    """

    def __init__(self, request: Request) -> None:
        super().__init__()
        self.request = request


@dataclass(frozen=True)
class Answer:
    """Result of a request.

    Attributes:
        value: A mean loss, or outputs that will not be differentiated. Its graph, if any, leads to ``params``.
        params: The tensors that were requested; None where the value has no graph that leads to them.
        gradients: Of a loss that will be differentiated, by name; None for parameters that it does not depend on.
    """

    value: Any
    params: Any
    gradients: dict[str, Tensor | None] | None = None

    def at(self, params: Any) -> Any:
        """The value as a function of ``params``: equal to those requested, but maybe other tensors."""
        same = self.params is not None and all(params[name] is p for name, p in self.params.items())
        if self.gradients is None or same:
            return self.value
        names = list(self.gradients)
        known: Any = _Known.apply
        return known(self.value.detach(), [self.gradients[name] for name in names], *(params[name] for name in names))


class _Known(torch.autograd.Function):
    """A value whose gradients are known already."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: list[Tensor | None], *params: Tensor) -> Tensor:
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *given: Any) -> Any:
        (g,) = given
        return None, None, *(None if x is None else x * g.to(x) for x in ctx.gradients)


class Answers:
    """The answers that one client's objective has had on a batch, in the order of its requests.

    A result that will be differentiated and is no loss is computed for the client alone, and anew in each run of the
    objective, since its graph must lead to that run's tensors; random draws are repeated.

    Args:
        draws: The client's generator, for dropout.
        alone: Runs a request for one client.
    """

    def __init__(self, draws: torch.Generator, alone: Callable[[Request, torch.Generator], Any]) -> None:
        self.draws, self.alone = draws, alone
        self.clear()

    def clear(self) -> None:
        """Forget the answers, for the next batch."""
        self.known: list[Answer | None] = []
        self.states = [self.draws.get_state()]
        self.next = 0

    def rewind(self) -> None:
        """Begin again with the first request."""
        self.next = 0
        self.draws.set_state(self.states[0])

    def get(self, request: Request) -> Any:
        """The answer to the next request.

        Raises:
            Unanswered: There is none yet.
        """
        place = self.next
        if request.graph and request.method != "losses":
            value = self.alone(request, self.draws)
            if place == len(self.known):
                self.add(None)
        elif place == len(self.known):
            raise Unanswered(request)
        self.next += 1
        self.draws.set_state(self.states[place + 1])
        answer = self.known[place]
        return value if answer is None else answer.at(request.params)

    def add(self, answer: Answer | None) -> None:
        """The answer to the request that had none; None if it is computed anew each time."""
        self.known.append(answer)
        self.states.append(self.draws.get_state())


class RequestedLoss:
    """A :class:`~fedlit.aggregators.Loss` that requests runs of the network and takes their results from ``answers``.

    Args:
        batch: The current batch, on the device.
        step: Index of the local step.
        steps: Local steps in this round.
        answers: The client's answers on this batch.
    """

    def __init__(self, batch: Batch, step: int, steps: int, answers: Answers) -> None:
        self.batch, self.step, self.steps, self.answers = batch, step, steps, answers

    def __call__(self, params: Tree) -> Tensor:
        return self._request("losses", params)  # type: ignore[no-any-return]

    def features(self, params: Tree) -> Tensor:
        return self._request("features", params)  # type: ignore[no-any-return]

    def logits(self, params: Tree) -> Tensor:
        return self._request("logits", params)  # type: ignore[no-any-return]

    def outputs(self, params: Tree, pattern: str) -> tuple[Tensor, dict[str, Tensor]]:
        return self._request("outputs", params, pattern)  # type: ignore[no-any-return]

    def split(self, parts: int) -> list[RequestedLoss]:
        pieces = split_batch(self.batch, parts)
        return [RequestedLoss(piece, self.step, self.steps, self.answers) for piece in pieces]

    def _request(self, method: str, params: Tree, pattern: str = "") -> Any:
        graph = torch.is_grad_enabled() and any(leaf.requires_grad for leaf in tree.leaves(params))
        return self.answers.get(Request(method, params, self.batch, pattern, graph, self.step))


def by_form(requests: Iterable[Request]) -> list[list[int]]:
    """Places of the requests that can be run together, in the order of the first of each form."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for place, request in enumerate(requests):
        groups.setdefault(request.form(), []).append(place)
    return list(groups.values())
