"""The settings of a federated run: what each may be, and which of them a resume must repeat."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, get_args

import torch

from fedlit.aggregators import Aggregator
from fedlit.compression import Channel, Transform
from fedlit.errors import FedlitError, named
from fedlit.runs.stragglers import Stragglers

Point = Literal["start", "after_local", "after_aggregation"]
Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
COUNTS = (
    "max_rounds", "check_val_every_n_rounds", "limit_eval_clients", "limit_eval_batches", "local_steps", "num_threads",
)  # fmt: skip
DEFAULT_POINTS: tuple[Point, ...] = ("start", "after_aggregation")
SHARE = "a whole number from 1, or a share above 0 and at most 1.0"


def resumed(default: Any) -> Any:
    """A setting that results depend on, so that a resume must repeat it."""
    return field(default=default, metadata={"resume": True})


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Settings of a run, under the names that they have as arguments of :class:`fedlit.trainer.FederatedTrainer`.

    ``max_rounds`` and the settings of waiting for clients are no part of what a resume must repeat: a run may be made
    longer, and waited for differently.

    Raises:
        FedlitError: A setting is out of range, or two contradict each other; the first that is wrong is named.
    """

    max_rounds: int = 10
    clients_per_round: int | float | None = resumed(None)
    min_replies: int | float | None = None
    deadline_s: float | None = None
    stragglers: Stragglers | None = resumed(None)
    local_steps: int | None = resumed(None)
    local_epochs: float | None = resumed(None)
    compression: Sequence[Transform] | None = resumed(None)
    clients_at_once: int | Literal["auto"] = resumed(1)
    compile: bool | Literal["auto"] = resumed(False)
    check_val_every_n_rounds: int = resumed(1)
    evaluate_at: Sequence[Point] = resumed(DEFAULT_POINTS)
    limit_eval_clients: int | None = resumed(None)
    limit_eval_batches: int | None = resumed(None)
    monitor: str | None = resumed(None)
    naive: bool | Sequence[str] = True
    gradient_clip_val: float | None = resumed(None)
    accumulate_grad_batches: int = resumed(1)
    fast_dev_run: bool | int = resumed(False)
    name: str = "fedlit"
    default_root_dir: str = "runs"
    precision: Precision = resumed("32-true")
    num_threads: int = field(default_factory=torch.get_num_threads, metadata={"resume": True})
    seed: int = resumed(0)

    def __post_init__(self) -> None:
        single = isinstance(self.compression, Transform)
        self._settle("compression", [self.compression] if single else self.compression or None)
        self._settle("evaluate_at", tuple(self.evaluate_at))
        if self.local_steps is None and self.local_epochs is None:
            self._settle("local_epochs", 1.0)
        Channel(self.compression or ())  # refuses an order that makes no sense
        for name in COUNTS:
            self._require(getattr(self, name) is None or getattr(self, name) >= 1, name, "at least 1")
        count, at_once = self.accumulate_grad_batches, self.clients_at_once
        self._require(_is_count(count), "accumulate_grad_batches", "a whole number from 1")
        self._require(_is_count(at_once) or at_once == "auto", "clients_at_once", "a number or auto")
        self._require(self.compile in (True, False, "auto"), "compile", "true, false or auto")
        for name in ("local_epochs", "gradient_clip_val", "deadline_s"):
            self._require(getattr(self, name) is None or getattr(self, name) > 0, name, "above 0")
        self._require(self.precision in get_args(Precision), "precision", f"one of {get_args(Precision)}")
        self._require({*self.evaluate_at} <= set(get_args(Point)), "evaluate_at", f"any of {get_args(Point)}")
        for name in ("clients_per_round", "min_replies"):
            self._require(_is_share(getattr(self, name)), name, SHARE)
        if self.local_steps is not None and self.local_epochs is not None:
            raise FedlitError("trainer.local_steps and trainer.local_epochs are both given: choose one")
        if self.deadline_s is None and self.stragglers is not None and self.stragglers.delays:
            mend = "set trainer.deadline_s, or leave it out"
            warnings.warn(f"trainer.stragglers.delay_s changes nothing without a deadline: {mend}", stacklevel=3)

    def _settle(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _require(self, ok: bool, name: str, expected: str) -> None:
        if not ok:
            raise FedlitError(f"trainer.{name} is {getattr(self, name)!r}, expected {expected}")

    @classmethod
    def given(cls, arguments: Mapping[str, Any], rules: Sequence[Aggregator]) -> RunSettings:
        """Settings out of a trainer's arguments; other arguments, and those that are None, are left out.

        Args:
            arguments: By name.
            rules: The run's rule and its baselines.

        Raises:
            FedlitError: As the constructor; or a rule is no whole one.
        """
        known = {f.name: arguments[f.name] for f in fields(cls) if arguments.get(f.name) is not None}
        if not known.get("fast_dev_run"):
            return cls(**known)
        return cls(**{**known, "local_steps": None, "local_epochs": None}).for_dev_run(rules)

    @property
    def resumable(self) -> dict[str, Any]:
        """The settings that a resume must repeat, by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.metadata.get("resume")}

    def for_dev_run(self, rules: Sequence[Aggregator]) -> RunSettings:
        """As few rounds, clients and steps as show that a configuration works: what ``fast_dev_run`` asks for.

        Args:
            rules: The run's rule and its baselines, which may need more than 2 clients and 1 step.

        Raises:
            FedlitError: A rule is no whole one.
        """
        needs = []
        for rule in rules:
            with named(rule):
                needs.append((rule.min_clients, rule.min_steps))
        return replace(
            self,
            max_rounds=int(self.fast_dev_run),
            clients_per_round=max(2, *(clients for clients, _ in needs)),
            local_steps=max(steps for _, steps in needs),
            local_epochs=None,
            check_val_every_n_rounds=1,
            limit_eval_clients=2,
            limit_eval_batches=1,
        )

    def tuned(self, clients_at_once: int, compile: bool | Literal["auto"]) -> RunSettings:  # noqa: A002
        """With what was found by trial in the place of ``auto``."""
        return replace(self, clients_at_once=clients_at_once, compile=compile)

    @property
    def at_once(self) -> int:
        """Clients that train in one pass; 1 as long as that is to be tried out."""
        return 1 if self.clients_at_once == "auto" else self.clients_at_once


def share_of(wanted: int | float | None, available: int) -> int:
    """How many of ``available`` clients a number or a share means.

    Args:
        wanted: A number; a share, of which at least one client is meant; or None for all.
        available: How many there are.
    """
    if wanted is None:
        return available
    return min(available, max(1, round(wanted * available)) if isinstance(wanted, float) else wanted)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_share(value: int | float | None) -> bool:
    return value is None or (0 < value <= 1 if isinstance(value, float) else value >= 1)
