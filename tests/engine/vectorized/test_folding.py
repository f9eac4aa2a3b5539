"""Folded modules against each client's own, one by one: values, gradients, dropout, and what is left behind."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F  # noqa: N812

from fedlit.engine.vectorized.folding import Folding
from fedlit.engine.vectorized.modules import RowLayout, Unfoldable, is_adapted

SIZES = [(3, 3), (2, 4, 1)]


class Both(nn.Module):
    """Modules that share a parameter, one inside a module that has a parameter of its own."""

    class Scaled(nn.Module):
        def __init__(self, inner: nn.Linear) -> None:
            super().__init__()
            self.scale, self.inner = nn.Parameter(torch.full((5,), 0.5)), inner

        def forward(self, x):
            return self.inner(x) * self.scale

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 5)
        self.scaled = self.Scaled(nn.Linear(5, 5))
        self.tied = nn.Linear(5, 5)
        self.tied.weight = self.first.weight

    def forward(self, x):
        return self.tied(torch.tanh(self.scaled(self.first(x))))


def lora(**arguments: Any) -> nn.Module:
    settings = {"r": 2, "lora_alpha": 3.0, "lora_dropout": 0.0, "target_modules": ["0", "2"], **arguments}
    module = inject_adapter_in_model(LoraConfig(**settings), nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)))
    for name, p in module.named_parameters():
        p.requires_grad_("lora_" in name)
    return module


def biased(bias: bool) -> nn.Module:
    """Only biases train."""
    module = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3))
    for name, p in module.named_parameters():
        p.requires_grad_(name.endswith("bias") is bias)
    return module


MODULES = {
    "linear": lambda: nn.Linear(5, 3),
    "without bias": lambda: nn.Linear(5, 3, bias=False),
    "bias alone": lambda: biased(True),
    "weight alone": lambda: biased(False),
    "norm": lambda: nn.Sequential(nn.LayerNorm(5), nn.Linear(5, 3), nn.RMSNorm(3)),
    "tied and nested": Both,
    "lora": lora,
    "rslora": lambda: lora(use_rslora=True),
    "lora with bias": lambda: lora(lora_bias=True),
    "lora and base": lambda: lora().requires_grad_(True),
    "feed-forward": lambda: nn.Sequential(nn.Linear(5, 4), nn.GELU(), nn.Linear(4, 5)),
}


def made(name: str) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    module = MODULES[name]().double()
    g = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=g, dtype=p.dtype) / 2)
    return module, {n: p for n, p in module.named_parameters() if p.requires_grad}


def stacks(trained: dict[str, torch.Tensor], clients: int) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(5)
    return {
        n: (p.detach() + torch.randn(clients, *p.shape, generator=g, dtype=p.dtype) / 3).requires_grad_()
        for n, p in trained.items()
    }


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("shape", [(5,), (2, 5), (2, 3, 5)], ids=str)
def test_values_and_gradients(name, sizes, shape):
    module, trained = made(name)
    given = stacks(trained, len(sizes))
    x = torch.randn(sum(sizes), *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x.requires_grad_()
    with Folding(module, list(trained)).using(given, RowLayout(sizes)):
        folded = module(x)
    alone = torch.cat([
        functional_call(module, {n: p[i] for n, p in given.items()}, (rows,))
        for i, rows in enumerate(torch.split(x, list(sizes)))
    ])  # fmt: skip
    torch.testing.assert_close(folded, alone, rtol=1e-12, atol=1e-12)
    weights = torch.rand(folded.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    wanted = [x, *given.values()]
    mine, theirs = (torch.autograd.grad((out.sin() * weights).sum(), wanted) for out in (folded, alone))
    torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)
    assert all(float(g.abs().sum()) > 0 for g in mine)


def test_parameters_that_are_left_out_are_everybody_s():
    module, trained = made("lora")
    some = {n: p for n, p in stacks(trained, 2).items() if "lora_A" in n}
    x = torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with Folding(module, list(trained)).using(some, RowLayout((2, 3))):
        folded = module(x)
    alone = [
        functional_call(module, {n: p[i] for n, p in some.items()}, (x[a:b],)) for i, a, b in ((0, 0, 2), (1, 2, 5))
    ]
    torch.testing.assert_close(folded, torch.cat(alone), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("base", [torch.bfloat16, torch.float64], ids=str)
def test_adapters_of_another_precision_than_the_base(base):
    module = lora(lora_alpha=7.0)
    for name, p in module.named_parameters():
        p.data = p.data.to(torch.float32 if "lora_" in name else base)
    given = stacks({n: p for n, p in module.named_parameters() if "lora_" in n}, 2)
    x = torch.randn(5, 5, generator=torch.Generator().manual_seed(1)).to(base)
    with Folding(module, list(given)).using(given, RowLayout((2, 3))):
        folded = module(x)
    parts = enumerate(torch.split(x, [2, 3]))
    alone = torch.cat([functional_call(module, {n: p[i] for n, p in given.items()}, (rows,)) for i, rows in parts])
    assert folded.dtype == alone.dtype
    bound = 2e-2 if base == torch.bfloat16 else 1e-6
    torch.testing.assert_close(folded, alone, rtol=bound, atol=bound)


def test_which_layers_are_taken_for_plain_lora():
    def first(module):
        return next(m for m in module.modules() if hasattr(m, "lora_A"))

    plain = first(lora())
    assert is_adapted(plain)
    assert not is_adapted(nn.Linear(2, 2))
    assert not is_adapted(first(lora(use_dora=True)))
    assert not is_adapted(first(lora(lora_bias=True)))
    plain.enable_adapters(False)
    assert not is_adapted(plain)
    plain.enable_adapters(True)
    plain.merge()
    assert not is_adapted(plain)
    assert not is_adapted(first(inject_adapter_in_model(
        LoraConfig(r=2, target_modules=["0"]), nn.Sequential(nn.Conv1d(2, 2, 1))
    )))  # fmt: skip


class Dropping(nn.Module):
    """Every way to drop in float64."""

    def __init__(self, p: float = 0.4) -> None:
        super().__init__()
        self.first, self.dropout, self.second = nn.Linear(5, 6), nn.Dropout(p), nn.Linear(6, 3)

    def forward(self, x):
        h = F.dropout(self.dropout(self.first(x)), p=0.2, training=self.training)
        return nn.functional.dropout(self.second(h), 0.1, self.training, True)


@pytest.mark.parametrize("sizes", [*SIZES, (1, 5)], ids=str)
@pytest.mark.parametrize("name", ["dropping", "lora"])
def test_dropout_is_that_of_each_alone(name, sizes):
    module = (Dropping() if name == "dropping" else lora(lora_dropout=0.5)).double()
    trained = {n: p for n, p in module.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for p in trained.values():
            p.add_(0.1)
    given = stacks(trained, len(sizes))
    x = torch.randn(sum(sizes), 2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    draws = [torch.Generator().manual_seed(10 + i) for i in range(len(sizes))]
    state = torch.get_rng_state()
    with Folding(module, list(trained)).using(given, RowLayout(sizes), draws):
        folded = module(x)
    assert torch.equal(state, torch.get_rng_state())
    for i, (rows, mine) in enumerate(zip(torch.split(x, list(sizes)), torch.split(folded, list(sizes)), strict=True)):
        with torch.random.fork_rng([]):
            torch.manual_seed(10 + i)
            alone = functional_call(module, {n: p[i] for n, p in given.items()}, (rows,))
            assert torch.equal(draws[i].get_state(), torch.get_rng_state())
        torch.testing.assert_close(mine, alone, rtol=1e-12, atol=1e-12)
        module.eval()
        assert not torch.equal(alone, functional_call(module, {n: p[i] for n, p in given.items()}, (rows,)))
        module.train()


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_dropping_nothing_and_everything_beside_other_dropout(p):
    module = Dropping(p).double()
    given = stacks(dict(module.named_parameters()), 2)
    x = torch.ones(4, 5, dtype=torch.float64)
    with Folding(module, list(given)).using(
        given, RowLayout((2, 2)), [torch.Generator().manual_seed(i) for i in (0, 1)]
    ):
        folded = module(x)
    with torch.random.fork_rng([]):
        torch.manual_seed(1)
        alone = functional_call(module, {n: v[1] for n, v in given.items()}, (x[2:],))
    torch.testing.assert_close(folded[2:], alone, rtol=1e-12, atol=1e-12)


def test_fused_attention_that_drops_is_named():
    class Attention(nn.Module):
        def forward(self, x, p):
            return F.scaled_dot_product_attention(x, x, x, dropout_p=p)

    module, x = Attention(), torch.ones(2, 1, 3, 4)
    draws = [torch.Generator(), torch.Generator()]
    with Folding(module, []).using({}, RowLayout((1, 1)), draws):
        torch.testing.assert_close(module(x, 0.0), x)
        with pytest.raises(Unfoldable, match="fused kernel"):
            module(x, 0.5)


def test_nothing_is_left_behind():
    module, trained = made("tied and nested")
    fold, given, x = Folding(module, list(trained)), stacks(trained, 2), torch.ones(4, 5, dtype=torch.float64)
    before = module(x)
    with fold.using(given, RowLayout((2, 2))):
        assert not torch.equal(module(x), before)
    assert torch.equal(module(x), before)
    with pytest.raises(Unfoldable, match="rows"), fold.using(given, RowLayout((2, 2))):
        module(x[:3])
    assert torch.equal(module(x), before)
    module.scaled.forward = lambda x: x
    with pytest.raises(Unfoldable, match="Scaled has a forward of its own"), fold.using(given, RowLayout((2, 2))):
        raise AssertionError("the first layers were changed already")
    del module.scaled.forward
    assert torch.equal(module(x), before)
    assert not any("forward" in part.__dict__ for part in module.modules())


@pytest.mark.parametrize(("module", "x", "reason"), [
    (nn.MultiheadAttention(4, 1, batch_first=True), (torch.ones(4, 2, 4),) * 3, "more than one output|got type"),
    (nn.GRU(4, 3, batch_first=True), (torch.ones(4, 2, 4),), "Batching rule not implemented"),
], ids=["attention", "gru"])  # fmt: skip
def test_modules_that_give_several_outputs_are_named(module, x, reason):
    given = stacks(dict(module.named_parameters()), 2)
    with (
        Folding(module, list(given)).using(given, RowLayout((2, 2))),
        pytest.raises((Unfoldable, RuntimeError), match=reason),
    ):
        module(*x)
