"""Rules without a mixing server: models pass from client to client, and the server only relays them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fedlit import tree
from fedlit.aggregators.base import Aggregator, Loss, Tensors, Work, require
from fedlit.aggregators.server import Server, Update
from fedlit.errors import FedlitError

FAMILY = "topology"


@dataclass(frozen=True)
class _Ring(Aggregator):
    """A round is the turn of one client, the next by name, which receives what the one before it made of the model.

    After ``cycles`` times round the ring the relayed model stays as it is, and every client receives that one. The
    state, and what is sent, is ``{"relayed": model}`` until then and ``{"common": model}`` from then on.

    Args:
        cycles: How often the ring is gone round.
    """

    cycles: int = 1

    def __post_init__(self) -> None:
        require(self, self.cycles >= 1, "cycles", "at least 1")

    @property
    def min_rounds(self) -> int:
        return self.cycles + 1  # in a ring of one; how many clients there are is not known here

    def participants(self, clients: Sequence[str], round: int) -> Sequence[str] | None:  # noqa: A002
        return [sorted(clients)[round % len(clients)]]

    def init(self, params: Tensors) -> Any:
        return {"relayed": params}

    def down(self, state: Tensors, client: str) -> Any:
        return state

    def aggregate(self, state: Tensors, updates: Sequence[Update], server: Server) -> Any:
        if "common" in state:
            return state
        if server.num_clients is None:
            name = type(self).__name__
            raise FedlitError(f"{name} must know how long its ring is: give Server the number of clients, num_clients")
        over = server.round + 1 >= self.cycles * server.num_clients
        return {"common" if over else "relayed": server.mean(updates)}

    def global_model(self, state: Tensors) -> Any | None:
        return next(iter(state.values()))


@dataclass(frozen=True)
class MetaFed(_Ring):
    """A ring of clients: each learns from the model of the one before it, then all from the last.

    Chen et al. 2022, arXiv:2206.08516. A round is the turn of one client, the next by name, so a cycle takes as many
    rounds as there are clients: ``cycles`` of common knowledge, then personalisation to the end of the run.

    - Common knowledge: the received model is the teacher T. A client whose own model is not good enough starts from
      the teacher's; one that is goes on with its own and minimises
      ``loss(w) + lam * mean((features(w) - features(T))^2)``. What it trained goes to the next.
    - Personalisation: the same with the last model of the first part as every client's teacher, and ``lam`` times
      ``10^min(1, 5 (s_T - s)) / 10``, or 0 where ``s_T <= s`` and ``s_T < teacher_threshold``.

    The paper decides by accuracies on validation data, which a client here does not train by and a regression does
    not have. ``exp(-loss)`` is in their place: the likelihood of an example, which has the same range. Whether an own
    model is good enough is told by the mean loss on all the client's training data at the end of a turn, and stays
    true from then on; ``s`` and ``s_T`` are of the current batch and of the model as it is at that step. The released
    code first trains each client for 30 epochs alone; here a client's first turn starts from what it receives. There
    the teacher has no dropout; here it has the task's. Needs a task with ``losses``, and with ``features`` unless
    ``lam`` is 0.

    Args:
        cycles: How often the ring is gone round for common knowledge.
        lam: Weight of the distance to the teacher's features.
        threshold: An own model with ``exp(-loss)`` above this is good enough to be kept.
        teacher_threshold: A common model with ``exp(-loss)`` below this, and no better, teaches nothing.
    """

    lam: float = 1.0
    threshold: float = 0.6
    teacher_threshold: float = 0.5
    measures = ("end_loss",)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, 0 <= self.lam < float("inf"), "lam", "a finite number, at least 0")
        require(self, 0 <= self.threshold <= 1, "threshold", "a number in [0, 1]")
        require(self, 0 <= self.teacher_threshold <= 1, "teacher_threshold", "a number in [0, 1]")

    def start(self, down: Tensors, memory: Tensors) -> Any:
        (teacher,) = down.values()
        if not memory:
            return teacher
        return tree.map(lambda own, other: torch.where(memory["good"] > 0, own, other), memory["own"], teacher)

    def objective(self, loss: Loss, w: Tensors, down: Tensors, memory: Tensors) -> Tensor:
        (teacher,), value = down.values(), loss(w)
        if not (self.lam and memory):
            return value
        lam = self.lam * memory["good"]
        if "common" in down:
            lam = lam * trust(torch.exp(-loss(teacher)), torch.exp(-value), self.teacher_threshold)
        return torch.add(value, lam * (loss.features(w) - loss.features(teacher).detach()).square().mean())

    def finish(self, w: Tensors, down: Tensors, memory: Tensors, work: Work) -> tuple[Any, Any]:
        good = (torch.exp(-work.end_loss) > self.threshold).to(tree.leaves(w)[0])
        kept = {"own": w, "good": torch.maximum(memory["good"], good) if memory else good}
        return {} if "common" in down else w, kept

    def personal(self, down: Tensors, memory: Tensors) -> Any:
        return memory["own"] if memory else next(iter(down.values()))


def trust(teacher: Tensor, own: Tensor, threshold: float) -> Tensor:
    """What MetaFed's ``lam`` is multiplied by in personalisation; no gradient passes.

    Args:
        teacher: Likelihood of the batch under the common model, in (0, 1].
        own: The same under the client's own.
        threshold: Below this, a teacher that is no better counts for nothing.
    """
    ahead, teacher = (teacher - own).detach(), teacher.detach()
    share = 10 ** (5 * ahead).clamp(max=1) / 10
    return torch.where((ahead <= 0) & (teacher < threshold), torch.zeros_like(share), share)
