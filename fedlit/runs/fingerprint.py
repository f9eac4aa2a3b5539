"""What a run was made of, as JSON: what must be equal for a resume, and what a report says."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedlit.errors import FedlitError

if TYPE_CHECKING:
    from fedlit.aggregators import Aggregator
    from fedlit.trainer import FederatedTrainer

SETTINGS = (
    "accumulate_grad_batches", "check_val_every_n_rounds", "clients_at_once", "clients_per_round", "compile",
    "compression", "evaluate_at", "fast_dev_run", "gradient_clip_val", "limit_eval_batches", "limit_eval_clients",
    "local_epochs", "local_steps", "monitor", "num_threads", "precision", "seed",
)  # fmt: skip
"""The trainer's settings that results depend on; ``max_rounds`` is not among them, so that a run can be made longer."""


ADDED = {"clients_at_once": 1, "compile": False}
"""Settings that came later, with what runs without them did."""
PARTS = ("aggregator", "trainer", "model", "data")


def fingerprint(trainer: FederatedTrainer, rule: Aggregator) -> dict[str, Any]:
    """What must be equal for a run of ``rule`` to be resumed.

    Data are known by who got which records, not by the folder they lie in, which may move.
    """
    parts = {
        "aggregator": rule,
        "trainer": {name: getattr(trainer, name) for name in SETTINGS},
        "model": trainer.lightning_module,
        "data": trainer.datamodule,
    }
    described = {name: describe(part) for name, part in parts.items()}
    for place in ("root", "folder", "cache_folder"):
        described["data"].pop(place, None)
    held = json.dumps(trainer.partition.get("clients"), sort_keys=True, default=str)
    described["data"]["records_sha256"] = hashlib.sha256(held.encode()).hexdigest()
    return described


def check_same(old: dict[str, Any], new: dict[str, Any], run: Path) -> None:
    """Refuse to go on with a run under another configuration.

    Args:
        old: The fingerprint of the run.
        new: The fingerprint of what is asked for.
        run: Its folder.

    Raises:
        FedlitError: They differ; the fields are named.
    """
    if "trainer" in old:
        old = {**old, "trainer": {**{name: ADDED[name] for name in ADDED if name in new["trainer"]}, **old["trainer"]}}
    wrong = differences(old, new)
    if wrong:
        raise FedlitError(
            f"{run}: made with another configuration ({'; '.join(wrong)}): resume with the config.yaml in that "
            "folder, or start a new run without --ckpt_path"
        )


def describe(thing: Any) -> Any:
    """Anything as JSON: dataclasses with their class, objects with a ``config()`` by that, the rest as text."""
    if isinstance(thing, str | int | float | bool) or thing is None:
        return thing
    if isinstance(thing, dict):
        return {str(k): describe(v) for k, v in thing.items()}
    if isinstance(thing, list | tuple):
        return [describe(v) for v in thing]
    if hasattr(thing, "config") and callable(thing.config):
        return {"class": type(thing).__name__, **describe(thing.config())}
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        fields = {f.name: describe(getattr(thing, f.name)) for f in dataclasses.fields(thing)}
        return {"class": type(thing).__name__, **fields}
    if hasattr(thing, "hparams"):
        return {"class": type(thing).__name__, **describe(dict(thing.hparams))}
    return getattr(thing, "__qualname__", type(thing).__name__)


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Where two descriptions differ, as ``field: old -> new``."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(old.keys() | new.keys())
        return [d for k in keys for d in differences(old.get(k), new.get(k), f"{path}.{k}" if path else k)]
    if isinstance(old, list | tuple) and isinstance(new, list | tuple) and len(old) == len(new):
        return [d for i, pair in enumerate(zip(old, new, strict=True)) for d in differences(*pair, f"{path}.{i}")]
    # Through JSON, because that is where the old one was: a tuple comes back as a list, names sorted.
    same = json.dumps(old, sort_keys=True) == json.dumps(new, sort_keys=True)
    return [] if same else [f"{path}: {old!r} -> {new!r}"]
