"""Rules that are no federation at all, to compare one with: no training, and all data in one place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fedlit.aggregators.averaging import FedAvg
from fedlit.aggregators.base import Aggregator, Tensors
from fedlit.aggregators.server import Server, Update

FAMILY = "reference"


@dataclass(frozen=True)
class ZeroShot(Aggregator):
    """The backbone as it came: nobody trains, nothing is sent."""

    def aggregate(self, state: Tensors, updates: Sequence[Update], server: Server) -> Any:
        return state

    def cohorts(self, clients: Sequence[str]) -> dict[str, tuple[str, ...]]:
        return {}


@dataclass(frozen=True)
class Centralized(FedAvg):
    """One model trained on everyone's data, with as many optimizer steps as all clients of a round take together.

    What pooling would give where it were allowed; in the ledger the model counts as sent, the pooled data do not.
    """

    def cohorts(self, clients: Sequence[str]) -> dict[str, tuple[str, ...]]:
        return {"pooled": tuple(clients)}
