"""Rules that bring the clients' mean update of LoRA back to the rank of an adapter, and report what that loses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fedlit.aggregators.base import Tensors, require
from fedlit.aggregators.parts import lora
from fedlit.aggregators.parts.lora_ranks import MixedRanks, Sum, norm
from fedlit.aggregators.server import Server, Update

FAMILY = "LoRA-exact"


@dataclass(frozen=True)
class FlexLoRA(MixedRanks):
    """The mean of the products BA, cut by a singular value decomposition to the rank of each client.

    Bai et al. 2024, arXiv:2402.11505: ``U S V^T = sum_k p_k B_k A_k``, and a client of rank r gets ``B = U_r S_r`` and
    ``A = V_r^T``, the best there is of that rank. Computed from the stacked factors; the product itself, ``out x in``,
    is never formed. Where the mean has fewer directions than an adapter has rank, the rest of A is orthonormal and
    of B 0, so that all of it goes on training.
    """

    def aggregate(self, state: Tensors, updates: Sequence[Update], server: Server) -> Any:
        got = Sum(self, state, updates, server)
        params = dict(got.mean)
        for layer in got.layers:
            params[layer.a], params[layer.b] = truncated(got.factors, layer, got.mean)
        state = got.send(params)
        got.log_error(state)
        return state


@dataclass(frozen=True)
class HetLoRA(MixedRanks):
    """A and B padded to one rank and averaged apart, clients that changed the model more counting more.

    Cho et al. 2024, arXiv:2401.06432: client k weighs ``|Delta_k| / sum_j |Delta_j|`` with the Frobenius norm of
    its effective update ``s_k B_k A_k``, here over all layers at once; it is sent the first ``r_k`` rows of A and
    columns of B. Heads are averaged with the same weights. In a round in which no update differs from 0, clients weigh
    as by ``weighting``. The paper's pruning of a client's own rank in training is left out: ranks stay as given.
    """

    def aggregate(self, state: Tensors, updates: Sequence[Update], server: Server) -> Any:
        got = Sum(self, state, updates, server, lambda model: update_norm(self, model, server.scaling))
        state = got.send(got.mean)
        got.log_error(state)
        return state


@dataclass(frozen=True)
class LoRAFair(MixedRanks):
    """A and B averaged apart, and B corrected at the server towards the mean of the products.

    Bian et al. 2024, arXiv:2411.14961: clients start the next round from ``A = sum_k p_k A_k`` and ``B + D``, with
    ``D`` the least of a distance of ``(B + D) A`` from ``M = sum_k p_k B_k A_k`` plus a penalty on D. The paper takes
    the cosine distance and gradient steps; here it is ``|M - (B + D) A|^2 + lam |D|^2``, whose least is known:
    ``D = (M - B A) A^T (A A^T + lam I)^-1``.

    Args:
        lam: Strength of the penalty on the correction.
    """

    lam: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, 0 < self.lam < float("inf"), "lam", "a finite number above 0")

    def aggregate(self, state: Tensors, updates: Sequence[Update], server: Server) -> Any:
        got = Sum(self, state, updates, server)
        params = dict(got.mean)
        for layer in got.layers:
            a, b = params[layer.a].flatten(1), params[layer.b].flatten(1)
            gram = a @ a.T
            missed = got.factors[layer.b].flatten(1) @ (got.factors[layer.a].flatten(1) @ a.T) - b @ gram
            correction = torch.linalg.solve(gram + self.lam * torch.eye(len(gram), dtype=gram.dtype), missed.T).T
            params[layer.b] = params[layer.b] + correction.reshape(params[layer.b].shape)
        state = got.send(params)
        got.log_error(state)
        return state


def update_norm(rule: object, params: Mapping[str, Tensor], scaling: Mapping[str, float]) -> float:
    """Frobenius norm of the effective update over all layers."""
    found = lora.layers(params, rule)
    squares = (
        (scaling[layer.name] * norm(params[layer.b].flatten(1), params[layer.a].flatten(1))) ** 2 for layer in found
    )
    return float(sum(squares) ** 0.5)


def truncated(factors: Mapping[str, Tensor], layer: lora.Layer, like: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The best A and B of the shapes in ``like`` for the product of stacked factors, strongest direction first."""
    rank = len(like[layer.a])
    a, b = factors[layer.a].flatten(1), factors[layer.b].flatten(1)  # QR completes a basis where rows are 0 or depend
    left, right = torch.linalg.qr(b), torch.linalg.qr(a.T)
    u, s, v = torch.linalg.svd(left.R @ right.R.T, full_matrices=False)
    out_a, out_b = (right.Q @ v[:rank].T).T, left.Q @ u[:, :rank] * s[:rank]
    largest = out_a.abs().argmax(dim=1, keepdim=True)
    sign = torch.where(out_a.gather(1, largest) < 0, -1.0, 1.0)  # a pair of singular vectors is known up to its sign
    pair = {layer.a: (sign * out_a).reshape(-1, *like[layer.a].shape[1:])}
    pair[layer.b] = (out_b * sign.T).reshape(*out_b.shape, *like[layer.b].shape[2:])
    padded = lora.pad_rank(pair, [layer], {layer.name: rank})
    return padded[layer.a], padded[layer.b]
