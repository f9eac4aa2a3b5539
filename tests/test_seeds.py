"""Keyed draws: the same for the same key, others for any other, the global generator never touched."""

from __future__ import annotations

import subprocess
import sys

import torch

from fedlit import seeds


def test_a_key_depends_on_every_part_and_on_their_order():
    keys = [
        seeds.key(*parts) for parts in [(0, "a", 1), (1, "a", 1), (0, "b", 1), (0, "a", 2), (0, 1, "a"), (0, "a", "1")]
    ]
    assert len(set(keys)) == len(keys)
    assert all(0 <= key < 2**63 for key in keys)


def test_keys_do_not_depend_on_the_process():
    code = "from fedlit import seeds; print(seeds.key(3, 'batches', 0, 'client-01'))"
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONHASHSEED": "12345"}, capture_output=True, text=True)
    assert int(done.stdout) == seeds.key(3, "batches", 0, "client-01"), done.stderr


def test_generators_repeat_and_leave_the_global_one_alone():
    before = torch.get_rng_state()
    draws = [torch.rand(3, generator=seeds.generator(5, "dropout", 1, "x")) for _ in range(2)]
    numbers = [seeds.numpy_generator(5, "noise").random() for _ in range(2)]
    assert torch.equal(*draws)
    assert numbers[0] == numbers[1]
    assert torch.equal(before, torch.get_rng_state())
