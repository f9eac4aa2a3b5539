"""Which examples, in which order."""

from __future__ import annotations

import torch
from torch.utils.data import TensorDataset, default_collate

from fedlit.engine.batches import Batches, evaluation_batches, local_work, training_batches


def test_epochs_hold_every_example_once():
    batches = training_batches(10, 4, 6, torch.Generator().manual_seed(0))
    assert [len(b) for b in batches] == [4, 4, 2, 4, 4, 2]
    assert sorted(i for b in batches[:3] for i in b) == list(range(10))
    assert batches[:3] != batches[3:]


def test_as_many_batches_as_steps():
    assert len(training_batches(10, 4, 2, torch.Generator())) == 2
    assert training_batches(1, 4, 3, torch.Generator()) == [[0], [0], [0]]


def test_evaluation_sees_all_in_order():
    assert evaluation_batches(5, 2) == [[0, 1], [2, 3], [4]]
    assert evaluation_batches(0, 2) == []


def test_local_work():
    assert local_work(10, 4, 7, None) == 7
    assert local_work(10, 4, None, 1.0) == 3
    assert local_work(10, 4, None, 2.5) == 8


def test_a_pass_draws_nothing_from_the_global_generator():
    before = torch.get_rng_state()
    assert [b[0].tolist() for b in Batches(TensorDataset(torch.arange(3)), [[2, 0], [1]], default_collate)] == [
        [2, 0],
        [1],
    ]
    assert torch.equal(before, torch.get_rng_state())
