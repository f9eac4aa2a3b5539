"""What a federated rule is made of: :class:`Aggregator`, with the loss and the work that its client half is handed.

One frozen dataclass is a whole rule. Its fields are the hyperparameters, its methods are pure; the client half is
written for one client, and the engine decides how many it runs at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, Self, TypeAlias

from torch import Tensor

from fedlit import tree
from fedlit.aggregators.server import Server, Update
from fedlit.errors import FedlitError
from fedlit.tree import Tree

Tensors: TypeAlias = dict[str, Any]
"""Tensors by name, or trees of them, in a form that the rule itself decides."""


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

    def features(self, params: Tree) -> Tensor:
        """What the network's head sees, ``(batch, features)``.

        Raises:
            FedlitError: The task has no method ``features(batch)``.
        """
        ...

    def logits(self, params: Tree) -> Tensor:
        """What the network puts out, ``(batch, classes)``.

        Raises:
            FedlitError: The task has no method ``logits(batch)``.
        """
        ...

    def outputs(self, params: Tree, pattern: str) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and what the modules whose name matches the regular expression put out on the way to it."""
        ...

    def split(self, parts: int) -> Sequence[Loss]:
        """The losses on equal parts of the batch; a batch with fewer examples than parts is repeated."""
        ...


class Work(NamedTuple):
    """How much a client trained in this round; float64 tensors of shape ``()``, on the CPU."""

    steps: Tensor
    """Optimizer steps taken."""
    examples: Tensor
    """Examples seen, repeats included."""
    travel: Tensor
    """Sum over the steps of the learning rate, that of the optimizer's first parameter group."""
    targets: Tensor
    """Supervised targets seen, repeats included: tokens of a language model; examples where the task does not tell."""
    start_loss: Tensor
    """Mean loss on all the client's training data before the first step; NaN unless the rule ``measures`` it."""
    end_loss: Tensor
    """The same after the last step."""


class Aggregator:
    """A federated rule: subclass it as a frozen dataclass, in one file.

    What a client trains, ``w``, is by default the flat dict of the network's trainable parameters, and what it
    uploads is ``w - down``. The methods must not change what they are given.
    """

    second_order = False  # no annotation: jsonargparse cannot read the types of a class that has a ClassVar
    """Whether ``objective`` differentiates through a gradient (``create_graph=True``), which fused attention cannot."""

    measures = tuple[str, ...]()
    """Which of ``start_loss`` and ``end_loss`` :meth:`finish` needs in ``work``; each is a pass over its data."""

    added_arguments = dict[str, Any]()
    """Arguments that came later than some runs, with what runs without them did, so that those can be resumed."""

    def suited(self, rank_stabilised: bool | None) -> Self:
        """This rule with what it takes from the network's adapters; by default as it is.

        Args:
            rank_stabilised: Whether they are scaled by ``alpha / sqrt(r)`` rather than ``alpha / r``; None without any.

        Raises:
            FedlitError: A setting of the rule contradicts them.
        """
        return self

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

    def own_rates(self, w: Any) -> Sequence[tuple[Tree, float]]:
        """Parts of ``w`` with a learning rate of their own; none by default.

        They take plain steps of gradient descent at that rate, whatever the task's optimizer, schedule, weight decay
        and clipping are, which are for the rest.
        """
        return ()

    def finish(self, w: Any, down: Any, memory: Any, work: Work) -> tuple[Any, Any]:
        """The upload, and the memory for the next round."""
        return tree.sub(w, down), memory

    def weigh(self, num_examples: int, work: Work) -> float:
        """This client's weight in the mean, from its number of training examples and what it did."""
        return float(num_examples)

    def model(self, w: Any, down: Any, memory: Any) -> Any:
        """The network's parameters that ``w`` stands for, a flat dict; differs where ``w`` holds several models.

        Parameters left out keep their initial values. A name of a frozen parameter stands for what is added to it.
        """
        return w

    def personal(self, down: Any, memory: Any) -> Any:
        """The model that a client serves and is scored on, before any further training."""
        return self.model(self.start(down, memory), down, memory)

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

    @property
    def min_clients(self) -> int:
        """Clients in a round without which the rule cannot work."""
        return 1

    @property
    def min_steps(self) -> int:
        """Local steps of a client without which the rule cannot work."""
        return 1

    def local_steps(self, steps: int, round: int) -> int:  # noqa: A002
        """Local steps of a client in a round, from 0, for which the settings ask for ``steps``; by default as many."""
        return steps

    def participants(self, clients: Sequence[str], round: int) -> Sequence[str] | None:  # noqa: A002
        """Who trains in a round, of all ``clients``, where the rule itself decides; None: the trainer draws them."""
        return None

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
