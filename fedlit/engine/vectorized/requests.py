"""What rules ask of the network, gathered from several clients before it is run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fedlit import tree
from fedlit.engine.batches import split_batch
from fedlit.tree import Tree


@dataclass(frozen=True)
class Request:
    """One run of the network for one client.

    Attributes:
        method: ``losses``, ``features`` or ``logits`` of the task, or ``outputs`` of modules.
        params: At which.
        batch: On which.
        pattern: Of ``outputs``.
        graph: Whether it is to be differentiated.
        step: Index of the local step.
    """

    method: str
    params: Any
    batch: Any
    pattern: str = ""
    graph: bool = False
    step: int = 0

    def form(self) -> tuple[Any, ...]:
        """Requests of one form can be run together."""
        flat = self.params if isinstance(self.params, dict) else {}
        shapes = tuple((name, getattr(t, "shape", None), getattr(t, "dtype", None)) for name, t in flat.items())
        return self.method, self.graph, shapes


class Pending(BaseException):
    """An objective needs an answer that is not there yet. It is run again from its start once it is.

    No ``Exception``, so that a rule that catches those does not catch this.
    """

    def __init__(self, request: Request) -> None:
        super().__init__()
        self.request = request


@dataclass(frozen=True)
class Answer:
    """What the network gave.

    Attributes:
        value: A mean loss, or outputs that are not to be differentiated. Its graph, if any, leads to ``params``.
        params: Those that were asked for; None where the value has no graph that leads to them.
        gradients: Of a loss that is to be differentiated, by name; None for those it does not hang on.
    """

    value: Any
    params: Any
    gradients: dict[str, Tensor | None] | None = None

    def at(self, params: Any) -> Any:
        """The value as a function of ``params``, which equal those that were asked for and may be other tensors."""
        mine = self.params is not None and all(params[name] is p for name, p in self.params.items())
        if self.gradients is None or mine:
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


class Asked:
    """What one client's objective was told on a batch, in the order of its questions.

    What is to be differentiated and is no loss is run by itself, and again in each run of the objective: its graph must
    lead to that run's tensors. Random draws are then repeated.

    Args:
        draws: Of the client, for dropout.
        alone: Answers a request by itself.
    """

    def __init__(self, draws: torch.Generator, alone: Callable[[Request, torch.Generator], Any]) -> None:
        self.draws, self.alone = draws, alone
        self.clear()

    def clear(self) -> None:
        """Forget the answers: another batch comes."""
        self.answers: list[Answer | None] = []
        self.states = [self.draws.get_state()]
        self.next = 0

    def rewind(self) -> None:
        """Begin again with the first question."""
        self.next = 0
        self.draws.set_state(self.states[0])

    def ask(self, request: Request) -> Any:
        """The answer.

        Raises:
            Pending: There is none yet.
        """
        place = self.next
        itself = request.graph and request.method != "losses"
        if itself:
            value = self.alone(request, self.draws)
            if place == len(self.answers):
                self.answers.append(None)
                self.states.append(self.draws.get_state())
        elif place == len(self.answers):
            raise Pending(request)
        self.next += 1
        self.draws.set_state(self.states[place + 1])
        answer = self.answers[place]
        return value if answer is None else answer.at(request.params)

    def take(self, answer: Answer) -> None:
        """The answer to the question that was pending."""
        self.answers.append(answer)
        self.states.append(self.draws.get_state())


class AskingLoss:
    """A :class:`~fedlit.aggregators.Loss` that asks for the network to be run.

    Args:
        batch: The current batch, on the device.
        step: Index of the local step.
        steps: Local steps in this round.
        asked: What was answered.
    """

    def __init__(self, batch: Any, step: int, steps: int, asked: Asked) -> None:
        self.batch, self.step, self.steps, self.asked = batch, step, steps, asked

    def __call__(self, params: Tree) -> Tensor:
        return self._ask("losses", params)  # type: ignore[no-any-return]

    def features(self, params: Tree) -> Tensor:
        return self._ask("features", params)  # type: ignore[no-any-return]

    def logits(self, params: Tree) -> Tensor:
        return self._ask("logits", params)  # type: ignore[no-any-return]

    def outputs(self, params: Tree, pattern: str) -> tuple[Tensor, dict[str, Tensor]]:
        answer: tuple[Tensor, dict[str, Tensor]] = self._ask("outputs", params, pattern)
        return answer

    def split(self, parts: int) -> list[AskingLoss]:
        return [AskingLoss(piece, self.step, self.steps, self.asked) for piece in split_batch(self.batch, parts)]

    def _ask(self, method: str, params: Tree, pattern: str = "") -> Any:
        graph = torch.is_grad_enabled() and any(leaf.requires_grad for leaf in tree.leaves(params))
        return self.asked.ask(Request(method, params, self.batch, pattern, graph, self.step))


def by_form(requests: Iterable[Request]) -> list[list[int]]:
    """Places of the requests that can be run together, in the order of the first of each."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for place, request in enumerate(requests):
        groups.setdefault(request.form(), []).append(place)
    return list(groups.values())
