"""The round loop: one rule from its initial state to its last round, in one run folder. It knows no rule by name."""

from __future__ import annotations

import secrets
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from fedlit import seeds, tree
from fedlit.aggregators import Server
from fedlit.compression import Channel
from fedlit.engine.batches import evaluation_loader
from fedlit.errors import FedlitError
from fedlit.federation.dry_run import Setting, check_feedback, rehearse
from fedlit.federation.jobs import Jobs
from fedlit.federation.quorum import demand_quorum
from fedlit.federation.scores import Monitor, Row, score_rows, summaries, training_rows
from fedlit.federation.session import Session
from fedlit.runs.checkpoint import Committed
from fedlit.runs.fingerprint import PARTS, check_same
from fedlit.tasks.task import member
from fedlit.transports import Inbox, Job, Kind, Reply, ledger
from fedlit.tree import Tree


class FederatedLoop:
    """Runs one rule.

    Args:
        session: What the run works with.
        run: Which of the session's rules: empty for its own.
    """

    def __init__(self, session: Session, run: str = "") -> None:
        self.session, self.run_name, self.rule = session, run, session.rules[run]
        self.settings, self.fabric, self.callbacks = session.settings, session.fabric, session.callbacks
        self.folder, self.plan = session.run_folder(run), session.plan(self.rule)
        self.fingerprint = session.fingerprint(self.rule)
        self.initial: Tree = tree.ordered(dict(session.engine.initial()))
        self.channel = Channel(self.settings.compression or ())
        self.state: Tree = tree.ordered(self.rule.init(self.initial))
        self.states = self.folder.states
        self.jobs = Jobs(self.rule, run, self.plan, self.states, self.initial)
        own = self.rule is session.aggregator
        self.monitor = Monitor(self.settings.monitor, session.metrics("val"), needed=own)
        self.rounds_done = self.first_round = 0
        self.best: float | None = None

    # -- the run ---------------------------------------------------------------------------------------------------
    def dry_run(self) -> bool | None:
        """Whether the rule trusts the server with single updates; see :func:`fedlit.federation.dry_run.rehearse`.

        Raises:
            FedlitError: The rule cannot work with this task, these data, these sites or these settings.
        """
        plan, session = self.plan, self.session
        if not plan.cohorts:
            return False
        if plan.pools and session.transport.local is None:
            raise FedlitError(
                f"{type(self.rule).__name__} trains on pooled data, which sites do not give away: leave it out of "
                "trainer.baselines"
            )
        setting = Setting(
            task=session.task,
            sample=plan.sample,
            steps=plan.steps,
            rounds=self.settings.max_rounds,
            num_clients=len(plan.cohorts),
            scaling=session.engine.scaling,
            server_data=self._server_batches() is not None,
        )
        if self.channel.feedback:
            check_feedback(self.rule, self.initial)
        return rehearse(self.rule, self.initial, setting)

    def run(self) -> None:
        """All rounds that are not done yet; then the final scores."""
        name, rounds = type(self.rule).__name__, self.plan.rounds
        self._resume()
        self.first_round = self.rounds_done
        self.callbacks.call("on_run_start", name, rounds, self.rounds_done)
        told = self.fabric.is_global_zero and not self.settings.fast_dev_run
        if told and 0 < rounds < self.rule.min_rounds:
            warnings.warn(
                f"{name} needs {self.rule.min_rounds} rounds to come to its last part, and "
                f"trainer.max_rounds is {rounds}: figures of this run are not of the whole rule",
                stacklevel=1,
            )
        if not self.folder.checkpoints.exists():
            self._start()
        while self.rounds_done < rounds and not self.callbacks.should_stop:
            self._round(self.rounds_done)
        self.callbacks.call("on_run_end", name)

    def _resume(self) -> None:
        if self.fabric.is_global_zero:
            self.folder.checkpoints.clean()
        self.fabric.barrier()
        fresh = not self.folder.checkpoints.exists()
        meta: dict[str, Any] = {} if fresh else self.restore("last").meta
        if self.fabric.is_global_zero:
            for name in ("metrics", "ledger"):
                getattr(self.folder, name).cut(meta.get(f"{name}_bytes", 0))
            self.states.table.cut(meta.get("states_bytes", 0))
        self.fabric.barrier()
        if not fresh:
            self.callbacks.load_callbacks(meta["callbacks"], meta["should_stop"])

    def restore(self, name: str, parts: Sequence[str] = PARTS) -> Committed:
        """Take the state of a committed round, and give the round.

        Args:
            name: ``last`` or ``best``.
            parts: Of the fingerprint, which must be equal: all for training on; rule and model to score other data.

        Raises:
            FedlitError: It belongs to another configuration; the fields that differ are named.
        """
        committed = self.folder.checkpoints.read(name)
        self.check(committed, parts)
        best = self.folder.checkpoints.read("best") if self.folder.checkpoints.exists("best") else None
        self.states.restore(committed.meta, None if best is None else best.meta)
        local = self.session.transport.local
        if "states_bytes" not in committed.meta and local is not None:
            for client, state in self._adopted(name, committed.round).items():
                self.states.take(client, state)
            self.states.best = self._adopted("best", best.round) if best is not None else {}
        self.state, self.rounds_done, self.best = committed.state, committed.round, committed.meta["best"]
        return committed

    def check(self, committed: Committed, parts: Sequence[str] = PARTS) -> None:
        """Refuse a committed round of another configuration.

        Raises:
            FedlitError: The fields that differ are named.
        """
        made, asked = ({part: f.get(part) for part in parts} for f in (committed.meta["fingerprint"], self.fingerprint))
        check_same(made, asked, self.folder.path, member(self.session.task, "added_arguments"), self.rule)

    def _adopted(self, name: str, done: int) -> dict[str, str]:
        """Names of states of a run that was made before states had names."""
        local = self.session.transport.local
        assert local is not None
        return local.adopt(self.run_name, self.folder.checkpoints.memories(name), done)

    def _start(self) -> None:
        self.callbacks.current_epoch = 0
        rows: list[Row] = []
        if "start" in self.settings.evaluate_at or not self.plan.cohorts:
            rows = self.scores("start", "val")
        self._commit(rows, [], {})

    def _round(self, index: int) -> None:
        """One round: train, admit, aggregate, evaluate, commit."""
        settings, callbacks = self.settings, self.callbacks
        work = self.plan.groups(index)
        callbacks.current_epoch = index
        callbacks.call("on_round_start", index, sorted(name for _, name, _ in work))
        callbacks.lightning("on_train_epoch_start")
        last = index + 1 == settings.max_rounds
        due = last or (index + 1) % settings.check_val_every_n_rounds == 0
        split = "val" if due and "after_local" in settings.evaluate_at else None
        inbox, crossed = Inbox(channel=self.channel), list[ledger.Row]()
        replies = self._train(index, work, split, inbox, crossed)
        generator = seeds.generator(settings.seed, "server", index)
        server = Server(index, generator, self._server_losses(), len(self.plan.cohorts), self.session.engine.scaling)
        updates = sorted(inbox.updates, key=lambda u: u.client)
        with torch.no_grad():
            self.state = tree.ordered(self.rule.aggregate(self.state, updates, server))
        inbox.close()
        missing = inbox.missing()
        rows = training_rows(index + 1, replies, inbox.refused, missing, self.channel.figures)
        figures = sorted(server.logged.items())
        if split:
            rows += score_rows(index + 1, "after_local", split, replies, self.session.metrics("val"))
        if due and "after_aggregation" in settings.evaluate_at:
            rows += self.scores("after_aggregation", "val", index + 1)
        values = {
            "train/loss": _mean(r.metrics["train_loss"] for r in replies),
            "train/bytes": float(sum(row[4] for row in crossed)),
            "train/refused": float(len(inbox.refused)),
            **({"train/missing": float(len(missing))} if missing else {}),
            **{f"train/{name}": _mean(r.metrics[name] for r in replies) for name in self.channel.figures},
        }
        rows = self._logged(type(self.rule).__name__, figures, rows, values, index + 1)
        for name, more in callbacks.figures(index, {**summaries(rows), **values}):
            rows = self._logged(name, sorted(more.items()), rows, values, index + 1)
        self._commit(rows, sorted(crossed), values, index + 1)
        callbacks.call("on_round_end", index, callbacks.callback_values)

    def _train(
        self,
        index: int,
        work: list[tuple[int, str, int]],
        split: str | None,
        inbox: Inbox,
        crossed: list[ledger.Row],
    ) -> list[Reply]:
        """The replies that count, their uploads in the inbox.

        Raises:
            FedlitError: Every client was refused.
            Interrupted: Fewer than ``min_replies`` clients count.
        """
        replies: list[Reply] = []
        jobs = self._training_jobs(index, work, split, inbox, crossed)
        for reply in self.session.transport.run(jobs, self.settings.deadline_s):
            if reply.payload:
                crossed.append(ledger.measure(index + 1, reply.client, "up", reply.payload))
            if inbox.receive(reply):
                replies.append(replace(reply, payload=b""))
                if reply.kept:
                    self.states.take(reply.client, reply.kept)
                self.callbacks.call("on_client_end", index, reply.client, reply.metrics)
            else:
                self.callbacks.call("on_client_refused", index, reply.client, inbox.refused[reply.client])
        for client in inbox.missing():
            self.callbacks.call("on_client_missing", index, client)
        demand_quorum(index, len(work), self.plan, inbox)
        return replies

    def _training_jobs(
        self, index: int, work: list[tuple[int, str, int]], split: str | None, inbox: Inbox, crossed: list[ledger.Row]
    ) -> Iterator[Job]:
        token = self.fabric.broadcast(secrets.token_hex(16))
        for job, like in self.jobs.training(self.state, index, work, split, token):
            crossed.append(ledger.measure(index + 1, job.client, "down", job.payload))
            inbox.expect(job, like)
            yield job

    # -- scores ----------------------------------------------------------------------------------------------------
    def scores(self, stage: str, split: str, rounds: int = 0) -> list[Row]:
        """Scores of the global and the personal models on every client's split."""
        replies = self._answers(self.jobs.evaluation(self.state, rounds, split))
        return score_rows(rounds, stage, split, replies, self.session.metrics(split))

    def external_scores(self, stage: str, rounds: int = 0) -> list[Row]:
        """Scores of the global model on the test data of external sites; none of a rule without one."""
        sites = self.session.roster.external
        replies = self._answers(self.jobs.external(self.state, rounds, sites, self.settings.at_once))
        return score_rows(rounds, stage, "external", replies, self.session.metrics("test"))

    def naive_scores(self, split: str) -> list[Row]:
        """Scores of the predictors without a network that ``trainer.naive`` asks for, on every client's split.

        The model of a row is ``naive:`` and the name; the stage is ``start``, whatever was trained since.
        """
        session, wanted = self.session, self.settings.naive
        if not wanted:
            return []
        names = [] if wanted is True else wanted
        replies = self._answers(self.jobs.naive(split, names, session.roster.able("naive")))
        rows: list[Row] = []
        for name in dict.fromkeys(name for reply in replies for name in reply.scores):
            own = [replace(r, scores={f"naive: {name}": r.scores[name]}) for r in replies if name in r.scores]
            rows += score_rows(0, "start", split, own, session.metrics(split))
        return rows

    def ask(self, kind: Kind) -> list[Reply]:
        """Have clients ``export`` the models that they serve, or ``predict`` by them; their replies in order."""
        return self._answers(self.jobs.serving(kind, self.state, self.rounds_done))

    def _answers(self, jobs: Iterator[Job]) -> list[Reply]:
        """Replies of clients to what changes nothing; one that does not answer is named and left out.

        A reply counts once, for its own job: one that comes too late for an earlier job is passed over.
        """
        waiting: dict[str, str] = {}

        def noted() -> Iterator[Job]:
            for job in jobs:
                waiting[job.ticket] = job.client
                yield job

        replies = []
        for reply in self.session.transport.run(noted(), self.settings.deadline_s):
            if waiting.get(reply.ticket) != reply.client:
                continue
            del waiting[reply.ticket]
            if reply.error is None:
                replies.append(reply)
            else:
                warnings.warn(f"client {reply.client!r}: {reply.error}", stacklevel=2)
        if waiting and self.session.transport.local is None:
            silent = ", ".join(sorted(waiting.values()))
            warnings.warn(f"no answer from {silent}: figures are without them", stacklevel=2)
        return replies

    def _server_batches(self) -> Iterable[Any] | None:
        data = self.session.server_data
        if data is None or (dataset := data.server_dataset()) is None:
            return None
        return evaluation_loader(data, dataset)

    def _server_losses(self) -> Callable[[Iterable[Tree]], list[torch.Tensor]] | None:
        batches = self._server_batches()
        if batches is None:
            return None
        return lambda models: self.session.engine.losses(models, batches, self.settings.at_once)

    # -- the commit ------------------------------------------------------------------------------------------------
    def _logged(
        self, who: str, figures: Sequence[tuple[str, float]], rows: list[Row], values: dict[str, float], done: int
    ) -> list[Row]:
        """Rows with the figures that a rule or a callback adds to a round; ``values`` take them too.

        Raises:
            FedlitError: A figure has the name of one of the trainer's own.
        """
        for name, value in figures:
            if f"train/{name}" in values:
                raise FedlitError(f"{who} logs {name!r}, which is a figure of the trainer's own")
            values[f"train/{name}"] = value
        added = [(done, "after_aggregation", "global", "server", "train", name, value, 0) for name, value in figures]
        trained = sum(row[4] == "train" for row in rows)
        return [*rows[:trained], *added, *rows[trained:]]

    def _commit(self, rows: list[Row], crossed: list[ledger.Row], extra: dict[str, float], done: int = 0) -> None:
        """Log, tell the callbacks, and make the round durable."""
        callbacks = self.callbacks
        values = {**summaries(rows), **extra}
        if values:
            callbacks.log_values(values, done)
        improved = self.monitor.improved(values, self.best)
        best, self.best = improved is not None, self.best if improved is None else improved
        callbacks.lightning_hooks(done)
        self.fabric.barrier()  # every rank's client states are written
        writes = self.fabric.is_global_zero
        named = self.states.commit(done, best, writes)
        if writes:
            self.folder.metrics.append(rows)
            self.folder.ledger.append(crossed)
            meta = {
                "fingerprint": self.fingerprint,
                "metrics_bytes": self.folder.metrics.size(),
                "ledger_bytes": self.folder.ledger.size(),
                **named,
                "best": self.best,
                "callbacks": callbacks.callback_states(),
                "should_stop": callbacks.should_stop,
            }
            self.folder.checkpoints.commit(done, self.state, meta, best)
        self.fabric.barrier()
        self.rounds_done = done


def _mean(values: Iterator[float]) -> float:
    kept = list(values)
    return sum(kept) / len(kept)
