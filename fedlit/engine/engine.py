"""What clients' work is handed to: the protocol of an engine, what a client is to do, and what came of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from lightning import Fabric
from torch import Tensor, nn

from fedlit.aggregators import Aggregator, Work
from fedlit.engine.batches import Batch
from fedlit.tree import Tree


@dataclass(frozen=True)
class Assignment:
    """Local training of one client in a round."""

    down: Tree
    """What the client received."""
    memory: Tree
    """What the client kept from its earlier rounds."""
    batches: Iterable[Batch]
    """At least ``steps`` times ``accumulate_grad_batches``; may be gone through more than once."""
    steps: int
    """Optimizer steps to take."""
    seed: int
    """Seed of all random draws inside the network, such as dropout."""
    everything: Iterable[Batch] = ()
    """All of the client's training data, for a rule that measures its loss on them."""
    round: int = 0
    """Index of the round, from 0."""
    rounds: int = 1
    """Rounds of the run."""


@dataclass(frozen=True)
class Trained:
    """Result of one client's local training."""

    upload: Tree
    memory: Tree
    model: Tree
    """The model that the client would serve now."""
    work: Work
    loss: float
    """Mean of the objective over the steps; NaN or infinite if it was so in any step."""


class Engine(Protocol):
    """Trains, scores and runs models of several clients on the one network that they share.

    A model may leave parameters out: those keep their initial values.

    Attributes:
        task: The LightningModule that holds the network, the loss and the metrics.
        fabric: Gives device, precision and the backward pass.
        parameters: The network's parameters that train, by name.
        frozen: The other ones.
        scaling: Factor of the product BA in each layer with a LoRA adapter, by the layer's name.
        accumulate_grad_batches: Batches in an optimizer step.
    """

    task: Any
    fabric: Fabric
    parameters: dict[str, nn.Parameter]
    frozen: dict[str, nn.Parameter]
    scaling: dict[str, float]
    accumulate_grad_batches: int

    def initial(self) -> dict[str, Tensor]:
        """A copy, on the CPU, of the initial values of the parameters that train."""
        ...

    def load(self, params: Tree) -> None:
        """Put a model into the network.

        Raises:
            FedlitError: A name or a shape is not the network's.
        """
        ...

    def train(self, rule: Aggregator, work: Sequence[Assignment], batch_size: int) -> list[Trained]:
        """Local training of several clients, in the order given.

        Args:
            rule: The rule whose client half is run.
            work: One assignment for each client, all of one round.
            batch_size: Examples in a batch that does not tell its length.
        """
        ...

    def evaluate(
        self, models: Sequence[Tree], data: Sequence[Iterable[Batch]], split: str, batch_size: int
    ) -> list[dict[str, float]]:
        """The task's metrics of each model on its own batches.

        Args:
            models: One for each client.
            data: Batches of each client.
            split: ``val`` or ``test``.
            batch_size: Most examples in one pass through the network.
        """
        ...

    def losses(self, models: Iterable[Tree], batches: Iterable[Batch], at_once: int = 1) -> list[Tensor]:
        """The task loss of each example that has one: of each model one float64 tensor (examples,) on the CPU.

        Args:
            models: Read as they are needed.
            batches: The same for all models; gone through once for each pass.
            at_once: Most models in one pass.

        Raises:
            FedlitError: The task has no method ``losses``.
        """
        ...

    def predict(self, model: Tree, batches: Iterable[Batch]) -> Iterator[Any]:
        """What the task's ``predict_step`` gives for each batch."""
        ...

    def why_not(self, rule: Aggregator, work: Sequence[Assignment]) -> str | None:
        """Why these clients cannot train at once; None where they can."""
        ...
