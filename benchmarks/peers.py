"""The same federated rounds in fedlit, in Flower's simulation and in Apple's pfl-research, from their public packages.

Run: python benchmarks/peers.py [--json FILE] [--environments FOLDER] [--batches 2 8 32] [--repeats 3]

20 clients, FedAvg, a network of Chronos-Bolt-tiny's shape (random weights), LoRA of rank 8 on q and v, AdamW with a
linear schedule, 5 local steps a round, float32, on the CPU. Each framework is installed in an environment of its own,
with fedlit beside it, so that all of them load the same network, adapter and batches; only the federated loop is
theirs. First all must give the same global weights after one round as a bare PyTorch loop, to 1e-5 of the largest
weight, or nothing is timed. That round is in float64: AdamW turns rounding of gradients that are zero into whole steps.

Each framework, fedlit too, runs with the better of two ways to use the threads, which two rounds of each tell: one
process with all of them, or a process for each (Flower: Ray actors; fedlit and pfl: torchrun). Then runs are timed by
turns, each in new processes. Seconds a round: the median over a run's rounds after its first. Start-up: from the start
of the process to the end of the first round, less the seconds of a round. Peak memory: proportional set size summed
over all processes of a run, looked at every 0.1 s in a run of its own that is not timed. A ratio is fedlit's figure by
the peer's in the same turn: the median, the least and the greatest.

About 15 minutes on two cores that do nothing else, after installation. Where other work is on the cores, several
threads in one process wait for each other most of the time: such figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from peers_environments import Unavailable, default_folder, environment, versions
from peers_program import Program, torchrun
from peers_table import show, table_rows
from peers_work import Work, save_backbone
from process_tree import run
from workload import header

HERE = Path(__file__).resolve().parent
TOLERANCE = 1e-5
EVERY = 0.1


class Runner:
    """Runs programs in a scratch folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0

    def __call__(
        self, program: Program, work: Work, more: tuple[str, ...] = (), every: float | None = None
    ) -> tuple[dict[str, Any], dict[str, np.ndarray[Any, Any]]]:
        """One run: its record, with ``seconds`` (median), ``startup`` and ``peak``, and the weights after round 1.

        Raises:
            Unavailable: It failed; with the end of its output.
        """
        self.count += 1
        out = self.folder / str(self.count)
        out.mkdir()
        work.write(out / "work.json")
        command = [str(program.python), *program.launcher(work.processes), str(HERE / program.script)]
        environ = {
            **os.environ, "OMP_NUM_THREADS": str(work.threads // work.processes), "HF_HUB_OFFLINE": "1",
            "CUDA_VISIBLE_DEVICES": "", "PFL_PYTORCH_DEVICE": "cpu", "FLWR_HOME": str(self.folder / "flwr"),
            "FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_TMPDIR": str(self.folder / "r"),
        }  # fmt: skip
        command += [str(out / "work.json"), str(out), *more]
        done = run(command, environ, out / "log.txt", every)
        if done.returncode or not (out / "record.json").is_file():
            tail = " / ".join(done.output.strip().splitlines()[-3:])
            raise Unavailable(f"its program ended with {done.returncode}: {tail[-600:]}")
        record = json.loads((out / "record.json").read_text())
        ends = record["ends"]
        if len(ends) > 1:
            record["seconds"] = median(np.diff(ends).tolist())
            record["startup"] = ends[0] - done.launched - record["seconds"]
        record["peak"] = done.peak
        with np.load(out / "weights.npz", allow_pickle=False) as file:
            return record, dict(file)


def difference(ours: dict[str, np.ndarray[Any, Any]], theirs: dict[str, np.ndarray[Any, Any]]) -> float:
    """The largest difference of two models' weights, by the largest weight."""
    if ours.keys() != theirs.keys():
        return float("inf")
    largest = max(float(np.abs(value).max()) for value in ours.values())
    return max(float(np.abs(value - theirs[name]).max()) for name, value in ours.items()) / largest


def check(programs: list[Program], runner: Runner, work: Work, batches: list[int]) -> dict[str, Any]:
    """Compare the weights after one round with those of the bare loop; its record tells of the machine, too.

    Raises:
        SystemExit: They differ.
    """
    one = replace(work, rounds=1, double=True)
    bare = Program("bare loop", "peers_fedlit.py")
    record, expected = runner(bare, one, ("--bare", "--flops", *map(str, batches)))
    differences = {}
    for program in programs:
        try:
            if program.skipped is None:
                weights = runner(program, replace(one, processes=program.variants[-1]))[1]
                differences[program.name] = difference(expected, weights)
        except Unavailable as error:
            program.skipped = str(error)
    told = ", ".join(f"{name} {value:.1e}" for name, value in differences.items())
    print(f"weights after one round against the bare loop, by the largest weight, float64: {told}", flush=True)
    if not all(value <= TOLERANCE for value in differences.values()):
        raise SystemExit(
            f"they differ by more than {TOLERANCE}: the programs do not do the same work; nothing is timed"
        )
    return {**record, "weight_differences": differences}


def trial(program: Program, runner: Runner, work: Work) -> None:
    """Two rounds of each way to run it, with an eye on memory: the faster way is taken."""
    found = {}
    for processes in program.variants:
        record, _ = runner(program, replace(work, rounds=2, processes=processes), every=EVERY)
        found[processes] = record
        told = f"{program.name}, batch {work.batch_size}, processes {processes}, watched: "
        print(f"{told}{record['seconds']:.2f} s a round, {record['peak'] / 2**20:.0f} MiB", flush=True)
    kept = ("seconds", "startup", "peak")
    program.tried[work.batch_size] = {n: {name: found[n][name] for name in kept} for n in found}
    best = min(found, key=lambda processes: float(found[processes]["seconds"]))
    program.chosen[work.batch_size], program.peak[work.batch_size] = best, found[best]["peak"]


def measure(programs: list[Program], runner: Runner, work: Work, repeats: int) -> None:
    """All figures of one batch size."""
    size = work.batch_size
    steps = [(trial, None), *[(None, turn) for turn in range(repeats)]]
    for trying, turn in steps:
        for program in programs:
            if program.skipped is not None:
                continue
            try:
                if trying:
                    trial(program, runner, work)
                    continue
                record, _ = runner(program, replace(work, processes=program.chosen[size]))
            except Unavailable as error:
                program.skipped = str(error)
                print(f"{program.name}: {error}", flush=True)
                continue
            program.seconds.setdefault(size, []).append(record["seconds"])
            program.startup.setdefault(size, []).append(record["startup"])
            told = f"{program.name}, batch {size}, turn {turn}: {record['seconds']:.2f} s a round"
            print(f"{told}, start-up {record['startup']:.1f} s", flush=True)


def machine() -> str:
    """The processor's name, and how many of them there are."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else 'unknown processor'}, {os.cpu_count()} processors"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--environments", type=Path, default=default_folder(), help="where to install the peers")
    parser.add_argument("--index", help="a further package index, as one with CPU builds of torch")
    parser.add_argument("--batches", type=int, nargs="+", default=[2, 8, 32])
    parser.add_argument("--repeats", type=int, default=3, help="turns of each batch size")
    parser.add_argument("--rounds", type=int, default=4, help="of a run, with the first, which is not timed")
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clients-at-once", nargs="+", help="for fedlit's trainer: one number, or one for each batch")
    parser.add_argument("--backbone", help="another backbone than the random one of Chronos-Bolt-tiny's shape")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the processes of a run are ended with this one
    if args.rounds < 2:
        parser.error("--rounds: at least 2, because the first is not timed")
    chosen = args.clients_at_once or [None]
    if len(chosen) not in (1, len(args.batches)):
        parser.error("--clients-at-once: one number, or one for each of --batches")
    at_once = dict(zip(args.batches, chosen if len(chosen) > 1 else chosen * len(args.batches), strict=True))
    ways = (1, args.threads) if args.threads > 1 else (1,)
    peers = [
        Program("Flower", "peers_flower.py", "flwr[simulation]", ("flwr", "ray", "torch"), variants=ways),
        Program("pfl-research", "peers_pfl.py", "pfl", ("pfl", "torch"), launcher=torchrun, variants=ways),
    ]
    installed = {}
    for peer in peers:
        try:
            peer.python = environment(peer.requirement or "", args.environments / peer.name.lower(), args.index)
            installed[peer.name] = versions(peer.python, peer.packages)
        except Unavailable as error:
            peer.skipped = str(error)
            print(f"{peer.name}: {error}", flush=True)
    programs = [Program("fedlit", "peers_fedlit.py", launcher=torchrun, variants=ways), *peers]
    with tempfile.TemporaryDirectory(prefix="peers-", ignore_cleanup_errors=True) as scratch:
        runner = Runner(Path(scratch))
        backbone = args.backbone or str(Path(scratch) / "backbone")
        if not args.backbone:
            save_backbone(Path(backbone))
        work = Work(
            backbone, args.batches[0], args.rounds, args.threads, args.clients, args.steps,
            clients_at_once=chosen[0],
        )  # fmt: skip
        facts = check(programs, runner, work, args.batches)
        if programs[0].skipped is not None:
            raise SystemExit(f"fedlit: {programs[0].skipped}")
        for size in args.batches:
            measure(programs, runner, replace(work, batch_size=size, clients_at_once=at_once[size]), args.repeats)
    shape = args.backbone or "random weights in the shape of amazon/chronos-bolt-tiny"
    rows = table_rows(programs, work, args.batches, facts, shape)
    show(programs, args.batches, rows, facts, work.clients * work.steps)
    if args.json:
        tried = {program.name: program.tried for program in programs}
        settings = {"machine": f"{machine()}; {args.threads} threads in all", "backbone": shape, "installed": installed}
        told = {
            "memory": f"proportional set size of all processes, every {EVERY} s",
            **settings,
            **facts,
            "clients_at_once": at_once,
            "tried": tried,
        }
        args.json.write_text(json.dumps({"header": {**header(), **told}, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
