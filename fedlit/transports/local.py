"""Sites in this process: what each does with a job. A simulation holds all of them, a hospital's process its own."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, cast

import torch
from torch.utils.data import Subset

from fedlit import codec, seeds, tree
from fedlit.aggregators import Aggregator
from fedlit.backbones.digest import frozen_digest, frozen_tensors
from fedlit.backbones.lora import rank_stabilised
from fedlit.compression import Channel
from fedlit.data import FederatedDataModule
from fedlit.engine.batches import Batches, evaluation_batch_size, evaluation_loader, training_batches
from fedlit.engine.client_state import ClientStates, Kept
from fedlit.engine.engine import Assignment, Engine, Trained
from fedlit.engine.naive import naive_scores
from fedlit.engine.outputs import Predictions, export_model
from fedlit.errors import FedlitError, writing
from fedlit.runs.fingerprint import data_fingerprint
from fedlit.runs.folder import RunFolder
from fedlit.runs.settings import RunSettings
from fedlit.runs.versions import versions
from fedlit.tasks.task import member
from fedlit.transports.base import UNSUPERVISED, Description, Job, Kind, Reply
from fedlit.tree import Tree

JOBS: tuple[Kind, ...] = ("train", "evaluate", "export", "predict", "naive")
PACKAGES = ("fedlit", "torch", "lightning", "peft", "transformers")


class LocalSites:
    """Clients that share a process: their data, what they keep, and the engine that trains them.

    Args:
        data: After ``setup``; its clients are those held here.
        engine: Trains them.
        rules: The run's rule, under the empty name, and its baselines under ``baselines/<label>``.
        settings: Of the run.
        folder: What they keep and export goes here, a folder below it for each rule; in a simulation the run folder.
    """

    def __init__(
        self,
        data: FederatedDataModule,
        engine: Engine,
        rules: Mapping[str, Aggregator],
        settings: RunSettings,
        folder: Path,
    ) -> None:
        self.data, self.engine, self.settings, self.folder = data, engine, settings, folder
        self.rules = {run: rule.suited(rank_stabilised(engine.task)) for run, rule in rules.items()}
        self.channel = Channel(settings.compression or ())
        self.initial: Tree = tree.ordered(dict(engine.initial()))
        self.states = {run: ClientStates(RunFolder(folder / run).client_states) for run in rules}
        self._kept: dict[tuple[str, ...], list[int] | None] = {}
        self._decoded: tuple[bytes, Tree] = (b"", {})  # once where all are sent the same

    @property
    def local(self) -> LocalSites:
        return self

    # -- what the server asks before a run -------------------------------------------------------------------------
    def describe(self) -> list[Description]:
        """One description of all that are here."""
        initial = dict(self.engine.initial())
        return [
            Description(
                examples={client: self._counts(client) for client in self.data.clients},
                batch_size=self.data.batch_size,
                facts=self.data.facts(),
                data=data_fingerprint(self.data, self.partition()),
                simulated=self.data.simulated,
                notes=self._notes(),
                frozen=frozen_digest(frozen_tensors(self.engine.task)),
                initial=frozen_digest(initial),
                trains={name: f"{str(p.dtype).removeprefix('torch.')}{list(p.shape)}" for name, p in initial.items()},
                versions=versions(PACKAGES),
                jobs=JOBS,
                external={site: self.data.example_counts(site)["test"] for site in self.data.external},
            )
        ]

    def _counts(self, client: str) -> dict[str, int]:
        counts = dict(self.data.example_counts(client))
        if member(self.engine.task, "supervised") is None:
            return counts
        kept = len(self._train_set((client,)))
        left_out = counts["train"] - kept
        return counts | ({"train": kept, UNSUPERVISED: left_out} if left_out else {})

    def _train_set(self, members: tuple[str, ...]) -> Any:
        """Training examples of some clients, without those that have nothing to learn from."""
        dataset, supervised = self.data.dataset(members, "train"), member(self.engine.task, "supervised")
        if supervised is None:
            return dataset
        if members not in self._kept:
            flags = [on for batch in evaluation_loader(self.data, dataset) for on in supervised(batch).tolist()]
            self._kept[members] = None if all(flags) else [i for i, on in enumerate(flags) if on]
        kept = self._kept[members]
        return dataset if kept is None else Subset(cast(Any, dataset), kept)

    def _notes(self) -> list[str]:
        if not getattr(self.data, "parity", False):
            return []
        return [f"parity: {getattr(self.data, 'parity_means', 'split as the paper did')}"]

    def partition(self) -> dict[str, Any]:
        """Contents of ``partition.json``: who holds which records."""
        return self._partition

    @cached_property
    def _partition(self) -> dict[str, Any]:
        return self.data.describe()

    def adopt(self, run: str, memories: Sequence[Path], done: int) -> dict[str, str]:
        """Names for the states of a run that was made before states had names, by client."""
        names: dict[str, str] = {}
        for folder in memories:
            names |= self.states[run].adopt(folder, done)
        return names

    # -- jobs ------------------------------------------------------------------------------------------------------
    def run(self, jobs: Iterable[Job], deadline_s: float | None = None) -> Iterator[Reply]:
        """Do the jobs in their order, a group at a time. There is no wait that a deadline could cut short.

        Raises:
            FedlitError: A job is on data, or of a rule, that are not here.
        """
        work = {kind: getattr(self, kind) for kind in JOBS}
        for (kind, _), group in groupby(map(self._checked, jobs), key=lambda job: (job.kind, job.group)):
            yield from work[kind](list(group))

    def _checked(self, job: Job) -> Job:
        """A job on data that are here.

        Raises:
            FedlitError: It asks for the data of a client that is not.
        """
        if elsewhere := {*job.members} - {*self.data.clients, *self.data.external}:
            raise FedlitError(f"a job on the data of {min(elsewhere)!r}, and here are {', '.join(self.data.clients)}")
        return job

    def train(self, jobs: list[Job]) -> Iterator[Reply]:
        """Local steps of a group, then the replies; with a job's ``split`` the trained model is scored too."""
        work = [self.assignment(job) for job in jobs]
        trained = self.engine.train(self._rule(jobs[0]), work, self.data.batch_size)
        scored = [i for i, job in enumerate(jobs) if job.split is not None]
        asked = [(trained[i].model, jobs[i].members) for i in scored]
        scores = dict(zip(scored, self._scores(asked, jobs[scored[0]].split, len(jobs)), strict=True)) if scored else {}
        for i, (job, assignment, done) in enumerate(zip(jobs, work, trained, strict=True)):
            yield self._reply(job, assignment, done, *scores.get(i, ({}, 0)))

    def assignment(self, job: Job) -> Assignment:
        """What the client of a training job is to do.

        Raises:
            FedlitError: It has no examples, or needs to know how many rounds there are and is not told.
        """
        rule, dataset = self._rule(job), self._train_set(job.members)
        count, size = len(dataset), self.data.batch_size
        if not count:
            raise FedlitError(
                f"client {job.client!r} has no training examples: leave it out, or split its data otherwise"
            )
        if member(self.engine.task, "spans_run") and not job.round < job.rounds:
            raise FedlitError(
                f"client {job.client!r} plans its learning rate over the run, and is in round {job.round + 1} of "
                f"{job.rounds}: give the server this version of fedlit, or take model.schedule_over 'round'"
            )
        generator = seeds.generator(self.settings.seed, "batches", job.round, job.client)
        steps = job.steps * self.engine.accumulate_grad_batches
        seen = self.data.as_trained_on(dataset, seeds.key(self.settings.seed, "examples", job.round, job.client))
        return Assignment(
            self._sent(job),
            self._memory(job),
            Batches(seen, training_batches(count, size, steps, generator), self.data.collate),
            job.steps,
            seeds.key(self.settings.seed, "network", job.round, job.client),
            evaluation_loader(self.data, dataset) if rule.measures else (),
            job.round,
            job.rounds,
        )

    def _reply(self, job: Job, work: Assignment, trained: Trained, values: dict[str, float], evaluated: int) -> Reply:
        rule, count = self._rule(job), len(self._train_set(job.members))
        if not math.isfinite(trained.loss):
            return Reply(job.ticket, job.client, error=f"its local loss became {trained.loss}: lower the learning rate")
        kept = tree.leaves(trained.memory)
        if not all(torch.isfinite(leaf).all() for leaf in kept):
            return Reply(job.ticket, job.client, error="what it would remember is not finite: lower the learning rate")
        if self.channel.transforms and (path := tree.not_finite(trained.upload)) is not None:
            return Reply(job.ticket, job.client, error=f"{path} is not finite")  # rounding could hide it
        states, draws = self.states[job.run], seeds.generator(self.settings.seed, "compression", job.round, job.client)
        residual = states.read(job.client, job.base).residual if self.channel.feedback else None
        sent = self.channel.encode(trained.upload, residual, draws)
        name = ""
        if kept or tree.leaves(work.memory) or sent.residual is not None:  # one that never keeps a tensor has no file
            name = states.keep(job.client, job.round, Kept(trained.memory, sent.residual), job.others)
        return Reply(
            job.ticket,
            job.client,
            codec.encode(sent.wire),
            rule.weigh(count, trained.work),
            {"train_loss": trained.loss, "steps": float(job.steps), "evaluated": float(evaluated), **sent.figures},
            {"personal": values} if evaluated else {},
            count,
            kept=name,
        )

    def evaluate(self, jobs: list[Job]) -> Iterator[Reply]:
        """Scores of the models that the jobs of a group name; equal models are run once."""
        asked: dict[tuple[int, str], tuple[Tree, tuple[str, ...]]] = {}
        same: set[int] = set()
        for i, job in enumerate(jobs):
            sent: Any = self._sent(job)
            for name in job.models:
                model = sent["global"] if name == "global" else self._personal(job)
                if name == "personal" and (i, "global") in asked and tree.equal(model, sent["global"]):
                    same.add(i)
                else:
                    asked[i, name] = model, job.members
        asked = dict(sorted(asked.items(), key=lambda item: item[0][1]))  # one model for all side by side
        scores = dict(zip(asked, self._scores([*asked.values()], jobs[0].split, len(jobs)), strict=True))
        for i, job in enumerate(jobs):
            named = {name: scores[i, "global" if i in same else name] for name in job.models}
            values = {name: found for name, (found, _) in named.items()}
            yield Reply(job.ticket, job.client, scores=values, num_examples=max(n for _, n in named.values()))

    def export(self, jobs: list[Job]) -> Iterator[Reply]:
        """Each client's own model, where it is another than the global one, in ``adapters/clients/<client>``."""
        initial, before, own = cast(dict[str, Any], self.initial), None, False
        for job in jobs:
            shared = cast(dict[str, Any], self._sent(job)).get("global")
            model = cast(dict[str, Any], self._personal(job))
            if model is not before:  # most rules serve all clients the object that was sent
                before = model
                own = shared is None or not tree.equal({**initial, **model}, {**initial, **shared})
            if own:
                folder = self.folder / job.run / "adapters"
                with writing(folder):
                    export_model(self.engine, self._rule(job), model, folder / "clients" / job.client)
            yield Reply(job.ticket, job.client)

    def predict(self, jobs: list[Job]) -> Iterator[Reply]:
        """What the clients' own models predict on their test data, in the task's ``prediction_file``; the last reply
        has the scores of all of these predictions ``pooled``, where the task can score them."""
        with Predictions(self.engine, self.folder) as predictions:
            for job in jobs[:-1]:
                yield Reply(job.ticket, job.client, num_examples=self._predict(job, predictions))
            count = self._predict(jobs[-1], predictions)
        scores = {"pooled": pooled} if (pooled := predictions.pooled()) else {}
        yield Reply(jobs[-1].ticket, jobs[-1].client, scores=scores, num_examples=count)

    def naive(self, jobs: list[Job]) -> Iterator[Reply]:
        """Scores of the task's predictors without a network, made from the clients' own training examples."""
        limit = self.settings.limit_eval_batches
        for job in jobs:
            assert job.split is not None
            values, count = naive_scores(self.engine.task, self.data, job.client, job.split, job.models, limit)
            yield Reply(job.ticket, job.client, scores=values, num_examples=count)

    def _predict(self, job: Job, predictions: Predictions) -> int:
        dataset = self.data.dataset(job.members, "test")
        predictions.add(self._personal(job), evaluation_loader(self.data, dataset))
        return len(cast(Any, dataset))

    # -- parts of jobs ---------------------------------------------------------------------------------------------
    def _rule(self, job: Job) -> Aggregator:
        if job.run not in self.rules:
            raise FedlitError(f"a job of {job.run!r}, and this run has the rules {[*self.rules]}")
        return self.rules[job.run]

    def _sent(self, job: Job) -> Tree:
        if job.payload is not self._decoded[0]:
            self._decoded = job.payload, codec.decode(job.payload)[0]
        return self._decoded[1]

    def _memory(self, job: Job) -> Tree:
        """What a client remembers; the initial memory if it has none yet."""
        rule, memory = self._rule(job), self.states[job.run].read(job.client, job.base).memory
        return tree.ordered(rule.init_memory(self.initial)) if memory is None else cast(Tree, memory)

    def _personal(self, job: Job) -> Tree:
        """The model that a client serves."""
        sent: Any = self._sent(job)
        return cast(Tree, self._rule(job).personal(sent["down"], self._memory(job)))

    def _scores(
        self, asked: list[tuple[Tree, tuple[str, ...]]], split: str | None, clients: int
    ) -> list[tuple[dict[str, float], int]]:
        """Of each model on a split of its clients: metrics, and how many examples there are; none if it is empty."""
        assert split is not None
        datasets = [self.data.dataset(members, split) for _, members in asked]
        limit, size = self.settings.limit_eval_batches, evaluation_batch_size(self.data)
        lengths = [len(cast(Any, d)) for d in datasets]
        counts = [n if limit is None else min(n, limit * size) for n in lengths]
        filled = [i for i, count in enumerate(counts) if count]
        models = [asked[i][0] for i in filled]
        batches = [evaluation_loader(self.data, datasets[i], limit) for i in filled]
        if clients == 1:  # one after the other, also where it is asked for several models
            pairs = zip(models, batches, strict=True)
            scores = [scored for model, own in pairs for scored in self.engine.evaluate([model], [own], split, size)]
        else:
            scores = self.engine.evaluate(models, batches, split, size)
        found = dict(zip(filled, scores, strict=True))
        return [(found.get(i, {}), count) for i, count in enumerate(counts)]
