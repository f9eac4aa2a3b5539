"""The work that benchmarks time: clients with windows of a noisy periodic signal, made on the spot."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import torch
from torch.utils.data import Dataset

from fedlit import seeds
from fedlit.data import FederatedDataModule


class SineWindows(Dataset[Any]):
    """Windows of one client's signal; batches are gathered at once."""

    def __init__(self, signal: torch.Tensor, count: int, context: int, horizon: int) -> None:
        self.signal, self.count, self.context, self.horizon = signal, count, context, horizon

    def __len__(self) -> int:
        return self.count

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Any]:
        length = self.context + self.horizon
        at = torch.tensor(indices)[:, None] + torch.arange(length)
        x = self.signal[at]
        return {
            "context": x[:, : self.context],
            "target": x[:, self.context :],
            "kind": ["sine"] * len(indices),
        }


class SineData(FederatedDataModule):
    """Clients with a sine of their own period each, in noise.

    Args:
        clients: How many.
        windows: Training windows of each.
        context: Samples of context.
        horizon: Samples to forecast.
        batch_size: Windows in a batch.
    """

    simulated = True

    def __init__(self, clients: int, windows: int = 160, context: int = 256, horizon: int = 64, batch_size: int = 32):
        super().__init__()
        self.count, self.windows, self.context, self.horizon = clients, windows, context, horizon
        self.batch_size = batch_size

    def setup(self, stage: str | None = None) -> None:
        if self.clients:
            return
        length = self.windows + self.context + self.horizon
        time = torch.arange(length, dtype=torch.float32)
        self.signals = {}
        for i in range(self.count):
            noise = torch.randn(length, generator=seeds.generator(0, "sine", i))
            self.signals[f"client-{i:05d}"] = torch.sin(6.2832 * time / (20 + i % 50)) + 0.1 * noise
        self.clients = sorted(self.signals)

    def dataset(self, clients: str | Sequence[str], split: str) -> SineWindows:
        (name,) = [clients] if isinstance(clients, str) else clients
        return SineWindows(self.signals[name], self.windows if split == "train" else 0, self.context, self.horizon)

    def collate(self, items: Any) -> Any:
        return items

    def config(self) -> dict[str, Any]:
        return {"clients": self.count, "windows": self.windows, "context": self.context, "batch": self.batch_size}


def header() -> dict[str, Any]:
    """Versions and machine, for the JSON file."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "lightning": lightning.__version__,
        "machine": f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads",
        "data": "simulated sines",
        "backbone": "built-in stand-in",
    }


def report(rows: list[dict[str, Any]], path: str | None, **about: Any) -> None:
    """Print the rows; write them, with the header, where a path is given.

    Args:
        rows: As the JSON file holds them.
        path: Of that file.
        about: For the header, in the place of what it says otherwise.
    """
    for row in rows:
        if row["ratio"] is None:
            print(f"{row['case']} | {row['setting']} | against {row['baseline']}: {row['skipped']}")
            continue
        print(
            f"{row['case']} | {row['setting']} | against {row['baseline']}: "
            f"{row['ratio']:.3f} ({row['ratio_low']:.3f} to {row['ratio_high']:.3f})"
        )
    if path:
        Path(path).write_text(json.dumps({"header": {**header(), **about}, "rows": rows}, indent=1) + "\n")
