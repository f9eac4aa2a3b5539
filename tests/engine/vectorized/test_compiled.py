"""Passes of several clients that are compiled give what they give uncompiled."""

from __future__ import annotations

import shutil

import pytest
import torch
from torch import nn
from toys import Regression, ToyData
from vectorized_cases import Net, engine, examples, work_of

from fedlit import tree
from fedlit.aggregators import FedAvg
from fedlit.engine.vectorized.compiled import DROPS, CompiledPass
from fedlit.engine.vectorized.engine import VectorizedEngine
from fedlit.trainer import FederatedTrainer

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler: g++")
DATA = [examples((4, 4, 2), i) for i in range(3)]


class Plain(Net):
    def build(self):
        self.hidden, self.unused = nn.Linear(3, 5), nn.Linear(2, 2)
        self.out = nn.Linear(5, 1)

    def forward(self, x):
        return self.out(torch.tanh(self.hidden(x))).squeeze(-1)


class Branching(Plain):
    """What it does hangs on the data."""

    def forward(self, x):
        return super().forward(x) if x.isfinite().all() else x[:, 0]


class Dropping(Plain):
    def forward(self, x):
        return super().forward(nn.functional.dropout(x, 0.5, self.training))


def trained(task, sizes=None):
    told = []
    together = VectorizedEngine(engine(task), told.append)
    if sizes:
        together.passes.compiled = CompiledPass(together.passes, sizes, told.append)
    work = work_of(together, DATA)
    return together.train(FedAvg(), work, 4), told, together.passes.compiled


def assert_same(ours, theirs, rtol=1e-10):
    for one, other in zip(ours, theirs, strict=True):
        for name, value in tree.flatten(one.upload).items():
            torch.testing.assert_close(value, tree.flatten(other.upload)[name], rtol=rtol, atol=rtol)
        assert one.loss == pytest.approx(other.loss, rel=1e-10)


def test_compiled_is_as_plain_and_other_shapes_are_run_as_they_are():
    ours, told, compiled = trained(Plain(), (4, 4, 4))
    theirs, _, _ = trained(Plain())
    assert told == []
    assert compiled.used == 2, "of three steps: the last has short batches"
    assert_same(ours, theirs)


def test_what_cannot_be_compiled_is_told_and_run_as_it_is():
    ours, told, compiled = trained(Branching(), (4, 4, 4))
    assert len(told) == 1
    assert told[0] == compiled.why_not
    assert compiled.used == 0
    assert_same(ours, trained(Branching())[0])


def test_networks_that_drop_are_not_compiled():
    ours, told, compiled = trained(Dropping(), (4, 4, 4))
    assert (compiled.used, told) == (0, [DROPS])
    assert_same(ours, trained(Dropping())[0])


def test_other_results_are_found_out(monkeypatch):
    right = CompiledPass._both

    def wrong(self, values, batch):
        found, out = right(self, values, batch)
        return [g * 2 for g in found], out

    monkeypatch.setattr(torch, "compile", lambda function, **named: function)
    monkeypatch.setattr(CompiledPass, "_both", wrong)
    ours, told, compiled = trained(Plain(), (4, 4, 4))
    assert told == ["compiled, the network gives other gradients"]
    assert compiled.used == 0
    assert_same(ours, trained(Plain())[0])


def test_a_run_that_goes_on_gives_the_bytes_of_one_that_was_not_ended(tmp_path):
    def state(name, *rounds):
        for each in rounds:
            trainer = FederatedTrainer(
                FedAvg(), max_rounds=each, local_steps=2, clients_at_once=2, compile=True, accelerator="cpu",
                default_root_dir=str(tmp_path / name), enable_progress_bar=False,
            )  # fmt: skip
            folder = trainer.fit(Regression(hidden=4), ToyData(num_clients=2), "last" if each > rounds[0] else None)
        assert trainer.session.engine.passes.compiled.used == 2 * (each - (rounds[0] if len(rounds) > 1 else 0))
        return (folder.path / "checkpoints" / "last" / "state.safetensors").read_bytes()

    assert state("parts", 1, 3) == state("whole", 3)
