"""Rules whose server moves along the mean of its clients' updates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from fedlit import tree
from fedlit.aggregators.base import Aggregator, Tensors, Work, require
from fedlit.aggregators.server import Server, Update

FAMILY = "averaging"


@dataclass(frozen=True)
class FedAvg(Aggregator):
    """The server moves to the mean of its clients' models.

    McMahan et al. 2017, arXiv:1602.05629, Algorithm 1: ``w <- w + lr * sum_k p_k (w_k - w)``, ``p_k = n_k / n``.
    On LoRA, A and B are averaged apart, and the mean of B times the mean of A is not the mean of BA.

    Args:
        lr: Server learning rate; 1 is the paper's rule.
        weighting: ``examples`` weighs a client by its number of training examples, which discloses that number;
            ``uniform`` weighs all alike.
    """

    lr: float = 1.0
    weighting: Literal["examples", "uniform"] = "examples"

    def __post_init__(self) -> None:
        require(self, 0 < self.lr < float("inf"), "lr", "a finite number above 0")
        require(self, self.weighting in ("examples", "uniform"), "weighting", "'examples' or 'uniform'")

    def weigh(self, num_examples: int, work: Work) -> float:
        return float(num_examples) if self.weighting == "examples" else 1.0

    def step(self, state: Tensors, mean: Tensors) -> Any:
        """The next state from the mean update: what a server optimizer overrides."""
        return {**state, "params": tree.add(state["params"], mean, self.lr)}

    def aggregate(self, state: Tensors, updates: Sequence[Update], server: Server) -> Any:
        return self.step(state, server.mean(updates))


@dataclass(frozen=True)
class FedAvgM(FedAvg):
    """FedAvg with momentum at the server.

    Hsu, Qi and Brown 2019, arXiv:1909.06335, FedAvgM: ``v <- beta v + d``, ``w <- w + lr v``, from ``v = 0``, with
    the mean update ``d``. The server learning rate is 1 in the paper. Along a steady ``d`` the step grows to
    ``lr / (1 - beta)`` times that of FedAvg.

    Args:
        beta: Share of the last step's velocity that is kept; 0 is FedAvg.
    """

    beta: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, 0 <= self.beta < 1, "beta", "a number in [0, 1)")

    def init(self, params: Tensors) -> Any:
        return {"params": params, "velocity": tree.zeros(params)}

    def step(self, state: Tensors, mean: Tensors) -> Any:
        velocity = tree.add(mean, state["velocity"], self.beta)
        return {"params": tree.add(state["params"], velocity, self.lr), "velocity": velocity}


@dataclass(frozen=True)
class FedOpt(FedAvg):
    """Base of the adaptive server optimizers, with the mean update ``d`` in the place of the gradient.

    Reddi et al. 2021, arXiv:2003.00295, Algorithm 2, without bias correction: ``m <- b1 m + (1 - b1) d``,
    ``w <- w + lr m / (sqrt(v) + tau)``, from ``m = 0`` and ``v = tau^2``. The rules differ in what ``v`` becomes.

    Args:
        lr: Server learning rate.
        beta1: Decay of the mean of updates.
        tau: Degree of adaptivity, added to the root.
    """

    lr: float = 0.1
    beta1: float = 0.9
    tau: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, 0 <= self.beta1 < 1, "beta1", "a number in [0, 1)")
        require(self, 0 < self.tau < float("inf"), "tau", "a finite number above 0")

    def init(self, params: Tensors) -> Any:
        second = tree.map(lambda p: torch.full_like(p, self.tau**2), params)
        return {"params": params, "mean": tree.zeros(params), "square": second}

    def second(self, v: Tensor, d: Tensor) -> Tensor:
        """The next ``v``."""
        raise NotImplementedError

    def rate(self, state: Tensors) -> float:
        """The server learning rate of this round."""
        return self.lr

    def step(self, state: Tensors, mean: Tensors) -> Any:
        m = tree.lerp(state["mean"], mean, self.beta1)
        v = tree.map(self.second, state["square"], mean)
        lr = self.rate(state)
        params = tree.map(lambda p, m, v: p + lr * m / (v.sqrt() + self.tau), state["params"], m, v)
        return {"params": params, "mean": m, "square": v}


@dataclass(frozen=True)
class DecayedSquares(FedOpt):
    """Base of FedAdam and FedYogi, in which old squares are forgotten.

    Args:
        beta2: Decay of the mean of squared updates.
    """

    beta2: float = 0.99

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, 0 <= self.beta2 < 1, "beta2", "a number in [0, 1)")


@dataclass(frozen=True)
class FedAdam(DecayedSquares):
    """Adam at the server, with the mean update in the place of the gradient.

    Reddi et al. 2021, arXiv:2003.00295, Algorithm 2, without bias correction:
    ``m <- b1 m + (1 - b1) d``, ``v <- b2 v + (1 - b2) d^2``, ``w <- w + lr m / (sqrt(v) + tau)``, from ``m = 0`` and
    ``v = tau^2``.

    Args:
        bias_correction: Do as Flower's FedAdam does (``flwr.serverapp.strategy``, 1.x): in round t, from 1, ``lr`` is
            multiplied by ``sqrt(1 - b2^(t + 1)) / (1 - b1^(t + 1))``, and ``v`` starts from 0. Adam itself
            (Kingma and Ba 2015, arXiv:1412.6980, Section 2) has the exponent t. With Flower's ``tau``, 1e-3, the step
            depends on the size of updates either way.
    """

    bias_correction: bool = False

    added_arguments = {"bias_correction": False}  # noqa: RUF012 - jsonargparse cannot read a class with a ClassVar

    def init(self, params: Tensors) -> Any:
        state = super().init(params)
        if not self.bias_correction:
            return state
        return {**state, "square": tree.zeros(params), "rounds": torch.zeros((), dtype=torch.float64)}

    def second(self, v: Tensor, d: Tensor) -> Tensor:
        return self.beta2 * v + (1 - self.beta2) * d**2

    def rate(self, state: Tensors) -> float:
        if not self.bias_correction:
            return self.lr
        power = float(state["rounds"]) + 2  # t + 1, with t from 1
        return float(self.lr * math.sqrt(1 - self.beta2**power) / (1 - self.beta1**power))

    def step(self, state: Tensors, mean: Tensors) -> Any:
        return {**super().step(state, mean), **({"rounds": state["rounds"] + 1} if self.bias_correction else {})}


@dataclass(frozen=True)
class FedYogi(DecayedSquares):
    """FedAdam whose mean of squared updates moves by additive steps, so that it cannot grow suddenly.

    Reddi et al. 2021, arXiv:2003.00295, Algorithm 2: ``v <- v - (1 - b2) d^2 sign(v - d^2)``; the rest is
    :class:`FedAdam`, without bias correction, as are the defaults. Flower's has no correction either, starts ``v``
    from 0, and its server learning rate is 0.01.
    """

    def second(self, v: Tensor, d: Tensor) -> Tensor:
        return v - (1 - self.beta2) * d**2 * torch.sign(v - d**2)


@dataclass(frozen=True)
class FedAdagrad(FedOpt):
    """FedAdam that divides by the root of the sum of all squared updates, so that its steps only get shorter.

    Reddi et al. 2021, arXiv:2003.00295, Algorithm 2: ``v <- v + d^2``, from ``v = tau^2``; the rest is
    :class:`FedAdam`.

    Args:
        beta1: Decay of the mean of updates; by default none, as in Adagrad itself.
    """

    beta1: float = 0.0

    def second(self, v: Tensor, d: Tensor) -> Tensor:
        return v + d**2


@dataclass(frozen=True)
class FedNova(FedAvg):
    """FedAvg for clients that take different numbers of steps, each counted by its mean step.

    Wang et al. 2020, arXiv:2007.07481: ``w <- w + lr * tau_eff * sum_k p_k (w_k - w) / tau_k`` with
    ``tau_eff = sum_k p_k tau_k``. FedAvg weighs a client by ``p_k tau_k`` instead, and so ends elsewhere than at the
    minimum of ``sum_k p_k L_k``; both are one where all ``tau_k`` agree.

    ``tau_k`` is the l1 norm of the coefficients with which a client's gradients add up to its update. For SGD
    without momentum those are its learning rates, so ``tau_k`` is here the sum of them: under a constant rate the
    number of steps up to a factor that cancels, under a schedule still exact. SGD with momentum has other
    coefficients, of which ``tau_k`` is the leading term. Adam's update is no fixed sum of gradients: there the rule
    evens out how far clients go, and the theorem does not hold. A client whose learning rates are all 0 is refused
    at admission, since its mean step is not a number.
    """

    def finish(self, w: Tensors, down: Tensors, memory: Tensors, work: Work) -> tuple[Any, Any]:
        return {"step": tree.scale(tree.sub(w, down), 1 / work.travel), "tau": work.travel}, memory

    def aggregate(self, state: Tensors, updates: Sequence[Update], server: Server) -> Any:
        mean = server.mean(updates)
        return self.step(state, tree.scale(mean["step"], mean["tau"]))
