"""Networks that cannot be folded are found out and named, and then train to the serial engine's bytes."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from vectorized_cases import (
    DATA,
    NET_SIZES,
    Net,
    assert_serial,
    both,
    examples,
)


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


class MixedGradients(Net):
    """Values are each example's own, and gradients are not."""

    def forward(self, x):
        out = super().forward(x)
        return out + out.mean() - out.mean().detach()


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


BESIDE = "hangs on who is beside it"


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        pytest.param(BatchStatistics, BESIDE),
        (FrozenBatchStatistics, BESIDE), (Contrasted, BESIDE), (Ranked, BESIDE), (MixedGradients, BESIDE),
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
def test_what_goes_wrong_in_a_trial_is_a_reason_and_no_error(make, data):
    data = [theirs[-1:] + theirs for theirs in data] if len(data) == 2 else data
    assert_serial(both(make, data), "")


class SlightlyPenalised(Net):
    """A small term beside the losses, of parameters outside of their module."""

    def losses(self, batch):
        return super().losses(batch) + 1e-4 * self.net[0].weight.square().sum()


def test_a_small_use_of_parameters_outside_of_their_module_is_found_out_in_float32():
    data = [examples(sizes, seed, dtype=torch.float32) for seed, sizes in enumerate(NET_SIZES)]
    assert_serial(both(lambda: SlightlyPenalised(dtype="float32", optimizer="sgd"), data), "")
