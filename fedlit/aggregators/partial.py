"""Rules in which a name pattern says which parameters are shared, and the others never leave the client."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fedlit import tree
from fedlit.aggregators.averaging import FedAvg
from fedlit.aggregators.base import Loss, Tensors, Work, require
from fedlit.errors import FedlitError

FAMILY = "local adaptation"

HEAD = r"(^|[._])(heads?|classifier|score|fc|output_patch_embedding)(\.|$)"
"""Matches parameters of the usual heads, ``lm_head`` among them, and their adapters."""
NORM = r"(?i)(^|\.)(\w*norm(\d+d?)?(_\w+)?|(ln|bn)_?\w?)(\.|$)"
"""Matches parameters of the usual normalisation layers."""

NUMBERED = re.compile(r"(.*?)\.(\d+)\.")


class PartlyShared(FedAvg):
    """Base of rules that average some parameters and keep the others at the client, in its memory.

    What stays is not sent in either direction. A client that has none yet starts from the initial values. There is
    no one model of all clients.
    """

    def stays(self, params: Tensors) -> Any:
        """The parameters that stay at the client, of all."""
        raise NotImplementedError

    def init(self, params: Tensors) -> Any:
        stays = self.stays(params)
        return {"params": {name: p for name, p in params.items() if name not in stays}}

    def init_memory(self, params: Tensors) -> Any:
        return self.stays(params)

    def start(self, down: Tensors, memory: Tensors) -> Any:
        return {**down, **memory}

    def finish(self, w: Tensors, down: Tensors, memory: Tensors, work: Work) -> tuple[Any, Any]:
        return tree.sub({name: w[name] for name in down}, down), {name: w[name] for name in memory}

    def global_model(self, state: Tensors) -> Any | None:
        return None


@dataclass(frozen=True)
class FedPer(PartlyShared):
    """FedAvg of the body; each client keeps its own head.

    Arivazhagan et al. 2019, arXiv:1912.00818, Algorithms 1 and 2: base and personalisation layers train together, and
    only the base is averaged. FLOP, Yang et al. 2021, arXiv:2102.05218, is the same rule, named for what it keeps
    private.

    Args:
        head: Regular expression on parameter names: what stays at the client. Where the head is tied to the embedding
            (Chronos-T5, GPT-2) it does not train by itself: the default matches nothing, and the error names what
            could serve, such as the decoder's last block.
    """

    head: str = HEAD

    def __post_init__(self) -> None:
        super().__post_init__()
        expression(self, "head")

    def stays(self, params: Tensors) -> Any:
        return part(self, "head", params)


@dataclass(frozen=True)
class FedRep(FedPer):
    """FedPer whose clients first train their head on the body as received, then the body under that head.

    Collins et al. 2021, arXiv:2102.07078, Algorithm 1: in each round head steps with the body held, then body steps
    with the head held; the body is averaged. The paper counts both in steps; here the first part is a share of the
    round's steps, since clients may take different numbers of them. The paper's mean is ``uniform``.

    Args:
        head_share: Part of the round's steps that train the head, rounded, but at least one for either. In a round of
            a single step both train.
    """

    head_share: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, 0 < self.head_share < 1, "head_share", "a number between 0 and 1")

    def objective(self, loss: Loss, w: Tensors, down: Tensors, memory: Tensors) -> Tensor:
        held = down if loss.step < opening(self.head_share, loss.steps) else memory if loss.steps > 1 else {}
        return loss({name: p.detach() if name in held else p for name, p in w.items()})


@dataclass(frozen=True)
class LGFedAvg(PartlyShared):
    """FedAvg of the head; each client keeps its own representation.

    Liang et al. 2020, arXiv:2001.01523, Algorithm 1: local representations, whose inputs may differ between clients,
    under one global head, all trained together. The paper starts from a short run of FedAvg; for that, make
    it a stage after one.

    Args:
        head: Regular expression on parameter names: what is shared. Where the head is tied to the embedding
            (Chronos-T5, GPT-2) it does not train by itself: the default matches nothing, and the error names what
            could serve, such as the decoder's last block.
    """

    head: str = HEAD

    def __post_init__(self) -> None:
        super().__post_init__()
        expression(self, "head")

    def stays(self, params: Tensors) -> Any:
        shared = part(self, "head", params)
        return {name: p for name, p in params.items() if name not in shared}


@dataclass(frozen=True)
class FedBN(PartlyShared):
    """FedAvg of all but the normalisation layers, which each client keeps, for clients whose inputs differ.

    Li et al. 2021, arXiv:2102.07623, Algorithm 1. The paper keeps running statistics too. These are buffers, and no
    rule sees buffers: take layers without them (LayerNorm, GroupNorm, ``track_running_stats=False``). The paper's
    mean is ``uniform``.

    Args:
        norm: Regular expression on parameter names: what stays at the client.
    """

    norm: str = NORM

    def __post_init__(self) -> None:
        super().__post_init__()
        expression(self, "norm")

    def stays(self, params: Tensors) -> Any:
        return part(self, "norm", params)


def expression(rule: object, field: str) -> None:
    """Refuse a field that is not a regular expression, at construction.

    Raises:
        FedlitError: It is not one.
    """
    try:
        re.compile(getattr(rule, field))
    except (re.error, TypeError):
        require(rule, False, field, "a regular expression")


def part(rule: object, field: str, params: Tensors, whole: bool = False) -> dict[str, Any]:
    """The parameters whose name matches the expression in a rule's field.

    Args:
        whole: Whether it may match all.

    Raises:
        FedlitError: It matches none, or all; the names there are, are shown.
    """
    pattern = getattr(rule, field)
    found = {name: p for name, p in params.items() if re.search(pattern, name)}
    if not found or (len(found) == len(params) and not whole):
        names = sorted(params)
        shown = ", ".join(names if len(names) < 5 else [*names[:2], "...", *names[-2:]])
        seen = "all" if found else "none"
        block = last_block(names) if field == "head" and not found else None
        such = "" if block is None else (
            f", such as '{block}', the last block (a head that is tied to the embedding, or frozen, does not train by "
            f"itself; what trains lies in {', '.join(places(names))})"
        )  # fmt: skip
        raise FedlitError(
            f"{type(rule).__name__}.{field} {pattern!r} matches {seen} of the {len(names)} parameters that train "
            f"({shown}): give a regular expression that matches some{such}, or let other layers train"
        )
    return found


def places(names: Sequence[str]) -> list[str]:
    """Where parameters lie, sorted: stacks with their numbers, ``encoder.block.0-5``, and modules without any."""
    stacks: dict[str, set[int]] = {}
    for name in names:
        m = NUMBERED.match(name)
        stacks.setdefault(m[1] if m else name.rpartition(".")[0], set()).update([int(m[2])] if m else [])
    ends = {place: sorted({min(numbers), max(numbers)}) if numbers else [] for place, numbers in stacks.items()}
    return sorted(f"{place}.{'-'.join(map(str, end))}" if end else place for place, end in ends.items())


def last_block(names: Sequence[str]) -> str | None:
    """A regular expression for the block of the highest number, of a decoder where there is one; None without any."""
    found = [m for name in names if (m := NUMBERED.match(name))]
    chosen = [m for m in found if "decoder" in m[1]] or found
    if not chosen:
        return None
    stack, number = max((m[1], int(m[2])) for m in chosen)
    expression = rf"{re.escape('.'.join(stack.split('.')[-2:]))}\.{number}\."
    matched = sum(re.search(expression, name) is not None for name in names)
    return expression if matched < len(names) else None


def opening(share: float, steps: int) -> int:
    """How many of a round's steps are its first phase: that share, rounded, but at least one for either phase.

    None in a round of a single step, or where the share is 0.
    """
    return max(1, min(steps - 1, round(share * steps))) if share and steps > 1 else 0
