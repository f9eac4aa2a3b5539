"""What a reader of a figure must know to read it right: said in titles and in ``summary.json``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedlit.compression import Channel

if TYPE_CHECKING:
    from fedlit.trainer import FederatedTrainer


def labels(trainer: FederatedTrainer) -> list[str]:
    """Data and backbone, real or not, and whatever makes scores other than plain ones on all of the data."""
    data, task = trainer.datamodule, trainer.lightning_module
    out = ["data: SIMULATED" if data.simulated else "data: real"]
    about = task.describe() if hasattr(task, "describe") else {}
    if about:
        out.append(f"backbone: {about.get('source', about.get('backbone'))}")
    if getattr(data, "parity", False):
        out.append(f"parity: {getattr(data, 'parity_means', 'split as the paper did')}")
    clients, batches = trainer.limit_eval_clients, trainer.limit_eval_batches
    if clients is not None and clients < len(data.clients):
        out.append(f"scored at the first {clients} of {len(data.clients)} clients only")
    if batches is not None:
        out.append(f"scored on at most {batches} {'batch' if batches == 1 else 'batches'} of each client")
    if trainer.compression:
        out.append(f"uploads: {Channel(trainer.compression).label}")
    return out
