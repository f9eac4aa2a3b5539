"""Who trains in a round, for how many steps, and together with whom: decided here and nowhere else."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch

from fedlit import seeds
from fedlit.aggregators import Aggregator
from fedlit.engine.batches import local_work
from fedlit.errors import FedlitError
from fedlit.runs.settings import RunSettings, share_of
from fedlit.transports.base import UNSUPERVISED


@dataclass(frozen=True)
class RoundPlan:
    """The work of each round, from the rule, the clients and the settings alone.

    Attributes:
        rule: The rule.
        clients: Names of all clients.
        settings: Of the run.
        examples: Of each client, by split; needed for steps and for the order of evaluation.
        batch_size: Examples in a training batch.
    """

    rule: Aggregator
    clients: Sequence[str]
    settings: RunSettings
    examples: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    batch_size: int = 1

    @cached_property
    def cohorts(self) -> dict[str, tuple[str, ...]]:
        """Who may train, and on whose data: a client on its own, or for reference rules all of them pooled."""
        cohorts = self.rule.cohorts([name for name in self.clients if not self._bare(name)])
        return {name: tuple(members) for name, members in sorted(cohorts.items())}

    def _bare(self, name: str) -> bool:
        """Whether a client holds training examples, and nothing to learn from in any of them."""
        counts = self.examples.get(name, {})
        return counts.get(UNSUPERVISED, 0) > 0 and not counts["train"]

    @property
    def pools(self) -> bool:
        """Whether anybody trains on other data than its own."""
        return any(members != (name,) for name, members in self.cohorts.items())

    @property
    def rounds(self) -> int:
        """Rounds of the run; 0 where nobody trains."""
        return self.settings.max_rounds if self.cohorts else 0

    def sample(self, index: int) -> list[str]:
        """Who trains in a round, sorted: the rule's choice, or drawn by (seed, round) alone.

        Raises:
            FedlitError: The rule's choice is empty, has somebody twice, or somebody who may not train.
        """
        names = list(self.cohorts)
        own = self.rule.participants(names, index)
        if own is not None:
            if not own or len({*own}) < len(own) or not {*own} <= {*names}:
                raise FedlitError(
                    f"{type(self.rule).__name__}.participants gives {list(own)[:5]} for round {index + 1}, expected "
                    f"some of the {len(names)} clients, each once"
                )
            return sorted(own)
        order = torch.randperm(len(names), generator=seeds.generator(self.settings.seed, "clients", index)).tolist()
        return sorted(names[i] for i in order[: self._cohort_size(len(names))])

    def steps(self, name: str, index: int = 0) -> int:
        """Optimizer steps of a job in a round.

        One on pooled data takes as many as its members would in a round together, and a rule may take more.
        """
        s, members = self.settings, self.cohorts[name]
        each = sum(
            local_work(
                self.examples[m]["train"], self.batch_size, s.local_steps, s.local_epochs, s.accumulate_grad_batches
            )
            for m in members
        )
        share = self._cohort_size(len(members)) / len(members) if len(members) > 1 else 1
        return self.rule.local_steps(max(1, round(each * share)), index)

    def groups(self, index: int) -> list[tuple[int, str, int]]:
        """Who trains in a round, in order: index of the group, name, optimizer steps."""
        work = {name: self.steps(name, index) for name in self.sample(index)}
        return [(group, name, work[name]) for group, name in grouped(work, self.settings.at_once)]

    def scored(self, split: str) -> list[tuple[int, str]]:
        """Whose models are scored, in order: index of the group, name."""
        return grouped({client: self.examples[client][split] for client in self.evaluated}, self.settings.at_once)

    @property
    def evaluated(self) -> Sequence[str]:
        """Clients on whose data models are scored."""
        return self.clients[: self.settings.limit_eval_clients]

    def replies_needed(self, asked: int) -> int:
        """Replies without which a round is not done, of so many clients that were asked."""
        return share_of(self.settings.min_replies, asked)

    @property
    def most_groups(self) -> int:
        """Groups of the round that has most: more ranks than that would have no work."""
        chosen = [self.rule.participants(list(self.cohorts), index) for index in range(self.settings.max_rounds)]
        sizes = [self._cohort_size(len(self.cohorts)) if own is None else len(own) for own in chosen]
        return max(1, math.ceil(max(sizes, default=0) / self.settings.at_once))

    def idle(self, ranks: int) -> int:
        """Ranks that never have work."""
        return max(0, ranks - self.most_groups)

    def _cohort_size(self, available: int) -> int:
        return share_of(self.settings.clients_per_round, available)


def grouped(work: Mapping[str, int], at_once: int) -> list[tuple[int, str]]:
    """Clients in the order in which they are worked on, each with the index of its group.

    Groups hold ``at_once`` clients of like work, so that few wait for others; those of most work come first. They
    depend on the clients and their work alone.

    Args:
        work: Of each client, for instance optimizer steps.
        at_once: Clients in a group.
    """
    ordered = sorted(work, key=lambda client: (-work[client], client))
    return [(place // at_once, client) for place, client in enumerate(ordered)]
