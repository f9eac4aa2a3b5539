"""Whether a network can take several clients in one pass, found out by doing it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from fedlit.engine.batches import Unmergeable, batch_length, merged, split_batch
from fedlit.engine.vectorized.passes import JointRuns
from fedlit.engine.vectorized.requests import Request

SPREAD = 0.02
"""Deviation of what is added to parameters."""
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-2, torch.bfloat16: 0.2, torch.float16: 0.2}
"""Relative; a network that cannot be folded is wrong by far more."""
OTHER_DRAWS = "the network draws random numbers other than dropout's"


def why_not_folded(runs: JointRuns, batches: Sequence[Any]) -> str | None:
    """Fold clients' batches at parameters that differ between them, and compare with each alone.

    Losses and gradients must be the same, for batches of one size and of two. The network's own parameters are no
    numbers meanwhile, so that what reads them in the place of the clients' shows. Nothing of it hangs on which clients
    come first but the batches that it is tried on.

    Args:
        runs: Of the network; its ``draws_needed`` is set.
        batches: Of two clients.

    Returns:
        Why the network cannot be folded, or None.
    """
    engine = runs.engine
    first, second = batches[0], batches[-1]
    try:
        merged([first, second])
    except Unmergeable:  # these two; others may fit
        second = first
    pairs = [(first, second)]
    if batch_length(second, 0) > 1:
        pairs.append((first, split_batch(second, 2)[0]))
    runs.draws_needed = _draws(runs, _request(runs, first, 0))
    for pair in pairs:
        requests = [_request(runs, batch, i) for i, batch in enumerate(pair)]
        if runs.draws_needed:
            engine.task.eval()  # what is dropped hangs on how far a batch is filled up
        try:
            why = _compare(runs, requests)
        finally:
            engine.task.train()
        if why is None and runs.draws_needed:
            why = _dropping(runs, requests)
        if why is not None:
            return why
    return None


def _request(runs: JointRuns, batch: Any, client: int) -> Request:
    noise = torch.Generator().manual_seed(client)
    params = {
        name: (value + SPREAD * torch.randn(value.shape, generator=noise).to(value)).requires_grad_()
        for name, value in runs.engine.start_values.items()
    }
    return Request("losses", params, batch, graph=True)


def _streams(runs: JointRuns, count: int) -> list[torch.Generator]:
    return [torch.Generator(runs.engine.fabric.device).manual_seed(i) for i in range(count)]


def _draws(runs: JointRuns, request: Request) -> bool:
    (generator,) = _streams(runs, 1)
    before = generator.get_state()
    with torch.no_grad():
        runs.alone(request, generator)
    return not torch.equal(before, generator.get_state())


@contextmanager
def _nobody(runs: JointRuns) -> Iterator[None]:
    """Within, the network's own parameters are NaN."""
    with torch.no_grad():
        for parameter in runs.engine.parameters.values():
            parameter.fill_(math.nan)
    try:
        yield
    finally:
        runs.engine.load({})


def _compare(runs: JointRuns, requests: Sequence[Request]) -> str | None:
    names, leaves = list(requests[0].params), [list(request.params.values()) for request in requests]
    alone = []
    for request, own, stream in zip(requests, leaves, _streams(runs, len(requests)), strict=True):
        value = runs.alone(request, stream)
        alone.append((value, torch.autograd.grad(value, own, materialize_grads=True)))
    try:
        with _nobody(runs):
            folded = [answer.value for answer in runs.folded(requests, _streams(runs, len(requests)))]
    except Exception as error:  # noqa: BLE001 - alone it went well, so whatever it is, it is of folding
        return _reason(error)
    half = "16" in str(runs.engine.fabric._precision.precision)
    allowed = TOLERANCE[torch.bfloat16 if half else leaves[0][0].dtype]
    for (value, grads), got, own in zip(alone, folded, leaves, strict=True):
        found = torch.autograd.grad(got, own, materialize_grads=True)
        whole = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(y) for y in grads]))
        for name, x, y in zip(["the loss", *names], (got, *found), (value, *grads), strict=True):
            # Some gradients are nothing but rounding, as those of a key's bias.
            if not torch.linalg.vector_norm(x - y) <= allowed * max(torch.linalg.vector_norm(y), whole / 1000):
                return f"{name} of a client hangs on who is beside it"
    return None


def _dropping(runs: JointRuns, requests: Sequence[Request]) -> str | None:
    """Whether all that is drawn while training is drawn from the clients' streams."""
    device = runs.engine.fabric.device
    gpu = device.type == "cuda"
    states = [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if gpu else [])]
    try:
        runs.folded(requests, _streams(runs, len(requests)))
    except Exception as error:  # noqa: BLE001 - as above
        return _reason(error)
    after = [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if gpu else [])]
    return None if all(torch.equal(a, b) for a, b in zip(states, after, strict=True)) else OTHER_DRAWS


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
