"""What rules ask of the network, gathered from several clients before it is run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fedlit import tree
from fedlit.clients.loss import split_batch
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
    """

    method: str
    params: Any
    batch: Any
    pattern: str = ""
    graph: bool = False

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


class Asked:
    """What one client's objective was told in this step, in the order of its questions."""

    def __init__(self) -> None:
        self.answers: list[Any] = []
        self.next = 0

    def ask(self, request: Request) -> Any:
        """The answer.

        Raises:
            Pending: There is none yet.
        """
        if self.next == len(self.answers):
            raise Pending(request)
        self.next += 1
        return self.answers[self.next - 1]


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
        return self.asked.ask(Request(method, params, self.batch, pattern, graph))


def by_form(requests: Iterable[Request]) -> list[list[int]]:
    """Places of the requests that can be run together, in the order of the first of each."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for place, request in enumerate(requests):
        groups.setdefault(request.form(), []).append(place)
    return list(groups.values())
