"""Clients' trees as one stack, under one optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fedlit import tree
from fedlit.engine.vectorized.requests import Asked
from fedlit.tree import Tree

Optimize = Callable[[Tree], tuple[Any, Sequence[Any]]]


@dataclass(eq=False)
class Member:
    """A client while it trains."""

    index: int
    work: Any
    down: Tree
    memory: Tree
    w: Tree
    start_loss: float
    draws: torch.Generator
    batches: Iterator[Any]
    asked: Asked
    examples: int = 0
    targets: int = 0
    batch: Any = None


class Block:
    """Some clients' trees, stacked, that have taken the same steps.

    Args:
        members: Whose.
        w: The stack.
        optimize: Makes an optimizer and its schedulers for a stack.
    """

    def __init__(self, members: list[Member], w: Tree, optimize: Optimize) -> None:
        self.members, self.w, self.optimize = members, w, optimize
        self.leaves: list[Tensor] = tree.leaves(w)
        self.optimizer, self.schedulers = optimize(w)
        self.travel = 0.0
        self._reached: list[set[int]] = [set() for _ in self.leaves]

    @property
    def steps(self) -> int:
        """Steps that each member takes."""
        return int(self.members[0].work.steps)

    def rows(self) -> list[Tree]:
        """Each member's tree: rows of the stack, through which gradients reach it."""
        apart = {id(leaf): leaf.unbind() for leaf in self.leaves}
        for reached, leaf in zip(self._reached, self.leaves, strict=True):
            reached.clear()
            node = apart[id(leaf)][0].grad_fn
            if node is not None:
                node.register_prehook(_note(reached))
        return [tree.map(lambda leaf, i=i: apart[id(leaf)][i], self.w) for i in range(len(self.members))]

    def open(self) -> None:
        """Give each member its rows, for the step that begins."""
        for member, w in zip(self.members, self.rows(), strict=True):
            member.w = w

    def parts(self) -> list[Block]:
        """The block, or blocks of the members that gradients reached alike.

        An optimizer leaves a tensor alone that has no gradient, its own count of steps included, and that may be so
        for one client and not for another.
        """
        if all(len(reached) in (0, len(self.members)) for reached in self._reached):
            return [self]
        alike: dict[tuple[bool, ...], list[int]] = {}
        for i in range(len(self.members)):
            alike.setdefault(tuple(i in reached for reached in self._reached), []).append(i)
        return [self._part(rows, touched) for touched, rows in alike.items()]

    def _part(self, rows: list[int], touched: tuple[bool, ...]) -> Block:
        w = tree.map(lambda leaf: leaf.detach()[rows].requires_grad_(), self.w)
        part = Block([self.members[i] for i in rows], w, self.optimize)
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
            clip: Largest norm of each member's gradient, or None.
        """
        if clip is not None:
            clip_rows([leaf.grad for leaf in self.leaves if leaf.grad is not None], clip)
        self.travel += self.optimizer.param_groups[0]["lr"]
        self.optimizer.step()
        for scheduler in self.schedulers:
            scheduler.step()


def _note(reached: set[int]) -> Callable[[Any], None]:
    def note(gradients: Any) -> None:
        reached.update(i for i, gradient in enumerate(gradients) if gradient is not None)

    return note


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def stacked(members: list[Member], optimize: Optimize) -> Block:
    """A block of clients whose trees have the same names and shapes."""
    w = tree.map(lambda *rows: torch.stack(rows).detach().requires_grad_(), *(member.w for member in members))
    return Block(members, w, optimize)


def clip_rows(grads: list[Tensor], limit: float) -> None:
    """Scale each client's gradient to a norm of at most ``limit``, as ``torch.nn.utils.clip_grad_norm_`` does.

    Args:
        grads: (clients, ...), changed in place.
    """
    if not grads:
        return
    norms = torch.stack([torch.linalg.vector_norm(g.reshape(len(g), -1), dim=1) for g in grads])
    share = (limit / (torch.linalg.vector_norm(norms, dim=0) + 1e-6)).clamp(max=1.0)
    for g in grads:
        g.mul_(share.view(-1, *[1] * (g.ndim - 1)).to(g))
