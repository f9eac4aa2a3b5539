"""How many clients to train at once, and whether to compile: tried on the clients of the first round, before it."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import torch

from fedlit.aggregators import Aggregator
from fedlit.engine.engine import Assignment, Engine
from fedlit.engine.vectorized.compiled import CompiledPass
from fedlit.engine.vectorized.engine import VectorizedEngine
from fedlit.federation.loop import FederatedLoop
from fedlit.federation.session import Session
from fedlit.runs.settings import RunSettings

STEPS = 2
"""Of each client in a trial."""
MOST = 64
"""Clients at once that are tried."""
REPEATS = 3
"""Of a trial of compiling; the least counts."""
LONGER = 1.1
"""A number of clients that takes so many times the least is the last one tried."""
LEAST_WARM_UP = 20.0
"""Seconds: a run that compiling cannot save so much is not tried compiled."""
MOST_SAVED = 0.4
"""Share of the time of a pass that compiling may save."""


def settle(session: Session, trains: bool) -> RunSettings:
    """The settings, with what is found by trial in the place of ``auto`` for ``clients_at_once`` and ``compile``.

    What was found is said. A run that has begun keeps what it began with.

    Args:
        session: Ready to train.
        trains: Whether anything is trained; otherwise nothing is tried.
    """
    settings = session.settings
    if not trains or settings.fast_dev_run:
        return settings.tuned(settings.at_once, False)
    settings = settings.tuned(_clients_at_once(session), settings.compile)
    return settings.tuned(settings.at_once, _compile(replace(session, settings=settings)))


def _begun(session: Session) -> dict[str, Any] | None:
    """Settings of a run that has begun, or None."""
    checkpoints = session.folder.checkpoints
    return checkpoints.read().meta["fingerprint"]["trainer"] if checkpoints.exists() else None


def _clients_at_once(session: Session) -> int:
    settings, fabric = session.settings, session.fabric
    if settings.clients_at_once != "auto":
        _tell_of_idle_ranks(session, settings.clients_at_once)
        return settings.clients_at_once
    count, seconds, begun = 1, dict[int, float](), _begun(session)
    if begun is not None:
        count = begun.get("clients_at_once", 1)
    elif fabric.is_global_zero:
        share = math.ceil(len(_first(session)) / fabric.world_size)
        work = _work(session, min(MOST, share))  # more at once would leave ranks without work
        if work:
            count, seconds = fastest(session.engine, session.aggregator, work, session.roster.batch_size)
    count = fabric.broadcast(count)
    tried = ", ".join(f"{count}: {each * 1000:.3g} ms" for count, each in seconds.items())
    fabric.print(f"clients at once: {count}" + (f" (tried, {STEPS} steps of a client: {tried})" if tried else ""))
    return count


def _first(session: Session) -> list[str]:
    """Who trains in the first round."""
    plan = session.plan(session.aggregator)
    return plan.sample(0) if plan.cohorts else []


def _work(session: Session, limit: int) -> list[Assignment]:
    """What the first clients of the first round would do; nothing where their data are elsewhere."""
    local, loop = session.transport.local, FederatedLoop(session)
    return [] if local is None else [local.assignment(job) for job in loop.jobs.trial(loop.state, limit, STEPS)]


def _tell_of_idle_ranks(session: Session, at_once: int) -> None:
    ranks, plan = session.fabric.world_size, session.plan(session.aggregator)
    idle, clients = plan.idle(ranks), len(_first(session))
    if not idle:
        return
    mend = f"trainer.devices {ranks - idle}"
    if ranks - idle < min(ranks, clients):
        mend = f"trainer.clients_at_once {math.ceil(clients / ranks)}, or {mend}"
        session.fabric.print(f"clients at once: {at_once} leaves {idle} of {ranks} ranks without work: {mend}")
    else:
        rule = type(session.aggregator).__name__
        session.fabric.print(
            f"{rule} trains {ranks - idle} at a time, which leaves {idle} of {ranks} ranks without work: {mend}"
        )


def _compile(session: Session) -> bool:
    settings, fabric = session.settings, session.fabric
    if not settings.compile:
        return False
    compiles, said = settings.compile is True, ""
    if settings.clients_at_once == 1:
        compiles, said = False, " (clients train one after the other)"
    elif settings.compile == "auto" and (begun := _begun(session)) is not None:
        compiles = bool(begun.get("compile"))
    elif settings.compile == "auto":
        if fabric.is_global_zero:
            compiles, said = _pays(session)
        compiles = fabric.broadcast(compiles)
    engine = cast(VectorizedEngine, session.engine)
    if compiles and engine.passes.compiled is None:
        engine.passes.compiled = _compiled(session)
    fabric.print(f"compile: {'yes' if compiles else 'no'}{said}")
    return compiles


def _compiled(session: Session) -> CompiledPass:
    settings, fabric = session.settings, session.fabric
    sizes = [session.roster.batch_size] * settings.at_once
    where = f" by rank {fabric.global_rank}" if fabric.world_size > 1 else ""
    engine = cast(VectorizedEngine, session.engine)
    return CompiledPass(engine.passes, sizes, lambda why: print(f"nothing is compiled{where}: {why}", flush=True))


def _pays(session: Session) -> tuple[bool, str]:
    """Whether the whole run takes less time compiled, warm-up included, and what was measured."""
    engine, rule, batch_size = cast(VectorizedEngine, session.engine), session.aggregator, session.roster.batch_size
    settings, at_once, plan = session.settings, session.settings.at_once, session.plan(rule)
    work = _work(session, at_once)
    if len(work) < at_once or (why := engine.why_not(rule, work[:2])) is not None:
        return False, f" ({'too few clients' if len(work) < at_once else why})"
    sampled = plan.sample(0)
    groups = math.ceil(len(sampled) // at_once / session.fabric.world_size)
    passes = settings.max_rounds * groups * plan.steps(sampled[0]) * settings.accumulate_grad_batches

    def seconds() -> float:
        return _seconds(engine, rule, work, batch_size) / STEPS / settings.accumulate_grad_batches

    seconds()
    plain = min(seconds() for _ in range(REPEATS))
    if plain * passes * MOST_SAVED < LEAST_WARM_UP:
        return False, f" (a run of {plain * passes:.3g} s is too short for it)"
    engine.passes.compiled = compiled = _compiled(session)
    try:
        warm_up = _seconds(engine, rule, work, batch_size)
        fast = min(seconds() for _ in range(REPEATS))
    except torch.OutOfMemoryError:
        engine.passes.compiled = None
        return False, " (compiled, it does not fit into memory)"
    tried = f" (tried: {plain * 1000:.3g} ms a pass, {fast * 1000:.3g} ms compiled, {warm_up:.3g} s to compile)"
    if compiled.used and warm_up + fast * passes < plain * passes:
        return True, tried
    engine.passes.compiled = None
    return False, tried if compiled.used else f" ({compiled.why_not or 'no whole batch of each client'})"


def candidates(count: int) -> list[int]:
    """1, 2, 4, and so on, and ``count`` itself."""
    powers = [1 << i for i in range(count.bit_length()) if 1 << i < count]
    return [*powers, max(1, count)]


def fastest(
    engine: Engine, rule: Aggregator, work: Sequence[Assignment], batch_size: int
) -> tuple[int, dict[int, float]]:
    """The number of clients at once that takes the least time for each client, of those that fit into memory.

    Args:
        engine: Trains them.
        rule: Whose client half runs.
        work: What clients would do, :data:`STEPS` steps each.
        batch_size: Nominal examples in a batch.

    Returns:
        The number, and for each number that was tried the seconds for a client.
    """
    seconds: dict[int, float] = {}
    _seconds(engine, rule, work[:1], batch_size)  # what is made once, and found out once, is not counted
    if engine.why_not(rule, work[:2]) is not None:
        return 1, seconds
    for count in candidates(len(work)):
        try:
            seconds[count] = _seconds(engine, rule, work[:count], batch_size) / count
        except torch.OutOfMemoryError:
            if count == 1:
                raise
            break
        if seconds[count] > LONGER * min(seconds.values()):
            break
    return min(seconds, key=lambda count: (seconds[count], count)), seconds


def _seconds(engine: Engine, rule: Aggregator, work: Sequence[Assignment], batch_size: int) -> float:
    device = engine.fabric.device
    began = time.perf_counter()
    engine.train(rule, work, batch_size)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began
