"""From 20 to 10,000 clients: seconds a round, peak memory and start-up do not depend on how many there are.

Run: python benchmarks/scale.py [--json FILE]
     python benchmarks/scale.py --clients 100 10000 --rules SCAFFOLD --repeats 1

Each run is ``FederatedTrainer.fit`` in a process of its own: the built-in backbone with LoRA of rank 8, batch 4, one
local step, the same number of sampled clients a round (100, or all where there are fewer), run folder on disk. Sines
are simulated and drawn when a client is asked for them, so that what grows is fedlit's own. As many clients as are
sampled are evaluated, before the first and after the last round, and with the final model. With SCAFFOLD every client
has a memory from the start, as late in a long run.

Seconds a round are the median over a run's rounds after its first, from the end of one to the end of the next;
processor seconds leave out waiting. Start-up is from the call of ``fit`` to the start of the first round; what comes
after the last round (export, tables) is ``end``. Peak memory is the process's resident set. Figures are compared with
those of 100 clients in the same turn; seconds of fewer than 100 sampled clients are scaled to 100. A ratio is the
median over the turns, with the 10th and 90th percentile. About 8 minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np
import torch
from overhead import HandWritten
from peers import machine
from roofline import line, matmul_peak
from workload import SineData, SineWindows, report

from fedlit import codec, seeds, tree
from fedlit.aggregators import SCAFFOLD, Aggregator, Ditto, FedAvg
from fedlit.callbacks import Callback
from fedlit.engine.client_state import ClientStates
from fedlit.reports.summary import peak_memory
from fedlit.tasks import ForecastingTask
from fedlit.trainer import FederatedTrainer

RULES: dict[str, type[Aggregator]] = {"FedAvg": FedAvg, "SCAFFOLD": SCAFFOLD, "Ditto": Ditto}
BASE = 100
"""Clients of the runs that others are compared with."""
BATCH, WINDOWS, SCORED = 4, 160, 4
"""Windows in a batch, and of each client to train on and to be scored on."""
UNITS = {
    "seconds a round": "s", "processor seconds a round": "s", "start-up": "s", "end": "s", "peak memory": "MiB",
}  # fmt: skip


@dataclass(frozen=True)
class Job:
    """One run."""

    rule: str
    clients: int
    sampled: int
    rounds: int
    at_once: int
    threads: int


class DrawnSines(SineData):
    """Sines that are drawn when they are asked for: clients that are not sampled take no memory."""

    def setup(self, stage: str | None = None) -> None:
        self.clients = self.clients or [f"client-{i:05d}" for i in range(self.count)]

    def dataset(self, clients: str | Sequence[str], split: str) -> SineWindows:
        (name,) = [clients] if isinstance(clients, str) else clients
        i, length = int(name.removeprefix("client-")), WINDOWS + self.context + self.horizon
        noise = torch.randn(length, generator=seeds.generator(0, "sine", i))
        signal = torch.sin(6.2832 * torch.arange(length, dtype=torch.float32) / (20 + i % 50)) + 0.1 * noise
        return SineWindows(signal, WINDOWS if split == "train" else SCORED, self.context, self.horizon)


class Clock(Callback):
    """When rounds ended, by the clock and of the processor; and every client's first memory."""

    def __init__(self, rule: Aggregator, clients: Sequence[str]) -> None:
        self.rule, self.names = rule, clients
        self.first: float | None = None
        self.ends: list[tuple[float, float]] = []
        self.remembering = 0.0

    def on_run_start(self, trainer: Any, name: str, rounds: int, first_round: int) -> None:
        begin = time.perf_counter()
        initial: Any = tree.ordered(dict(trainer.session.engine.initial()))
        memory = tree.ordered(self.rule.init_memory(initial))
        if tree.leaves(memory):  # one file by many names: only their number is of interest here
            memories = trainer.folder.path / "memories"
            memories.mkdir(parents=True)
            first = memories / f"{self.names[0]}.safetensors"
            first.write_bytes(codec.encode(memory))
            for client in self.names[1:]:
                os.link(first, memories / f"{client}.safetensors")
            for client, state in ClientStates(trainer.folder.client_states).adopt(memories, 0).items():
                trainer.folder.states.take(client, state)
        self.remembering = time.perf_counter() - begin

    def on_round_start(self, trainer: Any, round: int, clients: Sequence[str]) -> None:  # noqa: A002
        self.first = self.first or time.perf_counter()

    def on_round_end(self, trainer: Any, round: int, values: dict[str, float]) -> None:  # noqa: A002
        self.ends.append((time.perf_counter(), time.process_time()))


def one(job: Job) -> dict[str, float]:
    """One run, in this process: its figures."""
    data, rule = DrawnSines(job.clients, WINDOWS, batch_size=BATCH), RULES[job.rule]()
    data.setup("fit")
    clock = Clock(rule, data.clients)
    with tempfile.TemporaryDirectory() as folder:
        trainer = FederatedTrainer(
            rule, max_rounds=job.rounds, clients_per_round=job.sampled, local_steps=1, clients_at_once=job.at_once,
            check_val_every_n_rounds=job.rounds, limit_eval_clients=job.sampled, callbacks=clock, accelerator="cpu",
            enable_progress_bar=False, default_root_dir=folder, num_threads=job.threads,
        )  # fmt: skip
        begin = time.perf_counter()
        trainer.fit(ForecastingTask(), data)
        over = time.perf_counter()
    wall, processor = np.diff(np.array(clock.ends[:-1]), axis=0).T  # the last round is followed by an evaluation
    assert clock.first is not None
    share = BASE / job.sampled if job.sampled < BASE else 1
    return {
        "seconds a round": float(np.median(wall)) * share,
        "processor seconds a round": float(np.median(processor)) * share,
        "start-up": clock.first - begin - clock.remembering,
        "end": over - clock.ends[-1][0],
        "peak memory": peak_memory(torch.device("cpu"))["host"] / 2**20,
    }


def started(job: Job) -> dict[str, float]:
    """The same in a process of its own."""
    command = [sys.executable, __file__, "--job", json.dumps(asdict(job))]
    environ = {**os.environ, "OMP_NUM_THREADS": str(job.threads)}
    done = subprocess.run(command, capture_output=True, text=True, env=environ, check=False)
    if done.returncode:
        raise SystemExit(f"{job}\n{done.stderr}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def rows_of(rule: str, found: dict[int, list[dict[str, float]]], told: str) -> list[dict[str, Any]]:
    """Rows of a rule: each number of clients against the base, by turns."""
    rows = []
    for case, unit in UNITS.items():
        if rule != "FedAvg" and case == "start-up":
            continue  # with every client's memory, written before the first round
        for clients, runs in found.items():
            ours, theirs = ([run[case] for run in some] for some in (runs, found[BASE]))
            ratios = np.array(ours) / np.array(theirs)
            rows.append({
                "case": f"{case}, {rule}", "setting": f"{clients} clients, {told}", "baseline": f"{BASE} clients",
                "ratio": float(np.median(ratios)), "ratio_low": float(np.quantile(ratios, 0.1)),
                "ratio_high": float(np.quantile(ratios, 0.9)), "clients": clients, "rule": rule, "figure": case,
                "unit": unit, "value": median(ours), "baseline_value": median(theirs),
            })  # fmt: skip
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """A table: a line for each rule and figure, a column for each number of clients."""
    numbers = sorted({row["clients"] for row in rows})
    print("\n" + " | ".join(["", *(f"{n} clients" for n in numbers)]))
    for name in dict.fromkeys(row["case"] for row in rows):
        cells = {row["clients"]: row for row in rows if row["case"] == name}
        shown = [f"{cells[n]['value']:.4g} {cells[n]['unit']} ({cells[n]['ratio']:.3f})" for n in numbers]
        print(" | ".join([name, *shown]))
    print()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", help="write the rows to this file")
    parser.add_argument("--clients", type=int, nargs="+", default=[20, 100, 1000, 10_000])
    parser.add_argument("--rules", nargs="+", default=["FedAvg", "SCAFFOLD"], choices=RULES)
    parser.add_argument("--sampled", type=int, default=100, help="clients a round, or all where there are fewer")
    parser.add_argument("--rounds", type=int, default=8, help="of a run; the first and the last are not timed")
    parser.add_argument("--repeats", type=int, default=3, help="turns")
    parser.add_argument("--at-once", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.job:
        print(json.dumps(one(Job(**json.loads(args.job)))))
        return
    if args.rounds < 3:
        parser.error("--rounds: at least 3, because the first and the last are not timed")
    numbers = sorted({BASE, *args.clients})
    rows: list[dict[str, Any]] = []
    for rule in args.rules:
        found: dict[int, list[dict[str, float]]] = {n: [] for n in numbers}
        for turn in range(args.repeats):
            for n in numbers if turn % 2 else reversed(numbers):
                job = Job(rule, n, min(n, args.sampled), args.rounds, args.at_once, args.threads)
                found[n].append(started(job))
                said = ", ".join(f"{case} {value:.4g}" for case, value in found[n][-1].items())
                print(f"turn {turn}, {rule}, {n} clients: {said}", flush=True)
        told = f"{args.sampled} sampled a round, {args.at_once} at once, batch {BATCH}, 1 step, {args.repeats} turns"
        rows += rows_of(rule, found, told)
    show(rows)
    torch.set_num_threads(args.threads)
    data = DrawnSines(1, WINDOWS, batch_size=BATCH)
    data.setup("fit")
    flops, peak = HandWritten(data, 1).flops(), matmul_peak()
    for row in rows:
        if row["figure"] == "seconds a round":
            rate = flops * BASE / row["value"]
            row |= {"flops_a_second": rate, "matmul_peak": peak, "share_of_peak": rate / peak}
            print(f"{row['case']}, {row['clients']} clients: {line(rate, 1.0, peak)}")
    about = {"memory": "peak resident set of the process", "machine": f"{machine()}; {args.threads} threads"}
    report(rows, args.json, **about)


if __name__ == "__main__":
    main()
