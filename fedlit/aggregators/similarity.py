"""Rules whose server sends each client its own mix of all clients' models, in which those like it count more."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from fedlit import tree
from fedlit.aggregators.base import Aggregator, Loss, Tensors, Work, require
from fedlit.aggregators.partial import NORM, expression
from fedlit.aggregators.parts.signatures import (
    DISTANCES,
    SIGNATURES,
    DistanceName,
    Signature,
    SignatureName,
    cosine,
    euclidean,
    inverse_distance,
    mixed,
    with_own,
)
from fedlit.aggregators.proximal import proximal
from fedlit.aggregators.server import Server, Update
from fedlit.errors import FedlitError

FAMILY = "similarity"


class Mixing(Aggregator):
    """What the rules of this family have in common; a rule gives :meth:`mix`, and may give :meth:`signed`.

    Parameters whose name matches ``share`` are mixed and travel, the others stay in the client's memory. A client
    uploads how far its shared parameters moved, and of its signature what the server cannot work out from that. The
    state holds one mix a client, from its first round on, as large as what is shared; who is absent keeps what it had.
    """

    share = ""

    def shared(self, params: Tensors) -> dict[str, Any]:
        """The parameters that are mixed."""
        return {name: params[name] for name in params if re.search(self.share, name)}

    def kept(self, params: Tensors) -> dict[str, Any]:
        """The parameters that stay at the client."""
        return {name: params[name] for name in params if not re.search(self.share, name)}

    def signed(self, w: Tensors, start: Tensors) -> Signature:
        """What is compared, from the parameters after and before local training.

        The server asks this of the shared parameters, and adds what the client sent, which wins where both have a name.
        """
        return SIGNATURES["weights"](w, start)

    def mix(self, signatures: Sequence[Signature], weights: Sequence[float]) -> Tensor:
        """Row i holds what client i receives of each client; rows sum to 1."""
        raise NotImplementedError

    def init(self, params: Tensors) -> Any:
        some = f"{sorted(params)[:3]} ..."
        require(self, bool(self.shared(params)), "share", f"an expression that matches some of {some}")
        if not tree.leaves(self.signed(params, params)):
            raise FedlitError(
                f"{type(self).__name__} finds nothing to compare among {some}: compare something else, or let other "
                "layers train"
            )
        return {"params": self.shared(params), "models": {}}

    def init_memory(self, params: Tensors) -> Any:
        return self.kept(params)

    def down(self, state: Tensors, client: str) -> Any:
        return state["models"].get(client, state["params"])

    def start(self, down: Tensors, memory: Tensors) -> Any:
        return {**memory, **down}

    def finish(self, w: Tensors, down: Tensors, memory: Tensors, work: Work) -> tuple[Any, Any]:
        moved = tree.sub(self.shared(w), down)
        signature = {} if len(moved) == len(w) else self.signed(w, self.start(down, memory))
        extra = {name: value for name, value in signature.items() if name not in moved}
        return {"moved": moved, "signature": extra}, self.kept(w)

    def weigh(self, num_examples: int, work: Work) -> float:
        return 1.0

    def aggregate(self, state: Tensors, updates: Sequence[Update], server: Server) -> Any:
        got = server.gather(updates)
        before = {client: self.down(state, client) for client in got}
        after = {client: tree.add(before[client], got[client]["moved"]) for client in got}
        signatures = [{**self.signed(after[c], before[c]), **got[c]["signature"]} for c in got]
        weights = {u.client: u.weight for u in updates}
        rows = self.mix(signatures, [weights[client] for client in got])
        server.log("own_share", float(rows.diagonal().mean()))
        return {**state, "models": {**state["models"], **mixed(after, rows)}}

    def global_model(self, state: Tensors) -> Any | None:
        return None


@dataclass(frozen=True)
class SimilarityAggregator(Mixing):
    """Each client receives its own mix of models, weighted by one over the distance between signatures.

    The rule behind EPFL and FedAP, with its parts to choose: ``s_ii = lam``, and for others
    ``s_ij = (1 - lam) (1 / d_ij) / sum_{k != i} (1 / d_ik)``; those at distance zero share ``1 - lam`` equally, and a
    client alone keeps its own. All mixes come from the same uploads. Subclasses with another comparison override
    ``signed``, those with other weights ``mix``; all comparisons are of this round's clients.

    Args:
        signature: What is compared. ``lora_B``: LoRA's B; ``weights``: the model; ``norm``: scale and shift of
            normalisation layers; ``update``: what local training changed; ``sketch``: a seeded random projection of
            that to 1024 numbers, so that what stays at home can be compared and not read.
        distance: ``frobenius`` is the mean over tensors of the difference's norm, ``euclidean`` the norm over all,
            ``cosine`` 1 minus the cosine.
        share: Regular expression for the names of the parameters that are mixed and travel; others stay at home.
        lam: Weight of the client's own model.
    """

    signature: SignatureName = "update"
    distance: DistanceName = "frobenius"
    share: str = ""
    lam: float = 0.5

    def __post_init__(self) -> None:
        require(self, self.signature in SIGNATURES, "signature", f"one of {', '.join(SIGNATURES)}")
        expression(self, "share")
        require(self, self.distance in DISTANCES, "distance", f"one of {', '.join(DISTANCES)}")
        require(self, 0 <= self.lam <= 1, "lam", "a number in [0, 1]")

    def signed(self, w: Tensors, start: Tensors) -> Signature:
        return SIGNATURES[self.signature](w, start)

    def mix(self, signatures: Sequence[Signature], weights: Sequence[float]) -> Tensor:
        return inverse_distance(DISTANCES[self.distance](signatures), self.lam)


@dataclass(frozen=True)
class FedAP(SimilarityAggregator):
    """Models are mixed by how alike the clients' normalisation layers are, which themselves stay at home.

    Lu et al. 2021, arXiv:2112.00734: ``w_i <- sum_j W_ij w_j``, ``W_ii = lam`` and ``W_ij`` in proportion to one over
    the 2-Wasserstein distance of the inputs' statistics at each batch normalisation, ``|mu_i - mu_j|^2 + |sigma_i -
    sigma_j|^2`` under a root, summed over layers. Running statistics are no parameters and are not sent here, and
    transformers have none: scale and shift are compared in their place, after each round and not once after
    pretraining. The mean over layers replaces the sum, which leaves the weights as they are.

    Args:
        signature: As in :class:`SimilarityAggregator`.
        distance: As in :class:`SimilarityAggregator`.
        share: What is mixed; by default all but normalisation layers.
        lam: Weight of the client's own model.
    """

    signature: SignatureName = "norm"
    share: str = rf"(?i)^(?!.*{NORM.removeprefix('(?i)')})"


@dataclass(frozen=True)
class FedACS(SimilarityAggregator):
    """Each client mixes with the clients whose cosine similarity to it is high enough.

    Chen et al. 2023, arXiv:2312.15148: ``min sum_i F_i(w_i) + regulariser sum_ij s_ij |w_i - w_j|^2`` with the cosine
    similarity ``s_ij`` of two clients, of which those below a threshold do not count; one step on the second sum
    gives ``u_i = lam w_i + (1 - lam) sum_j s_ij w_j / sum_j s_ij``, from which client i trains on. Departures: the
    threshold is fixed where the paper's moves with the round, updates are compared by default, as models that share a
    start are all alike, and two other ways to select are offered.

    Args:
        signature: As in :class:`SimilarityAggregator`.
        distance: ``cosine``.
        share: As in :class:`SimilarityAggregator`.
        lam: Weight of the client's own model; all of it for a client that selects nobody.
        select: ``threshold``: whose similarity is at least ``threshold``; ``top_k``: the ``k`` most similar, and all
            as similar as the last of these; ``softmax``: everyone, by ``exp(similarity / temperature)``.
        threshold: Least similarity, above 0.
        k: How many.
        temperature: Of the softmax.
    """

    distance: Literal["cosine"] = "cosine"
    select: Literal["threshold", "top_k", "softmax"] = "threshold"
    threshold: float = 0.1
    k: int = 5
    temperature: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, self.distance == "cosine", "distance", "'cosine'")
        require(self, self.select in ("threshold", "top_k", "softmax"), "select", "'threshold', 'top_k' or 'softmax'")
        require(self, 0 < self.threshold <= 1, "threshold", "a number in (0, 1]")
        require(self, self.k >= 1, "k", "at least 1")
        require(self, 0 < self.temperature < float("inf"), "temperature", "a finite number above 0")

    def mix(self, signatures: Sequence[Signature], weights: Sequence[float]) -> Tensor:
        alike = 1 - cosine(signatures)
        if self.select == "softmax":
            return with_own(torch.exp((alike - 1) / self.temperature), self.lam)
        peers = alike.clone().fill_diagonal_(-2.0)
        count = min(self.k, max(len(peers) - 1, 1))
        least = peers.topk(count, dim=1).values[:, -1:] if self.select == "top_k" else self.threshold
        return with_own(torch.where(peers >= least, alike.clamp(min=0.0), 0.0), self.lam)


@dataclass(frozen=True)
class FedAMP(Mixing):
    """Each client trains its own model, pulled to a mix of all models in which near ones count more.

    Huang et al. 2021, arXiv:2007.03797, Algorithm 1: ``u_i = xi_ii w_i + sum_j xi_ij w_j``, ``xi_ij = alpha_k
    A'(|w_i - w_j|^2)``, ``A(x) = 1 - exp(-x / sigma)``, ``xi_ii = 1 - sum_j xi_ij``; the client's loss gets
    ``lambda / (2 alpha_k) |w - u_i|^2``. The squared norm is divided by the number of parameters, so that ``sigma``
    is a mean squared difference, and ``alpha_k = alpha sigma / n`` for n clients, so that no weight is negative,
    and those of identical clients are equal, at any ``alpha`` up to 1. Served is the client's own model ``w_i``.

    Args:
        sigma: Mean squared difference of two models at which their weight has fallen to 1/e.
        alpha: Step towards the others, 1 for the largest.
        mu: The paper's ``lambda / alpha_k``, strength of the pull.
    """

    sigma: float = 1e-5
    alpha: float = 1.0
    mu: float = 0.1

    def __post_init__(self) -> None:
        require(self, 0 < self.sigma < float("inf"), "sigma", "a finite number above 0")
        require(self, 0 < self.alpha <= 1, "alpha", "a number in (0, 1]")
        require(self, 0 <= self.mu < float("inf"), "mu", "a finite number, at least 0")

    def init_memory(self, params: Tensors) -> Any:
        return params

    def start(self, down: Tensors, memory: Tensors) -> Any:
        return memory

    def objective(self, loss: Loss, w: Tensors, down: Tensors, memory: Tensors) -> Tensor:
        return proximal(loss(w), self.mu, w, down)

    def finish(self, w: Tensors, down: Tensors, memory: Tensors, work: Work) -> tuple[Any, Any]:
        upload, _ = super().finish(w, down, memory, work)
        return upload, w

    def mix(self, signatures: Sequence[Signature], weights: Sequence[float]) -> Tensor:
        n, size = len(signatures), tree.size(signatures[0])
        others = self.alpha / n * torch.exp(-(euclidean(signatures) / size**0.5 / self.sigma**0.5).square())
        others = others.fill_diagonal_(0.0)
        return others + torch.diag(1 - others.sum(1))
