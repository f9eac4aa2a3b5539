"""What the engine does for rules beyond plain training: additions to frozen weights, measured losses, counted work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import lightning as L  # noqa: N812
import pytest
import torch
from torch import nn
from toys import Classifier, Regression, ToyData

from fedlit import tree
from fedlit.aggregators import FedAvg
from fedlit.engine.engine import Assignment
from fedlit.engine.loss import BatchLoss
from fedlit.engine.serial import SerialEngine
from fedlit.errors import FedlitError

FIRST = "network.first.base_layer.weight"
SECOND = "network.second.base_layer.weight"


def engine(task: Any) -> SerialEngine:
    return SerialEngine(task, L.Fabric(accelerator="cpu", devices=1))


def lora(**arguments: Any) -> Classifier:
    return Classifier(rank=2, dtype="float64", **arguments)


def batches(count: int, size: int = 4, seed: int = 0) -> list:
    generator = torch.Generator().manual_seed(seed)
    return [
        [torch.randn(size, 4, generator=generator, dtype=torch.float64), torch.arange(size) % 3] for _ in range(count)
    ]


def added(seed: int = 1) -> torch.Tensor:
    return torch.randn(6, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def twin(model: dict[str, torch.Tensor], **additions: torch.Tensor) -> Classifier:
    """A task of its own with the model inside and its frozen weights changed by hand."""
    task = lora()
    with torch.no_grad():
        named = dict(task.named_parameters())
        for name, value in model.items():
            named[name].copy_(value)
        for name, value in additions.items():
            named[name.replace("__", ".")].add_(value)
    return task


# -- additions to frozen weights ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("path", ["functional", "live network besides"])
def test_a_loss_with_an_addition_is_the_task_s_with_that_weight(path):
    on = engine(lora())
    w, live = on.initial(), {}
    if path != "functional":  # the addition itself is never a leaf of the network's
        with torch.no_grad():
            w, live = on.network.bind(tree.map(lambda p: p + 0.1, w))
    (batch,) = batches(1)
    other = twin(tree.detach(w), network__first__base_layer__weight=added())
    loss = BatchLoss(on.network, live, 1, 0, batch)
    assert torch.equal(loss({**w, FIRST: added()}), other.training_step(batch, 0))
    assert torch.equal(loss.logits({**w, FIRST: added()}), other.logits(batch))
    assert not torch.equal(loss({**w, FIRST: added()}), loss(w))


def test_an_addition_can_be_trained_through():
    on = engine(lora())
    extra = added().requires_grad_()
    (batch,) = batches(1)
    BatchLoss(on.network, {}, 1, 0, batch)({**on.initial(), FIRST: extra}).backward()
    other = twin(on.initial(), network__first__base_layer__weight=added())
    weight = other.network["first"].base_layer.weight.requires_grad_()
    other.training_step(batch, 0).backward()
    assert torch.equal(extra.grad, weight.grad)


def test_evaluation_with_an_addition_and_the_base_back_after_it():
    task = lora()
    on, data = engine(task), batches(3)
    base = tree.clone(on.frozen)
    plain = on.evaluate([on.initial()], [data], "val", 4)
    first = on.evaluate([{**on.initial(), FIRST: added()}], [data], "val", 4)
    assert first == engine(twin({}, network__first__base_layer__weight=added())).evaluate(
        [on.initial()], [data], "val", 4
    )
    assert first != plain
    again = on.evaluate(
        [{**on.initial(), FIRST: added(2)}], [data], "val", 4
    )  # added to the base, not to the first sum
    assert again == engine(twin({}, network__first__base_layer__weight=added(2))).evaluate(
        [on.initial()], [data], "val", 4
    )
    second = {SECOND: torch.ones(6, 6, dtype=torch.float64)}  # the first layer goes back while the second changes
    both = twin({}, network__second__base_layer__weight=second[SECOND])
    assert on.evaluate([second], [data], "val", 4) == engine(both).evaluate([on.initial()], [data], "val", 4)
    assert on.evaluate([on.initial()], [data], "val", 4) == plain
    assert tree.equal(on.frozen, base)
    assert on.network.mean_loss({FIRST: added()}, data) != on.network.mean_loss({}, data)
    on.load({})
    assert tree.equal(on.frozen, base)


@dataclass(frozen=True)
class Residual(FedAvg):
    """Every client gets the same addition to a frozen weight, and trains on top of it."""

    size: float = 1.0
    measures = ("start_loss", "end_loss")

    def init(self, params: Any) -> Any:
        return {"params": {"params": params, "base": {FIRST: self.size * added()}}}

    def start(self, down: Any, memory: Any) -> Any:
        return down["params"]

    def objective(self, loss: Any, w: Any, down: Any, memory: Any) -> Any:
        return loss(self.model(w, down, memory))

    def finish(self, w: Any, down: Any, memory: Any, work: Any) -> Any:
        return tree.sub(w, down["params"]), memory

    def model(self, w: Any, down: Any, memory: Any) -> Any:
        return {**w, **down["base"]}


def test_training_on_an_addition_is_training_on_that_base():
    task = lora()
    on, data, rule = engine(task), batches(4), Residual()
    base = tree.clone(on.frozen)
    down = rule.init(on.initial())["params"]
    trained = on.train(rule, [Assignment(down, {}, data, 4, 0, data)], 4)[0]
    other = engine(twin({}, network__first__base_layer__weight=added()))
    plain = other.train(FedAvg(), [Assignment(other.initial(), {}, data, 4, 0)], 4)[0]
    torch.testing.assert_close(trained.upload, plain.upload, rtol=1e-12, atol=1e-14)
    assert trained.loss == pytest.approx(plain.loss, rel=1e-12)
    # The next client, of a rule without additions, is trained on the base as it came.
    after = on.train(FedAvg(), [Assignment(on.initial(), {}, data, 4, 0)], 4)[0]
    fresh = engine(lora())
    assert tree.equal(after.upload, fresh.train(FedAvg(), [Assignment(fresh.initial(), {}, data, 4, 0)], 4)[0].upload)
    assert tree.equal(on.frozen, base)


def test_a_run_with_additions_leaves_the_task_as_it_came(fit):
    task = lora()
    before = tree.clone(dict(task.named_parameters()))
    data = ToyData(classes=3, features=4, dtype="float64")

    @dataclass(frozen=True)
    class Served(Residual):
        def aggregate(self, state: Any, updates: Any, server: Any) -> Any:
            server.mean(updates)
            return state

        def global_model(self, state: Any) -> Any:
            return self.model(state["params"]["params"], state["params"], {})

    with_it = (fit(Served(), task, data).path / "metrics.csv").read_text()
    assert tree.equal(dict(task.named_parameters()), before)
    assert (fit(Served(), task, data).path / "metrics.csv").read_text() == with_it
    assert (fit(Served(size=0.0), task, data).path / "metrics.csv").read_text() != with_it


class Counted(Classifier):
    """With a frozen table of whole numbers, as quantised weights are."""

    def __init__(self) -> None:
        super().__init__(rank=2, dtype="float64")
        self.codes = nn.Parameter(torch.zeros(6, 4, dtype=torch.int8), requires_grad=False)


@pytest.mark.parametrize("use", ["loss", "evaluate"])
@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        (FIRST, (4, 6), r"adds \[4, 6\] to network\.first\.base_layer\.weight, which is torch\.float64\[6, 4\]"),
        (FIRST, (1,), r"adds \[1\] to network\.first\.base_layer\.weight, which is torch\.float64\[6, 4\]"),
        ("codes", (6, 4), r"adds \[6, 4\] to codes, which is torch\.int8\[6, 4\] and cannot take it"),
        ("network.third.weight", (6, 4), r"parameters that it does not have: \['network\.third\.weight'\]"),
    ],
    ids=["shape", "broadcast", "whole numbers", "unknown"],
)
def test_an_addition_that_cannot_be_made_is_refused_by_name(use, name, shape, message):
    on = engine(Counted())
    model = {**on.initial(), name: torch.zeros(shape, dtype=torch.float64)}
    (batch,) = batches(1)
    with pytest.raises(FedlitError, match=message):
        on.evaluate([model], [[batch]], "val", 4) if use == "evaluate" else BatchLoss(on.network, {}, 1, 0, batch)(
            model
        )


@pytest.mark.parametrize("shape", [(3, 4), (1, 4), (2, 4, 1)])
def test_a_parameter_of_another_shape_is_refused_by_name(shape):
    on = engine(lora())
    name = "network.first.lora_A.default.weight"
    with pytest.raises(FedlitError, match=r"gives network\.first\.lora_A\.default\.weight the shape"):
        on.evaluate([{name: torch.zeros(shape, dtype=torch.float64)}], [batches(1)], "val", 4)


# -- measured losses ---------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Measuring(FedAvg):
    measures = ("start_loss", "end_loss")


def test_the_losses_before_and_after_are_means_over_all_of_the_client_s_data():
    task = lora(lr=0.5)
    on, used, everything = engine(task), batches(2), [*batches(2), *batches(1, size=1, seed=9)]
    trained = on.train(Measuring(), [Assignment(on.initial(), {}, used, 2, 0, everything)], 4)[0]

    def mean(model: Any) -> float:
        other = twin(model)
        return float(torch.cat([other.losses(batch) for batch in everything]).mean().detach())

    assert float(trained.work.start_loss) == pytest.approx(mean(on.initial()), rel=1e-12)
    assert float(trained.work.end_loss) == pytest.approx(mean(trained.model), rel=1e-12)
    assert float(trained.work.start_loss) != float(trained.work.end_loss)
    silent = on.train(FedAvg(), [Assignment(on.initial(), {}, used, 2, 0)], 4)[0]
    assert torch.isnan(silent.work.start_loss)
    assert torch.isnan(silent.work.end_loss)
    assert tree.equal(silent.upload, trained.upload)  # measuring changes nothing


@pytest.mark.usefixtures("unrehearsed")
def test_losses_are_measured_without_dropout(fit):
    seen = []

    @dataclass(frozen=True)
    class Noting(Measuring):
        def finish(self, w: Any, down: Any, memory: Any, work: Any) -> Any:
            seen.append((float(work.start_loss), tree.clone(down)))
            return super().finish(w, down, memory, work)

    data = ToyData(num_clients=1, dtype="float64")
    fit(Noting(), Regression(hidden=4, dropout=0.5, dtype="float64"), data, max_rounds=1)
    measured, down = seen[0]  # the last is for the shape of an upload
    task = Regression(hidden=4, dtype="float64")
    task.load_state_dict({**task.state_dict(), **down})
    expected = task.losses(data.dataset("client-00", "train").tensors).mean()
    assert measured == pytest.approx(float(expected.detach()), rel=1e-12)


def test_a_task_that_gives_no_losses_is_named():
    class Without(Regression):
        losses = None

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return (self(batch[0]) - batch[1]).square().mean()

    on = engine(Without(features=4, dtype="float64"))
    data = [[x, y.double()] for x, y in batches(1)]
    on.train(FedAvg(), [Assignment(on.initial(), {}, data, 1, 0)], 4)
    with pytest.raises(FedlitError, match=r"needs losses, and Without gives none: write Without\.losses"):
        on.train(Measuring(), [Assignment(on.initial(), {}, data, 1, 0, data)], 4)


# -- counted work ------------------------------------------------------------------------------------------------------
def test_targets_are_counted_as_the_task_counts_them():
    class Tokens(Classifier):
        def num_targets(self, batch: Any) -> int:
            return int((batch[1] != 0).sum())

    data = [*batches(2), *batches(1, size=3, seed=4)]
    work = []
    for kind in (Tokens, Classifier):
        on = engine(kind(rank=2, dtype="float64"))
        work.append(on.train(FedAvg(), [Assignment(on.initial(), {}, data, 3, 0)], 4)[0].work)
    assert [(float(one.steps), float(one.examples), float(one.targets)) for one in work] == [(3, 11, 6), (3, 11, 11)]
    assert {(t.dtype, t.shape, t.device.type) for one in work for t in one} == {(torch.float64, (), "cpu")}
