"""Rules in which a client learns by its own data how much of what it downloads to mix into its model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fedlit import tree
from fedlit.aggregators.averaging import FedAvg
from fedlit.aggregators.base import Aggregator, Loss, Tensors, Work, require
from fedlit.aggregators.partial import expression, opening, part
from fedlit.aggregators.personal import bounded
from fedlit.aggregators.server import Server, Update

FAMILY = "local adaptation"


class LearnedMixture(Aggregator):
    """Base of rules that learn a mixture by what they add to it, ``w["shift"]``.

    At ``mix_rate`` by plain steps of its own; where that is None, by the task's optimizer, ``mix_scale`` times as fast
    as parameters.
    """

    mix_scale: float
    mix_rate: float | None
    added_arguments = {"mix_rate": None}  # noqa: RUF012 - see FedAdam

    def __post_init__(self) -> None:
        super().__post_init__()  # type: ignore[misc] # of the rule that it is mixed into
        require(self, 0 < self.mix_scale < float("inf"), "mix_scale", "a finite number above 0")
        require(self, self.mix_rate is None or 0 < self.mix_rate < float("inf"), "mix_rate", "a finite number above 0")

    @property
    def speed(self) -> float:
        """Factor on what is added."""
        return self.mix_scale if self.mix_rate is None else 1.0

    def own_rates(self, w: Tensors) -> Sequence[tuple[Any, float]]:
        return () if self.mix_rate is None else ((w["shift"], self.mix_rate),)


class MixedFirst(LearnedMixture):
    """Base of rules that learn their mixture in the first steps of a round, and the model in the others."""

    mixed: str
    mix_share: float
    mix_on_top: bool

    def __post_init__(self) -> None:
        super().__post_init__()
        expression(self, "mixed")
        fits = 0 < self.mix_share <= 1 if self.mix_on_top else 0 <= self.mix_share < 1
        require(self, fits, "mix_share", "a number in (0, 1]" if self.mix_on_top else "a number in [0, 1)")

    def init(self, params: Tensors) -> Any:
        part(self, "mixed", params, whole=True)
        return super().init(params)

    def local_steps(self, steps: int, round: int) -> int:  # noqa: A002
        return steps + max(1, int(self.mix_share * steps + 0.5)) if self.mix_on_top and round else steps

    def mixing_steps(self, steps: int) -> int:
        """How many of all steps of a round learn the mixture."""
        return opening(self.mix_share / (1 + self.mix_share) if self.mix_on_top else self.mix_share, steps)


@dataclass(frozen=True)
class FedALA(MixedFirst, FedAvg):
    """FedAvg whose clients begin a round from an elementwise mixture of their own model and the global one.

    Zhang et al. 2023, arXiv:2212.01197, Algorithm 1: ``own + (global - own) * W``, with ``W`` in
    [0, 1] for each element, ones at first and kept from round to round. In each round ``W`` is learned first, with the
    model held; then the mixed model trains as usual, is sent for the mean and kept. In a public version ``W`` was
    trained on the loss of another model and stayed at ones.

    Departures: as many steps as ``mix_share`` says learn ``W``, always, where the paper takes one pass over part
    of the data, and in a client's second round as many as bring the loss to rest. A client's first round has nothing
    to mix and trains the model only. ``W`` is held in [0, 1] in all that is computed and cut to it at the end of the
    round, in the paper after each step: these differ only for an element that turns back from an end within a round.

    The settings of FHBench's code (arXiv:2504.10817) are ``mix_rate`` 1 (there ``eta``), ``mix_on_top`` with
    ``mix_share`` 1 (a pass over all training data for ``W``, then the round's epoch), ``uniform``, and in ``mixed``
    the last 26 tensors that train (``layer_idx``). Its passes of the second round, until the deviation of the last 10
    losses is under a threshold, are not taken.

    Args:
        mixed: Regular expression on parameter names: what is mixed; the rest is taken from the global model. The paper
            finds that the last layers are enough.
        mix_share: Part of the round's steps that learn ``W``, rounded, but at least one for either; 0 is FedAvg. A
            round of a single step trains the model.
        mix_on_top: Let the steps that learn ``W`` come on top of the round's, instead of being taken from them; then
            ``mix_share`` may be 1. From the second round on.
        mix_rate: Learning rate of ``W``: plain steps of gradient descent, whatever the task's optimizer and schedule
            are, in the place of ``mix_scale``. The paper's is 1.
        mix_scale: Speed of ``W`` against the parameters', which the task's optimizer moves too: with SGD its learning
            rate is ``mix_scale^2`` times the task's, with Adam its steps are ``mix_scale`` times as long. The paper's
            rate for ``W`` is 1, with SGD of 0.005 for the model: 14.
    """

    mixed: str = "."
    mix_share: float = 0.5
    mix_scale: float = 14.0
    mix_on_top: bool = False
    mix_rate: float | None = None

    added_arguments = {"mix_on_top": False, "mix_rate": None}  # noqa: RUF012 - see FedAdam

    def _kept(self, down: Tensors, memory: Tensors) -> Any:
        return memory or {"own": down, "mix": tree.map(torch.ones_like, part(self, "mixed", down, whole=True))}

    def _mix(self, w: Tensors, kept: Tensors) -> Any:
        return tree.map(lambda x, u: bounded(x + self.speed * u), kept["mix"], w["shift"])

    def start(self, down: Tensors, memory: Tensors) -> Any:
        kept = self._kept(down, memory)
        return {"model": mixture(down, kept["own"], kept["mix"]), "shift": tree.zeros(kept["mix"])}

    def objective(self, loss: Loss, w: Tensors, down: Tensors, memory: Tensors) -> Tensor:
        held = "model" if memory and loss.step < self.mixing_steps(loss.steps) else "shift"
        return loss(self.model({**w, held: tree.detach(w[held])}, down, memory))

    def finish(self, w: Tensors, down: Tensors, memory: Tensors, work: Work) -> tuple[Any, Any]:
        model = self.model(w, down, memory)
        return tree.sub(model, down), {"own": model, "mix": self._mix(w, self._kept(down, memory))}

    def model(self, w: Tensors, down: Tensors, memory: Tensors) -> Any:
        kept = self._kept(down, memory)
        now, before = (mixture(down, kept["own"], mix) for mix in (self._mix(w, kept), kept["mix"]))
        return tree.add(w["model"], tree.sub(now, before))


def mixture(shared: Tensors, own: Tensors, mix: Tensors) -> Any:
    """``own + (shared - own) * mix``, element by element, where there is a ``mix``, and ``shared`` elsewhere."""
    return {**shared, **{name: tree.lerp(shared[name], own[name], x) for name, x in mix.items()}}


class CoreOfEach(FedAvg):
    """Base of rules whose server keeps one model of each client, its core, and sends all of them to everyone.

    A core moves by ``lr`` times its client's update. It counts from the first of them on; a client without one starts
    from the mean of the others'. There is no one model of all clients.
    """

    @property
    def min_rounds(self) -> int:
        return 2

    def init(self, params: Tensors) -> Any:
        return {"params": params, "cores": {}, "weights": {}, "round": torch.zeros((), dtype=torch.float64)}

    def down(self, state: Tensors, client: str) -> Any:
        others = {c: core for c, core in state["cores"].items() if c != client}
        weights = {c: state["weights"][c] for c in sorted(others)}
        mean = sum(weights.values()) / len(weights) if weights else torch.ones((), dtype=torch.float64)
        own = state["weights"].get(client, mean)
        total = own + sum(weights.values())
        share = {"own": own / total, "others": {c: x / total for c, x in weights.items()}}
        core = state["cores"].get(client, state["params"])
        return {"core": core, "others": others, "share": share, "round": state["round"]}

    def aggregate(self, state: Tensors, updates: Sequence[Update], server: Server) -> Any:
        moved, old, cores = server.gather(updates), state["params"], state["cores"]
        cores = {**cores, **{c: tree.add(cores.get(c, old), move, self.lr) for c, move in moved.items()}}
        weights = {**state["weights"], **{u.client: torch.tensor(u.weight, dtype=torch.float64) for u in updates}}
        names = sorted(cores)
        total = sum(float(weights[c]) for c in names)
        mean = tree.combine([cores[c] for c in names], [float(weights[c]) / total for c in names])
        return {"params": mean, "cores": cores, "weights": weights, "round": state["round"] + 1}

    def global_model(self, state: Tensors) -> Any | None:
        return None


@dataclass(frozen=True)
class APPLE(LearnedMixture, CoreOfEach):
    """Every client downloads the core models of all, and learns in which proportions they make up its own.

    Luo and Wu 2021, arXiv:2110.08394, Algorithm 1: client k's model is ``sum_j p_kj * core_j``. By its loss it trains
    its own core, with the others held, and its ``p_k``, which is pulled to ``p0``, the clients' shares of all
    examples, by ``pull(r) * mu / 2 * |p_k - p0|^2`` with ``pull(r) = (cos(pi * r / pull_rounds) + 1) / 2``, and 0 from
    round ``pull_rounds`` on. The core is sent, ``p_k`` is not. Since the core's gradient is ``p_kk`` times the loss's,
    many clients need a larger learning rate. The server's ``lr`` is 1 in the paper, and ``weighting`` says whether
    ``p0`` follows the numbers of examples or is uniform.

    Departures: all cores are sent always (the paper may limit them); a core counts from its client's first upload on,
    so in the first round a client trains its own core alone, and ``p0`` is shared among those there are; a client
    that has not trained yet starts from the mean of the cores. ``p_k`` is kept as its distance from ``p0``. Each client
    is told the others' names and, with ``examples``, their shares of the examples.

    The settings of FHBench's code (arXiv:2504.10817) are ``mu`` 1e-3, ``pull_rounds`` as many as the run has (200),
    ``mix_rate`` 1e-3 (there ``dr_learning_rate``) and ``uniform``. Its gradient of ``p_k`` is the mean over a core's
    elements, in the paper and here their sum, so that at the same rate its ``p_k`` moves much less.

    Args:
        mu: Strength of the pull to ``p0`` at the start.
        pull_rounds: Rounds after which the pull has ended; the paper's L.
        mix_scale: Speed of ``p_k`` against the parameters', which the task's optimizer moves too: with SGD its
            learning rate is ``mix_scale^2`` times the task's, with Adam its steps are ``mix_scale`` times as long.
        mix_rate: Learning rate of ``p_k``: plain steps of gradient descent, whatever the task's optimizer and schedule
            are, in the place of ``mix_scale``; the paper's second learning rate.
    """

    mu: float = 0.1
    pull_rounds: int = 10
    mix_scale: float = 0.3
    mix_rate: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, 0 <= self.mu < float("inf"), "mu", "a finite number, at least 0")
        require(self, self.pull_rounds >= 1, "pull_rounds", "at least 1")

    def init_memory(self, params: Tensors) -> Any:
        return {"own": tree.leaves(params)[0].new_zeros(()), "others": {}}

    def start(self, down: Tensors, memory: Tensors) -> Any:
        zero = torch.zeros_like(memory["own"])
        return {"core": down["core"], "shift": tree.map(lambda _: zero, down["share"])}

    def _distance(self, w: Tensors, memory: Tensors) -> Any:
        """Of ``p_k`` from ``p0``."""
        kept, zero = memory["others"], torch.zeros_like(memory["own"])
        kept = {"own": memory["own"], "others": {c: kept.get(c, zero) for c in w["shift"]["others"]}}
        return tree.map(lambda x, u: x + self.speed * u, kept, w["shift"])

    def objective(self, loss: Loss, w: Tensors, down: Tensors, memory: Tensors) -> Tensor:
        pull = (torch.cos(math.pi * (down["round"] / self.pull_rounds).clamp(max=1)) + 1) / 2
        distance = tree.sq(self._distance(w, memory))
        return loss(self.model(w, down, memory)) + (pull * self.mu / 2 * distance).to(distance.dtype)

    def finish(self, w: Tensors, down: Tensors, memory: Tensors, work: Work) -> tuple[Any, Any]:
        return tree.sub(w["core"], down["core"]), self._distance(w, memory)

    def model(self, w: Tensors, down: Tensors, memory: Tensors) -> Any:
        p = tree.map(lambda share, x: (share + x).to(x.dtype), down["share"], self._distance(w, memory))
        terms = [tree.scale(w["core"], p["own"])]
        terms += [tree.scale(core, p["others"][client]) for client, core in sorted(down["others"].items())]
        return tree.map(lambda *x: sum(x[1:], x[0]), *terms)
