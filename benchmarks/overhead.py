"""What the framework costs: a round against a hand-written PyTorch loop, clients one after the other in both.

Run: python benchmarks/overhead.py [--json FILE]

The two loops take the same optimizer steps on the same batches in one process, by turns; the round of fedlit
includes what it sends, admits, logs and commits to disk. Processor seconds leave out waiting, for the disk or for
other work of the machine. The ratio is the median over the pairs of rounds, with the 10th and 90th percentile.
``batched.py`` compares the same loop with several clients at once, ``scale.py`` looks at many clients.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peers_work import save_backbone
from roofline import count_flops, line, matmul_peak
from torch.utils.data import DataLoader
from workload import SineData, report

from fedlit import seeds
from fedlit.aggregators import FedAvg
from fedlit.backbones import LoRA
from fedlit.data import FederatedDataModule
from fedlit.engine.batches import training_batches
from fedlit.federation.loop import FederatedLoop
from fedlit.runs.folder import RunFolder
from fedlit.tasks import ForecastingTask
from fedlit.trainer import FederatedTrainer


def make_loop(
    clients: int,
    steps: int,
    folder: Path,
    batch_size: int = 32,
    task: Any = None,
    data: FederatedDataModule | None = None,
    **settings: Any,
) -> FederatedLoop:
    """A loop that is ready for its first round, without evaluation; ``settings`` are further trainer arguments."""
    usual: dict[str, Any] = {"accelerator": "cpu", "enable_progress_bar": False, "evaluate_at": ["after_aggregation"]}
    trainer = FederatedTrainer(
        FedAvg(), max_rounds=10**6, local_steps=steps, check_val_every_n_rounds=10**6, **usual | settings
    )
    trainer.fabric.launch()
    trainer.folder = RunFolder(folder)
    data = data or SineData(clients, batch_size=batch_size)
    loop = FederatedLoop(trainer._session(task or ForecastingTask(), data, trains=True))
    loop.folder.make()
    loop._start()
    return loop


class HandWritten:
    """FedAvg over LoRA parameters as one would write it without a framework.

    Args:
        data: The clients; as many batches of each are taken as there are steps.
        steps: Of each client in a round.
        task: Has its network, or gets it here.
        optimizer: Of the parameters that train; None: AdamW. Its learning rate falls linearly to 0.
        device: Where the task is moved to.
        precision: ``32-true`` or ``bf16-mixed``.
    """

    def __init__(
        self,
        data: Any,
        steps: int,
        task: Any = None,
        optimizer: Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer] | None = None,
        device: torch.device | str = "cpu",
        precision: str = "32-true",
    ) -> None:
        self.task = task or ForecastingTask()
        self.task.configure_model()
        self.task.to(device)
        self.data, self.steps = data, steps
        self.names = [n for n, p in self.task.named_parameters() if p.requires_grad]
        self.live = [p for p in self.task.parameters() if p.requires_grad]
        self.weights = [p.detach().clone() for p in self.live]
        self.optimizer = optimizer or partial(torch.optim.AdamW, lr=self.task.learning_rate, weight_decay=0.0)
        self.device, self.mixed = torch.device(device), precision == "bf16-mixed"

    def round(self, index: int) -> None:
        """One round of all clients."""
        total = [torch.zeros_like(w, dtype=torch.float64) for w in self.weights]
        share = 1 / len(self.data.clients)
        self.task.train()
        for client in self.data.clients:
            dataset = self.data.dataset(client, "train")
            order = seeds.generator(0, "batches", index, client)
            batches = training_batches(len(dataset), self.data.batch_size, self.steps, order)
            with torch.no_grad():
                for p, w in zip(self.live, self.weights, strict=True):
                    p.copy_(w)
            optimizer = self.optimizer(self.live)
            schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: max(0.0, 1 - s / self.steps))
            for batch in DataLoader(dataset, batch_sampler=batches, collate_fn=self.data.collate):
                loss = self.loss(batch)
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
                schedule.step()
            with torch.no_grad():  # multiplied, then added, as the server does: a fused add differs in the last bit
                total = [t + share * (p - w).double() for t, p, w in zip(total, self.live, self.weights, strict=True)]
        self.weights = [w + t.to(w.dtype) for w, t in zip(self.weights, total, strict=True)]

    def flops(self) -> int:
        """Floating-point operations of a round, by those of one batch."""
        dataset: Any = self.data.dataset(self.data.clients[0], "train")
        batch = self.data.collate(dataset.__getitems__([*range(self.data.batch_size)]))
        return count_flops(lambda: torch.autograd.backward(self.loss(batch))) * len(self.data.clients) * self.steps

    def loss(self, batch: dict[str, Any]) -> torch.Tensor:
        """The mean over a batch."""
        batch = {k: v.to(self.device) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed):
            mean: torch.Tensor = self.task.losses(batch).mean()
        return mean


def overhead(clients: int, steps: int, repeats: int) -> list[dict[str, Any]]:
    """Seconds a round, fedlit against the hand-written loop, by the clock and of the processor."""
    with tempfile.TemporaryDirectory() as folder:
        backbone = Path(folder) / "backbone"
        save_backbone(backbone)
        ours, theirs = (ForecastingTask(str(backbone), LoRA(target_modules=["q", "v"]), seed=0) for _ in range(2))
        loop = make_loop(clients, steps, Path(folder) / "run", task=ours)
        hand = HandWritten(loop.session.server_data, steps, theirs)
        clocks = {"seconds a round": time.perf_counter, "processor seconds a round": time.process_time}
        ratios: dict[str, list[float]] = {case: [] for case in clocks}
        spent: list[float] = []
        for index in range(repeats + 1):
            seconds = []
            for work in (loop._round, hand.round) if index % 2 else (hand.round, loop._round):
                began = {case: clock() for case, clock in clocks.items()}
                work(index)
                seconds.append({case: clock() - began[case] for case, clock in clocks.items()})
            mine, bare = seconds if index % 2 else seconds[::-1]
            for case in clocks:
                if index:  # the first pair warms up
                    ratios[case].append(mine[case] / bare[case])
            if index:
                spent.append(mine["seconds a round"])
        ours_weights: Any = loop.rule.global_model(loop.state)
        worst = max(
            float((ours_weights[n] - w).abs().max() / w.abs().max().clamp_min(1e-12))
            for n, w in zip(hand.names, hand.weights, strict=True)
        )
    shape = "Chronos-Bolt-tiny's shape, LoRA r 8 on q and v"
    setting = f"{clients} clients, {steps} steps, batch 32, {shape}, {repeats} pairs of rounds"
    return [
        {
            "case": case,
            "setting": setting,
            "baseline": "hand-written PyTorch loop",
            "ratio": float(np.median(values)),
            "ratio_low": float(np.quantile(values, 0.1)),
            "ratio_high": float(np.quantile(values, 0.9)),
            "largest_relative_weight_difference": worst,
            "flops_a_second": hand.flops() / float(np.median(spent)),
        }
        for case, values in ratios.items()
    ]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", help="write the rows to this file")
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    rows = overhead(args.clients, args.steps, args.repeats)
    report(rows, args.json, backbone="random weights in the shape of Chronos-Bolt-tiny")
    print(line(rows[0]["flops_a_second"], 1.0, matmul_peak()))
    print(f"largest relative difference of global weights: {rows[0]['largest_relative_weight_difference']:.2g}")


if __name__ == "__main__":
    main()
