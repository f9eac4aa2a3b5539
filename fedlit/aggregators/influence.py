"""Rules that weigh each client by what its model does to a loss: on the server's own data, or on the client's."""

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
from fedlit.errors import FedlitError

FAMILY = "influence"


@dataclass(frozen=True)
class FedMedLoRA(Aggregator):
    """FedAvg of LoRA adapters, weighed by each client's amount of data.

    Li et al. 2026, arXiv:2601.22124: ``B <- sum_k w_k B_k``, ``A <- sum_k w_k A_k``, ``w_k = n_k / sum_j n_j``. In the
    paper n_k is the size of the client's data; in the released code the supervised tokens among them. Those are
    counted while the client trains: ``examples * targets seen / examples seen``, which is their number after any whole
    number of epochs, and an estimate otherwise.

    Args:
        weighting: ``examples`` takes the number of training examples for n_k, ``tokens`` that of supervised tokens.
    """

    weighting: Literal["examples", "tokens"] = "examples"

    def __post_init__(self) -> None:
        require(self, self.weighting in ("examples", "tokens"), "weighting", "'examples' or 'tokens'")

    def weigh(self, num_examples: int, work: Work) -> float:
        if self.weighting == "examples":
            return float(num_examples)
        return num_examples * float(work.targets / work.examples)

    def aggregate(self, state: Tensors, updates: Sequence[Update], server: Server) -> Any:
        return {"params": tree.add(state["params"], server.mean(updates))}


@dataclass(frozen=True)
class FedMedLoRAPlus(FedMedLoRA):
    """Clients count by their amount of data and by how well their models do on the server's own records.

    Li et al. 2026, arXiv:2601.22124 (Fed-MedLoRA+). The server applies each client's update alone and measures its
    loss L_k on a few records (5 in the paper). The paper's equation could not be had; what is known is that both
    the data's size and the loss on these records count, and what the released code does. So, one of

    - ``softmax``: ``w_k ~ n_k^a exp(-L_k / temperature)``, where the preset ``paper`` has ``a = 1`` and the preset
      ``release``, which is the released code's rule, ``a = 0``, both with temperature 1;
    - ``improvement``: ``w_k ~ n_k^a max(0, L_ref - L_k)^b``, with L_ref the loss of the current global model. Where
      nobody improves on it, it stays as it is for this round.

    A client whose loss is not finite counts nothing. Each round logs ``validation_loss/<client>`` and
    ``influence/<client>``, its share; ``improvement`` also ``reference_loss`` and ``improving_clients``. Single updates
    are read, so sealed ones are refused, and the server holds validation data in plain view.

    Args:
        preset: Which a: ``paper`` or ``release``.
        a: Exponent of n_k; None: the preset's.
        temperature: Of the softmax.
        form: ``softmax`` or ``improvement``.
        b: Exponent of the improvement.
    """

    preset: Literal["paper", "release"] = "paper"
    a: float | None = None
    temperature: float = 1.0
    form: Literal["softmax", "improvement"] = "softmax"
    b: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, self.preset in ("paper", "release"), "preset", "'paper' or 'release'")
        require(self, self.a is None or 0 <= self.a <= 10, "a", "None or a number from 0 to 10")
        require(self, self.temperature > 0, "temperature", "a number above 0")
        require(self, self.form in ("softmax", "improvement"), "form", "'softmax' or 'improvement'")
        require(self, 0 < self.b < float("inf"), "b", "a finite number above 0")

    def aggregate(self, state: Tensors, updates: Sequence[Update], server: Server) -> Any:
        tables = server.losses_of(tree.add(state["params"], u.tensors) for u in updates)
        losses = [float(table.mean()) for table in tables]
        a = {"paper": 1.0, "release": 0.0}[self.preset] if self.a is None else self.a
        sizes = [u.weight**a if u.weight else 0.0 for u in updates]
        if not any(sizes):
            raise FedlitError("every client's weight is 0, so none has an influence: look at what they trained on")
        if self.form == "softmax":
            weights = tilted(sizes, losses, self.temperature)
        else:
            reference = server.validate(state["params"])
            if not math.isfinite(reference):
                raise FedlitError(f"the shared model's loss on the server's validation data is {reference}")
            weights = [n * max(0.0, reference - x) ** self.b for n, x in zip(sizes, losses, strict=True)]
            server.log("reference_loss", reference)
            server.log("improving_clients", sum(w > 0 for w in weights))
        report(server, updates, losses, weights)
        return {"params": tree.add(state["params"], server.mean(updates, weights))} if any(weights) else state


@dataclass(frozen=True)
class ReliableInfluence(FedMedLoRA):
    """Influence whose temperature follows what a few validation records can tell of clients.

    A rule of our own, for :class:`FedMedLoRAPlus` on a handful of records. A fixed temperature has the loss's unit: of
    the same clients it makes equals or a single winner, as losses happen to be small or large. And of 5 records most
    of the differences between clients may be chance. So the differences are measured in their own spread over clients,
    and shrunk by their reliability over records: ``w_k ~ n_k^a exp(-rho (L_k - min L) / (temperature * spread))``, with
    ``spread`` the standard deviation of the clients' mean losses and, for the table of losses by client and record,
    ``rho = max(0, 1 - MS_residual / MS_clients)`` of its two-way analysis of variance without replication. This is
    Cronbach's alpha with clients as subjects and records as items: 1 where all records rank clients alike, 0 where
    clients differ no more than chance would have it, or where one record or one client cannot tell; then the rule is
    FedAvg by size. What it cannot do: one bad client among K has ``exp(-sqrt(K) / temperature)`` of a good one's
    weight at least, so few clients need a temperature below 1.

    Each round logs ``reliability``, ``spread``, ``validation_loss/<client>`` and ``influence/<client>``. It reads
    single updates, so sealed ones are refused.

    Args:
        a: Exponent of n_k; 0 leaves the size out.
        temperature: In spreads of the clients' losses.
    """

    a: float = 1.0
    temperature: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, 0 <= self.a <= 10, "a", "a number from 0 to 10")
        require(self, self.temperature > 0, "temperature", "a number above 0")

    def aggregate(self, state: Tensors, updates: Sequence[Update], server: Server) -> Any:
        updates = by_name(updates)
        table = torch.stack(server.losses_of(tree.add(state["params"], u.tensors) for u in updates))
        losses = table.mean(1)
        known = table[losses.isfinite()]
        rho, spread = reliability(known), float(known.mean(1).std()) if len(known) > 1 else 0.0
        temperature = self.temperature * spread / rho if rho else math.inf
        weights = tilted([u.weight**self.a for u in updates], losses.tolist(), temperature)
        server.log("reliability", rho)
        server.log("spread", spread)
        report(server, updates, losses.tolist(), weights)
        return {"params": tree.add(state["params"], server.mean(updates, weights))}


@dataclass(frozen=True)
class FedDGGA(Aggregator):
    """Clients on whose data the shared model has lost most against their own count more.

    Zhang et al. 2023, "Federated Domain Generalization with Generalization Adjustment", CVPR, pages 3954 to 3963
    (FedDG-GA). The gap of client k is the loss of the received model less that of its own model at the end of its
    last round, ``G_k = L_k(w) - L_k(w_k)``; then ``a_k <- a_k + d_r (G_k - mean G) / max_j |G_j - mean G|``, cut at 0
    and brought back to the old sum, from ``a_k = 1 / K``; ``w <- sum_k a_k w_k``. The step size falls linearly,
    ``d_r = (1 - r / rounds) step_size / K``; the division by K is the released code's, in the paper there is none. That
    code does not subtract the mean, and stops at 1 too, which the sum does here. Losses are of training data, there of
    each client's validation data. Of clients that sit a round out the weight stays, and in the mean those that took
    part count in proportion to theirs; where all of these are 0, the model stays. Each round logs
    ``influence/<client>``. Single losses are read, so sealed updates are refused.

    Args:
        step_size: Largest move of a weight in the first round, in units of the first weight, ``1 / K``.
        rounds: After how many the weights stand still: as a rule the rounds of the run.
    """

    step_size: float = 0.2
    rounds: int = 40
    measures = ("start_loss", "end_loss")

    def __post_init__(self) -> None:
        require(self, 0 < self.step_size <= 1, "step_size", "a number above 0, at most 1")
        require(self, self.rounds >= 1, "rounds", "at least 1")

    def init(self, params: Tensors) -> Any:
        return {"params": params, "weights": {}, "losses": {}}

    def finish(self, w: Tensors, down: Tensors, memory: Tensors, work: Work) -> tuple[Any, Any]:
        return {"moved": tree.sub(w, down), "start_loss": work.start_loss, "end_loss": work.end_loss}, memory

    def aggregate(self, state: Tensors, updates: Sequence[Update], server: Server) -> Any:
        got = {u.client: tree.pick(u.tensors, "start_loss", "end_loss") for u in by_name(updates)}
        first = 1 / torch.tensor(server.num_clients or len(got), dtype=torch.float64)
        before = {k: state["weights"].get(k, first) for k in got}
        gaps = {k: u["start_loss"] - state["losses"][k] for k, u in got.items() if k in state["losses"]}
        step = max(0.0, 1 - server.round / self.rounds) * self.step_size * first
        weights = adjusted(before, gaps, step)
        shares = [float(weights[u.client]) for u in updates]
        report(server, updates, None, shares)
        moved = server.mean(updates, shares)["moved"] if any(shares) else tree.zeros(state["params"])
        return {
            "params": tree.add(state["params"], moved),
            "weights": {**state["weights"], **weights},
            "losses": {**state["losses"], **{k: u["end_loss"] for k, u in got.items()}},
        }

    @property
    def min_rounds(self) -> int:
        return 2


def by_name(updates: Sequence[Update]) -> list[Update]:
    """In the one order in which figures of several clients are summed."""
    return sorted(updates, key=lambda u: u.client)


def tilted(sizes: Sequence[float], losses: Sequence[float], temperature: float) -> list[float]:
    """``size * exp(-loss / temperature)`` up to a common factor that keeps the largest from vanishing; 0 if not finite.

    Raises:
        FedlitError: No loss of a client that counts is finite.
    """
    counted = [x for n, x in zip(sizes, losses, strict=True) if n > 0 and math.isfinite(x)]
    if not counted:
        raise FedlitError(f"no client's model has a finite loss on the server's validation data: {list(losses)}")
    best = min(counted)
    return [
        n * math.exp(-(x - best) / temperature) if n > 0 and math.isfinite(x) else 0.0
        for n, x in zip(sizes, losses, strict=True)
    ]


def reliability(table: Tensor) -> float:
    """Cronbach's alpha, within [0, 1], of losses by client (rows) and record (columns); 0 where it is undefined."""
    rows, columns = table.shape
    clients, records = table.mean(1, keepdim=True), table.mean(0, keepdim=True)
    if min(rows, columns) < 2 or not clients.std() > 1e-9 * table.abs().max():  # what is left is rounding
        return 0.0
    between = columns * float((clients - table.mean()).square().sum()) / (rows - 1)
    residual = float((table - clients - records + table.mean()).square().sum()) / ((rows - 1) * (columns - 1))
    return max(0.0, 1 - residual / between)


def adjusted(weights: dict[str, Tensor], gaps: dict[str, Tensor], step: Tensor) -> dict[str, Tensor]:
    """Weights moved by at most ``step`` along the gaps of those that have one, not below 0, with their sum kept."""
    if not gaps:
        return weights
    centred = dict(zip(gaps, (g := torch.stack(list(gaps.values()))) - g.mean(), strict=True))
    largest = max(x.abs() for x in centred.values())
    if not largest > 0:
        return weights
    moved = {k: (a + step * centred[k] / largest).clamp(min=0) if k in centred else a for k, a in weights.items()}
    kept = sum(weights.values()) / sum(moved.values())
    return {k: a * kept for k, a in moved.items()}


def report(server: Server, updates: Sequence[Update], losses: Sequence[float] | None, weights: Sequence[float]) -> None:
    """Log each client's share of the mean, and its loss where the server measured it."""
    total = math.fsum(weights)
    for i, update in enumerate(updates):
        server.log(f"influence/{update.client}", weights[i] / total if total else 0.0)
        if losses is not None:
            server.log(f"validation_loss/{update.client}", losses[i])
