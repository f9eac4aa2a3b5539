"""The baselines: no training, and pooled data with equal compute."""

from __future__ import annotations

import torch
from toys import Regression, ToyData

from fedlit import seeds, tree
from fedlit.aggregators import Centralized, ZeroShot
from fedlit.engine.batches import training_batches
from fedlit.runs.checkpoint import read


def test_zero_shot_never_trains(fit):
    task = Regression()
    before = {name: p.detach().clone() for name, p in task.named_parameters()}
    folder = fit(ZeroShot(), task, max_rounds=5, evaluate_at=["after_aggregation"])
    assert tree.equal(read(folder.path / "checkpoints" / "last").state["params"], before)
    assert folder.ledger.read() == []
    assert {row["stage"] for row in folder.metrics.read()} == {"start"}
    assert {row["split"] for row in folder.metrics.read()} == {"val", "test"}


class Counting(Regression):
    """Counts its training steps and the examples in them."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def training_step(self, batch, batch_idx):
        self.seen.append(len(batch[1]))
        return super().training_step(batch, batch_idx)


def test_centralized_takes_as_many_steps_as_all_clients_together(fit):
    for settings, expected in [
        ({"local_steps": 5}, 3 * 5),
        ({"local_steps": None, "local_epochs": 1.0}, 3 + 3 + 3),  # 10, 11, 12 examples in batches of 4
        ({"local_steps": 5, "clients_per_round": 2}, 2 * 5),
    ]:
        task = Counting()
        fit(Centralized(), task, max_rounds=1, **settings)
        assert len(task.seen) == expected


def test_centralized_is_plain_training_on_the_pooled_data(fit):
    data, task = ToyData(), Regression()
    data.setup()
    pooled = data.dataset(data.clients, "train")
    weights = torch.nn.Linear(3, 1)
    weights.load_state_dict({k.removeprefix("net.0."): v for k, v in task.state_dict().items() if k.startswith("net")})
    optimizer = torch.optim.SGD(weights.parameters(), lr=0.1)
    batches = training_batches(len(pooled), 4, 6, seeds.generator(0, "batches", 0, "pooled"))
    for batch in batches:
        x, y = (torch.stack(part) for part in zip(*(pooled[i] for i in batch), strict=True))
        optimizer.zero_grad()
        ((weights(x)[..., 0] - y).square() / 2).mean().backward()
        optimizer.step()
    got = read(fit(Centralized(), task, data, max_rounds=1).path / "checkpoints" / "last").state["params"]
    torch.testing.assert_close(got["net.0.weight"], weights.weight.detach(), rtol=0, atol=1e-6)


def test_local_epochs_become_steps(fit):
    for epochs, steps in [(1.0, 3), (2.0, 6), (0.5, 2), (0.01, 1)]:  # of ceil(10 / 4) = 3 batches
        task = Counting()
        fit(Centralized(), task, ToyData(num_clients=1), max_rounds=1, local_steps=None, local_epochs=epochs)
        assert len(task.seen) == steps
        assert set(task.seen) <= {4, 2}
