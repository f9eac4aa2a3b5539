"""A rule on losses given as formulas: both halves in a plain loop, without trainer, data or network.

For what takes hundreds of rounds to show: where a rule ends up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fedlit import tree
from fedlit.aggregators import Aggregator, Server, Update, Work


@dataclass
class Formula:
    """A loss with the interface that rules see."""

    value: Callable[[Any], Tensor]
    step: int = 0
    steps: int = 1

    def __call__(self, params: Any) -> Tensor:
        return self.value(params["w"])


def quadratic(curvature: Sequence[float] | float, minimum: Sequence[float] | float) -> Callable[[Tensor], Tensor]:
    """``sum_i curvature_i / 2 * (w_i - minimum_i)^2``."""
    a, m = (torch.as_tensor(x, dtype=torch.float64) for x in (curvature, minimum))
    return lambda w: (a / 2 * (w - m) ** 2).sum()


def train(rule: Aggregator, loss: Callable[[Tensor], Tensor], down: Any, memory: Any, rates: Sequence[float]) -> Any:
    """One client's full-batch SGD steps, one for each learning rate: its upload, memory and work."""
    w, formula = tree.clone(rule.start(down, memory)), Formula(loss, steps=len(rates))
    first = float(loss(rule.model(w, down, memory)["w"]))
    for formula.step, rate in enumerate(rates):
        w = tree.map(lambda x: x.requires_grad_(), w)
        leaves = tree.leaves(w)
        slopes = torch.autograd.grad(rule.objective(formula, w, down, memory), leaves)
        grads = {id(leaf): slope for leaf, slope in zip(leaves, slopes, strict=True)}
        w = tree.map(lambda x, grads=grads, rate=rate: (x - rate * grads[id(x)]).detach(), w)
    last = float(loss(rule.model(w, down, memory)["w"]))
    done = (len(rates), len(rates), sum(rates), len(rates), first, last)
    work = Work(*(torch.tensor(float(x), dtype=torch.float64) for x in done))
    return *rule.finish(w, down, memory, work), work


def play(
    rule: Aggregator,
    losses: Mapping[str, Callable[[Tensor], Tensor]],
    start: Sequence[float],
    rounds: int,
    rates: Mapping[str, Sequence[float]] | Sequence[float],
    examples: Mapping[str, int] | None = None,
    chosen: Callable[[int], Sequence[str]] | None = None,
) -> tuple[Any, dict[str, Any]]:
    """The state and memories after some rounds from ``start``.

    Args:
        rule: Whose halves run.
        losses: Each client's.
        start: Initial parameters.
        rounds: How many.
        rates: Each client's local learning rates, one a step; or those of all.
        examples: Each client's number; 1 by default.
        chosen: Who trains in a round; by default all.
    """
    params = {"w": torch.tensor(start, dtype=torch.float64)}
    state, memories = rule.init(params), {client: rule.init_memory(params) for client in losses}
    for index in range(rounds):
        updates = []
        for client in sorted(chosen(index) if chosen else losses):
            steps = rates[client] if isinstance(rates, Mapping) else rates
            down = rule.down(state, client)
            upload, memories[client], work = train(rule, losses[client], down, memories[client], steps)
            weight = rule.weigh((examples or {}).get(client, 1), work)
            updates.append(Update(client, weight, lambda upload=upload: upload))  # type: ignore[misc]
        server = Server(index, torch.Generator().manual_seed(index), num_clients=len(losses))
        state = rule.aggregate(state, updates, server)
    return state, memories
