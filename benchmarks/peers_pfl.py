"""The workload of ``benchmarks/peers.py`` in pfl-research; run by that script, or by ``torchrun`` for two processes.

The framework's own backend, algorithm, model and aggregation, all in one process that loads the network once. Only
tensors that train are given to the optimizers. Nothing is evaluated: what the framework asks for before the first round
costs no forward pass.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from peers_work import Record, Work, arguments, optimizer
from pfl.aggregate.simulate import SimulatedBackend
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.sampling import MinimizeReuseUserSampler
from pfl.hyperparam import NNTrainHyperParams
from pfl.metrics import Metrics, Weighted
from pfl.model.pytorch import PyTorchModel
from torch import Tensor, nn


class Network(nn.Module):
    """The task, with the two methods that the framework calls."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        self.task = work.task()

    def loss(self, context: Tensor, target: Tensor) -> Tensor:
        losses: Tensor = self.task.losses({"context": context, "target": target, "kind": [""] * len(context)})
        return losses.mean()

    def metrics(self, context: Tensor, target: Tensor) -> dict[str, Any]:
        return {"examples": Weighted(float(len(context)), 1.0)}


class Batches(Dataset):
    """One client's batches of one round."""

    def __init__(self, client: str, batches: Iterator[dict[str, Any]], examples: int) -> None:
        super().__init__(raw_data=[torch.zeros(examples)], user_id=client)
        self.batches = batches

    def iter(self, batch_size: int | None) -> Iterator[list[Tensor]]:
        if batch_size is None or batch_size == len(self):  # an evaluation
            yield [torch.zeros(1, 1), torch.zeros(1, 1)]
            return
        for batch in self.batches:
            yield [batch["context"], batch["target"]]


class RoundEnds(TrainingProcessCallback):
    """Tells the record of each round's end."""

    def __init__(self, record: Record) -> None:
        self.record = record

    def after_central_iteration(
        self, aggregate_metrics: Metrics, model: PyTorchModel, *, central_iteration: int
    ) -> tuple[bool, Metrics]:
        first = central_iteration == 0
        values = {name.removeprefix("task."): w.detach() for name, w in model.variable_map.items()} if first else None
        self.record.ended(values)
        return False, Metrics()


def main() -> None:
    """The command line."""
    work, out, _ = arguments()
    torch.set_num_threads(max(1, work.threads // work.processes))
    data, seen = work.data(), Counter[str]()

    def make(client: str) -> Batches:
        index, seen[client] = seen[client], seen[client] + 1
        return Batches(client, work.batches(data, client, index), len(data.dataset(client, "train")))

    users = FederatedDataset(make, MinimizeReuseUserSampler(data.clients))
    network = Network(work)
    live = [p for p in network.parameters() if p.requires_grad]
    model = PyTorchModel(
        network,
        local_optimizer_create=lambda _, lr: optimizer(live, work.steps, lr),
        central_optimizer=torch.optim.SGD(live, lr=1.0),
    )
    record = Record(out)
    FederatedAveraging().run(
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=work.rounds,
            evaluation_frequency=10**9,
            train_cohort_size=work.clients,
            val_cohort_size=None,
        ),
        backend=SimulatedBackend(training_data=users, val_data=users),
        model=model,
        model_train_params=NNTrainHyperParams(
            local_num_epochs=1, local_learning_rate=network.task.learning_rate, local_batch_size=work.batch_size
        ),
        model_eval_params=None,
        callbacks=[RoundEnds(record)],
        send_metrics_to_platform=False,
    )
    record.close()


if __name__ == "__main__":
    main()
