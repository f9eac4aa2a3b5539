"""Pooled training and test loss of the shared model, to tell a rule that optimises badly from one that overfits.

Run: python -m studies.rules.losses [--problem NAME] [--rules NAME ...] [--rounds 20 60] [--seeds 3]

The data are simulated, as in ``run.py``.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import tempfile
import warnings

import torch

from fedlit.runs.checkpoint import read
from fedlit.trainer import FederatedTrainer
from studies.rules.adapted import Adapted
from studies.rules.problems import PROBLEMS, MixtureData
from studies.rules.run import work
from studies.rules.table import ALL, RULES


def losses(label: str, problem: str, rounds: int, seed: int) -> tuple[float, float]:
    """Mean cross-entropy of the global model over all clients' training records, and over their test records."""
    entry, data = RULES[label], MixtureData(PROBLEMS[problem].runs_of or problem, seed)
    task, rule = Adapted(seed=seed, rank=entry.rank), entry.make()
    with tempfile.TemporaryDirectory() as root, contextlib.redirect_stdout(io.StringIO()):
        trainer = FederatedTrainer(
            rule, **work(entry, data.problem, rounds), check_val_every_n_rounds=rounds, default_root_dir=root,
            accelerator="cpu", enable_progress_bar=False, num_threads=1, seed=seed,
        )  # fmt: skip
        state = read(trainer.fit(task, data).path / "checkpoints" / "last").state
    model = rule.global_model(state)
    assert model is not None, f"{label} has no shared model"
    trainer.session.engine.load(model)
    task.eval()
    out = []
    for split in ("train", "test"):
        parts = [data.dataset([client], split).tensors for client in data.clients]
        with torch.no_grad():
            out.append(float(task.losses(tuple(torch.cat(column) for column in zip(*parts, strict=True))).mean()))
    return out[0], out[1]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problem", choices=list(PROBLEMS), default=ALL)
    default = ["FedAvg", "FedAvgM", "FedAdam", "FedYogi", "FedDyn", "SCAFFOLD", "Centralized"]
    parser.add_argument("--rules", nargs="+", choices=list(RULES), default=default, metavar="NAME")
    parser.add_argument("--rounds", type=int, nargs="+", default=[20, 60])
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    print(f"SIMULATED DATA. Cross-entropy on {args.problem}, mean over {args.seeds} seeds: training / test")
    for rounds in args.rounds:
        for label in args.rules:
            found = [losses(label, args.problem, rounds, seed) for seed in range(args.seeds)]
            train, test = (statistics.fmean(column) for column in zip(*found, strict=True))
            print(f"{rounds:3} rounds  {label:14} {train:.3f} / {test:.3f}", flush=True)


if __name__ == "__main__":
    main()
