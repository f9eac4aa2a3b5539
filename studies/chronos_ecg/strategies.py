"""The three strategies of arXiv:2502.09744 on small real data, with the built-in backbone.

Run: python -m studies.chronos_ecg.strategies run --data ../shared/data --out RUNS [--strategy N] [--seeds 0 1 2]
     python -m studies.chronos_ecg.strategies table --out RUNS --markdown docs/results/2502.09744.md

Strategy 1: 20 clients by patient. Strategy 2: clients by hospital system. Strategy 3: 19 ECG clients and one ICG
client. Zero-shot, local, FedAvg, FedProx and Fed-LA take the same local steps on the same windows. All weights are
trained, as in the paper. Every run leaves an ordinary run folder.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat

from fedlit.aggregators import Aggregator, FedAvg, FedLA, FedProx, LocalOnly, ZeroShot
from fedlit.data import PTBXL, BySite, BySubject, Record, SignalDataModule, WFDBFolder
from fedlit.tasks import ForecastingTask
from fedlit.trainer import FederatedTrainer

RATE, CONTEXT, HORIZON = 500.0, 512, 64
BATCH = 16
TITLES = {
    1: "Strategy 1: ECG by patient (PTB-XL, 21 records of 10 s, 20 clients; temporal split)",
    2: "Strategy 2: ECG by hospital system (PhysioNet/CinC Challenge, 101 records, 6 clients; split by patient)",
    3: "Strategy 3: 19 ECG clients (PTB-XL) and one ICG client (BIOPAC, 60 s of one subject; temporal split)",
}


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
    shared = rounds * 2 // 3
    baselines: list[Aggregator] = [ZeroShot(), LocalOnly(), FedProx(mu=1.0), FedLA(shared, rounds - shared, 1.0)]
    trainer = FederatedTrainer(
        FedAvg(), max_rounds=rounds, local_steps=steps, baselines=baselines, check_val_every_n_rounds=rounds,
        gradient_clip_val=1.0, name=f"strategy{strategy}-seed{seed}", default_root_dir=str(out), seed=seed,
        num_threads=1,
    )  # fmt: skip
    trainer.fit(ForecastingTask(adapter=None, learning_rate=1e-3, seed=seed), make_data(strategy, root, seed))


def scores(folder: Path, rule: str) -> dict[str, Any]:
    """Final test figures of a rule, from its run folder."""
    path = folder if rule == "FedAvg" else folder / "baselines" / rule
    return dict(json.loads((path / "summary.json").read_text())["test"]["personal"])


def cell(values: Sequence[float]) -> str:
    """Mean and sample standard deviation over seeds."""
    return f"{statistics.fmean(values):.4f} ± {statistics.stdev(values):.4f}" if len(values) > 1 else f"{values[0]:.4f}"


def table(out: Path) -> str:
    """The tables of all strategies found, in markdown."""
    rules = ["ZeroShot", "LocalOnly", "FedAvg", "FedProx", "FedLA"]
    lines: list[str] = []
    for strategy, title in TITLES.items():
        folders = sorted(out.glob(f"strategy{strategy}-seed*/version_*"))
        folders = [f for f in folders if (f / "baselines" / "FedLA" / "summary.json").exists()]
        if not folders:
            continue
        lines += [f"### {title}", "", f"Real data; backbone: built-in stand-in; {len(folders)} seeds.", ""]
        columns = [("rmse", "mean"), ("rmse", "worst"), ("mae", "mean"), ("smape", "mean")]
        columns += [("rmse/ecg", "mean"), ("rmse/icg", "mean")] if strategy == 3 else []
        lines.append("| rule | " + " | ".join(f"{m} {r}" for m, r in columns) + " |")
        lines.append("|---" * (len(columns) + 1) + "|")
        for rule in rules:
            figures = [scores(f, rule) for f in folders]
            lines.append("| " + " | ".join([rule, *(cell([f[m][r] for f in figures]) for m, r in columns)]) + " |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["run", "table"])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--strategy", type=int, nargs="*", default=[1, 2, 3])
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--steps", type=int, default=5, help="local steps in a round")
    parser.add_argument("--markdown", type=Path, help="put the tables between the markers of this file")
    args = parser.parse_args()
    if args.action == "run":
        for seed in args.seeds:
            for strategy in args.strategy:
                run(strategy, seed, args.data, args.out, args.rounds, args.steps)
        return
    text = table(args.out)
    print(text)
    if args.markdown:
        before, rest = args.markdown.read_text().split("<!-- tables -->\n")
        _, after = rest.split("<!-- end of tables -->\n")
        args.markdown.write_text(f"{before}<!-- tables -->\n{text}\n<!-- end of tables -->\n{after}")


if __name__ == "__main__":
    main()
