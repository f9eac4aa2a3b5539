"""The round loop: one rule from its initial state to its last round, in one run folder. It knows no rule by name."""

from __future__ import annotations

import math
import secrets
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import torch

from fedlit import codec, seeds, tree
from fedlit.aggregators import Aggregator, Server
from fedlit.compression import Channel
from fedlit.engine.batches import evaluation_loader
from fedlit.engine.client_state import ClientMemory
from fedlit.engine.evaluation import SharedPass
from fedlit.engine.vectorized.engine import Assignment
from fedlit.errors import FedlitError
from fedlit.federation.dry_run import Setting, check_feedback, rehearse
from fedlit.federation.plan import cohort_size, grouped
from fedlit.federation.scores import Row, higher_is_better, score_rows, summaries, training_rows
from fedlit.runs.checkpoint import Committed
from fedlit.runs.fingerprint import PARTS, check_same
from fedlit.runs.folder import RunFolder
from fedlit.transports import Inbox, Job, LocalClients, RankTransport, Reply, ledger
from fedlit.transports.payloads import Parcels
from fedlit.tree import Tree

if TYPE_CHECKING:
    from fedlit.trainer import FederatedTrainer


class FederatedLoop:
    """Runs one rule.

    Args:
        trainer: Settings, engine, data and callbacks.
        rule: The rule.
        folder: Where the run is kept.
        fingerprint: What must be equal for a resume.
        checkpoint: The committed round whose client memories are read, ``last`` or ``best``.
    """

    def __init__(
        self,
        trainer: FederatedTrainer,
        rule: Aggregator,
        folder: RunFolder,
        fingerprint: dict[str, Any],
        checkpoint: str = "last",
    ) -> None:
        self.trainer, self.rule, self.folder, self.fingerprint = trainer, rule, folder, fingerprint
        self.fabric, self.engine = trainer.fabric, trainer.engine
        self.data: Any = trainer.datamodule
        self.initial: Tree = tree.ordered(dict(self.engine.initial()))
        checkpoints = folder.checkpoints
        self.memory = ClientMemory(checkpoints.memory(checkpoint), checkpoints.staging)
        self.channel, self.parcels = Channel(trainer.compression or ()), Parcels(rule, self.initial)
        limit = trainer.limit_eval_batches
        self.local = LocalClients(
            rule, trainer.together, self.data, self.memory, self.initial, trainer.seed, limit, self.channel
        )
        cohorts = rule.cohorts(self.data.clients)
        self.cohorts = {name: tuple(members) for name, members in sorted(cohorts.items())}
        self.transport = RankTransport(self.local, self.fabric)
        self.state: Tree = tree.ordered(rule.init(self.initial))
        self.shared_pass = SharedPass(trainer.together, trainer.clients_at_once)
        self.rounds_done = self.first_round = 0
        self.best: float | None = None

    # -- the run ---------------------------------------------------------------------------------------------------
    def rehearse(self) -> bool | None:
        """Whether the rule trusts the server with single updates; see :func:`fedlit.federation.dry_run.rehearse`.

        Raises:
            FedlitError: The rule cannot work with this task, these data or this trainer.
        """
        if not self.cohorts:
            return False
        data, trainer = self.data, self.trainer
        setting = Setting(
            task=self.engine.task,
            sample=self.sample,
            steps=lambda client: self.steps(self.cohorts[client]),
            rounds=trainer.max_rounds,
            num_clients=len(self.cohorts),
            scaling=self.engine.scaling,
            server_data=data.server_dataset() is not None,
        )
        if self.channel.feedback:
            check_feedback(self.rule, self.initial)
        return rehearse(self.rule, self.initial, setting)

    def run(self) -> None:
        """All rounds that are not done yet; then the final scores."""
        rounds = self.trainer.max_rounds if self.cohorts else 0
        self._resume()
        self.first_round = self.rounds_done
        self.trainer.call("on_run_start", type(self.rule).__name__, rounds, self.rounds_done)
        told = self.fabric.is_global_zero and not self.trainer.fast_dev_run
        if told and 0 < rounds < self.rule.min_rounds:
            warnings.warn(
                f"{type(self.rule).__name__} needs {self.rule.min_rounds} rounds to come to its last part, and "
                f"trainer.max_rounds is {rounds}: figures of this run are not of the whole rule",
                stacklevel=1,
            )
        if not self.folder.checkpoints.exists():
            self._start()
        while self.rounds_done < rounds and not self.trainer.should_stop:
            self._round(self.rounds_done)
        self.trainer.call("on_run_end", type(self.rule).__name__)

    def _resume(self) -> None:
        if self.fabric.is_global_zero:
            self.folder.checkpoints.clear_staging()
        self.fabric.barrier()
        if not self.folder.checkpoints.exists():
            if self.fabric.is_global_zero:
                self.folder.metrics.cut(0)
                self.folder.ledger.cut(0)
            return
        committed = self.restore("last")
        if self.fabric.is_global_zero:
            self.folder.metrics.cut(committed.meta["metrics_bytes"])
            self.folder.ledger.cut(committed.meta["ledger_bytes"])
        self.trainer.load_callbacks(committed.meta["callbacks"], committed.meta["should_stop"])

    def restore(self, name: str, parts: Sequence[str] = PARTS) -> Committed:
        """Take the state of a committed round, and give the round.

        Args:
            name: ``last`` or ``best``.
            parts: Of the fingerprint, which must be equal: all for training on; rule and model to score other data.

        Raises:
            FedlitError: It belongs to another configuration; the fields that differ are named.
        """
        committed = self.folder.checkpoints.read(name)
        made, asked = ({part: f.get(part) for part in parts} for f in (committed.meta["fingerprint"], self.fingerprint))
        check_same(made, asked, self.folder.path)
        self.state, self.rounds_done, self.best = committed.state, committed.round, committed.meta["best"]
        return committed

    def _start(self) -> None:
        self.trainer.current_epoch = 0
        rows: list[Row] = []
        if "start" in self.trainer.evaluate_at or not self.cohorts:
            rows = self.scores("start", "val")
        self._commit(rows, [], {})

    def _round(self, index: int) -> None:
        """One round: train, admit, aggregate, evaluate, commit."""
        trainer = self.trainer
        chosen = self.sample(index)
        trainer.current_epoch = index
        trainer.call("on_round_start", index, chosen)
        trainer.lightning("on_train_epoch_start")
        last = index + 1 == trainer.max_rounds
        due = last or (index + 1) % trainer.check_val_every_n_rounds == 0
        split = "val" if due and "after_local" in trainer.evaluate_at else None
        inbox = Inbox(channel=self.channel)
        crossed: list[ledger.Row] = []
        replies: list[Reply] = []
        token = self.fabric.broadcast(secrets.token_hex(16))
        for reply in self.transport.run(self._training_jobs(index, chosen, token, split, inbox, crossed)):
            if reply.payload:
                crossed.append(ledger.measure(index + 1, reply.client, "up", reply.payload))
            if inbox.receive(reply):
                replies.append(replace(reply, payload=b""))
                trainer.call("on_client_end", index, reply.client, reply.metrics)
            else:
                if reply.client in self.cohorts and reply.client not in inbox.admitted:
                    self.memory.discard(reply.client)
                trainer.call("on_client_refused", index, reply.client, inbox.refused[reply.client])
        if not inbox.updates:
            reasons = "; ".join(f"{client}: {why}" for client, why in sorted(inbox.refused.items())[:3])
            raise FedlitError(f"round {index + 1}: every client was refused ({reasons}). Nothing committed was lost")
        generator = seeds.generator(trainer.seed, "server", index)
        server = Server(index, generator, self._server_losses(), len(self.cohorts), self.engine.scaling)
        updates = sorted(inbox.updates, key=lambda u: u.client)
        with torch.no_grad():
            self.state = tree.ordered(self.rule.aggregate(self.state, updates, server))
        inbox.close()
        rows: list[Row] = training_rows(index + 1, replies, inbox.refused, self.channel.figures)
        figures = sorted(server.logged.items())
        rows += [(index + 1, "after_aggregation", "global", "server", "train", k, v, 0) for k, v in figures]
        if split:
            rows += score_rows(index + 1, "after_local", split, replies, self._metrics("val"))
        if due and "after_aggregation" in trainer.evaluate_at:
            rows += self.scores("after_aggregation", "val", index + 1)
        extra = {
            "train/loss": _mean(r.metrics["train_loss"] for r in replies),
            "train/bytes": float(sum(row[4] for row in crossed)),
            "train/refused": float(len(inbox.refused)),
            **{f"train/{name}": _mean(r.metrics[name] for r in replies) for name in self.channel.figures},
        }
        for name, value in figures:
            if f"train/{name}" in extra:
                raise FedlitError(f"{type(self.rule).__name__} logs {name!r}, which is a figure of the trainer's own")
            extra[f"train/{name}"] = value
        self._commit(rows, sorted(crossed), extra, index + 1)
        trainer.call("on_round_end", index, trainer.callback_values)

    def sample(self, index: int) -> list[str]:
        """The clients of a round, sorted: the rule's choice, or drawn by (seed, round) alone."""
        names = list(self.cohorts)
        own = self.rule.participants(names, index)
        if own is not None:
            if not own or len({*own}) < len(own) or not {*own} <= {*names}:
                raise FedlitError(
                    f"{type(self.rule).__name__}.participants gives {list(own)[:5]} for round {index + 1}, expected "
                    f"some of the {len(names)} clients, each once"
                )
            return sorted(own)
        wanted = self.cohort_size(len(names))
        order = torch.randperm(len(names), generator=seeds.generator(self.trainer.seed, "clients", index)).tolist()
        return sorted(names[i] for i in order[:wanted])

    def cohort_size(self, available: int) -> int:
        """How many of ``available`` clients take part in a round."""
        return cohort_size(self.trainer.clients_per_round, available)

    def _training_jobs(
        self, index: int, chosen: Sequence[str], token: str, split: str | None, inbox: Inbox, crossed: list[ledger.Row]
    ) -> Iterator[Job]:
        scored = {*self._scored}
        work = {client: self.steps(self.cohorts[client]) for client in chosen}
        for group, client in grouped(work, self.trainer.clients_at_once):
            members = self.cohorts[client]
            down = self.rule.down(self.state, client)
            measured = split if scored & set(members) else None
            ticket = blake2b(client.encode(), key=token.encode(), digest_size=16).hexdigest()
            payload, steps = self.parcels.encoded(down), work[client]
            job = Job(ticket, client, index, "train", payload, measured, members, steps, group=group)
            crossed.append(ledger.measure(index + 1, client, "down", payload))
            inbox.expect(job, self.parcels.like(down))
            yield job

    def first_work(self, limit: int, steps: int) -> list[Assignment]:
        """What the first clients of the first round would do, with so many steps each."""
        work = {client: self.steps(self.cohorts[client]) for client in self.sample(0)} if self.cohorts else {}
        jobs = [
            Job("", client, 0, "train", codec.encode(self.rule.down(self.state, client)), steps=steps,
                members=self.cohorts[client])
            for _, client in grouped(work, 1)[:limit]
        ]  # fmt: skip
        return [self.local.assignment(job) for job in jobs]

    def steps(self, members: Sequence[str]) -> int:
        """Optimizer steps of a job; one on pooled data takes as many as its members would in a round together."""
        t = self.trainer
        each = sum(t.local_work(len(self.data.dataset((m,), "train")), self.data.batch_size) for m in members)
        share = self.cohort_size(len(members)) / len(members) if len(members) > 1 else 1
        return max(1, round(each * share))

    # -- scores ----------------------------------------------------------------------------------------------------
    def scores(self, stage: str, split: str, rounds: int = 0) -> list[Row]:
        """Scores of the global and the personal models on every client's split."""
        replies = list(self.transport.run(self._evaluation_jobs(rounds, split)))
        return score_rows(rounds, stage, split, replies, self._metrics(split))

    def _evaluation_jobs(self, rounds: int, split: str) -> Iterator[Job]:
        model = self.rule.global_model(self.state)
        models = ("personal",) if model is None else ("global", "personal")
        previous: Any = None
        payload = b""
        work = {client: len(self.data.dataset((client,), split)) for client in self._scored}
        for group, client in grouped(work, self.trainer.clients_at_once):
            down = self.rule.down(self.state, client)
            if previous is None or down is not previous:
                payload = codec.encode({"down": down} if model is None else {"down": down, "global": model})
            previous = down
            yield Job("", client, rounds, "evaluate", payload, split, (client,), models=models, group=group)

    @property
    def _scored(self) -> Sequence[str]:
        scored: Sequence[str] = self.data.clients[: self.trainer.limit_eval_clients]
        return scored

    def _metrics(self, split: str) -> Any:
        return self.engine.task.test_metrics if split == "test" else self.engine.task.val_metrics

    def _server_losses(self) -> Callable[[Iterable[Tree]], list[torch.Tensor]] | None:
        dataset = self.data.server_dataset()
        if dataset is None:
            return None

        batches = evaluation_loader(self.data, dataset)
        return lambda models: self.shared_pass.losses(models, batches)

    # -- the commit ------------------------------------------------------------------------------------------------
    def _commit(self, rows: list[Row], crossed: list[ledger.Row], extra: dict[str, float], done: int = 0) -> None:
        """Log, tell the callbacks, and make the round durable."""
        trainer = self.trainer
        values = {**summaries(rows), **extra}
        if values:
            trainer.log_values(values, done)
        best = self._is_best(values)
        trainer.lightning_hooks(done)
        self.fabric.barrier()  # every rank's client memories are staged
        if self.fabric.is_global_zero:
            self.folder.metrics.append(rows)
            self.folder.ledger.append(crossed)
            meta = {
                "fingerprint": self.fingerprint,
                "metrics_bytes": self.folder.metrics.size(),
                "ledger_bytes": self.folder.ledger.size(),
                "best": self.best,
                "callbacks": trainer.callback_states(),
                "should_stop": trainer.should_stop,
            }
            self.folder.checkpoints.commit(done, self.state, meta, best)
        self.fabric.barrier()
        self.rounds_done = done

    def _is_best(self, values: dict[str, float]) -> bool:
        name = self.trainer.monitor
        if name is None or not values:
            return False
        split, *rest = name.split("/")
        if name not in values:
            known = sorted(n for n in values if n.count("/") <= 2)
            if split in ("train", "val") and not any(n.startswith(f"{split}/") for n in values):
                return False  # not a round in which it is measured
            if self.rule is not self.trainer.aggregator:
                return False  # a baseline need not have every model that the run's own rule has
            raise FedlitError(f"trainer.monitor: there is no {name!r}; there are {known}")
        value = values[name]
        upwards = split == "val" and higher_is_better(self._metrics("val"), rest[1])
        if math.isnan(value) or (self.best is not None and (value <= self.best if upwards else value >= self.best)):
            return False
        self.best = value
        return True


def _mean(values: Iterator[float]) -> float:
    kept = list(values)
    return sum(kept) / len(kept)
