"""Local training of several clients in one forward and backward pass over the backbone that they share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from fedlit import tree
from fedlit.aggregators import Aggregator, Work
from fedlit.engine.batches import batch_length
from fedlit.engine.serial import SerialEngine, Trained
from fedlit.engine.vectorized.check import why_not_folded
from fedlit.engine.vectorized.passes import JointRuns, global_draws
from fedlit.engine.vectorized.requests import Asked, AskingLoss, Pending
from fedlit.engine.vectorized.stacks import Member, stacked
from fedlit.errors import FedlitError
from fedlit.tree import Tree

ELEMENTWISE = frozenset(
    getattr(torch.optim, name)
    for name in ("SGD", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "Adagrad", "Adadelta", "RMSprop", "ASGD", "Rprop")
)
"""Optimizers whose step of one number does not hang on the tensor it is in: clients' tensors can be stacked."""


@dataclass(frozen=True)
class Assignment:
    """What one client is to do; see :meth:`SerialEngine.train`. ``batches`` can be gone through more than once."""

    down: Tree
    memory: Tree
    batches: Iterable[Any]
    steps: int
    seed: int
    everything: Iterable[Any] = ()


class BatchedEngine:
    """Trains several clients at once; what each gives is what :class:`SerialEngine` gives, up to rounding.

    A rule's client half is run for each client as it is, until it asks for the network; the questions of all are
    answered in one pass, and it is run again from its start with the answers, which a pure function does not notice.
    Parameters of clients are stacked for the optimizer. Clients whose trees differ in names or shapes train apart.

    Where it cannot be, clients train one after the other, and ``tell`` is told why: networks that cannot be folded
    (found out on the first batches), optimizers that look at whole tensors, second derivatives, checkpointed
    activations, loss scaling. Likewise single passes: batches that cannot be one, rules that add to frozen weights or
    look at what modules put out.

    Args:
        engine: The serial one.
        tell: Takes a reason, once each.
    """

    def __init__(self, engine: SerialEngine, tell: Callable[[str], None] = lambda reason: None) -> None:
        self.engine, self._tell = engine, tell
        self.runs = JointRuns(engine, self.tell)
        self._told: set[str] = set()
        self._tried = False
        self._kind: Any = None
        self._data_draw: bool | None = None

    def tell(self, reason: str) -> None:
        """Say why clients do not train at once; each reason is said once."""
        if reason not in self._told:
            self._told.add(reason)
            self._tell(reason)

    def train(self, rule: Aggregator, work: Sequence[Assignment], batch_size: int) -> list[Trained]:
        """Local steps of some clients, in their order."""
        why = self.why_not(rule, work) if len(work) > 1 else "one client"
        if why is not None:
            if len(work) > 1:
                self.tell(why)
            return [self._serial(rule, one, batch_size) for one in work]
        out: list[Trained | None] = [None] * len(work)
        members = [self._member(rule, i, one) for i, one in enumerate(work)]
        alike: dict[Any, list[Member]] = {}
        for member in members:
            form = tuple((path, leaf.shape, leaf.dtype) for path, leaf in tree.flatten(member.w).items())
            alike.setdefault(form, []).append(member)
        for some in alike.values():
            if len(some) == 1:
                out[some[0].index] = self._serial(rule, some[0].work, batch_size)
                continue
            for member, trained in zip(some, self._train(rule, some, batch_size), strict=True):
                out[member.index] = trained
        return [one for one in out if one is not None]

    def _serial(self, rule: Aggregator, one: Assignment, batch_size: int) -> Trained:
        return self.engine.train(
            rule, one.down, one.memory, one.batches, one.steps, batch_size, one.seed, one.everything
        )

    def why_not(self, rule: Aggregator, work: Sequence[Assignment]) -> str | None:
        """Why these clients cannot train at once, or None where they can."""
        engine = self.engine
        if rule.second_order:
            return f"{type(rule).__name__} takes second derivatives"
        if engine._scaler is not None:
            return "16-mixed scales the loss"
        if getattr(engine.task, "gradient_checkpointing", False):
            return "activations are computed again in the backward pass"
        if not callable(getattr(engine.task, "losses", None)):
            return f"{type(engine.task).__name__} has no losses, one for each example"
        kind = type(self._optimizer_of(work[0].steps))
        if kind not in ELEMENTWISE:
            return f"{kind.__name__} looks at whole tensors"
        if self._data_draw is not None:
            return self.runs.why_not
        before = torch.get_rng_state()
        with torch.random.fork_rng([]):
            batches = [next(iter(one.batches)) for one in work[:2]]
            drew = not torch.equal(before, torch.get_rng_state())
        why = self.folds(batches)
        self._data_draw = drew
        return why

    def folds(self, batches: Sequence[Any]) -> str | None:
        """Why the network cannot take several clients in one pass, or None where it can; tried out once.

        Args:
            batches: Of two clients, to try with.
        """
        if not self._tried:
            self.engine.load({})
            self.engine.task.train()
            moved = [self.engine.fabric.to_device(batch) for batch in batches[:2]]
            compiled, self.runs.compiled = self.runs.compiled, None
            try:
                self.runs.why_not = why_not_folded(self.runs, moved)
            finally:
                self.runs.compiled = compiled
            self._tried = True
        return self.runs.why_not

    def _optimizer_of(self, steps: int) -> Any:
        if self._kind is None:
            values: Tree = {name: p.detach().clone() for name, p in self.engine.parameters.items()}
            self._kind = self.engine._optimizer(values, steps)[0].optimizer
        return self._kind

    def _member(self, rule: Aggregator, index: int, one: Assignment) -> Member:
        engine, device = self.engine, self.engine.fabric.device
        down, memory = tree.to(one.down, device), tree.to(one.memory, device)
        start_loss = math.nan
        with torch.no_grad():
            w = rule.start(down, memory)
            if "start_loss" in rule.measures:
                start_loss = engine.mean_loss(rule.model(w, down, memory), one.everything)
        draws = torch.Generator(device).manual_seed(one.seed)
        asked = Asked(draws, self.runs.by_itself)
        return Member(index, one, down, memory, w, start_loss, draws, iter(one.batches), asked)

    def _train(self, rule: Aggregator, members: list[Member], batch_size: int) -> list[Trained]:
        engine = self.engine
        ordered = sorted(members, key=lambda m: -m.work.steps)
        engine.load({})
        if not engine.task.training:
            engine.task.train()
        blocks = [
            stacked(list(some), partial(engine._optimizer, steps=steps))
            for steps, some in groupby(ordered, key=lambda m: m.work.steps)
        ]
        totals = torch.zeros(1 + max(m.index for m in members), dtype=torch.float64, device=engine.fabric.device)
        for step in range(ordered[0].work.steps):
            active = [block for block in blocks if block.steps > step]
            training = [member for block in active for member in block.members]
            for block in active:
                block.optimizer.zero_grad()
                block.open()
            for _ in range(engine.accumulate_grad_batches):
                values = self._values(rule, training, step, batch_size) / engine.accumulate_grad_batches
                engine.fabric.backward(values.sum())
                totals[[member.index for member in training]] += values.detach()
            parts = [part for block in active for part in block.parts()]
            for part in parts:
                part.step(engine.gradient_clip_val)
            blocks = [*parts, *(block for block in blocks if block.steps <= step)]
        losses, out = totals.tolist(), {}
        with torch.no_grad():
            for block in blocks:
                for member, w in zip(block.members, block.rows(), strict=True):
                    mean = losses[member.index] / block.steps
                    out[member.index] = self._finished(rule, member, w, block.travel, mean)
        return [out[member.index] for member in members]

    def _values(self, rule: Aggregator, members: list[Member], step: int, batch_size: int) -> Tensor:
        """Each client's objective on its next batch, (clients,)."""
        engine = self.engine
        count = getattr(engine.task, "num_targets", None)
        for member in members:
            with global_draws(member.draws) if self._data_draw else nullcontext():
                batch = next(member.batches)
            length = batch_length(batch, batch_size)
            member.examples += length
            member.targets += length if count is None else int(count(batch))
            member.batch = engine.fabric.to_device(batch)
            member.asked.clear()
        values: dict[int, Tensor] = {}
        waiting = members
        state = torch.get_rng_state() if step == 0 else None
        while waiting:
            requests, asking = [], []
            for member in waiting:
                member.asked.rewind()
                loss = AskingLoss(member.batch, step, member.work.steps, member.asked)
                try:
                    values[member.index] = rule.objective(loss, member.w, member.down, member.memory)
                except Pending as pending:
                    requests.append(pending.request)
                    asking.append(member)
            for member, answer in zip(asking, self.runs.answer(requests, [m.draws for m in asking]), strict=True):
                member.asked.take(answer)
            waiting = asking
        if state is not None and not torch.equal(state, torch.get_rng_state()):
            raise FedlitError(
                f"{type(rule).__name__}.objective draws random numbers, which only single clients can repeat: set "
                "trainer.clients_at_once to 1"
            )
        return torch.stack([values[member.index] for member in members])

    def _finished(self, rule: Aggregator, member: Member, w: Tree, travel: float, loss: float) -> Trained:
        trained = tree.clone(w)
        down, memory = member.down, member.memory
        model = rule.model(trained, down, memory)
        end_loss = self.engine.mean_loss(model, member.work.everything) if "end_loss" in rule.measures else math.nan
        done = (member.work.steps, member.examples, travel, member.targets, member.start_loss, end_loss)
        work = Work(*(torch.tensor(float(x), dtype=torch.float64) for x in done))
        upload, kept = rule.finish(trained, down, memory, work)
        return Trained(tree.to(upload, "cpu"), tree.to(kept, "cpu"), model, work, loss)
