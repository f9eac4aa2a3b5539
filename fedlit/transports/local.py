"""Clients in this process: what each does with a job, and a transport that asks them one after the other."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any, cast

import torch

from fedlit import codec, seeds, tree
from fedlit.aggregators import Aggregator
from fedlit.compression import Channel
from fedlit.engine.batches import Batches, evaluation_batch_size, evaluation_loader, training_batches
from fedlit.engine.client_state import ClientMemory
from fedlit.engine.evaluation import scores_of
from fedlit.engine.serial import Trained
from fedlit.engine.vectorized.engine import Assignment, BatchedEngine
from fedlit.errors import FedlitError
from fedlit.transports.base import Job, Reply
from fedlit.tree import Tree


class LocalClients:
    """All clients, simulated: their data, their memory, and the engine they share.

    Args:
        rule: Whose client half they run.
        together: Trains the clients of a group.
        data: A :class:`~fedlit.data.FederatedDataModule` after ``setup``.
        memory: What they keep.
        initial: The initial parameters, from which a first memory is made.
        seed: Of batches and dropout.
        limit_eval_batches: Score on the first so many batches of a client only.
        channel: What uploads go through.
    """

    def __init__(
        self,
        rule: Aggregator,
        together: BatchedEngine,
        data: Any,
        memory: ClientMemory,
        initial: Tree,
        seed: int,
        limit_eval_batches: int | None = None,
        channel: Channel | None = None,
    ) -> None:
        self.rule, self.together, self.data, self.memory = rule, together, data, memory
        self.engine = together.engine
        self.initial, self.seed, self.limit_eval_batches = initial, seed, limit_eval_batches
        self.channel = channel or Channel()
        self._sent: tuple[bytes, Tree] = (b"", {})  # decoded once where all are sent the same

    def run(self, jobs: Iterable[Job], deadline_s: float | None = None) -> Iterator[Reply]:
        """Do the jobs in their order, a group at a time. There is no wait that a deadline could cut short."""
        for (kind, _), group in groupby(jobs, key=lambda job: (job.kind, job.group)):
            if kind == "train":
                yield from self.train(list(group))
            else:
                yield from self.evaluate(list(group))

    def remembered(self, client: str) -> Tree:
        """A client's memory, the initial one if it has none yet."""
        kept = self.memory.read(client)
        return tree.ordered(self.rule.init_memory(self.initial)) if kept is None else kept

    def train(self, jobs: list[Job]) -> Iterator[Reply]:
        """Local steps of a group, then the replies; with a job's ``split`` the trained model is scored too."""
        work = [self.assignment(job) for job in jobs]
        trained = self.together.train(self.rule, work, self.data.batch_size)
        scored = [i for i, job in enumerate(jobs) if job.split is not None]
        asked = [(trained[i].model, jobs[i].members) for i in scored]
        scores = dict(zip(scored, self.scores(asked, jobs[scored[0]].split, len(jobs)), strict=True)) if scored else {}
        for i, (job, one, done) in enumerate(zip(jobs, work, trained, strict=True)):
            yield self._reply(job, one.memory, done, *scores.get(i, ({}, 0)))

    def assignment(self, job: Job) -> Assignment:
        """What the client of a training job is to do.

        Raises:
            FedlitError: It has no examples.
        """
        dataset = self.data.dataset(job.members, "train")
        count, size = len(dataset), self.data.batch_size
        if not count:
            raise FedlitError(
                f"client {job.client!r} has no training examples: leave it out, or split its data otherwise"
            )
        generator = seeds.generator(self.seed, "batches", job.round, job.client)
        batches = training_batches(count, size, job.steps * self.engine.accumulate_grad_batches, generator)
        if job.payload is not self._sent[0]:
            self._sent = job.payload, codec.decode(job.payload)[0]
        return Assignment(
            self._sent[1],
            self.remembered(job.client),
            Batches(dataset, batches, self.data.collate),
            job.steps,
            seeds.key(self.seed, "network", job.round, job.client),
            evaluation_loader(self.data, dataset) if self.rule.measures else (),
        )

    def _reply(self, job: Job, before: Tree, trained: Trained, values: dict[str, float], evaluated: int) -> Reply:
        count = len(self.data.dataset(job.members, "train"))
        if not math.isfinite(trained.loss):
            return Reply(job.ticket, job.client, error=f"its local loss became {trained.loss}: lower the learning rate")
        kept = tree.leaves(trained.memory)
        if not all(torch.isfinite(leaf).all() for leaf in kept):
            return Reply(job.ticket, job.client, error="what it would remember is not finite: lower the learning rate")
        if self.channel.transforms and (path := tree.not_finite(trained.upload)) is not None:
            return Reply(job.ticket, job.client, error=f"{path} is not finite")  # rounding could hide it
        draws = seeds.generator(self.seed, "compression", job.round, job.client)
        residual = self.memory.residual(job.client) if self.channel.feedback else None
        sent = self.channel.encode(trained.upload, residual, draws)
        if kept or tree.leaves(before) or sent.residual is not None:  # one that never remembers a tensor has no file
            self.memory.stage(job.client, trained.memory, sent.residual)
        scores = {"personal": values} if evaluated else {}
        return Reply(
            job.ticket,
            job.client,
            codec.encode(sent.wire),
            self.rule.weigh(count, trained.work),
            {"train_loss": trained.loss, "steps": float(job.steps), "evaluated": float(evaluated), **sent.figures},
            scores,
            count,
        )

    def evaluate(self, jobs: list[Job]) -> Iterator[Reply]:
        """Scores of the models that the jobs of a group name; equal models are run once."""
        asked: dict[tuple[int, str], tuple[Tree, tuple[str, ...]]] = {}
        same: set[int] = set()
        payload, sent = b"", dict[str, Any]()
        for i, job in enumerate(jobs):
            if job.payload is not payload:
                payload, sent = job.payload, cast(dict[str, Any], codec.decode(job.payload)[0])
            for name in job.models:
                model = sent["global"] if name == "global" else self.personal(job.client, sent["down"])
                if name == "personal" and (i, "global") in asked and tree.equal(model, sent["global"]):
                    same.add(i)
                else:
                    asked[i, name] = model, job.members
        asked = dict(sorted(asked.items(), key=lambda item: item[0][1]))  # one model for all side by side
        scores = dict(zip(asked, self.scores([*asked.values()], jobs[0].split, len(jobs)), strict=True))
        for i, job in enumerate(jobs):
            named = {name: scores[i, "global" if i in same else name] for name in job.models}
            values = {name: found for name, (found, _) in named.items()}
            yield Reply(job.ticket, job.client, scores=values, num_examples=max(n for _, n in named.values()))

    def personal(self, client: str, down: Tree) -> Tree:
        """The model that a client serves."""
        model: Tree = self.rule.personal(down, self.remembered(client))
        return model

    def scores(
        self, asked: list[tuple[Tree, tuple[str, ...]]], split: str | None, clients: int
    ) -> list[tuple[dict[str, float], int]]:
        """Of each model on a split of its clients: metrics, and how many examples there are; none if it is empty."""
        assert split is not None
        datasets = [self.data.dataset(members, split) for _, members in asked]
        limit, size = self.limit_eval_batches, evaluation_batch_size(self.data)
        counts = [len(d) if limit is None else min(len(d), limit * size) for d in datasets]
        filled = [i for i, count in enumerate(counts) if count]
        models = [asked[i][0] for i in filled]
        batches = [evaluation_loader(self.data, datasets[i], limit) for i in filled]
        if clients == 1:
            scores = [self.engine.evaluate(m, b, split) for m, b in zip(models, batches, strict=True)]
        else:
            scores = scores_of(self.together, models, batches, split, size)
        found = dict(zip(filled, scores, strict=True))
        return [(found.get(i, {}), count) for i, count in enumerate(counts)]
