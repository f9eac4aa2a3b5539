"""What a federated rule is made of: :class:`Aggregator`, and what it is handed, :class:`Update` and :class:`Server`.

One frozen dataclass is a whole rule. Its fields are the hyperparameters, its methods are pure; the client half is
written for one client, and the engine decides how many it runs at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from fedlit import tree
from fedlit.errors import FedlitError
from fedlit.tree import Tree


class Loss(Protocol):
    """The task loss on the current batch, as a function of the network's parameters.

    Attributes:
        step: Index of the current local step, from 0.
        steps: Number of local steps in this round.
    """

    step: int
    steps: int

    def __call__(self, params: Tree) -> Tensor:
        """Mean loss over the batch, shape ``()``; ``params`` maps parameter names to tensors."""
        ...


class Work(NamedTuple):
    """How much a client trained in this round; float64 tensors of shape ``()``, on the CPU."""

    steps: Tensor
    """Optimizer steps taken."""
    examples: Tensor
    """Examples seen, repeats included."""
    travel: Tensor
    """Sum over the steps of the learning rate."""


class Sealed(FedlitError):
    """One client's tensors were read where only sums may be (secure aggregation, central differential privacy)."""


class Update:
    """What one client sent.

    Args:
        client: Its name.
        weight: Its weight in the mean.
        read: Gives the tensors; called at each access, so that many updates need not be in memory at once.
        metrics: Scalars that came along, for instance ``train_loss``.
        sealed: Only :meth:`Server.mean` may read the tensors.
    """

    def __init__(
        self,
        client: str,
        weight: float,
        read: Callable[[], Tree],
        metrics: Mapping[str, float] | None = None,
        sealed: bool = False,
    ) -> None:
        self.client, self.weight, self.metrics, self.sealed = client, weight, dict(metrics or {}), sealed
        self._read = read

    @property
    def tensors(self) -> Any:
        """The upload, a Tree.

        Raises:
            Sealed: The update is sealed.
        """
        if self.sealed:
            raise Sealed(
                f"the update of {self.client!r} is sealed, and this rule reads single updates: choose a rule that "
                "needs their mean only, or turn sealing off (the rule then trusts the server)"
            )
        return self._read()


class Server:
    """What the runtime offers to :meth:`Aggregator.aggregate`.

    Args:
        round: Index of the round, from 0.
        generator: Seeded for this round.
        validate: Mean loss of a model on the server's own validation data, or None where it has none.
        num_clients: How many clients there are, in this round or not; None where that is unknown.
    """

    def __init__(
        self,
        round: int,  # noqa: A002
        generator: torch.Generator,
        validate: Callable[[Tree], float] | None = None,
        num_clients: int | None = None,
    ) -> None:
        self.round, self.generator, self.num_clients, self._validate = round, generator, num_clients, validate

    def mean(self, updates: Sequence[Update], weights: Sequence[float] | None = None) -> Any:
        """The weighted mean of the uploads, summed in float64 in client-name order and cast back once.

        Args:
            updates: Any order; the result does not depend on it.
            weights: One for each update, in their order; by default each update's own.

        Raises:
            FedlitError: No updates, the same client twice, a negative or non-finite weight, or no weight at all.
            Sealed: Own weights were given for sealed updates.
        """
        if not updates:
            raise FedlitError("no client sent an update in this round: there is nothing to average")
        if weights is not None and any(u.sealed for u in updates):
            raise Sealed("weights chosen at the server need to look at single updates, and these are sealed")
        own = [u.weight for u in updates] if weights is None else [float(x) for x in weights]
        pairs = sorted(zip(updates, own, strict=True), key=lambda pair: pair[0].client)
        names = [u.client for u, _ in pairs]
        if len(set(names)) != len(names):
            raise FedlitError(f"client {next(n for n in names if names.count(n) > 1)!r} counts twice in this round")
        total = sum(w for _, w in pairs)
        if any(not 0 <= w < float("inf") for _, w in pairs) or not total > 0:
            raise FedlitError(f"the weights {own} of this round's updates must be finite, not negative, with a sum > 0")
        accumulated: Any = None
        like: Any = None
        for update, weight in pairs:
            like = update._read()
            term = tree.map(lambda x, share=weight / total: share * x.double(), like)
            accumulated = term if accumulated is None else tree.add(accumulated, term)
        return tree.map(lambda a, x: a.to(x.dtype), accumulated, like)

    def validate(self, params: Tree) -> float:
        """Mean loss of ``params`` on the server's validation data.

        Raises:
            FedlitError: The data module has no server data.
        """
        if self._validate is None:
            raise FedlitError("this rule validates on the server: give the data module a `server_dataset`")
        return self._validate(params)


class Aggregator:
    """A federated rule: subclass it as a frozen dataclass, in one file.

    What a client trains, ``w``, is by default the flat dict of the network's trainable parameters, and what it
    uploads is ``w - down``. The methods must not change what they are given.
    """

    second_order = False  # no annotation: jsonargparse cannot read the types of a class that has a ClassVar
    """Whether ``objective`` differentiates through a gradient (``create_graph=True``), which fused attention cannot."""

    # -- the client's half, written for one client -----------------------------------------------------------------
    def init_memory(self, params: Any) -> Any:
        """What this client keeps between rounds and never sends, from the initial parameters; ``{}`` by default."""
        return {}

    def start(self, down: Any, memory: Any) -> Any:
        """What the client trains in this round, a Tree ``w``; by default what it received."""
        return down

    def objective(self, loss: Loss, w: Any, down: Any, memory: Any) -> Tensor:
        """The scalar whose gradient with respect to ``w`` each local step follows.

        ``down`` and ``memory`` are constants: detached copies of what was received and kept.
        """
        return loss(w)

    def finish(self, w: Any, down: Any, memory: Any, work: Work) -> tuple[Any, Any]:
        """The upload, and the memory for the next round."""
        return tree.sub(w, down), memory

    def weigh(self, num_examples: int) -> float:
        """This client's weight in the mean, from its number of training examples."""
        return float(num_examples)

    def model(self, w: Any) -> Any:
        """The network's parameters that ``w`` stands for, a flat dict; differs where ``w`` holds several models."""
        return w

    def personal(self, down: Any, memory: Any) -> Any:
        """The model that a client serves and is scored on, before any further training."""
        return self.model(self.start(down, memory))

    # -- the server's half -----------------------------------------------------------------------------------------
    def init(self, params: Any) -> Any:
        """The server's state, a Tree, from the initial parameters."""
        return {"params": params}

    def down(self, state: Any, client: str) -> Any:
        """What is sent to a client; may differ from client to client."""
        return state["params"]

    def aggregate(self, state: Any, updates: Sequence[Update], server: Server) -> Any:
        """The next state. Updates come in client-name order, each client once."""
        raise NotImplementedError

    def global_model(self, state: Any) -> Any | None:
        """The one model of all clients, a flat dict of parameters, or None where the rule has none."""
        return state["params"]

    @property
    def min_rounds(self) -> int:
        """Rounds without which a run has not come to all of the rule; a shorter one is warned of."""
        return 1

    def cohorts(self, clients: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Who trains, and on whose data: by default every client on its own. Reference rules pool or omit them."""
        return {client: (client,) for client in clients}


def require(rule: object, ok: bool, field: str, expected: str) -> None:
    """Refuse a hyperparameter by its name, at construction.

    Raises:
        FedlitError: ``ok`` is false.
    """
    if not ok:
        raise FedlitError(f"{type(rule).__name__}.{field} is {getattr(rule, field)!r}, expected {expected}")
