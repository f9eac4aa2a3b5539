"""Clients that answer late or not at all, drawn at random: what waiting costs, studied in a simulation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fedlit.runs.stragglers import Stragglers
from fedlit.transports.base import Job, Reply, Transport, Wrapper


class StragglingTransport(Wrapper):
    """Leaves out training jobs of clients that would answer too late; nobody waits for them in earnest.

    A late client is not trained at all: its reply would not count, and the state that goes with it would be dropped.

    Args:
        inner: Carries the other jobs.
        stragglers: Who is late.
        seed: Of the run.
    """

    def __init__(self, inner: Transport, stragglers: Stragglers, seed: int) -> None:
        super().__init__(inner)
        self.stragglers, self.seed = stragglers, seed

    def run(self, jobs: Iterable[Job], deadline_s: float | None = None) -> Iterator[Reply]:
        """Replies of those that answer in time."""
        in_time = (
            job
            for job in jobs
            if job.kind != "train" or self.stragglers.answers(job.client, job.round, self.seed, deadline_s)
        )
        return self.inner.run(in_time, deadline_s)
