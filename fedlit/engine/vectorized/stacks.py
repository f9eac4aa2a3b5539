"""Clients' trees as one stack, under one optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from fedlit import tree
from fedlit.engine.batches import Batch
from fedlit.engine.client_run import ClientRun
from fedlit.engine.vectorized.requests import Answers
from fedlit.tree import Tree

Optimize: TypeAlias = Callable[[Tree], tuple[Any, Sequence[Any]]]
"""Makes an optimizer and its schedulers for a stack."""


@dataclass(eq=False)
class StackedRun:
    """A client's run while its tree is in a stack.

    Attributes:
        index: Its place among the clients that train at once.
        run: Its run; ``run.w`` is its rows of the stack.
        batches: Those that are left.
        answers: What its objective has been answered on the current batch.
        batch: The current one, on the device.
    """

    index: int
    run: ClientRun
    batches: Iterator[Batch]
    answers: Answers
    batch: Batch = None

    @property
    def steps(self) -> int:
        """Optimizer steps that it takes in all."""
        return self.run.assignment.steps


class StackedClients:
    """Trees of clients that have taken the same steps, stacked under one optimizer.

    Args:
        clients: The clients.
        w: Their trees, stacked: (clients, ...).
        optimize: Makes the optimizer.
    """

    def __init__(self, clients: list[StackedRun], w: Tree, optimize: Optimize) -> None:
        self.clients, self.w, self.optimize = clients, w, optimize
        self.leaves: list[Tensor] = tree.leaves(w)
        self.optimizer, self.schedulers = optimize(w)
        self.travel = 0.0
        self._reached: list[set[int]] = [set() for _ in self.leaves]

    @property
    def steps(self) -> int:
        """Optimizer steps that each client takes in all."""
        return self.clients[0].steps

    def trees(self) -> list[Tree]:
        """Each client's tree: rows of the stack, through which gradients reach it."""
        rows = {id(leaf): leaf.unbind() for leaf in self.leaves}
        for reached, leaf in zip(self._reached, self.leaves, strict=True):
            reached.clear()
            node = rows[id(leaf)][0].grad_fn
            if node is not None:
                node.register_prehook(_note(reached))
        return [tree.map(lambda leaf, i=i: rows[id(leaf)][i], self.w) for i in range(len(self.clients))]

    def open(self) -> None:
        """Begin a step: without gradients, and each client with its rows of the stack as they are now."""
        self.optimizer.zero_grad()
        for client, w in zip(self.clients, self.trees(), strict=True):
            client.run.w = w

    def parts(self) -> list[StackedClients]:
        """These clients, or stacks of those among them whose leaves gradients reached alike.

        An optimizer leaves a tensor alone that has no gradient, its own count of steps included, and that may be so
        for one client and not for another.
        """
        if all(len(reached) in (0, len(self.clients)) for reached in self._reached):
            return [self]
        alike: dict[tuple[bool, ...], list[int]] = {}
        for i in range(len(self.clients)):
            alike.setdefault(tuple(i in reached for reached in self._reached), []).append(i)
        return [self._part(rows, touched) for touched, rows in alike.items()]

    def _part(self, rows: list[int], touched: tuple[bool, ...]) -> StackedClients:
        w = tree.map(lambda leaf: leaf.detach()[rows].requires_grad_(), self.w)
        part = StackedClients([self.clients[i] for i in rows], w, self.optimize)
        part.travel = self.travel
        for old, new, reached in zip(self.leaves, part.leaves, touched, strict=True):
            new.grad = old.grad[rows] if reached and old.grad is not None else None
            state = self.optimizer.state.get(old)
            if state:
                part.optimizer.state[new] = {
                    name: value[rows] if isinstance(value, Tensor) and value.shape == old.shape else _copied(value)
                    for name, value in state.items()
                }
        for old_group, new_group in zip(self.optimizer.param_groups, part.optimizer.param_groups, strict=True):
            new_group.update({name: value for name, value in old_group.items() if name != "params"})
        for old_schedule, new_schedule in zip(self.schedulers, part.schedulers, strict=True):
            new_schedule.load_state_dict(old_schedule.state_dict())
        return part

    def step(self, clip: float | None) -> None:
        """One step of the optimizer and its schedulers.

        Args:
            clip: Largest norm of each client's gradient, or None.
        """
        if clip is not None:
            clip_rows([leaf.grad for leaf in self.leaves if leaf.grad is not None], clip)
        self.travel += self.optimizer.param_groups[0]["lr"]
        self.optimizer.step()
        for scheduler in self.schedulers:
            scheduler.step()


def _note(reached: set[int]) -> Callable[[Sequence[Tensor | None]], None]:
    def note(gradients: Sequence[Tensor | None]) -> None:
        reached.update(i for i, gradient in enumerate(gradients) if gradient is not None)

    return note


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def stacked(clients: list[StackedRun], optimize: Optimize) -> StackedClients:
    """Clients whose trees have the same names and shapes, in one stack."""
    trees = (client.run.w for client in clients)
    return StackedClients(
        clients, tree.map(lambda *rows: torch.stack(rows).detach().requires_grad_(), *trees), optimize
    )


def clip_rows(grads: list[Tensor], limit: float) -> None:
    """Scale each client's gradient to a norm of at most ``limit``, as ``torch.nn.utils.clip_grad_norm_`` does.

    Args:
        grads: (clients, ...), changed in place.
        limit: Largest norm over all of a client's tensors.
    """
    if not grads:
        return
    norms = torch.stack([torch.linalg.vector_norm(g.reshape(len(g), -1), dim=1) for g in grads])
    share = (limit / (torch.linalg.vector_norm(norms, dim=0) + 1e-6)).clamp(max=1.0)
    for g in grads:
        g.mul_(share.view(-1, *[1] * (g.ndim - 1)).to(g))
