"""How work reaches clients and comes back. The trainer sees nothing else of where clients are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, Protocol


@dataclass(frozen=True)
class Job:
    """One thing asked of one client.

    Args:
        ticket: Unguessable, also to the round's other clients; a reply counts once, for its ticket.
        client: Whose job it is.
        round: Index of the round, from 0.
        kind: ``train``, or ``evaluate`` what was sent.
        payload: A tree as bytes: for ``train`` what the rule sends down; for ``evaluate`` ``{"down": ...}`` and, where
            the rule has one, ``{"global": ...}``.
        split: Data that evaluation runs on: ``val`` or ``test``; for ``train``, evaluate the trained model on it
            before the reply, or None.
        members: Clients whose data are used; more than one for reference rules that pool.
        steps: Optimizer steps for ``train``.
        models: What to ``evaluate``, of ``global`` and ``personal``.
        group: Jobs of one group come one after the other, and are done together where that can be; the group of most
            work is 0.
    """

    ticket: str
    client: str
    round: int
    kind: Literal["train", "evaluate"]
    payload: bytes
    split: str | None = None
    members: tuple[str, ...] = ()
    steps: int = 0
    models: tuple[str, ...] = ()
    group: int = 0


@dataclass(frozen=True)
class Reply:
    """What a client sends back.

    Args:
        ticket: Of the job it answers.
        client: Its name.
        payload: The upload as bytes; empty for ``evaluate``.
        weight: The client's weight in the mean.
        metrics: Scalars about the training, for instance ``train_loss``.
        scores: ``{model: {metric: value}}`` of what was evaluated.
        num_examples: Examples trained or evaluated on.
        error: Why there is no result, or None.
    """

    ticket: str
    client: str
    payload: bytes = b""
    weight: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    num_examples: int = 0
    error: str | None = None


class Transport(Protocol):
    """Carries jobs to clients."""

    def run(self, jobs: Iterable[Job], deadline_s: float | None = None) -> Iterator[Reply]:
        """Replies in any order; a client that does not answer by the deadline is missing."""
        ...
