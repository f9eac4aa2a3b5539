"""The engine that trains several clients in one forward and backward pass over the backbone that they share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from fedlit import tree
from fedlit.aggregators import Aggregator
from fedlit.engine.batches import Batch
from fedlit.engine.client_run import begin, end
from fedlit.engine.engine import Assignment, Trained
from fedlit.engine.own_rates import descend
from fedlit.engine.serial import SerialEngine
from fedlit.engine.vectorized.check import FoldingCheck
from fedlit.engine.vectorized.evaluation import SharedEvaluation
from fedlit.engine.vectorized.passes import SharedPasses, global_draws
from fedlit.engine.vectorized.requests import Answers, Request, RequestedLoss, Unanswered
from fedlit.engine.vectorized.stacks import StackedClients, StackedRun, stacked
from fedlit.errors import FedlitError
from fedlit.tasks.task import member
from fedlit.tree import Tree

ELEMENTWISE = frozenset(
    getattr(torch.optim, name)
    for name in ("SGD", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "Adagrad", "Adadelta", "RMSprop", "ASGD", "Rprop")
)
"""Optimizers that step each number by itself, whatever tensor it is in: clients' tensors can be stacked."""


class VectorizedEngine:
    """An :class:`~fedlit.engine.engine.Engine` for several clients at once; the serial engine's results up to rounding.

    A rule's client half is run for each client as it is, until it needs the network; the requests of all clients are
    answered in one pass, and it is run again from its start with the answers, which a pure function does not notice.
    Parameters of clients are stacked for the optimizer. Clients whose trees differ in names or shapes train apart.

    Where it cannot be, clients train one after the other, and ``tell`` is told why: networks that cannot be folded
    (found out on the first batches), optimizers that look at whole tensors, second derivatives, checkpointed
    activations, loss scaling. Likewise single passes: batches that cannot be one, rules that add to frozen weights or
    look at what modules put out.

    Args:
        serial: Does what cannot be done at once.
        tell: Takes a reason, once each.
    """

    def __init__(self, serial: SerialEngine, tell: Callable[[str], None] = lambda reason: None) -> None:
        self.serial, self.network, self._tell = serial, serial.network, tell
        self.task: Any = serial.task
        self.fabric, self.accumulate_grad_batches = serial.fabric, serial.accumulate_grad_batches
        self.parameters, self.frozen, self.scaling = serial.parameters, serial.frozen, serial.scaling
        self.passes = SharedPasses(serial.network, self.tell)
        self.check = FoldingCheck(self.passes)
        self.shared = SharedEvaluation(serial, self.check)
        self._told: set[str] = set()
        self._kind: type[torch.optim.Optimizer] | None = None
        self._data_draw: bool | None = None

    def tell(self, reason: str) -> None:
        """Say why clients do not train at once; each reason is said once."""
        if reason not in self._told:
            self._told.add(reason)
            self._tell(reason)

    def initial(self) -> dict[str, Tensor]:
        """A copy, on the CPU, of the initial values of the parameters that train."""
        return self.network.initial()

    def load(self, params: Tree) -> None:
        """Put a model into the network; see :meth:`Network.load`."""
        self.network.load(params)

    def evaluate(
        self, models: Sequence[Tree], data: Sequence[Iterable[Batch]], split: str, batch_size: int
    ) -> list[dict[str, float]]:
        """The task's metrics of each model on its own batches; see :meth:`SharedEvaluation.scores`."""
        return self.shared.scores(models, data, split, batch_size)

    def losses(self, models: Iterable[Tree], batches: Iterable[Batch], at_once: int = 1) -> list[Tensor]:
        """The task loss of each example by each model, ``at_once`` models in a pass if memory allows."""
        return self.shared.losses(models, batches, at_once)

    def predict(self, model: Tree, batches: Iterable[Batch]) -> Iterator[Any]:
        """What the task's ``predict_step`` gives for each batch."""
        return self.serial.predict(model, batches)

    def train(self, rule: Aggregator, work: Sequence[Assignment], batch_size: int) -> list[Trained]:
        """Local training of several clients, in the order given."""
        if len(work) < 2:
            return self.serial.train(rule, work, batch_size)
        if (why := self.why_not(rule, work)) is not None:
            self.tell(why)
            return self.serial.train(rule, work, batch_size)
        alike: dict[Any, list[StackedRun]] = {}
        for i, assignment in enumerate(work):
            client = self._begin(rule, i, assignment)
            form = tuple((path, leaf.shape, leaf.dtype) for path, leaf in tree.flatten(client.run.w).items())
            alike.setdefault(form, []).append(client)
        out: dict[int, Trained] = {}
        for clients in alike.values():
            if len(clients) > 1:
                out |= self._train(rule, clients, batch_size)
            else:
                place = clients[0].index
                out[place] = self.serial.train(rule, [work[place]], batch_size)[0]
        return [out[i] for i in range(len(work))]

    def why_not(self, rule: Aggregator, work: Sequence[Assignment]) -> str | None:
        """Why these clients cannot train at once, or None where they can; the network is tried once."""
        if rule.second_order:
            return f"{type(rule).__name__} takes second derivatives"
        if self.serial.scaler is not None:
            return "16-mixed scales the loss"
        if member(self.task, "gradient_checkpointing"):
            return "activations are computed again in the backward pass"
        if member(self.task, "losses") is None:
            return f"{type(self.task).__name__} has no losses, one for each example"
        kind = self._optimizer_of(work[0])
        if kind not in ELEMENTWISE:
            return f"{kind.__name__} looks at whole tensors"
        if self._data_draw is not None:
            return self.passes.why_not
        before = torch.get_rng_state()
        with torch.random.fork_rng([]):
            batches = [next(iter(assignment.batches)) for assignment in work[:2]]
            drew = not torch.equal(before, torch.get_rng_state())
        why = self.check.why_not(batches)
        self._data_draw = drew
        return why

    def _optimizer_of(self, assignment: Assignment) -> type[torch.optim.Optimizer]:
        if self._kind is None:
            values: Tree = {name: p.detach().clone() for name, p in self.parameters.items()}
            self._kind = type(self.network.optimizer(values, assignment)[0].optimizer)
        return self._kind

    def _begin(self, rule: Aggregator, index: int, assignment: Assignment) -> StackedRun:
        run = begin(self.network, rule, assignment)
        draws = torch.Generator(self.fabric.device).manual_seed(assignment.seed)
        return StackedRun(index, run, iter(assignment.batches), Answers(draws, self.passes.by_itself))

    def _train(self, rule: Aggregator, clients: list[StackedRun], batch_size: int) -> dict[int, Trained]:
        """Local training of clients whose trees can be stacked, by their index."""
        ordered = sorted(clients, key=lambda client: -client.steps)
        self.network.load({})
        self.network.training_mode()
        stacks = [
            stacked(some, partial(self.network.optimizer, assignment=some[0].run.assignment))
            for some in (list(alike) for _, alike in groupby(ordered, key=lambda client: client.steps))
        ]
        totals = torch.zeros(1 + max(c.index for c in clients), dtype=torch.float64, device=self.fabric.device)
        for step in range(ordered[0].steps):
            active = [stack for stack in stacks if stack.steps > step]
            training = [client for stack in active for client in stack.clients]
            for stack in active:
                stack.open()
            for _ in range(self.accumulate_grad_batches):
                values = self._objectives(rule, training, step, batch_size) / self.accumulate_grad_batches
                self.fabric.backward(values.sum())
                totals[[client.index for client in training]] += values.detach()
            parts = [part for stack in active for part in stack.parts()]
            for part in parts:
                descend(rule, part.w)
                part.step(self.serial.gradient_clip_val)
            stacks = [*parts, *(stack for stack in stacks if stack.steps <= step)]
        losses = totals.tolist()
        return {client.index: end(client.run, w, stack.travel, losses[client.index] / stack.steps)
                for stack, client, w in _unstacked(stacks)}  # fmt: skip

    def _objectives(self, rule: Aggregator, clients: list[StackedRun], step: int, batch_size: int) -> Tensor:
        """Each client's objective on its next batch, (clients,)."""
        for client in clients:
            with global_draws(client.answers.draws) if self._data_draw else nullcontext():
                batch = next(client.batches)
            client.run.count(batch, batch_size)
            client.batch = self.fabric.to_device(batch)
            client.answers.clear()
        values: dict[int, Tensor] = {}
        waiting = clients
        state = torch.get_rng_state() if step == 0 else None
        while waiting:
            requests: list[Request] = []
            asking: list[StackedRun] = []
            for client in waiting:
                run, answers = client.run, client.answers
                answers.rewind()
                loss = RequestedLoss(client.batch, step, client.steps, answers)
                try:
                    values[client.index] = rule.objective(loss, run.w, run.down, run.memory)
                except Unanswered as unanswered:
                    requests.append(unanswered.request)
                    asking.append(client)
            found = self.passes.answer(requests, [client.answers.draws for client in asking])
            for client, answer in zip(asking, found, strict=True):
                client.answers.add(answer)
            waiting = asking
        if state is not None and not torch.equal(state, torch.get_rng_state()):
            raise FedlitError(
                f"{type(rule).__name__}.objective draws random numbers, which only single clients can repeat: set "
                "trainer.clients_at_once to 1"
            )
        return torch.stack([values[client.index] for client in clients])


def _unstacked(stacks: Iterable[StackedClients]) -> Iterator[tuple[StackedClients, StackedRun, Tree]]:
    """Each client with its stack and its trained tree."""
    for stack in stacks:
        with torch.no_grad():
            trees = stack.trees()
        yield from ((stack, client, w) for client, w in zip(stack.clients, trees, strict=True))
