"""What clients are asked: the jobs of one rule's rounds, each with the state that its client is to start from."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import Any

from fedlit import codec
from fedlit.aggregators import Aggregator
from fedlit.federation.plan import RoundPlan, grouped
from fedlit.runs.folder import StateNames
from fedlit.transports.base import Job, Kind
from fedlit.transports.payloads import Payloads
from fedlit.tree import Tree


class Jobs:
    """Makes the jobs of one rule.

    Args:
        rule: The rule.
        run: The name of its run, see :class:`~fedlit.transports.base.Job`.
        plan: Who works.
        states: Names of the clients' states.
        initial: The initial parameters.
    """

    def __init__(self, rule: Aggregator, run: str, plan: RoundPlan, states: StateNames, initial: Tree) -> None:
        self.rule, self.run, self.plan, self.states = rule, run, plan, states
        self.payloads = Payloads(rule, initial)

    def training(
        self, state: Tree, index: int, work: Iterable[tuple[int, str, int]], split: str | None, token: str
    ) -> Iterator[tuple[Job, Callable[[], Tree]]]:
        """The jobs of a round, each with what gives a tree like its upload.

        Args:
            state: The server's.
            index: Of the round.
            work: See :meth:`~fedlit.federation.plan.RoundPlan.groups`.
            split: What each trained model is scored on before the reply, or None.
            token: Secret of the round, of which tickets are made.
        """
        scored = {*self.plan.evaluated}
        for group, client, steps in work:
            down, members = self.rule.down(state, client), self.plan.cohorts[client]
            yield (
                replace(
                    self._job("train", client, index, self.payloads.encoded(down)),
                    ticket=blake2b(client.encode(), key=token.encode(), digest_size=16).hexdigest(),
                    split=split if scored & {*members} else None,
                    members=members,
                    steps=steps,
                    group=group,
                    rounds=self.plan.rounds,
                ),
                self.payloads.like(down),
            )

    def trial(self, state: Tree, limit: int, steps: int) -> list[Job]:
        """What the first clients of the first round would do, with so many steps each."""
        work = self.plan.groups(0)[:limit] if self.plan.cohorts else []
        first = [(0, client, steps) for _, client, _ in work]
        return [job for job, _ in self.training(state, 0, first, None, "trial")]

    def evaluation(self, state: Tree, rounds: int, split: str) -> Iterator[Job]:
        """Score the global and the personal models on every client's split."""
        models = ("personal",) if self.rule.global_model(state) is None else ("global", "personal")
        for group, job in self._serving("evaluate", state, rounds, self.plan.scored(split)):
            yield replace(job, ticket=f"{job.ticket}-{split}", split=split, models=models, group=group)

    def external(self, state: Tree, rounds: int, sites: Mapping[str, int], at_once: int) -> Iterator[Job]:
        """Score the global model, where the rule has one, on external sites.

        Args:
            state: The server's.
            rounds: Rounds done so far.
            sites: Test examples of each.
            at_once: Most sites in a group.
        """
        model = self.rule.global_model(state)
        payload = b"" if model is None else codec.encode({"global": model})
        for group, site in () if model is None else grouped(sites, at_once):
            job = self._job("evaluate", site, rounds, payload)
            yield replace(job, ticket=f"{job.ticket}-external", split="test", models=("global",), group=group)

    def serving(self, kind: Kind, state: Tree, rounds: int) -> Iterator[Job]:
        """Have clients ``export`` the models that they serve, or ``predict`` by them."""
        clients = self.plan.clients if kind == "export" else self.plan.evaluated
        for _, job in self._serving(kind, state, rounds, ((0, client) for client in clients)):
            yield job

    def naive(self, split: str, names: Sequence[str], able: Collection[str]) -> Iterator[Job]:
        """Score predictors that need no network on the split of each client whose site is ``able`` to; all if no
        ``names`` are given."""
        for group, client in self.plan.scored(split):
            if client in able:
                job = self._job("naive", client, 0, b"")
                yield replace(job, ticket=f"{job.ticket}-{split}", split=split, group=group, models=tuple(names))

    def _serving(
        self, kind: Kind, state: Tree, rounds: int, clients: Iterable[tuple[int, str]]
    ) -> Iterator[tuple[int, Job]]:
        """Jobs that hold what a client needs to know the model that it serves; encoded once where all get the same."""
        model = self.rule.global_model(state)
        previous: Any = None
        payload = b""
        for group, client in clients:
            down = self.rule.down(state, client)
            if previous is None or down is not previous:
                payload = codec.encode({"down": down} if model is None else {"down": down, "global": model})
            previous = down
            yield group, self._job(kind, client, rounds, payload)

    def _job(self, kind: Kind, client: str, index: int, payload: bytes) -> Job:
        base, others = self.states.names.get(client, ""), self.states.others(client)
        ticket = f"{kind}-{index}-{self.run}-{client}"  # no secret: what it answers changes nothing that is kept
        return Job(ticket, client, index, kind, payload, members=(client,), run=self.run, base=base, others=others)
