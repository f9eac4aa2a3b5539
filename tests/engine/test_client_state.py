"""What clients keep: the newest is read, a refused one forgotten, a torn one named."""

from __future__ import annotations

import pytest
import torch

from fedlit import tree
from fedlit.engine.client_state import ClientMemory
from fedlit.errors import FedlitError


def test_the_staged_memory_is_newer(tmp_path):
    memory = ClientMemory(tmp_path / "committed", tmp_path / "staging")
    assert memory.read("a") is None
    memory.stage("a", {"w": torch.ones(1)})
    (tmp_path / "staging").rename(tmp_path / "committed")
    memory.stage("a", {"w": torch.zeros(1)})
    assert memory.read("a")["w"] == 0
    memory.discard("a")
    assert memory.read("a")["w"] == 1
    memory.discard("a")


def test_a_torn_file_is_named(tmp_path):
    memory = ClientMemory(tmp_path / "committed", tmp_path / "staging")
    memory.stage("a", {"w": torch.ones(9)})
    path = tmp_path / "staging" / "a.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(FedlitError, match=r"a\.safetensors"):
        memory.read("a")


@pytest.mark.usefixtures("unrehearsed")
def test_a_memory_that_was_emptied_stays_empty(tmp_path, fit):
    """A client that throws its memory away must not find the old one again."""
    from fedlit.aggregators import FedAvg

    seen = []

    class Once(FedAvg):
        def init_memory(self, params):
            return {"first": params}

        def start(self, down, memory):
            seen.append(sorted(memory))
            return down

        def finish(self, w, down, memory, work):
            return tree.sub(w, down), {}

    from toys import ToyData

    fit(Once(), data=ToyData(num_clients=1), max_rounds=3, evaluate_at=["after_local"])
    # Also called for the template of the upload, with the initial memory, once a round.
    assert seen.count(["first"]) == 1 + 3
    assert seen.count([]) >= 2
