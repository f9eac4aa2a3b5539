"""Rules that give each client a whole model of its own beside the shared one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from fedlit import tree
from fedlit.aggregators.averaging import FedAvg
from fedlit.aggregators.base import Loss, Tensors, Work, require
from fedlit.aggregators.proximal import proximal

FAMILY = "local adaptation"


@dataclass(frozen=True)
class Ditto(FedAvg):
    """FedAvg, and beside it a personal model that is pulled to the global one.

    Li et al. 2021, arXiv:2012.04221, Algorithm 1: the global model trains as in FedAvg; each client's own model
    ``v`` follows ``loss(v) + lam / 2 * |v - w|^2``, where ``w`` is what the client received. ``v`` is never sent, and
    is what the client serves. Both train on the same batches, one step each. A client's ``v`` starts from the first
    global model that it receives (in the paper, from the initial one, which is the same where all take part).

    Args:
        lam: Strength of the pull: 0 is local training, infinity the global model. SGD needs a learning rate below
            ``2 / lam``.
    """

    lam: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, 0 <= self.lam < float("inf"), "lam", "a finite number, at least 0")

    def start(self, down: Tensors, memory: Tensors) -> Any:
        return {"global": down, "personal": memory or down}

    def objective(self, loss: Loss, w: Tensors, down: Tensors, memory: Tensors) -> Tensor:
        return loss(w["global"]) + proximal(loss(w["personal"]), self.lam, w["personal"], down)

    def finish(self, w: Tensors, down: Tensors, memory: Tensors, work: Work) -> tuple[Any, Any]:
        return tree.sub(w["global"], down), w["personal"]

    def model(self, w: Tensors, down: Tensors, memory: Tensors) -> Any:
        return w["personal"]


@dataclass(frozen=True)
class APFL(FedAvg):
    """FedAvg, and beside it an own model; the client serves a mixture of both whose share is learned.

    Deng et al. 2020, arXiv:2003.13461, Algorithm 1: ``w`` trains as in FedAvg; the own model ``v`` follows the loss of
    the mixture ``alpha * v + (1 - alpha) * w``, in which ``w`` is held, and so does ``alpha``, by
    ``<v - w, gradient at the mixture>``. ``v`` and ``alpha`` stay at the client from round to round, and a client that
    has none yet starts from what it received. Public versions overwrite ``v`` by the mixture after each round, train
    ``w`` on the mixture too, or begin again from the first ``alpha`` in each round; here none of it happens.
    ``alpha`` is held in [0, 1] in all that is computed and cut to it at the end of a round, in the paper after each
    step: these differ only for an ``alpha`` that turns back from an end within a round. It moves by the task's
    optimizer. The paper's mean is ``uniform``. FHBench's code (arXiv:2504.10817) begins at an ``alpha`` of 1, in each
    round again, and takes one step of it a round.

    Args:
        alpha: Share of the own model at first, between 0 (FedAvg) and 1 (local training).
        adaptive: Whether ``alpha`` is learned.
    """

    alpha: float = 0.5
    adaptive: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, 0 <= self.alpha <= 1, "alpha", "a number in [0, 1]")

    def _kept(self, down: Tensors, memory: Tensors) -> Any:
        return memory or {"own": down, "alpha": tree.leaves(down)[0].new_full((), self.alpha)}

    def _share(self, w: Tensors, kept: Tensors) -> Any:
        return bounded(kept["alpha"] + w["shift"]) if self.adaptive else self.alpha

    def start(self, down: Tensors, memory: Tensors) -> Any:
        kept = self._kept(down, memory)
        shift = {"shift": torch.zeros_like(kept["alpha"])} if self.adaptive else {}
        return {"shared": down, "own": kept["own"], **shift}

    def objective(self, loss: Loss, w: Tensors, down: Tensors, memory: Tensors) -> Tensor:
        return loss(w["shared"]) + loss(self.model({**w, "shared": tree.detach(w["shared"])}, down, memory))

    def finish(self, w: Tensors, down: Tensors, memory: Tensors, work: Work) -> tuple[Any, Any]:
        kept = self._kept(down, memory)
        alpha = self._share(w, kept) if self.adaptive else kept["alpha"]
        return tree.sub(w["shared"], down), {"own": w["own"], "alpha": alpha}

    def model(self, w: Tensors, down: Tensors, memory: Tensors) -> Any:
        return tree.lerp(w["own"], w["shared"], self._share(w, self._kept(down, memory)))


@dataclass(frozen=True)
class PFedMe(FedAvg):
    """FedAvg on the Moreau envelopes of the clients' losses.

    T Dinh et al. 2020, arXiv:2006.08848, Algorithm 1: a client seeks its personal model
    ``theta = argmin loss(theta) + lam / 2 * |theta - w|^2`` and moves its copy of the global one by
    ``w <- w - eta * lam * (w - theta)``; the server goes to ``(1 - beta) * w + beta * mean``, where the paper's
    ``beta`` is the server's ``lr``. Departures: the paper takes several such moves in a round, each after K steps on
    one batch; here a round is one move, at its end, and its local steps are the K steps, each on its own batch. So
    ``eta`` does not depend on the task's optimizer, which finds ``theta``. With ``eta = 1 / lam`` the global model is
    FedProx's. A client serves the ``theta`` of its last round. The paper's mean is ``uniform``.

    Args:
        lam: Strength of the pull to the global model. SGD needs a learning rate below ``2 / lam``.
        eta: Learning rate of the move of the global model; ``eta * lam`` is the part of the way to ``theta``.
    """

    lam: float = 15.0
    eta: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, 0 < self.lam < float("inf"), "lam", "a finite number above 0")
        require(self, 0 < self.eta <= 1 / self.lam, "eta", "a number above 0 and at most 1 / lam")

    def objective(self, loss: Loss, w: Tensors, down: Tensors, memory: Tensors) -> Tensor:
        return proximal(loss(w), self.lam, w, down)

    def finish(self, w: Tensors, down: Tensors, memory: Tensors, work: Work) -> tuple[Any, Any]:
        return tree.scale(tree.sub(w, down), self.eta * self.lam), w

    def personal(self, down: Tensors, memory: Tensors) -> Any:
        return memory or down


@dataclass(frozen=True)
class PerFedAvg(FedAvg):
    """FedAvg for a model that is good after one more step: model-agnostic meta-learning.

    Fallah et al. 2020, arXiv:2002.07948, Algorithm 1: a client follows ``loss(w - alpha * gradient(w))``, whose
    gradient is ``(I - alpha * Hessian) * gradient at the moved point``. The inner gradient is of one half of the batch
    and the outer loss of the other. Departures: the Hessian is exact and of the inner gradient's half, where the paper
    draws a third batch for it, and approximates the product by differences in its "HF" variant. The paper's mean is
    ``uniform``.

    What a client serves is the global model plus its own step of adaptation, and a rule has no data when it serves.
    So the step is found while there are data: at the first local step the client takes one from what it received, on
    the whole batch, keeps it, and adds it to the newest global model, which gives the paper's personal model once
    these move slowly. It is the task's optimizer's first step, scaled from its mean learning rate in that round to
    ``alpha``; with plain SGD at a constant rate, ``-alpha * gradient``, and twice that where the rate falls to 0.

    Args:
        alpha: Learning rate of the inner step and of the adaptation.
        first_order: Leave the Hessian out, the paper's "FO" variant: cheaper, and the only one for networks without
            second derivatives.
    """

    alpha: float = 0.01
    first_order: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, 0 <= self.alpha < float("inf"), "alpha", "a finite number, at least 0")

    @property
    def second_order(self) -> bool:  # type: ignore[override] # here it depends on a field
        return not self.first_order

    def init_memory(self, params: Tensors) -> Any:
        return tree.zeros(params)

    def start(self, down: Tensors, memory: Tensors) -> Any:
        return {"meta": down, "step": tree.zeros(down)}

    def objective(self, loss: Loss, w: Tensors, down: Tensors, memory: Tensors) -> Tensor:
        meta, (inner, outer) = w["meta"], loss.split(2)
        gradient = torch.autograd.grad(
            inner(meta), list(meta.values()), create_graph=self.second_order, materialize_grads=True
        )
        value = outer(tree.add(meta, dict(zip(meta, gradient, strict=True)), -self.alpha))
        return value + loss(tree.add(tree.detach(meta), w["step"])) if loss.step == 0 else value

    def finish(self, w: Tensors, down: Tensors, memory: Tensors, work: Work) -> tuple[Any, Any]:
        rate = (work.travel / work.steps).clamp(min=1e-30)  # at a rate of 0 the step is 0 too
        return tree.sub(w["meta"], down), tree.scale(w["step"], self.alpha / rate)

    def model(self, w: Tensors, down: Tensors, memory: Tensors) -> Any:
        return w["meta"]

    def personal(self, down: Tensors, memory: Tensors) -> Any:
        return tree.add(down, memory)


@dataclass(frozen=True)
class MRMTL(FedAvg):
    """Every client trains its own model, pulled to the mean of all: mean-regularised multi-task learning.

    Liu et al. 2022, arXiv:2206.07902: ``loss(w_k) + lam / 2 * |w_k - mean|^2``; the clients' own models
    are sent and averaged, but a client goes on from its own. Against Ditto the mean is of the personal models, so one
    model trains where Ditto trains two, and differential privacy costs once.

    Args:
        lam: Strength of the pull: 0 is local training. SGD needs a learning rate below ``2 / lam``.
        weighting: Of the clients in the mean, as in :class:`~fedlit.aggregators.averaging.FedAvg`; the paper's mean is
            uniform.
    """

    lam: float = 0.1
    weighting: Literal["examples", "uniform"] = "uniform"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, 0 <= self.lam < float("inf"), "lam", "a finite number, at least 0")

    def start(self, down: Tensors, memory: Tensors) -> Any:
        return memory or down

    def objective(self, loss: Loss, w: Tensors, down: Tensors, memory: Tensors) -> Tensor:
        return proximal(loss(w), self.lam, w, down)

    def finish(self, w: Tensors, down: Tensors, memory: Tensors, work: Work) -> tuple[Any, Any]:
        return tree.sub(w, down), w


def bounded(x: Tensor) -> Tensor:
    """``x`` cut to [0, 1], with the gradient of ``x`` itself, so that what has reached an end can leave it again."""
    return x.detach().clamp(0, 1) + (x - x.detach())
