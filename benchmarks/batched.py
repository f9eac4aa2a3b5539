"""Several clients in one pass: seconds a round against a bare PyTorch loop that trains one client after the other.

Run: python benchmarks/batched.py [--json FILE]
     python benchmarks/batched.py --cases forecasting --batches 2 --at-once 1 20
     python benchmarks/batched.py --device cuda --json docs/results/batched_cuda.json

Random weights in the shapes of pretrained networks, LoRA of rank 8, AdamW with a linear schedule, simulated examples.
First both must give the same global weights after one round of SGD, to 1e-5 of the largest weight, or nothing is timed
(not AdamW: parameters whose true gradient is zero, such as q and v of a decoder with one position, would follow the
rounding). Forecasting is compared in float64, since its loss has kinks; encoders compute in float32 whatever they are
given. Then the bare loop and fedlit, with each number of clients at once, take turns in one process on the same
batches; fedlit's round includes what it sends, admits, logs and commits to disk. A ratio is that of the median
seconds; low and high are the 10th and 90th percentile of the ratios of the turns.

The case ``ranks`` compares two ranks of one thread each with one process of two threads, each in processes of its own,
by turns. On a CPU the default run takes about 10 minutes on two cores. On a GPU (``--device cuda``; there are more
cases, 20 and 50 clients) the processor's part, such as reading and writing the trees, is in the figures too.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from batched_cases import Case, cases
from overhead import HandWritten, make_loop
from peers import Runner, machine
from peers_program import Program, torchrun
from peers_work import Work, save_backbone
from roofline import line, matmul_peak
from workload import report

TOLERANCE = 1e-5
AT_ONCE = (1, 2, 4, 8, 20, 50)
BARE = "bare PyTorch loop, one client after the other"
Loops = dict[str, Any]


def compare(case: Case, folder: Path, clients: int, batch: int, at_once: list[str], args: Any) -> float:
    """The largest difference of global weights after one round of SGD, by the largest weight.

    Raises:
        SystemExit: It is too large.
    """
    sgd = partial(torch.optim.SGD, lr=0.01)
    data = case.data(clients, batch)
    data.setup("fit")
    dtype = torch.float64 if case.forecasts else torch.float32
    if case.forecasts:
        data.signals = {client: signal.to(dtype) for client, signal in data.signals.items()}
    hand = HandWritten(data, args.steps, case.task(folder, data).to(dtype), sgd, args.device)
    begin = hand.weights
    hand.round(0)
    expected = [w.cpu() for w in hand.weights]
    largest = max(float(w.abs().max()) for w in expected)
    moved = max(float((w - b.cpu()).abs().max()) for w, b in zip(expected, begin, strict=True))
    worst = 0.0
    for k in (k for k in at_once if k.isdigit()):
        with tempfile.TemporaryDirectory() as scratch:
            task = case.task(folder, data, sgd).to(dtype)
            loop = make_loop(clients, args.steps, Path(scratch), task=task, data=data, **settings(k, args, "32-true"))
            try:
                loop._round(0)
            except torch.OutOfMemoryError:
                print(f"  {k} at once: the device's memory is too small to compare", flush=True)
                continue
            found: Any = loop.rule.global_model(loop.state)
        off = max(float((found[n] - w).abs().max()) for n, w in zip(hand.names, expected, strict=True))
        told = f"{off / largest:.1e} of the largest weight, {off / moved:.1e} of the largest change ({dtype})"
        print(f"  weights after one round of SGD, {k} at once, against the bare loop: {told}", flush=True)
        if not off <= TOLERANCE * largest:
            raise SystemExit(f"they differ by more than {TOLERANCE}: not the same work; nothing is timed")
        worst = max(worst, off / largest)
    return worst


def settings(k: str, args: Any, precision: str) -> dict[str, Any]:
    """Of the trainer."""
    return {
        "clients_at_once": int(k) if k.isdigit() else k, "num_threads": args.threads, "precision": precision,
        "accelerator": "cpu" if args.device == "cpu" else "gpu",
    }  # fmt: skip


def timed(loops: Loops, repeats: int, wait: Any) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Seconds of each turn's round, by loop, and why a loop has none; an untimed turn comes first."""
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    failed: dict[str, str] = {}
    names = list(loops)
    for turn in range(repeats + 1):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            if name in failed:
                continue
            wait()
            begin = time.perf_counter()
            try:
                loops[name](turn)
                wait()
            except torch.OutOfMemoryError:
                failed[name] = "the device's memory is too small"
                torch.cuda.empty_cache()
                continue
            if turn:
                seconds[name].append(time.perf_counter() - begin)
    return seconds, failed


def measure(
    name: str, case: Case, folder: Path, clients: int, batch: int, at_once: list[str], peak: float, args: Any
) -> list[dict[str, Any]]:
    """Rows of one case, number of clients and batch size."""
    told = f"{clients} clients, batch {batch}, {args.steps} steps, {case.shape}, LoRA r 8, {args.precision}"
    print(f"{name}: {told}, {args.repeats} turns", flush=True)
    off = compare(case, folder, clients, batch, at_once, args)
    data = case.data(clients, batch)
    hand = HandWritten(data, args.steps, case.task(folder, data), device=args.device, precision=args.precision)
    flops = hand.flops()
    with tempfile.TemporaryDirectory() as scratch:
        made = {
            k: make_loop(
                clients, args.steps, Path(scratch) / k, task=case.task(folder, data), data=data,
                **settings(k, args, args.precision),
            )
            for k in at_once
        }  # fmt: skip
        loops = {BARE: hand.round, **{k: loop._round for k, loop in made.items()}}
        seconds, failed = timed(loops, args.repeats, torch.cuda.synchronize if args.device != "cpu" else lambda: None)
        taken = {k: str(loop.settings.clients_at_once) for k, loop in made.items()}
    if BARE in failed:
        print(f"  {BARE}: {failed[BARE]}")
        return []
    print(f"  {BARE}: {median(seconds[BARE]):.3f} s; {line(flops, median(seconds[BARE]), peak)}", flush=True)
    rows = []
    for k in at_once:
        row: dict[str, Any] = {"case": name, "setting": f"{told}, {k} at once", "baseline": BARE}
        row |= {"clients": clients, "batch": batch, "clients_at_once": taken[k], "asked_clients_at_once": k}
        if k in failed:
            rows.append(row | {"ratio": None, "ratio_low": None, "ratio_high": None, "skipped": failed[k]})
            continue
        row |= ratios(seconds[k], seconds[BARE])
        rate = flops / row["seconds"]
        row |= {
            "flops_a_second": rate, "matmul_peak": peak, "share_of_peak": rate / peak, "weight_difference": off,
        }  # fmt: skip
        rows.append(row)
        print(f"  {k} at once ({taken[k]}): {row['ratio']:.3f}; {line(flops, row['seconds'], peak)}", flush=True)
    return rows


def ratios(ours: list[float], theirs: list[float]) -> dict[str, Any]:
    """Of seconds taken in the same turns."""
    each = np.array(ours) / np.array(theirs)
    return {
        "ratio": median(ours) / median(theirs),
        "ratio_low": float(np.quantile(each, 0.1)),
        "ratio_high": float(np.quantile(each, 0.9)),
        "seconds": median(ours),
        "baseline_seconds": median(theirs),
    }


def ranks(args: Any) -> list[dict[str, Any]]:
    """Rows of two ranks with a thread each against one process with two, on the forecasting case."""
    rows = []
    program = Program("fedlit", "peers_fedlit.py", launcher=torchrun)
    with tempfile.TemporaryDirectory(prefix="ranks-") as scratch:
        save_backbone(Path(scratch) / "backbone")
        runner = Runner(Path(scratch))
        for batch in args.batches or [2, 8, 32]:
            for pair in args.ranks_at_once:
                at_once = dict(zip((2, 1), pair.split(":"), strict=True))
                seconds: dict[int, list[float]] = {1: [], 2: []}
                for turn in range(args.rank_repeats):
                    for processes in (1, 2) if turn % 2 else (2, 1):
                        work = Work(
                            str(Path(scratch) / "backbone"), batch, 4, 2, 20, args.steps, processes,
                            clients_at_once=at_once[processes],
                        )  # fmt: skip
                        seconds[processes].append(runner(program, work)[0]["seconds"])
                told = f"20 clients, batch {batch}, {args.steps} steps, shape of amazon/chronos-bolt-tiny"
                ours = f"2 ranks of 1 thread, {at_once[2]} at once"
                row = {"case": "ranks", "setting": f"{told}, {args.rank_repeats} turns: {ours}"}
                row["baseline"] = f"1 process of 2 threads, {at_once[1]} at once"
                rows.append(row | ratios(seconds[2], seconds[1]))
                pair = f"{rows[-1]['seconds']:.2f} s against {rows[-1]['baseline_seconds']:.2f} s"
                print(f"{row['setting']}, {rows[-1]['baseline']}: {pair}, {rows[-1]['ratio']:.3f}", flush=True)
    return rows


def arguments() -> argparse.Namespace:
    """The command line; what was not asked for is limited, so that the run is short."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", help="write the rows to this file")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--cases", nargs="+", choices=(*cases(False), "ranks"))
    parser.add_argument("--clients", type=int, nargs="+", help="20; on a GPU also 50")
    parser.add_argument("--batches", type=int, nargs="+", help="2, 8, 32; of image and text 4; on a GPU 4, 16, 64")
    parser.add_argument("--at-once", nargs="+", help=f"of {AT_ONCE} and auto; 1, 4, 8, 20, of image and text 1, 8, 20")
    parser.add_argument(
        "--ranks-at-once", nargs="+", default=["1:1", "10:20"], metavar="K:K", help="of the ranks : of the process"
    )
    parser.add_argument("--repeats", type=int, default=5, help="turns that are timed")
    parser.add_argument("--rank-repeats", type=int, default=2, help="turns of the case ranks")
    parser.add_argument("--steps", type=int, default=5, help="of a client in a round")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", default="32-true", choices=("32-true", "bf16-mixed"))
    return parser.parse_args()


def main() -> None:
    """The command line."""
    args = arguments()
    on_gpu = args.device != "cpu"
    torch.set_num_threads(args.threads)
    known = cases(on_gpu)
    chosen = args.cases or [*known] if on_gpu else args.cases or ["forecasting", "image", "text", "ranks"]
    peak = matmul_peak(args.device, torch.bfloat16 if args.precision == "bf16-mixed" else torch.float32)
    rows: list[dict[str, Any]] = []
    for name in chosen:
        if name == "ranks":
            rows += ranks(args)
            continue
        case = known[name]
        batches = args.batches or ([4, 16, 64] if on_gpu else [2, 8, 32] if case.forecasts else [4])
        usual = (
            [*map(str, AT_ONCE), "auto"] if on_gpu else ["1", "4", "8", "20"] if case.forecasts else ["1", "8", "20"]
        )
        with tempfile.TemporaryDirectory() as folder:
            case.save(Path(folder) / "backbone")
            for clients in args.clients or ([20, 50] if on_gpu else [20]):
                at_once = [k for k in args.at_once or usual if not k.isdigit() or int(k) <= clients]
                for batch in batches:
                    rows += measure(name, case, Path(folder) / "backbone", clients, batch, at_once, peak, args)
                    gc.collect()
    on = torch.cuda.get_device_name() if on_gpu else f"{machine()}; {args.threads} threads"
    print()
    report(rows, args.json, machine=on, data="simulated", backbone="random weights in the shapes named")


if __name__ == "__main__":
    main()
