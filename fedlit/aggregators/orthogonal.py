"""Rules with two adapters a layer, one that all clients share and one that stays with its client.

The network holds one PEFT adapter a layer, of rank r, whose rank is cut in two: the first rows of A and columns of B
are the shared adapter, the others the personal one, so that ``B A = B_g A_g + B_p A_p`` exactly. Both are scaled by
what the network scales with, ``alpha / r``, where r is the sum of both ranks: for two adapters of rank 8 with alpha 16
each, give the model rank 16 and alpha 32 (with rsLoRA, ``alpha / sqrt(r)``, give it ``16 sqrt(2)``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from fedlit import tree
from fedlit.aggregators.averaging import FedAvg
from fedlit.aggregators.base import Loss, Tensors, Work, require
from fedlit.aggregators.parts import lora, overlap
from fedlit.errors import FedlitError

FAMILY = "orthogonal"

ADAPTERS = r"\.lora_[AB]\."
READ = r"\.lora_A\.[^.]+$"
"""Matches the modules that put out ``A x``."""


@dataclass(frozen=True)
class MedDualLoRA(FedAvg):
    """A shared and a personal LoRA adapter in every layer, added up and trained together; the shared one travels.

    Perramon-Llussa et al. 2026 (Med-DualLoRA), arXiv:2603.10967: ``h = W0 x + B_g A_g x + B_p A_p x``, one loss for
    both, FedAvg of ``A_g`` and ``B_g``. Their code was not seen. Both adapters are halves of the network's one (see
    this module), so a personal A starts from the same values at all clients, and the paper's choice of two blocks is
    the model's ``target_modules``. The global model has the shared adapter only; a client is served with both. With
    ``local`` parts there is no global model, since those of no client would be in it.

    Args:
        shared_rank: Rank of the shared adapter in each layer, the rest is the personal one's; None: half, rounded down.
        local: Regular expression on the names of parameters outside the adapters that stay with their client, for
            instance ``head`` where clients have other labels; None: all of them are shared.
    """

    shared_rank: int | None = None
    local: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, self.shared_rank is None or self.shared_rank >= 1, "shared_rank", "None or at least 1")
        try:
            re.compile(self.local or "")
        except re.error:
            require(self, False, "local", "a regular expression")

    def init(self, params: Tensors) -> Any:
        shared, personal = split(self, params, self.shared_rank, self.local)
        return {"params": shared, "silent": scaled(personal, 0.0)}

    def init_memory(self, params: Tensors) -> Any:
        return split(self, params, self.shared_rank, self.local)[1]

    def start(self, down: Tensors, memory: Tensors) -> Any:
        return {"shared": down, "personal": memory}

    def objective(self, loss: Loss, w: Tensors, down: Tensors, memory: Tensors) -> Tensor:
        return loss(self.model(w, down, memory))

    def finish(self, w: Tensors, down: Tensors, memory: Tensors, work: Work) -> tuple[Any, Any]:
        return tree.sub(w["shared"], down), w["personal"]

    def model(self, w: Tensors, down: Tensors, memory: Tensors) -> Any:
        return joined(self, w["shared"], w["personal"])

    def global_model(self, state: Tensors) -> Any | None:
        return joined(self, state["params"], state["silent"]) if self.local is None else None


@dataclass(frozen=True)
class OrthogonalDualLoRA(MedDualLoRA):
    """A shared and a personal adapter that are held orthogonal while both train.

    Tupper and Gagne 2025, arXiv:2510.12741, where it is called FedOPAL (another paper's FedOPAL has visual prompts).
    The paper says that both adapters train at once, with orthogonality of their weights or their representations as
    a penalty; no equation of it could be had, so this is a reconstruction: ``loss + lam * penalty``, where the penalty
    is one of those below. The shared adapter goes to FedAvg. With ``lam = 0`` it is :class:`MedDualLoRA`.

    Penalties, each a mean over the adapted layers of squared cosines from 0 to 1, except the second:

    - ``rows``: of every row of ``A_g`` with every row of ``A_p``;
    - ``inner_products``: ``sum |A_g A_p^T|`` over all layers, as the code of O-LoRA has it, with 0.5 for ``lam``;
    - ``columns``: of every column of ``B_g`` with every column of ``B_p``;
    - ``updates``: of ``B_g A_g`` with ``B_p A_p``, taken as vectors;
    - ``representations``: of ``B_g A_g x`` with ``B_p A_p x`` for every token, from the forward pass of the loss.

    Args:
        lam: Weight of the penalty; ``lambda`` is a word of Python.
        penalty: What is held orthogonal.
        gradient: ``both`` adapters feel the penalty, or only the ``personal`` one. With ``representations`` the latter
            takes a second forward pass, for the shared adapters of earlier layers shape the x of later ones.
        eps: Added to each squared norm below the cosines. B starts at zero, where a cosine has no gradient; near there
            the penalty's gradient stays below about ``lam / (2 sqrt(eps))``.
    """

    lam: float = 0.1
    penalty: Literal["rows", "inner_products", "columns", "updates", "representations"] = "rows"
    gradient: Literal["both", "personal"] = "both"
    eps: float = 1e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        penalties = [*overlap.ON_WEIGHTS, "representations"]
        require(self, 0 <= self.lam < float("inf"), "lam", "a finite number, at least 0")
        require(self, self.penalty in penalties, "penalty", f"one of {penalties}")
        require(self, self.gradient in ("both", "personal"), "gradient", "'both' or 'personal'")
        require(self, 0 < self.eps < float("inf"), "eps", "a finite number above 0")

    def objective(self, loss: Loss, w: Tensors, down: Tensors, memory: Tensors) -> Tensor:
        if not self.lam:
            return super().objective(loss, w, down, memory)
        felt = w if self.gradient == "both" else {**w, "shared": tree.detach(w["shared"])}
        parts = (felt["shared"], felt["personal"], lora.layers(w["shared"], self), self.eps)
        if self.penalty != "representations":
            return super().objective(loss, w, down, memory) + self.lam * overlap.ON_WEIGHTS[self.penalty](*parts)
        value, seen = loss.outputs(self.model(w, down, memory), READ)
        if felt is not w:
            _, seen = loss.outputs(self.model(felt, down, memory), READ)
        return value + self.lam * overlap.representations(*parts, seen)


@dataclass(frozen=True)
class FedDPA(MedDualLoRA):
    """The personal adapter trains first, mixed with the shared one it received; then the shared one trains alone.

    Yang et al. 2024, arXiv:2403.19211, iterative form (FedDPA-T). In the first steps of a round the network is
    ``W0 + alpha B_p A_p + (1 - alpha) B_g A_g`` and only the personal part moves; in the others it is
    ``W0 + B_g A_g`` and only the shared part moves, which goes to FedAvg. A client is served with the mixture. There
    the paper weighs each instance by its likeness to five of the client's training instances (with the two weights
    exchanged, it seems, in the released code); here alpha is the same for all. FedDPA-F, which trains the personal
    adapter after federation only, is left out. Paper: each phase has all the round's epochs; here they divide its
    steps, so that a round costs what it costs under FedAvg. A round needs two steps at least.

    Args:
        alpha: Weight of the personal adapter in the mixture.
        personal_steps: Part of the round's steps that train the personal part, rounded to one step at least for each.
    """

    alpha: float = 0.5
    personal_steps: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, 0 <= self.alpha <= 1, "alpha", "a number in [0, 1]")
        require(self, 0 < self.personal_steps < 1, "personal_steps", "a number between 0 and 1")

    @property
    def min_steps(self) -> int:
        return 2

    def objective(self, loss: Loss, w: Tensors, down: Tensors, memory: Tensors) -> Tensor:
        if loss.steps < 2:
            raise FedlitError(
                "FedDPA trains one adapter after the other: let clients take at least 2 local steps "
                "(trainer.local_steps)"
            )
        if loss.step < min(max(round(self.personal_steps * loss.steps), 1), loss.steps - 1):
            return loss(self.model({**w, "shared": tree.detach(w["shared"])}, down, memory))
        return loss(joined(self, w["shared"], scaled(tree.detach(w["personal"]), 0.0)))

    def model(self, w: Tensors, down: Tensors, memory: Tensors) -> Any:
        return joined(self, scaled(w["shared"], 1 - self.alpha), scaled(w["personal"], self.alpha))


@dataclass(frozen=True)
class FedDAT(MedDualLoRA):
    """A teacher of two adapters and the shared adapter learn from each other.

    Chen et al. 2023, arXiv:2308.12305. ``a0`` is personal, ``a1`` shared, ``a2`` a frozen copy of the received a1.
    The teacher has ``(a0 + a2) / 2`` and trains a0, the student has a1; with KL at temperature T, times ``T^2``, and
    its target a constant, each step follows
    ``(loss(a1) + KL(a1 | teacher) + loss(teacher) + KL(teacher | a1)) / 2``. As in the released code the targets are
    what both put out before the step. There each of the two has an optimizer step of its own; here one step moves both.
    LoRA stands in for bottleneck adapters, so the teacher's mean is one of weights. Parameters outside the adapters
    learn from both. A client is served with the teacher; the global model has a1. A step takes four forward passes.

    Args:
        temperature: Of both distributions in KL.
    """

    temperature: float = 3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, 0 < self.temperature < float("inf"), "temperature", "a finite number above 0")

    def objective(self, loss: Loss, w: Tensors, down: Tensors, memory: Tensors) -> Tensor:
        teacher, student = self.model(w, down, memory), joined(self, w["shared"], scaled(w["personal"], 0.0))
        t, s = loss.logits(teacher), loss.logits(student)
        mutual = distilled(s, t.detach(), self.temperature) + distilled(t, s.detach(), self.temperature)
        return (loss(student) + loss(teacher) + mutual) / 2

    def model(self, w: Tensors, down: Tensors, memory: Tensors) -> Any:
        received = tree.where(ADAPTERS, scaled(down, 0.5), w["shared"])
        return joined(self, received, scaled(w["personal"], 0.5))


def split(
    rule: object, params: Mapping[str, Any], shared_rank: int | None, local: str | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The shared and the personal part of a network's parameters."""
    shared, personal = {}, {}
    found = lora.layers(params, rule)
    for layer, rank in zip(found, lora.ranks(params, found).values(), strict=True):
        first = rank // 2 if shared_rank is None else shared_rank
        require(rule, 1 <= first < rank, "shared_rank", f"from 1 to below {rank}, the rank of {layer.name}")
        shared.update(lora.cut_rank(params, [layer], 0, first))
        personal.update(lora.cut_rank(params, [layer], first, rank))
    others = {name: x for name, x in params.items() if name not in shared}
    own = {name: x for name, x in others.items() if local is not None and re.search(local, name)}
    expected = f"an expression that matches some of {sorted(others)[:3]}" if others else "None: only adapters train"
    require(rule, local is None or bool(own), "local", expected)
    rest = {name: x for name, x in others.items() if name not in own}
    return tree.clone({**shared, **rest}), tree.clone({**personal, **own})


def joined(rule: object, shared: Mapping[str, Any], personal: Mapping[str, Any]) -> dict[str, Any]:
    """The network's parameters: the inverse of :func:`split`."""
    return {**shared, **personal, **lora.join_rank([shared, personal], lora.layers(shared, rule))}


def scaled(part: Tensors, by: float) -> Any:
    """The part with each B, and so each BA, times a number."""
    return tree.where(lora.B, tree.scale(part, by), part)


def distilled(logits: Tensor, target: Tensor, temperature: float) -> Tensor:
    """``T^2 KL(softmax(target / T) | softmax(logits / T))``, mean over all but the classes."""
    inputs, targets = ((x / temperature).log_softmax(-1).flatten(0, -2) for x in (logits, target))
    return temperature**2 * F.kl_div(inputs, targets, reduction="batchmean", log_target=True)
