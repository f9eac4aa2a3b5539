"""The workload of ``benchmarks/peers.py`` in fedlit, or with ``--bare`` in a bare PyTorch loop; run by that script."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedlit.cli.start_up import without_collection

with without_collection():  # as the command does
    import torch
    from overhead import HandWritten, make_loop
    from peers_work import Record, Work, arguments
    from roofline import count_flops, matmul_peak


def fedlit(work: Work, record: Record, folder: Path) -> dict[str, Any]:
    """Rounds of the federated loop, with all that it sends, admits, logs and commits."""
    each = work.threads // work.processes
    settings: dict[str, Any] = {"num_threads": each}
    if work.processes > 1:
        settings.update(devices=work.processes, strategy="ddp")
    if work.clients_at_once is not None:
        k = work.clients_at_once
        settings["clients_at_once"] = int(k) if k.isdigit() else k
    torch.set_num_threads(each)
    loop = make_loop(work.clients, work.steps, folder, work.batch_size, work.task(), **settings)
    data: Any = loop.session.server_data
    data.signals = work.data().signals
    for index in range(work.rounds):
        loop._round(index)
        record.ended(loop.rule.global_model(loop.state))
    return {"clients_at_once": str(loop.settings.clients_at_once)}


def bare(work: Work, record: Record, given: Namespace) -> dict[str, Any]:
    """Rounds of the hand-written loop; and what a local step computes, and what the machine could."""
    torch.set_num_threads(work.threads)
    data = work.data()
    loop = HandWritten(data, work.steps, work.task())
    for index in range(work.rounds):
        loop.round(index)
        record.ended(dict(zip(loop.names, loop.weights, strict=True)))
    flops = {}
    for size in given.flops:
        batch = next(replace(work, batch_size=size).batches(data, data.clients[0], 0))
        flops[size] = count_flops(lambda batch=batch: loop.task.losses(batch).mean().backward())
    return {"flops of a local step": flops, "matmul peak": matmul_peak("cpu", torch.float32)}


def main() -> None:
    """The command line."""
    work, out, given = arguments()
    record = Record(out)
    record.close(**(bare(work, record, given) if given.bare else fedlit(work, record, out / "run")))


if __name__ == "__main__":
    main()
