"""Several batches in a step."""

from __future__ import annotations

import pytest
import torch
from toys import GivenData, Regression

from fedlit import tree
from fedlit.aggregators import FedProx
from fedlit.engine.batches import local_work
from fedlit.errors import FedlitError
from fedlit.runs.checkpoint import read
from fedlit.trainer import FederatedTrainer


def state(tmp_path, batch_size, **settings):
    trainer = FederatedTrainer(
        FedProx(mu=0.1), max_rounds=2, local_epochs=2, accelerator="cpu", default_root_dir=str(tmp_path),
        enable_progress_bar=False, gradient_clip_val=0.5, **settings,
    )  # fmt: skip
    draws = torch.Generator().manual_seed(3)
    examples = [torch.randn(8, columns, generator=draws, dtype=torch.float64) for columns in (3, 1) * 3]
    clients = {f"client-{i}": (examples[2 * i], examples[2 * i + 1][:, 0]) for i in range(3)}
    data = GivenData(clients, batch_size=batch_size)
    folder = trainer.fit(Regression(hidden=4, dtype="float64", optimizer="adamw"), data)
    return read(folder.path / "checkpoints" / "last").state


def distance(a, b):
    x, y = tree.flatten(a), tree.flatten(b)
    return max(float((x[name] - y[name]).abs().max()) for name in x)


@pytest.mark.parametrize("at_once", [1, 3])
def test_two_batches_of_two_are_one_of_four(tmp_path, at_once):
    whole = state(tmp_path / "a", 4)
    halves = state(tmp_path / "b", 2, accumulate_grad_batches=2, clients_at_once=at_once)
    assert distance(whole, halves) < 1e-12
    assert distance(whole, state(tmp_path / "c", 2)) > 1e-4


def test_steps_of_an_epoch():
    assert [local_work(10, 2, None, 1, k) for k in (1, 2, 5, 6)] == [5, 3, 1, 1]
    assert local_work(10, 2, 7, None, 3) == 7


def test_a_number_below_one_is_refused():
    with pytest.raises(FedlitError, match=r"trainer\.accumulate_grad_batches is 0"):
        FederatedTrainer(FedProx(), accumulate_grad_batches=0)
