"""Shared passes: modules of many kinds, rows that a task tells of, batches that do not fit, draws of each client."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from transformers import BatchEncoding
from vectorized_cases import DATA, Net, assert_alike, assert_serial, both, distance, engine, examples, work_of

from fedlit.aggregators import FedAvg, PerFedAvg
from fedlit.engine.vectorized.check import why_not_folded
from fedlit.engine.vectorized.engine import VectorizedEngine
from fedlit.engine.vectorized.passes import SharedPasses
from fedlit.engine.vectorized.requests import Request
from fedlit.errors import FedlitError
from fedlit.tasks.row_owners import rows_of


class Folds(Net):
    """Modules of many kinds: a table, a convolution, a norm, a mask of one row, two inputs, a keyword, a constant."""

    class Mixing(nn.Module):
        def __init__(self):
            super().__init__()
            self.mix = nn.Parameter(torch.ones(6))
            self.inner = nn.Linear(6, 6)

        def forward(self, x, *, by, mode):
            assert mode == "mean"
            return self.inner(x * self.mix) + by.mean(1, keepdim=True)

    def build(self):
        self.table, self.positions = nn.Embedding(5, 6), nn.Embedding(3, 6)
        self.convolution, self.norm = nn.Conv1d(6, 6, 2, padding=1), nn.LayerNorm(6)
        self.bilinear, self.mixing, self.out = nn.Bilinear(6, 3, 6), self.Mixing(), nn.Linear(6, 1, bias=False)
        self.group = nn.GroupNorm(2, 6)

    def forward(self, x):
        h = self.table((x * 10).long() % 5) + self.positions(torch.arange(3)[None])
        h = self.norm(h)
        h = self.group(self.convolution(h.transpose(1, 2))).transpose(1, 2)[:, :3].flatten(0, 1)  # three rows each
        h = h + self.bilinear(h, x.repeat_interleave(3, 0))
        h = F.dropout(self.mixing(h, by=h, mode="mean"), 0.2, self.training)
        return self.out(h).view(len(x), 3).mean(1) + super().forward(x)


def test_networks_of_many_kinds_of_modules():
    assert_alike(both(Folds, DATA))
    assert_alike(both(Folds, [examples((4, 4), i) for i in range(3)], clip=0.1))


class Reordered(Net):
    """A network that sees from no to three rows of an example."""

    def rows(self, x):
        counts = 2 * (x[:, 0] > 0).long() + (x[:, 1] > 0).long()
        return torch.arange(len(x)).repeat_interleave(counts).tolist()

    def losses(self, batch):
        x, y = batch
        rows = self.rows(x)
        with rows_of(rows):
            out = self(x[rows])
        return y.square() + torch.zeros_like(y).index_add(0, torch.tensor(rows, dtype=torch.int64), out)


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_rows_that_a_task_tells_of(dropout):
    done = both(lambda: Reordered(dropout=dropout), DATA)
    assert_alike(done)
    assert done.alone <= 4  # what the client of most steps did when the others had ended


def test_an_example_that_has_no_rows_beside_one_that_has():
    empty, full = (torch.full((2, 3), value, dtype=torch.float64) for value in (-1.0, 1.0))
    y = torch.ones(2, dtype=torch.float64)
    data = [DATA[0], [[full, y], [empty, y], [torch.cat([empty, full]), torch.ones(4, dtype=torch.float64)]]]
    assert_alike(both(Reordered, data))


def test_what_was_dropped_for_a_pass_that_failed_is_dropped_again():
    class Sometimes(Net):
        """Batches of eleven examples in all, which are those of several clients, fail after some dropout."""

        def losses(self, batch):
            x, y = batch
            first = super().losses([x, y])
            with rows_of(list(range(len(x)))[:: -1 if len(x) == 11 else 1]):
                return first + super().losses([x, y])

    done = both(lambda: Sometimes(dropout=0.4), DATA)
    assert done.told == ["the network's rows are not in the order of the examples"]
    assert_alike(done, folds=False)
    assert done.folded > 0


def test_rows_out_of_order_are_named():
    class Backwards(Reordered):
        def rows(self, x):
            return super().rows(x)[::-1]

    assert_serial(both(Backwards, DATA), "not in the order of the examples")


def test_rows_of_several_examples_are_named():
    class Packed(Net):
        def losses(self, batch):
            with rows_of(None):
                return super().losses(batch)

    assert_serial(both(Packed, DATA), "a row of the network holds several examples")


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_dropout_of_nothing_and_of_everything(probability):
    assert_alike(both(lambda: Net(dropout=probability), DATA))


def test_a_forward_of_its_own_is_named():
    def make():
        task = Net()
        layer = task.net[0]
        layer.forward = lambda x: F.linear(x, layer.weight, layer.bias)
        return task

    assert_serial(both(make, DATA), "Linear has a forward of its own")


class Padded(Net):
    """Examples of any width: batches of different width cannot be one batch."""

    def forward(self, x):
        return super().forward(torch.stack([x.mean(1), x.amax(1), x.amin(1)], 1))


def widths(*given: int) -> list[list[Any]]:
    return [examples((n,), 10 * n + w, features=w)[0] for n, w in zip((4, 4, 3, 2), given, strict=False)]


@pytest.mark.parametrize("rule", [FedAvg(), PerFedAvg(first_order=True)], ids=lambda r: type(r).__name__)
def test_batches_that_do_not_fit_are_run_one_by_one(rule):
    data = [widths(3, 5, 3, 4), widths(3, 3, 3, 4), widths(3, 3, 3, 6)]
    done = both(lambda: Padded(dropout=0.3), data, rule)
    assert done.told == ["examples of different clients differ in shape"]  # said once
    assert_alike(done, folds=False)
    assert done.folded > 0
    assert done.alone > 0


def test_what_comes_of_a_group_does_not_hang_on_the_group_before():
    """Else a rank, or a resumed run, which sees other groups first, gives other bytes."""
    unlike, alike = [widths(3, 5), widths(5, 3)], [widths(3, 5), widths(3, 5)]
    seen = []
    for before in (unlike, alike):
        on = engine(Padded())
        together = VectorizedEngine(on)
        together.train(FedAvg(), work_of(on, before), 4)
        seen.append(together.train(FedAvg(), work_of(on, [widths(3, 3, 3), widths(3, 3, 3)]), 4))
    assert [distance(a, b) for a, b in zip(*seen, strict=True)] == [0.0, 0.0]


class Encoded(Net):
    """Takes what a tokenizer gives by attribute."""

    def losses(self, batch):
        return super().losses([batch.x, batch["y"]])


def test_batches_of_a_tokenizer_stay_such():
    data = [[BatchEncoding({"x": x, "y": y}) for x, y in theirs] for theirs in DATA]
    assert_alike(both(Encoded, data))


class Augmented(list):
    def __iter__(self):
        for x, y in list.__iter__(self):
            yield [x + 0.1 * torch.randn(x.shape, dtype=x.dtype), y]


def augmented(on):
    return [SimpleNamespace(**{**vars(one), "batches": Augmented(one.batches)}) for one in work_of(on, DATA)]


def test_augmentation_by_the_global_generator_is_keyed_as_it_is_alone():
    """The serial engine draws batches within a client's own stream."""
    done = both(Net, [], work=augmented)
    assert done.told == []
    assert_alike(done)


def test_augmentation_is_keyed_where_models_were_scored_before_any_was_trained():
    serial, together = both(Net, [], work=augmented).serial, VectorizedEngine(engine(Net()))
    assert together.check.why_not([DATA[0][0], DATA[1][0]]) is None
    joint = together.train(FedAvg(), augmented(together), 4)
    assert max(distance(mine, theirs) for mine, theirs in zip(joint, serial, strict=True)) <= 1e-12


def test_a_rule_whose_objective_draws_is_refused():
    class Shaken(FedAvg):
        def objective(self, loss, w, down, memory):
            near = {n: p + 0.05 * torch.randn_like(p) for n, p in w.items()}
            return loss(near) + 0.1 * loss(w)

    with pytest.raises(FedlitError, match=r"Shaken\.objective draws random numbers.*clients_at_once to 1"):
        both(Net, DATA, Shaken())


def test_requests_of_several_forms_are_answered_in_their_order():
    on = engine(Net())
    told: list[str] = []
    passes = SharedPasses(on.network, told.append)
    batches = [batch for theirs in DATA for batch in theirs][:4]
    assert why_not_folded(passes, batches[:2]) is None
    full = {n: v.clone().requires_grad_() for n, v in on.initial().items()}
    part = {n: v for n, v in full.items() if "net.0" in n}
    asked = [Request("losses", p, b, graph=True) for p, b in zip((full, part, full, part), batches, strict=True)]
    draws = [torch.Generator().manual_seed(i) for i in range(4)]
    together = [given.at(one.params) for given, one in zip(passes.answer(asked, draws), asked, strict=True)]
    alone = [passes.alone(one, draws[0]) for one in asked]
    torch.testing.assert_close(torch.stack(together), torch.stack(alone), rtol=1e-12, atol=1e-12)
    for mine, theirs in zip(together, alone, strict=True):
        a, b = (torch.autograd.grad(v, list(part.values())) for v in (mine, theirs))
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_a_trial_leaves_the_network_and_the_generator_as_they_were():
    on = engine(Net(dropout=0.5))
    before, state = on.initial(), torch.get_rng_state()
    assert why_not_folded(SharedPasses(on.network, print), DATA[0][:2]) is None
    assert on.task.training
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(p, before[n]) and p.grad is None for n, p in on.parameters.items())
    assert not any("forward" in module.__dict__ for module in on.task.modules())
