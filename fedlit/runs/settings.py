"""What settings of a federated run may be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from fedlit.errors import FedlitError

Point = Literal["start", "after_local", "after_aggregation"]
Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
NUMBERS = (
    "max_rounds", "check_val_every_n_rounds", "limit_eval_clients", "limit_eval_batches", "local_steps", "num_threads",
)  # fmt: skip


def check_settings(settings: Mapping[str, Any]) -> None:
    """Refuse settings that are out of range, or contradict each other.

    Args:
        settings: Of :class:`fedlit.trainer.FederatedTrainer`, by name; None is left open.

    Raises:
        FedlitError: The first that is wrong is named.
    """
    k, at_once, epochs, clip = (
        settings[name] for name in ("clients_per_round", "clients_at_once", "local_epochs", "gradient_clip_val")
    )
    rules = [(settings[name] is None or settings[name] >= 1, name, "at least 1") for name in NUMBERS]
    rules += [
        (_is_count(settings["accumulate_grad_batches"]), "accumulate_grad_batches", "a whole number from 1"),
        (_is_count(at_once) or at_once == "auto", "clients_at_once", "a number or auto"),
        (settings["compile"] in (True, False, "auto"), "compile", "true, false or auto"),
        (epochs is None or epochs > 0, "local_epochs", "above 0"),
        (clip is None or clip > 0, "gradient_clip_val", "above 0"),
        (settings["precision"] in get_args(Precision), "precision", f"one of {get_args(Precision)}"),
        (set(settings["evaluate_at"] or ()) <= set(get_args(Point)), "evaluate_at", f"any of {get_args(Point)}"),
        (
            k is None or (0 < k <= 1 if isinstance(k, float) else k >= 1),
            "clients_per_round",
            "a whole number from 1, or a share above 0 and at most 1.0",
        ),
    ]
    for ok, name, expected in rules:
        if not ok:
            raise FedlitError(f"trainer.{name} is {settings[name]!r}, expected {expected}")
    if settings["local_steps"] is not None and epochs is not None:
        raise FedlitError("trainer.local_steps and trainer.local_epochs are both given: choose one")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
