"""Random adapters of several clients on one network, held by PEFT itself: the oracle of the LoRA rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from peft import LoraConfig, LoraModel
from torch import Tensor, nn

from fedlit.aggregators import Server, Update
from fedlit.aggregators.parts import lora

LAYERS = {"first": nn.Linear(18, 20), "second": nn.Linear(20, 24), "third": nn.Conv2d(3, 18, 3)}
WEIGHTS = {"c0": 3.0, "c1": 1.0, "c2": 4.0}


class Clients:
    """Clients with adapters of their own rank and, for each layer, one alpha; in float64.

    Args:
        ranks: By client; ``network`` is the rank of the network, and so of its first adapter.
        close: Clients differ by this much from one another, 1 for not at all alike.
    """

    def __init__(self, ranks: Mapping[str, int], use_rslora: bool = False, alpha: float = 8.0, close: float = 1.0):
        self.ranks, self.use_rslora, self.alpha = dict(ranks), use_rslora, alpha
        names = list(LAYERS)
        first, *others = self.ranks
        self.peft: Any = LoraModel(nn.ModuleDict(LAYERS).double(), self._config(first, names), first).double()
        for name in others:
            self.peft.peft_config[name] = self._config(name, names)
            self.peft.inject_adapter(self.peft.model, name)
        generator = torch.Generator().manual_seed(0)
        shared: dict[str, Tensor] = {}
        for name, p in sorted(self.peft.named_parameters(), key=lambda pair: pair[0]):
            if "lora_" in name:
                base = shared.setdefault(
                    name.replace(name.split(".")[-2], ""), torch.randn(p.shape, generator=generator)
                )
                noise = torch.randn(p.shape, generator=generator)
                p.data = (noise if close == 1 else base + close * noise).double()

    def _config(self, name: str, layers: list[str]) -> LoraConfig:
        other = {"second": 3 * self.alpha}  # so that layers do not all count alike
        return LoraConfig(
            r=self.ranks[name], lora_alpha=self.alpha, alpha_pattern=other, target_modules=layers,
            use_rslora=self.use_rslora,
        )  # fmt: skip

    def params(self, client: str) -> dict[str, Tensor]:
        """As a task would name them, with a head beside them."""
        out = {
            f"net.{layer}.lora_{ab}.default.weight": getattr(self.module(layer), f"lora_{ab}")[client].weight.detach()
            for layer in LAYERS
            for ab in "AB"
        }
        return {**out, "net.head.weight": torch.full((2, 2), float(self.ranks[client]), dtype=torch.float64)}

    def module(self, layer: str) -> Any:
        return self.peft.model[layer]

    def delta(self, adapter: str) -> dict[str, Tensor]:
        """What an adapter adds to each weight, by PEFT."""
        return {layer: self.module(layer).get_delta_weight(adapter).detach() for layer in LAYERS}

    def mean(self, combination: str, **arguments: Any) -> dict[str, Tensor]:
        """The clients' weighted mean update, by PEFT."""
        total = sum(WEIGHTS.values())
        name = f"{combination}-{arguments}"
        shares = [WEIGHTS[c] / total for c in WEIGHTS]
        self.peft.add_weighted_adapter(list(WEIGHTS), shares, name, combination_type=combination, **arguments)
        # PEFT gives the combined adapter alpha = r, which under rsLoRA scales by sqrt(r) and not by 1 (seen in 0.21.2)
        return {layer: d / self.module(layer).scaling[name] for layer, d in self.delta(name).items()}

    @property
    def scaling(self) -> dict[str, float]:
        return {f"net.{layer}": self.module(layer).scaling["network"] for layer in LAYERS}

    def aggregate(self, rule: Any, weights: Mapping[str, float] = WEIGHTS, order: int = 1, seed: int = 0) -> Any:
        """The state after one round, in which each client came to its adapter; and the server."""
        state = rule.init(self.params("network"))
        updates = []
        for client, weight in list(weights.items())[::order]:
            sent = rule.start(rule.down(state, client), {})
            moved = {name: p - sent[name] for name, p in self.params(client).items()}
            updates.append(Update(client, weight, lambda moved=moved: moved))
        server = Server(0, torch.Generator().manual_seed(seed), scaling=self.scaling)
        return rule.aggregate(state, updates, server), server

    def effective(self, rule: Any, state: Any, client: str | None = None) -> dict[str, Tensor]:
        """What a model of the rule changes in each weight: adapter and base together."""
        model = rule.global_model(state) if client is None else rule.personal(rule.down(state, client), {})
        return {layer: self._change(model, layer) for layer in LAYERS}

    def _change(self, model: Any, layer: str) -> Tensor:
        a, b = (model[f"net.{layer}.lora_{ab}.default.weight"] for ab in "AB")
        found = lora.Layer(f"net.{layer}", f"net.{layer}.lora_A.default.weight", f"net.{layer}.lora_B.default.weight")
        whole = self.scaling[found.name] * (b.flatten(1) @ a.flatten(1)).reshape(len(b), *a.shape[1:])
        return whole + model.get(found.weight, 0.0)


def relative(got: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> float:
    """Relative Frobenius error over all layers."""
    missed = sum(float((got[n] - wanted[n]).square().sum()) for n in wanted)
    return (missed / sum(float(w.square().sum()) for w in wanted.values())) ** 0.5
