"""Hooks into the loop: our own, and the part of Lightning's that has a meaning with a round as the epoch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import lightning as L  # noqa: N812
import torch
from lightning.pytorch.callbacks import Callback as LightningCallback
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn, TrainerState

from fedlit.errors import FedlitError
from fedlit.runs.folder import RunFolder

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

    def on_run_start(self, trainer: CallbackHost, name: str, rounds: int, first_round: int) -> None:
        """A rule starts or goes on; ``name`` is its class."""

    def on_round_start(self, trainer: CallbackHost, round: int, clients: Sequence[str]) -> None:  # noqa: A002
        """The clients of a round are chosen."""

    def on_client_end(self, trainer: CallbackHost, round: int, client: str, metrics: dict[str, float]) -> None:  # noqa: A002
        """A client's reply was admitted."""

    def on_client_refused(self, trainer: CallbackHost, round: int, client: str, reason: str) -> None:  # noqa: A002
        """A client's reply was refused, and the round goes on without it."""

    def on_client_missing(self, trainer: CallbackHost, round: int, client: str) -> None:  # noqa: A002
        """A client did not answer in time, and the round goes on without it."""

    def on_before_commit(
        self,
        trainer: CallbackHost,
        round: int,  # noqa: A002
        values: Mapping[str, float],
    ) -> Mapping[str, float] | None:
        """A round is done, and not yet committed; ``values`` are its summary figures so far.

        Figures that it returns are committed with the round: rows of ``metrics.csv`` with the client ``server``, and
        ``train/<name>`` for loggers, ``trainer.monitor`` and other callbacks. They must be the same on every rank.
        """

    def on_round_end(self, trainer: CallbackHost, round: int, values: dict[str, float]) -> None:  # noqa: A002
        """A round is committed; ``values`` are its summary figures."""

    def on_run_end(self, trainer: CallbackHost, name: str) -> None:
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


class CallbackHost:
    """The side of a trainer that callbacks see: ours, and what Lightning's read from its own Trainer.

    Args:
        callbacks: Checked for hooks that never come.
    """

    fabric: L.Fabric
    folder: RunFolder
    lightning_module: Any

    def __init__(self, callbacks: Sequence[LightningCallback]) -> None:
        check_callbacks(callbacks)
        self.callbacks = list(callbacks)
        self._fresh_callbacks = self.callback_states()
        self.state = TrainerState(fn=TrainerFn.FITTING)
        self.strategy, self.sanity_checking, self.should_stop = Strategy(), False, False
        self.val_check_interval, self.check_val_every_n_epoch = 1.0, 1
        self.current_epoch = self.global_step = 0
        self.callback_values: dict[str, float] = {}
        self.log_prefix = ""

    def call(self, hook: str, *args: Any) -> None:
        """Run one of our own hooks on every callback that is ours."""
        for callback in self.callbacks:
            if isinstance(callback, Callback):
                getattr(callback, hook)(self, *args)

    def figures(self, round: int, values: Mapping[str, float]) -> Iterator[tuple[str, dict[str, float]]]:  # noqa: A002
        """What our own callbacks add to a round, each with the name of its class."""
        for callback in self.callbacks:
            if isinstance(callback, Callback) and (added := callback.on_before_commit(self, round, values)):
                yield type(callback).__name__, {name: float(value) for name, value in added.items()}

    def lightning(self, hook: str, *args: Any) -> None:
        """Run one of Lightning's hooks on every callback."""
        for callback in self.callbacks:
            getattr(callback, hook)(self, self.lightning_module, *args)

    def lightning_hooks(self, done: int) -> None:
        """The epoch hooks of Lightning's callbacks, after a round."""
        self.global_step = done
        if done:
            if any(name.startswith("val/") for name in self.callback_values):
                self.lightning("on_validation_end")
            self.lightning("on_train_epoch_end")

    def log_values(self, values: Mapping[str, float], done: int) -> None:
        """Summary figures to every logger, with the rounds done as the step; a baseline's under names of its own."""
        self.callback_values = dict(values)
        self.fabric.log_dict({self.log_prefix + name: value for name, value in values.items()}, step=done)

    @property
    def callback_metrics(self) -> dict[str, torch.Tensor]:
        """The newest summary figures, as Lightning's callbacks expect them."""
        return {name: torch.tensor(value) for name, value in self.callback_values.items()}

    def callback_states(self) -> dict[str, dict[str, Any]]:
        """What callbacks remember, as JSON, by their state key."""
        states = {c.state_key: c.state_dict() for c in self.callbacks}
        return {
            key: {k: float(v) if isinstance(v, torch.Tensor) else v for k, v in state.items()}
            for key, state in states.items()
            if state
        }

    def load_callbacks(self, states: Mapping[str, dict[str, Any]], should_stop: bool) -> None:
        """Give callbacks back what they remembered."""
        for callback in self.callbacks:
            like, saved = callback.state_dict(), states.get(callback.state_key, {})
            if saved:
                callback.load_state_dict(
                    {k: torch.tensor(v) if isinstance(like.get(k), torch.Tensor) else v for k, v in saved.items()}
                )
        self.should_stop = should_stop

    log_dir = property(lambda self: str(self.folder.path))
    loggers = property(lambda self: self.fabric.loggers)
    is_global_zero = property(lambda self: self.fabric.is_global_zero)
    global_rank = property(lambda self: self.fabric.global_rank)
    world_size = property(lambda self: self.fabric.world_size)
