"""Hooks into the loop: our own, and the part of Lightning's that has a meaning with a round as the epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lightning.pytorch.callbacks import Callback as LightningCallback
from lightning.pytorch.callbacks import Checkpoint

from fedlit.errors import FedlitError

if TYPE_CHECKING:
    from fedlit.trainer import FederatedTrainer

LIGHTNING_HOOKS = frozenset(
    {
        "setup", "teardown", "on_fit_start", "on_fit_end", "on_train_start", "on_train_end", "on_train_epoch_start",
        "on_train_epoch_end", "on_validation_end", "on_exception",
    }
)  # fmt: skip
"""Hooks of Lightning callbacks that the loop calls, a round being the epoch."""


class Callback(LightningCallback):
    """Base of callbacks that follow a federated run.

    Besides Lightning's hooks in :data:`LIGHTNING_HOOKS` there are those below. They run on every rank; ``round``
    counts from 0. A misspelt ``on_...`` method is refused when the class is made.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        unknown = [n for n in vars(cls) if n.startswith("on_") and n not in LIGHTNING_HOOKS | OWN_HOOKS]
        if unknown:
            raise FedlitError(
                f"{cls.__name__}.{unknown[0]} is not a hook; there are {sorted(LIGHTNING_HOOKS | OWN_HOOKS)}"
            )

    def on_run_start(self, trainer: FederatedTrainer, name: str, rounds: int, first_round: int) -> None:
        """A rule starts or goes on; ``name`` is its class."""

    def on_round_start(self, trainer: FederatedTrainer, round: int, clients: Sequence[str]) -> None:  # noqa: A002
        """The clients of a round are chosen."""

    def on_client_end(self, trainer: FederatedTrainer, round: int, client: str, metrics: dict[str, float]) -> None:  # noqa: A002
        """A client's reply was admitted."""

    def on_client_refused(self, trainer: FederatedTrainer, round: int, client: str, reason: str) -> None:  # noqa: A002
        """A client's reply was refused, and the round goes on without it."""

    def on_round_end(self, trainer: FederatedTrainer, round: int, values: dict[str, float]) -> None:  # noqa: A002
        """A round is committed; ``values`` are its summary figures."""

    def on_run_end(self, trainer: FederatedTrainer, name: str) -> None:
        """A rule's last round is done."""


OWN_HOOKS = frozenset(n for n in vars(Callback) if n.startswith("on_"))


def check_callbacks(callbacks: Sequence[LightningCallback]) -> None:
    """Refuse callbacks that wait for hooks which never come.

    Raises:
        FedlitError: One overrides a Lightning hook that the loop does not call, or saves checkpoints of its own.
    """
    hooks = {n for n in dir(LightningCallback) if n.startswith("on_")} - LIGHTNING_HOOKS
    for callback in callbacks:
        name = type(callback).__name__
        if isinstance(callback, Checkpoint):
            raise FedlitError(f"{name}: every round is a checkpoint already; for the best one set trainer.monitor")
        waiting = sorted(h for h in hooks if getattr(type(callback), h) is not getattr(LightningCallback, h))
        if waiting:
            raise FedlitError(
                f"{name} relies on {', '.join(waiting)}, which a federated run does not have: use a callback that "
                "follows epochs (a round is an epoch), or subclass fedlit.callbacks.Callback"
            )


class Strategy:
    """What Lightning's callbacks ask a trainer's strategy; every rank holds the same metrics, so decisions agree."""

    def reduce_boolean_decision(self, decision: bool, all: bool = True) -> bool:  # noqa: A002
        """The decision itself."""
        return decision
