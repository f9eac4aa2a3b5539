"""Joint runs: networks that cannot be folded are found out and named, and then train to the serial engine's bytes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from joint_cases import assert_alike, assert_serial, both, distance, engine, examples, work_of
from torch import nn
from torch.nn import functional as F  # noqa: N812
from toys import Regression
from transformers import BatchEncoding

from fedlit.aggregators import FedAvg, PerFedAvg
from fedlit.clients.batched import BatchedEngine
from fedlit.clients.joint import JointRuns
from fedlit.clients.requests import Request
from fedlit.rows import rows_of

SIZES = ((4, 4, 2), (4, 3), (4, 4, 4, 2))
DATA = [examples(sizes, seed) for seed, sizes in enumerate(SIZES)]


class Net(Regression):
    """A regression whose network a test gives, by default with some layers more to choose from."""

    def __init__(self, dtype: str = "float64", **arguments: Any) -> None:
        super().__init__(hidden=4, dtype=dtype, **{"optimizer": "adamw", **arguments})
        self.build()
        g = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(torch.randn(p.shape, generator=g) / 2)
        self.to(getattr(torch, dtype))

    def build(self) -> None:
        pass


class BatchStatistics(Net):
    def build(self):
        self.norm = nn.BatchNorm1d(3, track_running_stats=False)

    def forward(self, x):
        return super().forward(self.norm(x))


class FrozenBatchStatistics(BatchStatistics):
    def build(self):
        super().build()
        self.norm.requires_grad_(False)


class Contrasted(Net):
    """Each example's loss hangs on the others in the batch."""

    def losses(self, batch):
        z = self(batch[0])
        return super().losses(batch) + (z[:, None] - z[None]).square().mean(1)


class Ranked(Net):
    """The largest losses of a batch count."""

    def losses(self, batch):
        each = super().losses(batch)
        return each * (each >= each.median()).to(each)


class Penalised(Net):
    """Its training step is not the mean of its losses."""

    def training_step(self, batch, batch_idx):
        return super().training_step(batch, batch_idx) + 0.1 * self.net[0].weight.square().sum()


class Summed(Net):
    def training_step(self, batch, batch_idx):
        return self.losses(batch).sum()


class Scalar(Net):
    def losses(self, batch):
        return super().losses(batch).mean()


class TimeMajor(Net):
    def build(self):
        self.recurrent = nn.Linear(1, 3)

    def forward(self, x):
        return self.net(self.recurrent(x.T[..., None]).mean(0))[..., 0]


class Recurrent(Net):
    def build(self):
        self.recurrent = nn.GRU(1, 3)

    def forward(self, x):
        return self.net(self.recurrent(x.T[..., None])[0].mean(0))[..., 0]


class Tied(Net):
    """A layer's weight used outside of that layer."""

    def build(self):
        self.other = nn.Linear(4, 3)

    def losses(self, batch):
        x, y = batch
        h = self.other(torch.tanh(self.net[0](x)))
        return (F.linear(h, self.net[0].weight).sum(-1) - y).square()


class DirectParameter(Net):
    """The task's own parameter, used outside of a module's forward."""

    def build(self):
        self.scale = nn.Parameter(torch.ones(3))

    def losses(self, batch):
        return super().losses([batch[0] * self.scale, batch[1]])


class Noise(Net):
    def forward(self, x):
        return super().forward(x + 0.1 * torch.randn_like(x) if self.training else x)


class AlphaDropout(Net):
    def forward(self, x):
        return super().forward(F.alpha_dropout(x, 0.3, self.training))


class Branching(Net):
    """Looks at its values within a module that has parameters of its own."""

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))

        def forward(self, x):
            return x * self.scale if float(x.sum()) > 0 else x - self.scale

    def build(self):
        self.layer = self.Layer()

    def forward(self, x):
        return super().forward(self.layer(x))


def wrong(reason: str) -> Any:
    return pytest.mark.xfail(strict=True, reason=reason)


BESIDE = "hangs on who is beside it"


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        pytest.param(BatchStatistics, BESIDE, marks=wrong("rows that fill up enter a trained norm's statistics")),
        (FrozenBatchStatistics, BESIDE), (Contrasted, BESIDE), (Ranked, BESIDE),
        (Penalised, BESIDE), (Summed, BESIDE), (Scalar, "losses have the shape []"),
        (TimeMajor, "an input has [3] rows"), (Recurrent, ""), (Tied, BESIDE), (DirectParameter, ""),
        (Noise, "draws random numbers other than dropout's"), (AlphaDropout, "draws random numbers"),
        (Branching, ""),
    ],
    ids=lambda x: x.__name__ if isinstance(x, type) else "",
)  # fmt: skip
def test_networks_that_cannot_be_folded(make, reason):
    done = both(make, DATA)
    assert_serial(done, reason)


class LayerWithDropout(Net):
    """A module that owns a parameter and drops: its dropout is inside what is mapped over the clients."""

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))

        def forward(self, x):
            return F.dropout(x * self.scale, 0.3, self.training)

    def build(self):
        self.layer = self.Layer()

    def forward(self, x):
        return super().forward(self.layer(x))


class Attention(Net):
    """Attention whose kernel drops."""

    def build(self):
        self.projection = nn.Linear(1, 4)

    def forward(self, x):
        h = self.projection(x[..., None])[:, None]
        out = F.scaled_dot_product_attention(h, h, h, dropout_p=0.3 if self.training else 0.0)
        return self.net[2:](out.mean((1, 2)))[..., 0]


class PositionalAttention(Attention):
    def forward(self, x):
        h = self.projection(x[..., None])[:, None]
        out = F.scaled_dot_product_attention(h, h, h, None, 0.3 if self.training else 0.0)
        return self.net[2:](out.mean((1, 2)))[..., 0]


class MultiHead(Net):
    def build(self):
        self.attention = nn.MultiheadAttention(3, 1, dropout=0.3, batch_first=True)

    def forward(self, x):
        return super().forward(self.attention(x[:, None], x[:, None], x[:, None], need_weights=False)[0][:, 0])


class Pooled(Net):
    """A layer with parameters that gives fewer rows than it is given."""

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, x):
            return (x * self.scale).view(-1, 3)

    def build(self):
        self.layer = self.Layer()

    def forward(self, x):
        return super().forward(self.layer(x.reshape(-1, 1)))


@pytest.mark.parametrize("make", [LayerWithDropout, Attention, PositionalAttention, MultiHead, Pooled])
@pytest.mark.parametrize("data", [DATA, DATA[1:]], ids=["first batches alike", "unequal"])
def test_what_goes_wrong_in_a_trial_is_a_reason_and_no_error(make, data, request):
    if make is not PositionalAttention and (make is not Pooled or len(data) == 2):
        request.applymarker(wrong("the trial passes it on"))
    data = [theirs[-1:] + theirs for theirs in data] if len(data) == 2 else data
    assert_serial(both(make, data), "")


class SlightlyPenalised(Net):
    """A small term beside the losses, of parameters outside of their module."""

    def losses(self, batch):
        return super().losses(batch) + 1e-4 * self.net[0].weight.square().sum()


@wrong("the bound of the trial is 1e-2 in float32")
def test_a_small_use_of_parameters_outside_of_their_module_is_found_out_in_float32():
    data = [examples(sizes, seed, dtype=torch.float32) for seed, sizes in enumerate(SIZES)]
    assert_serial(both(lambda: SlightlyPenalised(dtype="float32", optimizer="sgd"), data), "")


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
def test_batches_that_do_not_fit_are_run_one_by_one(rule, request):
    if isinstance(rule, PerFedAvg):
        request.applymarker(wrong("a gradient in an objective that is run again"))
    data = [widths(3, 5, 3, 4), widths(3, 3, 3, 4), widths(3, 3, 3, 6)]
    done = both(lambda: Padded(dropout=0.3), data, rule)
    assert done.told == ["examples of different clients differ in shape"]  # said once
    assert_alike(done, folds=False)
    assert done.folded > 0
    assert done.alone > 0


@wrong("a trial on batches that do not fit ends the folding of all that comes")
def test_what_comes_of_a_group_does_not_hang_on_the_group_before():
    """Else a rank, or a resumed run, which sees other groups first, gives other bytes."""
    unlike, alike = [widths(3, 5), widths(5, 3)], [widths(3, 5), widths(3, 5)]
    seen = []
    for before in (unlike, alike):
        on = engine(Padded())
        together = BatchedEngine(on)
        together.train(FedAvg(), work_of(on, before), 4)
        seen.append(together.train(FedAvg(), work_of(on, [widths(3, 3, 3), widths(3, 3, 3)]), 4))
    assert [distance(a, b) for a, b in zip(*seen, strict=True)] == [0.0, 0.0]


class Encoded(Net):
    """Takes what a tokenizer gives by attribute."""

    def losses(self, batch):
        return super().losses([batch.x, batch["y"]])


@wrong("they become a plain dict")
def test_batches_of_a_tokenizer_stay_such():
    data = [[BatchEncoding({"x": x, "y": y}) for x, y in theirs] for theirs in DATA]
    assert_alike(both(Encoded, data))


@wrong("batches are drawn outside of the client's stream")
def test_augmentation_by_the_global_generator_is_keyed_as_it_is_alone():
    """The serial engine draws batches within a client's own stream."""

    class Augmented(list):
        def __iter__(self):
            for x, y in list.__iter__(self):
                yield [x + 0.1 * torch.randn(x.shape, dtype=x.dtype), y]

    def work(on):
        return [SimpleNamespace(**{**vars(one), "batches": Augmented(one.batches)}) for one in work_of(on, DATA)]

    done = both(Net, [], work=work)
    assert done.told == []
    assert_alike(done)


@wrong("objectives run outside of the client's stream, and several times")
def test_a_rule_that_draws_is_keyed_as_it_is_alone():
    class Shaken(FedAvg):
        def objective(self, loss, w, down, memory):
            near = {n: p + 0.05 * torch.randn_like(p) for n, p in w.items()}
            return loss(near) + 0.1 * loss(w)

    assert_alike(both(Net, DATA, Shaken()))


def test_requests_of_several_forms_are_answered_in_their_order():
    on = engine(Net())
    told: list[str] = []
    runs = JointRuns(on, told.append)
    batches = [batch for theirs in DATA for batch in theirs][:4]
    assert runs.try_out(batches[:2]) is None
    full = {n: v.clone().requires_grad_() for n, v in on.initial().items()}
    part = {n: v for n, v in full.items() if "net.0" in n}
    asked = [Request("losses", p, b, graph=True) for p, b in zip((full, part, full, part), batches, strict=True)]
    draws = [torch.Generator().manual_seed(i) for i in range(4)]
    together = runs.answer(asked, draws)
    alone = [runs._alone(one, draws[0]) for one in asked]
    torch.testing.assert_close(torch.stack(together), torch.stack(alone), rtol=1e-12, atol=1e-12)
    for mine, theirs in zip(together, alone, strict=True):
        a, b = (torch.autograd.grad(v, list(part.values())) for v in (mine, theirs))
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_a_trial_leaves_the_network_and_the_generator_as_they_were():
    on = engine(Net(dropout=0.5))
    before, state = on.initial(), torch.get_rng_state()
    assert JointRuns(on, print).try_out(DATA[0][:2]) is None
    assert on.task.training
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(p, before[n]) and p.grad is None for n, p in on.parameters.items())
    assert not any("forward" in module.__dict__ for module in on.task.modules())
