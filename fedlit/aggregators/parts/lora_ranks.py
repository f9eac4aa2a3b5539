"""Adapters whose rank differs from client to client: one scale for all of them, and sums of their products BA."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import torch
from torch import Tensor

from fedlit import tree
from fedlit.aggregators.base import Aggregator, Loss, Tensors, Work, require
from fedlit.aggregators.parts import lora
from fedlit.aggregators.server import Server, Update

NETWORK = "network"
"""Key of what is sent to clients that have the network's own rank."""


class OneScaling(Aggregator):
    """Base of rules that know how adapters are scaled: from the adapters themselves."""

    use_rslora: bool | None = None

    def suited(self, rank_stabilised: bool | None) -> Self:
        own, ranks = self.use_rslora, getattr(self, "ranks", None)
        theirs = str(rank_stabilised).lower()
        fits = None in (own, rank_stabilised) or own is rank_stabilised or not ranks  # of one rank it has no effect
        require(self, fits, "use_rslora", f"{theirs}, as model.adapter.use_rslora is: leave it out here")
        rule: Any = self
        return replace(rule, use_rslora=rank_stabilised) if own is None else self


@dataclass(frozen=True)
class MixedRanks(OneScaling):
    """Base of rules whose server forms ``sum_k p_k B_k A_k``, to which clients of any rank can add.

    All have one alpha, so client k's adapter is scaled by ``alpha / r_k`` where the network's is scaled by
    ``alpha / r``: its model pads A and B with zeros to rank r and multiplies B by ``r / r_k`` (by the root of that
    with ``use_rslora``). The server computes with adapters in that form, in float64, and undoes it in what it sends.
    The state is what is sent, once for each rank that occurs. Single updates are read, so sealed ones are refused.

    Args:
        ranks: Rank of a client's adapters by its name; clients left out have the network's.
        use_rslora: Whether adapters are scaled by ``alpha / sqrt(r)``. None, as a rule, takes that from the adapters
            themselves (``model.adapter.use_rslora``); anything else than they have is refused where ranks differ.
        weighting: ``examples`` weighs a client by its number of training examples; ``uniform`` weighs all alike.
    """

    ranks: dict[str, int] | None = None
    use_rslora: bool | None = None
    weighting: Literal["examples", "uniform"] = "examples"

    def __post_init__(self) -> None:
        whole = all(isinstance(rank, int) and rank >= 1 for rank in (self.ranks or {}).values())
        require(self, whole, "ranks", "a whole rank of at least 1 for each client that it names")
        require(self, self.weighting in ("examples", "uniform"), "weighting", "'examples' or 'uniform'")

    def weigh(self, num_examples: int, work: Work) -> float:
        return float(num_examples) if self.weighting == "examples" else 1.0

    def participants(self, clients: Sequence[str], round: int) -> None:  # noqa: A002
        unknown = sorted(set(self.ranks or {}) - set(clients))
        require(self, not unknown, "ranks", f"names of clients, and of {list(clients)[:3]} ... {unknown[:1]} is none")

    def init(self, params: Tensors) -> Any:
        return payloads(self, params, params)

    def down(self, state: Tensors, client: str) -> Any:
        return state.get(f"rank-{(self.ranks or {}).get(client)}", state[NETWORK])

    def start(self, down: Tensors, memory: Tensors) -> Any:
        return down["params"]

    def model(self, w: Tensors, down: Tensors, memory: Tensors) -> Any:
        return {**widen(self, w, down), **down.get("base", {})}

    def objective(self, loss: Loss, w: Tensors, down: Tensors, memory: Tensors) -> Tensor:
        return loss(self.model(w, down, memory))

    def finish(self, w: Tensors, down: Tensors, memory: Tensors, work: Work) -> tuple[Any, Any]:
        return tree.sub(w, down["params"]), memory

    def global_model(self, state: Tensors) -> Any | None:
        return self.model(state[NETWORK]["params"], state[NETWORK], {})


class Sum:
    """What a round's clients say together, in the network's rank and scale and in float64.

    Args:
        rule: The rule.
        state: Its state.
        updates: What clients sent.
        server: The round's.
        weigh: A client's weight by its parameters; None, or where it is 0 for all: the weight that came along.

    Attributes:
        layers: The adapted layers.
        shares: Weight of each client, of sum 1.
        mean: The mean of every tensor on its own.
        factors: A and B of each layer, stacked, so that BA is the mean of the clients' products.
    """

    def __init__(
        self,
        rule: MixedRanks,
        state: Tensors,
        updates: Sequence[Update],
        server: Server,
        weigh: Callable[[Mapping[str, Tensor]], float] | None = None,
    ) -> None:
        def read(update: Update) -> Any:
            down, moved = rule.down(state, update.client), update.tensors
            return widen(rule, {name: p.double() + moved[name].double() for name, p in down["params"].items()}, down)

        updates = sorted(updates, key=lambda u: u.client)
        wide = [Update(u.client, u.weight, lambda u=u: read(u)) for u in updates]  # type: ignore[misc]
        models = server.gather(wide)
        weights = [weigh(models[u.client]) for u in updates] if weigh is not None else []
        weights = weights if any(weights) else [u.weight for u in updates]
        self.rule, self.state, self.server = rule, state, server
        self.mean = server.mean(wide, weights)
        self.layers = lora.layers(self.mean, rule)
        self.shares = {u.client: weight / sum(weights) for u, weight in zip(updates, weights, strict=True)}
        parts = [
            {**model, **{layer.b: self.shares[client] * model[layer.b] for layer in self.layers}}
            for client, model in models.items()
        ]
        self.factors = lora.join_rank(parts, self.layers)

    def change(self) -> dict[str, Tensor]:
        """The mean change of each frozen weight: base and adapter together, as the clients had it."""
        total = {}
        for layer in self.layers:
            changed = self.server.scaling[layer.name] * product(self.factors, layer)
            for client in sorted(self.shares):
                changed = changed + self.shares[client] * self.rule.down(self.state, client)["base"][layer.weight]
            total[layer.weight] = changed
        return total

    def send(self, params: Mapping[str, Tensor], change: Mapping[str, Tensor] | None = None) -> dict[str, Any]:
        """The next state: ``params``, and with ``change`` a base that makes it whole."""
        return payloads(self.rule, params, self.state[NETWORK]["params"], change, self.server.scaling)

    def error(self, params: Mapping[str, Tensor]) -> float:
        """Frobenius norm of the update that ``params`` misses, relative to the mean update, over all layers."""
        missed = whole = 0.0
        for layer in self.layers:
            a, b = self.factors[layer.a].flatten(1), self.factors[layer.b].flatten(1)
            other_a, other_b = params[layer.a].double().flatten(1), params[layer.b].double().flatten(1)
            square = self.server.scaling[layer.name] ** 2
            whole += square * norm(b, a) ** 2
            missed += square * norm(torch.cat([b, -other_b], 1), torch.cat([a, other_a])) ** 2
        return math.sqrt(missed / whole) if whole else math.inf if missed else 0.0

    def log_error(self, state: Mapping[str, Any]) -> None:
        """Report what the update misses that clients are sent: the network's rank, then each other."""
        for key, down in sorted(state.items()):
            name = "truncation_error" + ("" if key == NETWORK else f"_{key.replace('-', '_')}")
            self.server.log(name, self.error(widen(self.rule, down["params"], down)))


def payloads(
    rule: MixedRanks,
    params: Mapping[str, Tensor],
    like: Mapping[str, Tensor],
    change: Mapping[str, Tensor] | None = None,
    scaling: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """What clients of each rank are sent, from a model in the network's rank and scale.

    Args:
        rule: Whose clients they are.
        params: The model.
        like: Has the dtypes.
        change: Of each frozen weight, by base and adapter together; the base gets what the adapter leaves of it.
            None: the base stays.
        scaling: What each layer multiplies BA by; needed with ``change``.

    Raises:
        FedlitError: A client's rank is above that of a layer.
    """
    found = lora.layers(params, rule)
    own = lora.ranks(params, found)
    lowest = min(own, key=lambda name: own[name])
    given = sorted(set((rule.ranks or {}).values()))
    require(rule, max(given, default=1) <= own[lowest], "ranks", f"up to {own[lowest]}, the rank of {lowest}")
    out: dict[str, Any] = {}
    for rank in (None, *given):
        sent = dict(params)
        if rank is not None:
            sent |= lora.cut_rank(params, found, 0, rank)
            sent |= {layer.b: sent[layer.b] / _factor(rule, own[layer.name], rank) for layer in found}
        down: dict[str, Any] = {"params": {name: sent[name].to(p.dtype) for name, p in like.items()}}
        if rank is not None:
            down["rank"] = torch.tensor([own[layer.name] for layer in found])
        if change is not None and scaling is not None:
            holds = widen(rule, {name: p.double() for name, p in down["params"].items()}, down)
            down["base"] = {
                # a sum over many rounds of small changes: bfloat16 would lose them
                layer.weight: (change[layer.weight] - scaling[layer.name] * product(holds, layer)).to(
                    torch.promote_types(like[layer.a].dtype, torch.float32)
                )
                for layer in found
            }
        out[NETWORK if rank is None else f"rank-{rank}"] = down
    return out


def widen(rule: MixedRanks, params: Mapping[str, Any], down: Mapping[str, Any]) -> dict[str, Any]:
    """A client's parameters in the network's rank and scale; the same tensors where it has that rank."""
    out = dict(params)
    if "rank" in down:
        for layer, rank in zip(lora.layers(params, rule), down["rank"].tolist(), strict=True):
            scaled = params[layer.b] * _factor(rule, rank, len(params[layer.a]))
            out |= lora.pad_rank({layer.a: params[layer.a], layer.b: scaled}, [layer], {layer.name: rank})
    return out


def product(params: Mapping[str, Tensor], layer: lora.Layer) -> Tensor:
    """``B A`` in the shape of the layer's weight, in float64."""
    whole = lora.product(params, layer)
    return whole.reshape(len(whole), *params[layer.a].shape[1:])


def norm(b: Tensor, a: Tensor) -> float:
    """Frobenius norm of ``b @ a``, from factors as small as their number of columns and rows."""
    left, right = (torch.linalg.qr(factor, mode="r").R for factor in (b, a.T))
    return math.sqrt(float((left @ right.T).square().sum()))


def _factor(rule: MixedRanks, whole: int, own: int) -> float:
    """The scaling at rank ``own`` as a multiple of that at rank ``whole``."""
    return math.sqrt(whole / own) if rule.use_rslora else whole / own
