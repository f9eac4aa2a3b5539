"""Rules in which clients train on alone, and the stage of Fed-LA that does so from a shared start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from fedlit.aggregators.averaging import FedAvg
from fedlit.aggregators.base import Aggregator, Loss, Tensors, Work, require
from fedlit.aggregators.proximal import proximal
from fedlit.aggregators.server import Server, Update
from fedlit.aggregators.stages import Stage, Staged

FAMILY = "local adaptation"


@dataclass(frozen=True)
class LocalOnly(Aggregator):
    """Every client trains its own model on its own data, and nothing is shared: what a hospital could do alone."""

    def init(self, params: Tensors) -> Any:
        return {}

    def init_memory(self, params: Tensors) -> Any:
        return params

    def down(self, state: Tensors, client: str) -> Any:
        return {}

    def start(self, down: Tensors, memory: Tensors) -> Any:
        return memory

    def finish(self, w: Tensors, down: Tensors, memory: Tensors, work: Work) -> tuple[Any, Any]:
        return {}, w

    def aggregate(self, state: Tensors, updates: Sequence[Update], server: Server) -> Any:
        return state

    def global_model(self, state: Tensors) -> Any | None:
        return None


@dataclass(frozen=True)
class LocalAdaptation(LocalOnly):
    """Each client goes on alone from the model it received, tied to it by ``mu / 2 * |w - received|^2``.

    The last stage of Fed-LA, arXiv:2502.09744: the shared model stays as it is and serves as the anchor; each
    client's own model lives in its memory from its first round in this stage.

    Args:
        mu: Strength of the pull to the shared model.
    """

    mu: float = 1.0

    def __post_init__(self) -> None:
        require(self, 0 <= self.mu < float("inf"), "mu", "a finite number, at least 0")

    def init(self, params: Tensors) -> Any:
        return {"params": params}

    def init_memory(self, params: Tensors) -> Any:
        return {}

    def down(self, state: Tensors, client: str) -> Any:
        return state["params"]

    def start(self, down: Tensors, memory: Tensors) -> Any:
        return memory or down

    def objective(self, loss: Loss, w: Tensors, down: Tensors, memory: Tensors) -> Tensor:
        return proximal(loss(w), self.mu, w, down)

    def global_model(self, state: Tensors) -> Any | None:
        return state["params"]


@dataclass(frozen=True)
class FedLA(Staged):
    """FedAvg, then local adaptation with a proximal anchor.

    Ali et al. 2025, arXiv:2502.09744: 20 rounds of FedAvg, then 10 rounds in which each client trains its own model.
    In the public code the client's own weights were overwritten by the server's at every start and averaged again,
    so that the second stage adapted nothing; here it does.

    Args:
        fedavg_rounds: Rounds of the first stage.
        adapt_rounds: Rounds of the second, which lasts to the end of the run.
        mu: Strength of the pull to the model of the first stage.
        weighting: Of the clients in the first stage, as in :class:`~fedlit.aggregators.averaging.FedAvg`.
    """

    fedavg_rounds: int = 20
    adapt_rounds: int = 10
    mu: float = 1.0
    weighting: Literal["examples", "uniform"] = "examples"

    def __post_init__(self) -> None:
        require(self, self.fedavg_rounds >= 1, "fedavg_rounds", "at least 1")
        require(self, self.adapt_rounds >= 1, "adapt_rounds", "at least 1")
        require(self, 0 <= self.mu < float("inf"), "mu", "a finite number, at least 0")
        require(self, self.weighting in ("examples", "uniform"), "weighting", "'examples' or 'uniform'")

    @property
    def plan(self) -> tuple[Stage, ...]:
        shared = Stage(FedAvg(weighting=self.weighting), self.fedavg_rounds)
        return shared, Stage(LocalAdaptation(self.mu), self.adapt_rounds)
