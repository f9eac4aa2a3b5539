"""How many clients to train at once, and whether to compile: tried on the clients of the first round, before it."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from fedlit.aggregators import Aggregator
from fedlit.engine.vectorized.compiled import CompiledPass
from fedlit.engine.vectorized.engine import Assignment, BatchedEngine
from fedlit.federation.loop import FederatedLoop
from fedlit.runs.folder import RunFolder

if TYPE_CHECKING:
    from fedlit.trainer import FederatedTrainer

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


def settle(trainer: FederatedTrainer, folder: RunFolder | None) -> None:
    """Put what is found by trial in the place of ``auto`` for ``clients_at_once`` and ``compile``, and say what.

    Args:
        trainer: Ready to train.
        folder: Of a run, whose settings are kept if it has begun; None: nothing is trained.
    """
    _settle_clients_at_once(trainer, folder)
    _settle_compile(trainer, folder)


def _settle_clients_at_once(trainer: FederatedTrainer, folder: RunFolder | None) -> None:
    if trainer.clients_at_once != "auto":
        _tell_of_idle_ranks(trainer, folder)
        return
    seconds: dict[int, float] = {}
    trainer.clients_at_once = 1
    if folder is None or trainer.fast_dev_run:
        return
    if folder.checkpoints.exists():
        made = folder.checkpoints.read().meta["fingerprint"]["trainer"]
        trainer.clients_at_once = made.get("clients_at_once", 1)
    elif trainer.fabric.is_global_zero:
        rule = trainer.aggregator
        loop = FederatedLoop(trainer, rule, folder, {})
        share = math.ceil(len(loop.sample(0)) / trainer.world_size) if loop.cohorts else 0
        work = loop.first_work(min(MOST, share), STEPS)  # more at once would leave ranks without work
        if work:
            trainer.clients_at_once, seconds = fastest(trainer.together, rule, work, trainer.datamodule.batch_size)
    trainer.clients_at_once = trainer.fabric.broadcast(trainer.clients_at_once)
    tried = ", ".join(f"{count}: {each * 1000:.3g} ms" for count, each in seconds.items())
    trial = f" (tried, {STEPS} steps of a client: {tried})" if tried else ""
    trainer.fabric.print(f"clients at once: {trainer.clients_at_once}{trial}")


def _tell_of_idle_ranks(trainer: FederatedTrainer, folder: RunFolder | None) -> None:
    ranks = trainer.world_size
    if ranks == 1 or folder is None:
        return
    loop = FederatedLoop(trainer, trainer.aggregator, folder, {})
    clients = len(loop.sample(0)) if loop.cohorts else 0
    groups = max(1, math.ceil(clients / trainer.clients_at_once))
    if groups < min(ranks, clients):
        trainer.fabric.print(
            f"clients at once: {trainer.clients_at_once} leaves {ranks - groups} of {ranks} ranks without work: "
            f"trainer.clients_at_once {math.ceil(clients / ranks)}, or trainer.devices {groups}"
        )


def _settle_compile(trainer: FederatedTrainer, folder: RunFolder | None) -> None:
    wanted, trainer.compile = trainer.compile, False
    if not wanted or folder is None or trainer.fast_dev_run:
        return
    said = ""
    if trainer.clients_at_once == 1:
        said = " (clients train one after the other)"
    elif folder.checkpoints.exists():
        made = folder.checkpoints.read().meta["fingerprint"]["trainer"]
        trainer.compile = bool(made.get("compile")) if wanted == "auto" else True
    elif wanted == "auto":
        if trainer.fabric.is_global_zero:
            trainer.compile, said = _pays(trainer, folder)
        trainer.compile = trainer.fabric.broadcast(trainer.compile)
    else:
        trainer.compile = True
    if trainer.compile and trainer.together.runs.compiled is None:
        trainer.together.runs.compiled = _compiled(trainer)
    trainer.fabric.print(f"compile: {'yes' if trainer.compile else 'no'}{said}")


def _compiled(trainer: FederatedTrainer) -> CompiledPass:
    sizes = [trainer.datamodule.batch_size] * trainer.clients_at_once
    where = f" by rank {trainer.global_rank}" if trainer.world_size > 1 else ""
    return CompiledPass(
        trainer.together.runs, sizes, lambda why: print(f"nothing is compiled{where}: {why}", flush=True)
    )


def _pays(trainer: FederatedTrainer, folder: RunFolder) -> tuple[bool, str]:
    """Whether the whole run takes less time compiled, warm-up included, and what was measured."""
    together, rule, batch_size = trainer.together, trainer.aggregator, trainer.datamodule.batch_size
    loop, at_once = FederatedLoop(trainer, rule, folder, {}), trainer.clients_at_once
    work = loop.first_work(at_once, STEPS)
    if len(work) < at_once or (why := together.why_not(rule, work[:2])) is not None:
        return False, f" ({'too few clients' if len(work) < at_once else why})"
    sampled = loop.sample(0)
    groups = math.ceil(len(sampled) // at_once / trainer.world_size)
    passes = trainer.max_rounds * groups * loop.steps(loop.cohorts[sampled[0]]) * trainer.accumulate_grad_batches

    def seconds() -> float:
        return _seconds(together, rule, work, batch_size) / STEPS / trainer.accumulate_grad_batches

    seconds()
    plain = min(seconds() for _ in range(REPEATS))
    if plain * passes * MOST_SAVED < LEAST_WARM_UP:
        return False, f" (a run of {plain * passes:.3g} s is too short for it)"
    together.runs.compiled = compiled = _compiled(trainer)
    try:
        warm_up = _seconds(together, rule, work, batch_size)
        fast = min(seconds() for _ in range(REPEATS))
    except torch.OutOfMemoryError:
        together.runs.compiled = None
        return False, " (compiled, it does not fit into memory)"
    tried = f" (tried: {plain * 1000:.3g} ms a pass, {fast * 1000:.3g} ms compiled, {warm_up:.3g} s to compile)"
    if compiled.used and warm_up + fast * passes < plain * passes:
        return True, tried
    together.runs.compiled = None
    return False, tried if compiled.used else f" ({compiled.why_not or 'no whole batch of each client'})"


def candidates(count: int) -> list[int]:
    """1, 2, 4, and so on, and ``count`` itself."""
    powers = [1 << i for i in range(count.bit_length()) if 1 << i < count]
    return [*powers, max(1, count)]


def fastest(
    together: BatchedEngine, rule: Aggregator, work: Sequence[Assignment], batch_size: int
) -> tuple[int, dict[int, float]]:
    """The number of clients at once that takes the least time for each client, of those that fit into memory.

    Args:
        together: Trains them.
        rule: Whose client half runs.
        work: What clients would do, :data:`STEPS` steps each.
        batch_size: Nominal examples in a batch.

    Returns:
        The number, and for each number that was tried the seconds for a client.
    """
    seconds: dict[int, float] = {}
    _seconds(together, rule, work[:1], batch_size)  # what is made once, and found out once, is not counted
    if together.why_not(rule, work[:2]) is not None:
        return 1, seconds
    for count in candidates(len(work)):
        try:
            seconds[count] = _seconds(together, rule, work[:count], batch_size) / count
        except torch.OutOfMemoryError:
            if count == 1:
                raise
            break
        if seconds[count] > LONGER * min(seconds.values()):
            break
    return min(seconds, key=lambda count: (seconds[count], count)), seconds


def _seconds(together: BatchedEngine, rule: Aggregator, work: Sequence[Assignment], batch_size: int) -> float:
    device = together.engine.fabric.device
    began = time.perf_counter()
    together.train(rule, work, batch_size)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began
