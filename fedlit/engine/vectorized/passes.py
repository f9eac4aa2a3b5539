"""Runs of the network for several clients at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor

from fedlit.engine.batches import Batch, Unmergeable, merged
from fedlit.engine.loss import BatchLoss
from fedlit.engine.network import Network
from fedlit.engine.task_check import check_method
from fedlit.engine.vectorized.folding import Folding
from fedlit.engine.vectorized.modules import RowLayout, Unfoldable
from fedlit.engine.vectorized.requests import Answer, Request, by_form

Pass: TypeAlias = Callable[[Sequence[Tensor]], tuple[Tensor, list[Tensor | None]]]
"""Losses (clients,) at stacked parameters, and the gradients of their sum."""

INSIDE = "the rule looks at what modules put out"


class SharedPasses:
    """Answers requests of several clients, in one pass where the network can be folded, else one after the other.

    Args:
        network: The network that is run.
        tell: Takes the reason why some requests were not answered in one pass.

    Attributes:
        why_not: Why the network cannot be folded; None where it can, or where it is not known yet.
        draws_needed: Whether the network draws for dropout; None where it is not known yet.
        compiled: A :class:`fedlit.engine.vectorized.compiled.CompiledPass`, or None: nothing is compiled.
    """

    def __init__(self, network: Network, tell: Callable[[str], None]) -> None:
        self.network, self.tell = network, tell
        self.folding = Folding(network.task, list(network.parameters))
        self.draws_needed: bool | None = None
        self.why_not: str | None = None
        self.compiled: Callable[..., tuple[Tensor, list[Tensor | None]]] | None = None

    def answer(self, requests: Sequence[Request], draws: Sequence[torch.Generator]) -> list[Answer]:
        """Answers in the order of the requests.

        Args:
            requests: One of each client.
            draws: For dropout, one generator for each client.
        """
        out: list[Answer | None] = [None] * len(requests)
        for places in by_form(requests):
            some, their = [requests[i] for i in places], [draws[i] for i in places]
            for place, answer in zip(places, self._alike(some, their), strict=True):
                out[place] = answer
        return [answer for answer in out if answer is not None]

    def _alike(self, requests: Sequence[Request], draws: Sequence[torch.Generator]) -> list[Answer]:
        if len(requests) > 1 and self.why_not is None:
            before = [g.get_state() for g in draws] if self.draws_needed else []
            try:
                self._check(requests[0])
                return self.folded(requests, draws)
            except (Unmergeable, Unfoldable) as reason:  # of these requests; others may fit
                self.tell(str(reason))
                for g, state in zip(draws, before, strict=False):
                    g.set_state(state)
        return [self._answered(request, g) for request, g in zip(requests, draws, strict=True)]

    def _check(self, request: Request) -> None:
        known = self.network.parameters
        if request.method == "outputs":
            raise Unfoldable(INSIDE)
        if not isinstance(request.params, dict) or not request.params.keys() <= known.keys():
            raise Unfoldable("the rule adds to frozen weights")
        if any(value.shape != known[name].shape for name, value in request.params.items()):
            raise Unfoldable("the rule gives parameters of other shapes")

    def folded(self, requests: Sequence[Request], draws: Sequence[torch.Generator]) -> list[Answer]:
        """Answers to requests of one form, in one pass.

        Raises:
            Unmergeable: Their batches cannot be one.
            Unfoldable: The network cannot take them.
        """
        method, graph = requests[0].method, requests[0].graph
        check_method(self.network.task, method)
        batch, sizes = merged([request.batch for request in requests])
        layout, names = RowLayout(sizes), sorted(requests[0].params)
        stacked = [torch.stack([request.params[name] for request in requests]) for name in names]

        def using(values: Sequence[Tensor]) -> AbstractContextManager[None]:
            given = dict(zip(names, values, strict=True))
            return self.folding.using(given, layout, draws if self.draws_needed else ())

        def run() -> Tensor:
            with self.network.fabric.autocast():
                return getattr(self.network.task, method)(batch)  # type: ignore[no-any-return]

        if method == "losses" and graph:

            def plain(values: Sequence[Tensor]) -> tuple[Tensor, list[Tensor | None]]:
                with torch.enable_grad(), using(values):
                    return _with_gradients(means(run(), layout), values)

            losses_at = plain if self.compiled is None else partial(self.compiled, plain, batch, layout, names)
            shared: Callable[..., Tensor] = _SharedLosses.apply
            found: list[Tensor | None] = []
            values = shared(losses_at, found, *stacked).unbind()
            by_name = dict(zip(names, found, strict=True))
            return [
                Answer(value, request.params, {name: None if g is None else g[i] for name, g in by_name.items()})
                for i, (value, request) in enumerate(zip(values, requests, strict=True))
            ]
        # Not by the mode in force here: the objective has been left.
        with torch.set_grad_enabled(graph), using(stacked):
            out = run()
        if method == "losses":
            parts = means(out, layout).unbind()
        elif len(out) != layout.total:
            raise Unfoldable(f"{method} has {len(out)} rows, and the batch {layout.total}")
        else:
            parts = torch.split(out, list(sizes))
        return [Answer(part, None) for part in parts]

    def _answered(self, request: Request, draws: torch.Generator) -> Answer:
        if not request.graph:
            with torch.no_grad():
                return Answer(self.alone(request, draws), None)
        leaves = {name: p.detach().requires_grad_(p.requires_grad) for name, p in request.params.items()}
        wanted = [leaf for leaf in leaves.values() if leaf.requires_grad]
        with torch.enable_grad():
            value = self.alone(replace(request, params=leaves), draws)
            found = iter(torch.autograd.grad(value, wanted, allow_unused=True))
        gradients = {name: next(found) if leaf.requires_grad else None for name, leaf in leaves.items()}
        return Answer(value.detach(), None, gradients)

    def rows(self, method: str, models: dict[str, Tensor] | None, batches: Sequence[Batch]) -> list[Tensor]:
        """What a method of the task gives for each batch by its own model, in one pass that keeps no graph.

        Args:
            method: A method whose result has a row for each example.
            models: (batches, ...) by name, see :meth:`stacked`; None: the model that is loaded, for all batches.
            batches: On the device.

        Raises:
            Unmergeable: They cannot be one.
            Unfoldable: The network cannot take them.
        """
        batch, sizes = merged(batches)
        folding = nullcontext() if models is None else self.folding.using(models, RowLayout(sizes))
        with torch.inference_mode(), self.network.fabric.autocast(), folding:
            out = getattr(self.network.task, method)(batch)
        if not isinstance(out, Tensor) or len(out) != sum(sizes):
            raise Unfoldable(f"what {method} gives has no row for each example")
        return list(torch.split(out, list(sizes)))

    def stacked(self, models: Sequence[Any]) -> dict[str, Tensor]:
        """Models that leave no parameter out as one tree, (models, ...) by name, on the device."""
        names, device = self.network.parameters, self.network.fabric.device
        return {name: torch.stack([model[name].to(device) for model in models]) for name in names}

    def by_itself(self, request: Request, draws: torch.Generator) -> Any:
        """As :meth:`alone`; that a rule looks into the network is told."""
        if request.method == "outputs":
            self.tell(INSIDE)
        return self.alone(request, draws)

    def alone(self, request: Request, draws: torch.Generator) -> Any:
        """One client's request by itself, in a graph of its own."""
        loss = BatchLoss(self.network, {}, 1, request.step, request.batch)
        with global_draws(draws):
            if request.method == "losses":
                return loss(request.params)
            if request.method == "outputs":
                return loss.outputs(request.params, request.pattern)
            return getattr(loss, request.method)(request.params)


def means(losses: Tensor, layout: RowLayout) -> Tensor:
    """Mean of each client's losses, (clients,)."""
    if losses.shape != (layout.total,):
        raise Unfoldable(f"losses have the shape {list(losses.shape)}, and the batch {layout.total} examples")
    if len({*layout.sizes}) == 1:
        return losses.view(len(layout.sizes), -1).mean(dim=1)
    return torch.stack([part.mean() for part in torch.split(losses, list(layout.sizes))])


def _with_gradients(losses: Tensor, values: Sequence[Tensor]) -> tuple[Tensor, list[Tensor | None]]:
    wanted = [value for value in values if value.requires_grad]
    found = torch.autograd.grad(losses.sum(), wanted, allow_unused=True)
    if all(grad is None for grad in found):  # the loss of examples that leave nothing to learn
        found = tuple(torch.zeros_like(value) for value in wanted)
    grads = iter(found)
    return losses.detach(), [next(grads) if value.requires_grad else None for value in values]


class _SharedLosses(torch.autograd.Function):
    """Losses of several clients (clients,), whose gradients are taken at once and kept.

    So each client's objective may be differentiated by itself, as often as it likes, without another pass.
    """

    @staticmethod
    def forward(ctx: Any, losses_at: Pass, gradients: list[Tensor | None], *params: Tensor) -> Tensor:
        needed = ctx.needs_input_grad[2:]
        out, found = losses_at([p.detach().requires_grad_(need) for p, need in zip(params, needed, strict=True)])
        gradients += found
        ctx.grads = gradients
        return out

    @staticmethod
    def backward(ctx: Any, *given: Any) -> Any:
        (g,) = given
        return None, None, *(None if x is None else x * g.view(-1, *[1] * (x.ndim - 1)).to(x) for x in ctx.grads)


@contextmanager
def global_draws(generator: torch.Generator) -> Iterator[None]:
    """A context in which what draws from PyTorch's own generators draws from this one."""
    on_gpu = generator.device.type == "cuda"
    with torch.random.fork_rng([generator.device] if on_gpu else []):
        get: Callable[..., Tensor] = torch.cuda.get_rng_state if on_gpu else torch.get_rng_state
        put: Callable[..., None] = torch.cuda.set_rng_state if on_gpu else torch.set_rng_state
        where = (generator.device,) if on_gpu else ()
        put(generator.get_state(), *where)
        try:
            yield
        finally:
            generator.set_state(get(*where))
