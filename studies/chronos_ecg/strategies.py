"""The three strategies of arXiv:2502.09744 on small real data, with the built-in backbone.

Run: python -m studies.chronos_ecg.strategies run --data ../shared/data --out RUNS [--strategy N] [--seeds 0 1 2]
     python -m studies.chronos_ecg.strategies run --data ../shared/data --out RUNS --strategy 2 --steps 30
     python -m studies.chronos_ecg.strategies page --out RUNS

Strategy 1: 20 clients by patient. Strategy 2: clients by hospital system. Strategy 3: 19 ECG clients and one ICG
client. Zero-shot, local, FedAvg, FedProx and Fed-LA take the same local steps on the same windows. All weights are
trained, as in the paper. Every run leaves an ordinary run folder, ``RUNS/steps-<n>/strategy<n>-seed<n>``, and one that
is finished is not run again. ``page`` makes docs/results/2502.09744.json and the page's tables from these folders.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat

from fedlit.aggregators import Aggregator, FedAvg, FedLA, FedProx, LocalOnly, ZeroShot
from fedlit.data import PTBXL, BySite, BySubject, Record, SignalDataModule, WFDBFolder
from fedlit.tasks import ForecastingTask
from fedlit.trainer import FederatedTrainer
from studies.chronos_ecg.page import write

RATE, CONTEXT, HORIZON = 500.0, 512, 64
BATCH = 16
PAGE = Path("docs/results/2502.09744.md")


class SixHospitals(WFDBFolder):
    """The Challenge records; the one patient of system S gives three segments, or it could not be split at all."""

    def read(self) -> list[Record]:
        """Records of lead II."""
        out = []
        for record in super().read():
            if record.site != "S":
                out.append(record)
                continue
            parts = np.array_split(record.values, 3)
            out += [replace(record, id=f"{record.id}-{i}", values=part) for i, part in enumerate(parts, 1)]
        return out


class ECGAndICG(SignalDataModule):
    """Nineteen patients of PTB-XL and the ICG of one BIOPAC subject, each a client.

    Args:
        root: Folder with ``ecg_ptbxl_mini`` and ``icg_ecg_biopac``.
        kwargs: See :class:`fedlit.data.SignalDataModule`.
    """

    default_partition = BySubject()

    def __init__(self, root: Path, **kwargs: Any) -> None:
        self.root = Path(root)
        super().__init__(**kwargs)

    def read(self) -> list[Record]:
        """ECG lead II of 19 patients, and the first 60 s of one ICG."""
        ecg = sorted(PTBXL(self.root / "ecg_ptbxl_mini", rate=None).read(), key=lambda record: record.id)[:19]
        path = self.root / "icg_ecg_biopac" / "ECG_ICG_Data" / "EcgIcg_Sample_1_N.mat"
        icg = np.asarray(loadmat(path)["ecg_icg"], np.float32)[:60_000, 1]
        return [*ecg, Record("icg-1", "icg-1", "biopac", "icg", 1000.0, icg, "Ohm/s")]

    def write_stand_in(self, folder: Path) -> None:
        """There is none: this reader is for one study."""
        raise NotImplementedError


def make_data(strategy: int, root: Path, seed: int) -> SignalDataModule:
    """The clients of a strategy."""
    shared: dict[str, Any] = {
        "context_length": CONTEXT, "prediction_length": HORIZON, "batch_size": BATCH, "seed": seed, "stride": 16,
        "eval_windows": 32,
    }  # fmt: skip
    if strategy == 1:
        return PTBXL(root / "ecg_ptbxl_mini", rate=None, partition=BySubject(20), split="time", **shared)
    if strategy == 2:
        folder = root / "ecg_cinc_multisite" / "records"
        return SixHospitals(folder, partition=BySite(), split="record", rate=RATE, **shared)
    return ECGAndICG(root, split="time", rate=RATE, **shared)


def run(strategy: int, seed: int, root: Path, out: Path, rounds: int, steps: int) -> None:
    """One seed of one strategy: five rules. Two thirds of Fed-LA's rounds are FedAvg, as in the paper."""
    folder, name = out / f"steps-{steps}", f"strategy{strategy}-seed{seed}"
    if any(folder.glob(f"{name}/version_*/baselines/FedLA/summary.json")):
        return
    shared = rounds * 2 // 3
    baselines: list[Aggregator] = [ZeroShot(), LocalOnly(), FedProx(mu=1.0), FedLA(shared, rounds - shared, 1.0)]
    trainer = FederatedTrainer(
        FedAvg(), max_rounds=rounds, local_steps=steps, baselines=baselines, check_val_every_n_rounds=rounds,
        gradient_clip_val=1.0, name=name, default_root_dir=str(folder), seed=seed, num_threads=1,
    )  # fmt: skip
    trainer.fit(ForecastingTask(adapter=None, learning_rate=1e-3, seed=seed), make_data(strategy, root, seed))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["run", "page"])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--strategy", type=int, nargs="*", default=[1, 2, 3])
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--steps", type=int, default=5, help="local steps in a round")
    args = parser.parse_args()
    if args.action == "run":
        for seed in args.seeds:
            for strategy in args.strategy:
                run(strategy, seed, args.data, args.out, args.rounds, args.steps)
        return
    print(write(args.out, PAGE))


if __name__ == "__main__":
    main()
