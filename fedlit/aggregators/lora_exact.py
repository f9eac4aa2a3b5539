"""Rules whose clients' mean update of LoRA is exact: the products BA are averaged, not A and B apart."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fedlit import tree
from fedlit.aggregators.averaging import FedAvg
from fedlit.aggregators.base import Loss, Tensors, Work
from fedlit.aggregators.parts import lora
from fedlit.aggregators.parts.lora_ranks import MixedRanks, Sum, payloads
from fedlit.aggregators.server import Server, Update

FAMILY = "LoRA-exact"


def without(pattern: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters whose name does not match."""
    return {name: p for name, p in params.items() if not re.search(pattern, name)}


def only(pattern: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters whose name matches."""
    return {name: p for name, p in params.items() if re.search(pattern, name)}


@dataclass(frozen=True)
class FFALoRA(FedAvg):
    """A stays at its common random start, and only B is trained, sent and averaged.

    Sun et al. 2024, arXiv:2403.12313: ``sum_k p_k (B_k A) = (sum_k p_k B_k) A``, so the mean is exact, at half the
    traffic and with less capacity. Heads are trained and averaged with B. A never travels, each client has it from the
    network's own seed, or, where a stage before this one trained it, from that stage's model.
    """

    def init(self, params: Tensors) -> Any:
        lora.layers(params, self)
        return {"params": without(lora.A, params), "fixed": only(lora.A, params)}

    def global_model(self, state: Tensors) -> Any | None:
        return {**state["params"], **state["fixed"]}


@dataclass(frozen=True)
class FedSALoRA(FedAvg):
    """A is shared and averaged, B stays at the client: what is common, and what is its own.

    Guo et al. 2024, arXiv:2410.01463: client k has ``B_k A`` with one A for all, so nothing is lost by averaging. The
    released code keeps the classifier at the client too, and so does this rule, with all else that is not LoRA.

    Args:
        share_head: Average the tensors other than A and B, instead of keeping them.
    """

    share_head: bool = False

    def init(self, params: Tensors) -> Any:
        lora.layers(params, self)
        return {"params": without(lora.B, params) if self.share_head else only(lora.A, params)}

    def init_memory(self, params: Tensors) -> Any:
        return only(lora.B, params) if self.share_head else without(lora.A, params)

    def start(self, down: Tensors, memory: Tensors) -> Any:
        return {**down, **memory}

    def finish(self, w: Tensors, down: Tensors, memory: Tensors, work: Work) -> tuple[Any, Any]:
        return {name: w[name] - p for name, p in down.items()}, {name: w[name] for name in memory}

    def global_model(self, state: Tensors) -> Any | None:
        return None


@dataclass(frozen=True)
class AlternatingLoRA(FedAvg):
    """B is trained and averaged in the 1st, 3rd, ... round, A in the others, so that each round's mean is exact.

    RoLoRA, Chen et al. 2024, arXiv:2409.02346: with one factor the same for all, the mean of the other is the mean
    of the products. B comes first, since A has no gradient while B is 0. Heads are trained and averaged in every
    round. Half the factors go up; all come down, since a client may have missed the last round.
    """

    @property
    def min_rounds(self) -> int:
        return 2

    def init(self, params: Tensors) -> Any:
        lora.layers(params, self)
        return {"train": without(lora.A, params), "fixed": only(lora.A, params)}

    def down(self, state: Tensors, client: str) -> Any:
        return state

    def start(self, down: Tensors, memory: Tensors) -> Any:
        return down["train"]

    def model(self, w: Tensors, down: Tensors, memory: Tensors) -> Any:
        return {**w, **down["fixed"]}

    def objective(self, loss: Loss, w: Tensors, down: Tensors, memory: Tensors) -> Tensor:
        return loss(self.model(w, down, memory))

    def finish(self, w: Tensors, down: Tensors, memory: Tensors, work: Work) -> tuple[Any, Any]:
        return tree.sub(w, down["train"]), memory

    def aggregate(self, state: Tensors, updates: Sequence[Update], server: Server) -> Any:
        params = {**tree.add(state["train"], server.mean(updates), self.lr), **state["fixed"]}
        trained = lora.B if only(lora.B, state["train"]) else lora.A
        return {"train": without(trained, params), "fixed": only(trained, params)}

    def global_model(self, state: Tensors) -> Any | None:
        return {**state["train"], **state["fixed"]}


@dataclass(frozen=True)
class FedExLoRA(MixedRanks):
    """A and B are averaged apart, and what that loses is added to the frozen weights.

    Singhal et al. 2024, arXiv:2410.09432: ``W <- W + s (sum_k p_k B_k A_k - B A)`` with ``A = sum_k p_k A_k``,
    ``B = sum_k p_k B_k`` and ``s`` the layer's scaling. The residual of all rounds is kept and sent dense, which costs
    as much as the frozen weights of the adapted layers, per client and round; factors would do for clients that took
    part in every round. Clients of lower rank, of which the paper does not speak, get a residual of their own that
    makes up for what is cut too, so all have the same model. ``averaging_error`` in the metrics is what plain
    averaging would have lost. Quantised weights cannot take the residual, and the engine refuses them.
    """

    def init(self, params: Tensors) -> Any:
        found = lora.layers(params, self)
        zero = {
            layer.weight: params[layer.a].new_zeros(len(params[layer.b]), *params[layer.a].shape[1:]) for layer in found
        }
        return payloads(self, params, params, zero, {layer.name: 0.0 for layer in found})

    def aggregate(self, state: Tensors, updates: Sequence[Update], server: Server) -> Any:
        got = Sum(self, state, updates, server)
        server.log("averaging_error", got.error(got.mean))
        return got.send(got.mean, got.change())


@dataclass(frozen=True)
class FLoRA(FedExLoRA):
    """The clients' adapters are stacked, which is exact, and go into the frozen weights; new adapters every round.

    Wang et al. 2024, arXiv:2409.05976: ``W <- W + s sum_k p_k B_k A_k``, A random and B 0 again, which costs each
    round the steps that A waits for B. The paper sends the stack of all adapters, of rank ``sum_k r_k``, and clients
    add it; here the sum is kept and sent dense as in :class:`FedExLoRA`, so that a client may miss rounds. All
    clients get one new A, uniform within ``1 / sqrt(in)`` as PEFT's.
    """

    def aggregate(self, state: Tensors, updates: Sequence[Update], server: Server) -> Any:
        got, fresh = Sum(self, state, updates, server), {}
        for layer in got.layers:
            a, b = got.mean[layer.a], got.mean[layer.b]
            noise = torch.rand(a.shape, generator=server.generator, dtype=torch.float64)
            fresh[layer.a], fresh[layer.b] = (2 * noise - 1) / a[0].numel() ** 0.5, torch.zeros_like(b)
        return got.send({**got.mean, **fresh}, got.change())
