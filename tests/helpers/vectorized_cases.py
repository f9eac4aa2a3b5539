"""What the tests of the vectorized engine share: clients' work, trained by both engines, and the two compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import lightning as L  # noqa: N812
import torch
from torch import Tensor
from toys import Regression

from fedlit import tree
from fedlit.aggregators import FedAvg
from fedlit.engine.engine import Assignment, Trained
from fedlit.engine.serial import SerialEngine
from fedlit.engine.vectorized.engine import VectorizedEngine

SIZES = ((4, 4, 2), (4, 4, 3), (4, 4, 4))
"""Examples in each client's batches."""


def engine(task: Any, clip: float | None = None, precision: Any = "32-true") -> SerialEngine:
    return SerialEngine(task, L.Fabric(accelerator="cpu", devices=1, precision=precision), clip)


def examples(sizes: Sequence[int], seed: int, features: int = 3, dtype: torch.dtype = torch.float64) -> list[Any]:
    """Batches for a regression."""
    g = torch.Generator().manual_seed(seed)
    return [
        [torch.randn(n, features, generator=g, dtype=dtype), torch.randn(n, generator=g, dtype=dtype)] for n in sizes
    ]


def labelled(sizes: Sequence[int], seed: int, features: int = 4, dtype: torch.dtype = torch.float64) -> list[Any]:
    """Batches for a classifier of three classes."""
    g = torch.Generator().manual_seed(seed)
    return [[torch.randn(n, features, generator=g, dtype=dtype), torch.randint(3, (n,), generator=g)] for n in sizes]


def work_of(
    on: SerialEngine, batches: Sequence[Sequence[Any]], rule: Any = None, steps: Sequence[int] | None = None
) -> list[Assignment]:
    """What clients with these batches are to do, each from values of its own."""
    out = []
    for i, theirs in enumerate(batches):
        g = torch.Generator().manual_seed(100 + i)
        start = {n: v + 0.1 * torch.randn(v.shape, generator=g).to(v) for n, v in on.initial().items()}
        memory = (rule or FedAvg()).init_memory(start)
        count = len(theirs) if steps is None else steps[i]
        out.append(Assignment(tree.ordered(start), memory, list(theirs), count, 7 + i, list(theirs)))
    return out


@dataclass
class Both:
    """The same work, done one client after the other and together.

    Attributes:
        serial, joint: What each client gave.
        told: Why clients trained one after the other.
        folded, alone: Requests that were answered in one pass for several clients, and for one.
    """

    serial: list[Trained]
    joint: list[Trained]
    told: list[str]
    folded: int = 0
    alone: int = 0
    engine: Any = field(default=None, repr=False)


def both(
    make: Callable[[], Any],
    batches: Sequence[Sequence[Any]],
    rule: Any = None,
    clip: float | None = None,
    precision: Any = "32-true",
    work: Callable[[SerialEngine], list[Assignment]] | None = None,
    steps: Sequence[int] | None = None,
) -> Both:
    """Train by both engines, each on a task of its own."""
    rule, told = rule or FedAvg(), []
    first, second = (engine(make(), clip, precision) for _ in range(2))
    given = work or (lambda on: work_of(on, batches, rule, steps))
    serial = first.train(rule, given(first), 4)
    together = VectorizedEngine(second, told.append)
    out = Both(serial, [], told, engine=together)
    folded, alone = together.passes.folded, together.passes.alone

    def count_folded(requests: Any, draws: Any) -> Any:
        answers = folded(requests, draws)
        if together.check.done:
            out.folded += 1
        return answers

    def count_alone(request: Any, draws: Any) -> Any:
        out.alone += bool(together.check.done)
        return alone(request, draws)

    together.passes.folded, together.passes.alone = count_folded, count_alone
    out.joint = together.train(rule, given(second), 4)
    return out


def leaves(one: Trained) -> dict[str, Tensor]:
    """All that a client's training gave, by path."""
    work = {name: getattr(one.work, name) for name in one.work._fields}
    return tree.flatten(
        {"upload": one.upload, "memory": one.memory, "model": one.model, "work": work, "loss": torch.tensor(one.loss)}
    )


def distance(a: Trained, b: Trained) -> float:
    """Largest difference, relative to a tensor's largest value or 1; NaN equals NaN."""
    x, y = leaves(a), leaves(b)
    assert x.keys() == y.keys()
    found = [0.0]
    for path, value in x.items():
        assert value.shape == y[path].shape, path
        assert value.dtype == y[path].dtype, path
        assert torch.equal(value.isnan(), y[path].isnan()), path
        if value.numel():
            u, v = value.nan_to_num().double(), y[path].nan_to_num().double()
            found.append(float((u - v).abs().max() / v.abs().max().clamp(min=1.0)))
    return max(found)


def assert_alike(done: Both, bound: float = 1e-12, folds: bool = True) -> None:
    """Both engines gave the same, and the second one did train the clients together."""
    assert len(done.joint) == len(done.serial)
    if folds:
        assert done.told == []
        assert done.folded > 0
    for serial, joint in zip(done.serial, done.joint, strict=True):
        assert distance(joint, serial) <= bound


def assert_serial(done: Both, reason: str) -> None:
    """The clients trained one after the other, to the same bytes, and the reason was told."""
    assert len(done.told) == 1
    assert reason in done.told[0], done.told
    assert done.folded == 0
    for serial, joint in zip(done.serial, done.joint, strict=True):
        x, y = leaves(joint), leaves(serial)
        assert x.keys() == y.keys()
        assert all(torch.equal(x[path].nan_to_num(), y[path].nan_to_num()) for path in x)


UNEQUAL = ((4, 4, 2), (4,), (3, 4, 4, 4, 1), (2, 4))
"""Unequal sizes, short last batches, and from one to five steps."""


def batches(sizes=SIZES, **arguments: Any) -> list:
    return [examples(theirs, seed, **arguments) for seed, theirs in enumerate(sizes)]


class Tuned(Regression):
    """A regression with the optimizer that a test gives."""

    def __init__(self, optimizer: Any, schedule: bool = False, **arguments: Any) -> None:
        super().__init__(**{"hidden": 5, "dtype": "float64", **arguments})
        self.make, self.schedule = optimizer, schedule

    def configure_optimizers(self):
        optimizer = self.make(self.parameters())
        if not self.schedule:
            return optimizer
        steps = self.num_training_steps
        decay = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": decay, "interval": "step"}}


O = torch.optim  # noqa: E741
OPTIMIZERS = {
    "sgd": lambda p: O.SGD(p, lr=0.1, weight_decay=0.05),
    "momentum": lambda p: O.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.05),
    "nesterov": lambda p: O.SGD(p, lr=0.1, momentum=0.8, nesterov=True),
    "adamw": lambda p: O.AdamW(p, lr=0.05, weight_decay=0.2),
    "amsgrad": lambda p: O.Adam(p, lr=0.05, amsgrad=True),
    "rmsprop": lambda p: O.RMSprop(p, lr=0.01, momentum=0.5, centered=True),
    "adagrad": lambda p: O.Adagrad(p, lr=0.1),
    "adadelta": lambda p: O.Adadelta(p, lr=0.5),
    "adamax": lambda p: O.Adamax(p, lr=0.05),
    "nadam": lambda p: O.NAdam(p, lr=0.05),
    "radam": lambda p: O.RAdam(p, lr=0.05),
    "asgd": lambda p: O.ASGD(p, lr=0.05),
    "rprop": lambda p: O.Rprop(p, lr=0.01),
}


NET_SIZES = ((4, 4, 2), (4, 3), (4, 4, 4, 2))
DATA = [examples(sizes, seed) for seed, sizes in enumerate(NET_SIZES)]
"""For :class:`Net`."""


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
