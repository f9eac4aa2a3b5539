"""Does a rule suit this task, these data, this run? Asked before the first round, by a few rounds without training.

The parameters have their names and LoRA's ranks, and next to no values; the loss is made up. So it takes a moment, and
what a rule cannot do without is missed before anything is trained or written.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import lightning as L  # noqa: N812
import torch
from torch import Tensor

from fedlit import tree
from fedlit.aggregators import Aggregator, Sealed, Server, Update, Work
from fedlit.aggregators.parts.lora import A, B
from fedlit.engine.task_check import check_method, check_modules
from fedlit.errors import FedlitError, first_line
from fedlit.transports.payloads import untrained
from fedlit.tree import Tree

SIDE = 4
"""Largest extent of a tensor here, but for LoRA's rank."""
ROUNDS = 8
"""At most so many: a plan of stages goes one stage on in each, a ring of clients need not close."""
THOROUGH = 4
"""So many clients of a round compute their loss; of the others only what they send is of interest."""

NOTHING = 1e-4
"""A difference so small, beside parameters of about 0.1, is rounding."""


@dataclass(frozen=True)
class Setting:
    """What a run gives a rule to work with."""

    task: L.LightningModule
    """Whose ``features`` and ``logits`` a rule may ask for."""
    sample: Callable[[int], Sequence[str]]
    """Who trains in a round."""
    steps: Callable[[str], int]
    """How many local steps a client takes."""
    rounds: int
    num_clients: int
    scaling: Mapping[str, float]
    """Of LoRA layers, see :class:`~fedlit.aggregators.Server`."""
    server_data: bool
    """Whether the server has validation data."""


def rehearse(rule: Aggregator, params: Any, setting: Setting) -> bool | None:
    """Whether the rule reads single updates, so that it trusts the server; None where this could not be found out.

    Args:
        rule: The rule.
        params: Initial values of the parameters that train.
        setting: The rest.

    Raises:
        FedlitError: The rule cannot work here; with what is missing.
        NotImplementedError: It has no whole server half or client half.
    """
    try:
        return _rehearse(rule, shrunk(params), setting)
    except (FedlitError, NotImplementedError):
        raise
    except Exception as error:  # a rule may rely on the size of a tensor, which is not the true one here: the run tells
        where = f"{type(rule).__name__}, tried out on small tensors before the first round"
        warnings.warn(f"{where}: {first_line(error)}", stacklevel=2)
        return None


def _rehearse(rule: Aggregator, params: Mapping[str, Tensor], setting: Setting) -> bool:
    if rule.measures:
        check_method(setting.task, "losses")
    state, memories, trusts, paths = rule.init(params), dict[str, Any](), False, None
    for turn in range(min(ROUNDS, setting.rounds)):
        index = setting.rounds - 1 if turn else 0
        generator, uploads = torch.Generator().manual_seed(turn), dict[str, Tree]()
        for number, client in enumerate(setting.sample(index)):
            down, steps = rule.down(state, client), setting.steps(client)
            memory = memories[client] if client in memories else rule.init_memory(params)
            thorough = number < THOROUGH
            for _ in range(1 + thorough):  # a second time at once, since some ask for more where they have a memory
                w = moved(rule.start(down, memory), generator)
                for step in {0, steps - 1} if thorough else ():
                    live = tree.map(lambda x: x.detach().clone().requires_grad_(x.is_floating_point()), w)
                    rule.objective(Loss(setting.task, params, step, steps), live, down, memory)
                with torch.no_grad():
                    uploads[client], memory = rule.finish(w, down, memory, work(steps))
            memories[client] = memory
        with torch.no_grad():
            try:
                state = _aggregated(rule, state, uploads, index, setting, sealed=True)
            except Sealed:
                trusts = True
                state = _aggregated(rule, state, uploads, index, setting, sealed=False)
        before, paths = paths, {*tree.flatten(state)}
        if turn and paths == before:  # no stage of its own, no new client
            break
    return trusts


def _aggregated(
    rule: Aggregator, state: Any, uploads: Mapping[str, Any], index: int, setting: Setting, sealed: bool
) -> Any:
    updates = made_up({client: (4.0, upload) for client, upload in uploads.items()}, sealed)
    return rule.aggregate(state, updates, server(index, setting.num_clients, setting.scaling, setting.server_data))


def made_up(uploads: Mapping[str, tuple[float, Any]], sealed: bool) -> list[Update]:
    """Updates from weights and uploads by client, in name order."""
    return [
        Update(client, weight, lambda upload=upload: upload, {"train_loss": 1.0}, sealed)  # type: ignore[misc]
        for client, (weight, upload) in sorted(uploads.items())
    ]


def check_feedback(rule: Aggregator, params: Any) -> None:
    """Refuse error feedback for a rule that uploads whole tensors: what is left out of one is no part of the next.

    Args:
        rule: The rule.
        params: Initial values of the parameters that train.

    Raises:
        FedlitError: A new client that does not train would upload something; with the tensor that says so.
    """
    start = moved(shrunk(params), torch.Generator().manual_seed(0))  # LoRA's B is 0 at first
    try:
        upload = tree.flatten(untrained(rule, rule.down(rule.init(start), "client"), start))
    except Exception:  # `rehearse` says what there is to be said
        return
    for path, leaf in upload.items():
        if leaf.is_floating_point() and leaf.dim() and bool((leaf.abs() > NOTHING).any()):
            raise FedlitError(
                f"trainer.compression: error feedback needs uploads that are differences, and {type(rule).__name__} "
                f"uploads {path} whole: set error_feedback: false, better with Int8 or BFloat16 than with TopK"
            )


def shrunk(params: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A corner of each tensor, in which LoRA's A and B have their rank."""

    def corner(name: str, p: Tensor) -> Tensor:
        rank = 0 if re.search(A, name) else 1 if re.search(B, name) else None
        return p[tuple(slice(None if i == rank else SIDE) for i in range(p.dim()))].clone()

    return {name: corner(name, p) for name, p in params.items()}


def moved(w: Any, generator: torch.Generator) -> Any:
    """A random step in the place of training."""
    return tree.map(lambda x: x + 0.1 * torch.randn(x.shape, generator=generator).to(x.dtype), w)


def work(steps: int = 1, end_loss: float = 0.5) -> Work:
    """Of a client that took so many steps, of four examples each."""
    done = (steps, 4 * steps, 0.1 * steps, 4 * steps, 1.0, end_loss)
    return Work(*(torch.tensor(x, dtype=torch.float64) for x in done))


def server(index: int, num_clients: int, scaling: Mapping[str, float], data: bool) -> Server:
    """A server whose validation loss is made up, from the parameters' norm; without data it has none."""

    def losses(models: Iterable[Any]) -> list[Tensor]:
        sizes = [torch.tanh(tree.sq(params)).double() for params in models]
        return [torch.stack([1 + size / n for n in range(2, 7)]) for size in sizes]

    generator = torch.Generator().manual_seed(index)
    return Server(index, generator, losses if data else None, num_clients, scaling)


class Loss:
    """A :class:`~fedlit.aggregators.Loss` that is made up, and asks the task only whether it has what is needed.

    Args:
        task: The task.
        params: Small ones, see :func:`shrunk`.
        step: Index of the local step.
        steps: How many there are.
    """

    def __init__(self, task: L.LightningModule, params: Mapping[str, Tensor], step: int, steps: int) -> None:
        self.task, self.params, self.step, self.steps = task, params, step, steps

    def __call__(self, params: Tree) -> Tensor:
        return 1 + torch.stack([tree.sq(leaf).float() for leaf in tree.leaves(params)]).mean()

    def features(self, params: Tree) -> Tensor:
        return self._made_up("features", params)

    def logits(self, params: Tree) -> Tensor:
        return self._made_up("logits", params)

    def outputs(self, params: Tree, pattern: str) -> tuple[Tensor, dict[str, Tensor]]:
        modules = [name for name, _ in self.task.named_modules() if re.search(pattern, name)]
        check_modules(modules, pattern)
        rows = {name: len(self.params.get(f"{name}.weight", range(SIDE))) for name in modules}
        value = self(params)
        return value, {name: value * torch.linspace(-1, 1, 2 * n).reshape(2, n) for name, n in rows.items()}

    def split(self, parts: int) -> list[Loss]:
        return [self] * parts

    def _made_up(self, method: str, params: Tree) -> Tensor:
        check_method(self.task, method)
        return self(params) * torch.linspace(-1, 1, 2 * SIDE).reshape(2, SIDE)
