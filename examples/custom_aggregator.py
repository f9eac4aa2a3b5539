"""A rule of your own, by `fedlit fit -c configs/ecg_fedavg.yaml --aggregator examples.custom_aggregator.TrimmedMean`,
or from Python by `python examples/custom_aggregator.py`."""

from dataclasses import dataclass
from typing import Literal

from fedlit import tree
from fedlit.aggregators import FedAvg
from fedlit.aggregators.base import require


@dataclass(frozen=True)
class TrimmedMean(FedAvg):
    """In each coordinate drops the `trim` highest and lowest updates (share of clients, rounded down), then averages.

    Yin et al. 2018, arXiv:1803.01498. All clients count alike. It reads single updates, so it trusts the server.
    """

    trim: float = 0.2
    weighting: Literal["uniform"] = "uniform"

    def __post_init__(self):
        super().__post_init__()
        require(self, 0 <= self.trim < 0.5, "trim", "a share in [0, 0.5)")
        require(self, self.weighting == "uniform", "weighting", "'uniform'")

    def aggregate(self, state, updates, server):
        cut = int(self.trim * len(updates))
        ordered = tree.map(lambda x: x.sort(dim=0).values, tree.stack(u.tensors for u in updates))
        return self.step(state, tree.map(lambda x: x[cut : len(x) - cut].mean(dim=0), ordered))


if __name__ == "__main__":
    from fedlit.data import SimulatedVitals
    from fedlit.tasks import ForecastingTask
    from fedlit.trainer import FederatedTrainer

    trainer = FederatedTrainer(TrimmedMean(trim=0.2), max_rounds=2, local_steps=5, name="trimmed_mean")
    trainer.fit(ForecastingTask(), SimulatedVitals(subjects=24, sites=6, seconds=30.0))
