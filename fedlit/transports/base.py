"""How work reaches sites and comes back. The server sees nothing else of where clients are, or of their data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from fedlit.engine.engine import Assignment

Kind = Literal["train", "evaluate", "export", "predict", "naive"]


UNSUPERVISED = "without anything to learn from"
"""Beside the number of training examples of a client: how many more it holds that are left out."""


@dataclass(frozen=True)
class Job:
    """One thing asked of one client.

    Attributes:
        ticket: A reply counts once, for its ticket. Of ``train`` it cannot be guessed, not by the round's other clients
            either.
        client: The client's name.
        round: Index of the round, from 0.
        kind: ``train``; ``evaluate`` the models that were sent; ``export`` the client's own model, or write what it
            ``predict``s, to files that stay at the site; score predictors that need no network (``naive``).
        payload: A tree as bytes: for ``train`` what the rule sends down; otherwise ``{"down": ...}`` and, where the
            rule has one, ``{"global": ...}``; for ``naive`` nothing.
        split: Data that evaluation runs on: ``val`` or ``test``; for ``train``, evaluate the trained model on it
            before the reply, or None.
        members: Clients whose data are used; more than one for reference rules that pool.
        steps: Optimizer steps for ``train``.
        models: What to ``evaluate``, of ``global`` and ``personal``; for ``naive`` names of predictors, none for all.
        group: Jobs of one group come one after the other, and are done together where that can be; the group of most
            work is 0.
        run: Which of the run's rules the job belongs to: empty for its own, ``baselines/<label>`` for a baseline.
        base: Name of the client's state to start from, see :class:`~fedlit.engine.client_state.ClientStates`; empty
            where it has none yet.
        others: Names of states that the client must keep besides.
        rounds: Rounds of the run; 0 where the server does not say, as those of earlier versions.
    """

    ticket: str
    client: str
    round: int
    kind: Kind
    payload: bytes
    split: str | None = None
    members: tuple[str, ...] = ()
    steps: int = 0
    models: tuple[str, ...] = ()
    group: int = 0
    run: str = ""
    base: str = ""
    others: tuple[str, ...] = ()
    rounds: int = 0


@dataclass(frozen=True)
class Reply:
    """What a client sends back.

    Attributes:
        ticket: Of the job it answers.
        client: Its name.
        payload: The upload as bytes; empty unless the job was ``train``.
        weight: The client's weight in the mean.
        metrics: Scalars about the training, for instance ``train_loss``.
        scores: ``{model: {metric: value}}`` of what was evaluated.
        num_examples: Examples trained or evaluated on.
        error: Why there is no result, or None.
        kept: Name of the state that goes with this reply; empty where the client keeps nothing.
    """

    ticket: str
    client: str
    payload: bytes = b""
    weight: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    num_examples: int = 0
    error: str | None = None
    kept: str = ""


@dataclass(frozen=True)
class Description:
    """What a site says of itself before a run: counts and digests, and no record.

    Attributes:
        examples: ``{client: {"train": n, "val": n, "test": n}}`` of the clients that it holds. Training examples with
            nothing to learn from are not among them; where there are any, :data:`UNSUPERVISED` counts them.
        batch_size: Examples in a training batch.
        facts: What a task takes from data besides examples, see :meth:`fedlit.data.FederatedDataModule.facts`.
        data: What a resume must find again: the data's arguments, and a digest of who holds which records.
        simulated: Whether the data are simulated or a stand-in.
        notes: What a reader of scores must know besides.
        frozen: Digest of the network's frozen values.
        initial: Digest of the initial values of what trains.
        trains: Shape and dtype of each parameter that trains, by name.
        versions: Of the packages that results depend on.
        jobs: Kinds of jobs that the site does.
        external: Test examples of each external site that it holds: one that takes no part.
    """

    examples: Mapping[str, Mapping[str, int]]
    batch_size: int
    facts: Mapping[str, Any]
    data: Mapping[str, Any]
    simulated: bool
    notes: Sequence[str]
    frozen: str
    initial: str
    trains: Mapping[str, str]
    versions: Mapping[str, str | None]
    jobs: Sequence[str]
    external: Mapping[str, int] = field(default_factory=dict)


class InProcess(Protocol):
    """What sites in the server's own process offer besides: to look at their data, as in a simulation."""

    def partition(self) -> dict[str, Any]:
        """Contents of ``partition.json``: who holds which records."""
        ...

    def assignment(self, job: Job) -> Assignment:
        """What the client of a training job is to do."""
        ...

    def adopt(self, run: str, memories: Sequence[Path], done: int) -> dict[str, str]:
        """Names for the states of a run that was made before states had names, by client."""
        ...


class Transport(Protocol):
    """Carries jobs to sites.

    Attributes:
        local: The sites of this process, whose data it may look at; None where data are elsewhere. Then nothing can be
            tried out on them before a run, and nothing pooled.
    """

    @property
    def local(self) -> InProcess | None: ...

    def describe(self) -> list[Description]:
        """What each site says of itself."""
        ...

    def run(self, jobs: Iterable[Job], deadline_s: float | None = None) -> Iterator[Reply]:
        """Replies in any order; a client that does not answer by the deadline is missing.

        Args:
            jobs: Taken one by one, so that their payloads need not be in memory at once.
            deadline_s: Seconds to wait; None waits for all.
        """
        ...


class Wrapper:
    """Base of transports that carry jobs by another one, and change which, or where.

    Args:
        inner: Carries them.
    """

    def __init__(self, inner: Transport) -> None:
        self.inner = inner

    @property
    def local(self) -> InProcess | None:
        return self.inner.local

    def describe(self) -> list[Description]:
        return self.inner.describe()
