"""Whether a network can take several clients in one pass, found out by doing it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from fedlit.engine.batches import Batch, Unmergeable, batch_length, merged, split_batch
from fedlit.engine.vectorized.passes import SharedPasses
from fedlit.engine.vectorized.requests import Request

SPREAD = 0.02
"""Standard deviation of what is added to parameters."""
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-2, torch.bfloat16: 0.2, torch.float16: 0.2}
"""Relative; a network that cannot be folded is wrong by far more."""
OTHER_DRAWS = "the network draws random numbers other than dropout's"


class FoldingCheck:
    """Tries once whether a network can be folded, and remembers the result in the passes.

    Args:
        passes: Of the network.

    Attributes:
        done: Whether it was tried.
    """

    def __init__(self, passes: SharedPasses) -> None:
        self.passes, self.done = passes, False

    def why_not(self, batches: Sequence[Batch]) -> str | None:
        """Why the network cannot be folded, or None where it can.

        Args:
            batches: Of two clients, to try with.
        """
        passes, network = self.passes, self.passes.network
        if not self.done:
            network.load({})
            network.task.train()
            moved = [network.fabric.to_device(batch) for batch in batches[:2]]
            compiled, passes.compiled = passes.compiled, None
            try:
                passes.why_not = why_not_folded(passes, moved)
            finally:
                passes.compiled = compiled
            self.done = True
        return passes.why_not


def why_not_folded(passes: SharedPasses, batches: Sequence[Batch]) -> str | None:
    """Fold clients' batches at parameters that differ between them, and compare with each alone.

    Losses and gradients must be the same, for batches of one size and of two. Meanwhile the network's own parameters
    are set to NaN, so that a module that reads them instead of the clients' is found out. Which clients come first
    matters only through the batches that it is tried on.

    Args:
        passes: Of the network; their ``draws_needed`` is set.
        batches: Of two clients.

    Returns:
        Why the network cannot be folded, or None.
    """
    task = passes.network.task
    first, second = batches[0], batches[-1]
    try:
        merged([first, second])
    except Unmergeable:  # these two; others may fit
        second = first
    pairs = [(first, second)]
    if batch_length(second, 0) > 1:
        pairs.append((first, split_batch(second, 2)[0]))
    passes.draws_needed = _draws(passes, _request(passes, first, 0))
    for pair in pairs:
        requests = [_request(passes, batch, i) for i, batch in enumerate(pair)]
        if passes.draws_needed:
            task.eval()  # what is dropped depends on how far a batch is padded
        try:
            why = _compare(passes, requests)
        finally:
            task.train()
        if why is None and passes.draws_needed:
            why = _dropping(passes, requests)
        if why is not None:
            return why
    return None


def _request(passes: SharedPasses, batch: Batch, client: int) -> Request:
    noise = torch.Generator().manual_seed(client)
    params = {
        name: (value + SPREAD * torch.randn(value.shape, generator=noise).to(value)).requires_grad_()
        for name, value in passes.network.start_values.items()
    }
    return Request("losses", params, batch, graph=True)


def _generators(passes: SharedPasses, count: int) -> list[torch.Generator]:
    return [torch.Generator(passes.network.fabric.device).manual_seed(i) for i in range(count)]


def _draws(passes: SharedPasses, request: Request) -> bool:
    (generator,) = _generators(passes, 1)
    before = generator.get_state()
    with torch.no_grad():
        passes.alone(request, generator)
    return not torch.equal(before, generator.get_state())


@contextmanager
def _own_parameters_nan(passes: SharedPasses) -> Iterator[None]:
    with torch.no_grad():
        for parameter in passes.network.parameters.values():
            parameter.fill_(math.nan)
    try:
        yield
    finally:
        passes.network.load({})


def _compare(passes: SharedPasses, requests: Sequence[Request]) -> str | None:
    names, leaves = list(requests[0].params), [list(request.params.values()) for request in requests]
    alone = []
    for request, own, draws in zip(requests, leaves, _generators(passes, len(requests)), strict=True):
        value = passes.alone(request, draws)
        alone.append((value, torch.autograd.grad(value, own, materialize_grads=True)))
    try:
        with _own_parameters_nan(passes):
            folded = [answer.value for answer in passes.folded(requests, _generators(passes, len(requests)))]
    except Exception as error:  # noqa: BLE001 - alone it went well, so whatever it is, it is of folding
        return _reason(error)
    half = "16" in str(passes.network.fabric._precision.precision)
    allowed = TOLERANCE[torch.bfloat16 if half else leaves[0][0].dtype]
    for (value, grads), got, own in zip(alone, folded, leaves, strict=True):
        found = torch.autograd.grad(got, own, materialize_grads=True)
        whole = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(y) for y in grads]))
        for name, x, y in zip(["the loss", *names], (got, *found), (value, *grads), strict=True):
            # Some gradients are nothing but rounding, as those of a key's bias.
            if not torch.linalg.vector_norm(x - y) <= allowed * max(torch.linalg.vector_norm(y), whole / 1000):
                return f"{name} of a client hangs on who is beside it"
    return None


def _dropping(passes: SharedPasses, requests: Sequence[Request]) -> str | None:
    """Whether all that is drawn while training is drawn from the clients' generators."""
    device = passes.network.fabric.device
    gpu = device.type == "cuda"
    states = [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if gpu else [])]
    try:
        passes.folded(requests, _generators(passes, len(requests)))
    except Exception as error:  # noqa: BLE001 - as above
        return _reason(error)
    after = [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if gpu else [])]
    return None if all(torch.equal(a, b) for a, b in zip(states, after, strict=True)) else OTHER_DRAWS


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
